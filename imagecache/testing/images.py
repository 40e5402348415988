# SPDX-License-Identifier: Apache-2.0
"""Images of every kind for tests, as bytes; real qemu-img makes what it can.

A disk's content is what a guest would read, whatever the format around it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import random
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from typing import Any

from imagecache.model import KiB, MiB

SECTOR = 512


@functools.cache
def content(size: int = MiB, seed: int = 1) -> bytes:
    """Return ``size`` bytes of data and holes, the same for the same seed."""
    noise = random.Random(seed).randbytes(min(size, 96 * KiB))  # noqa: S311
    end = noise[:min(4 * KiB, size - len(noise))]
    return noise + bytes(size - len(noise) - len(end)) + end


@functools.cache
def qcow2(content: bytes, *arguments: str) -> bytes:
    """Put a disk's content into a qcow2 image.

    :param arguments: more of ``qemu-img convert``: "-c", "-o", "compat=v3"
    """
    return convert(content, "qcow2", *arguments)


@functools.cache
def convert(content: bytes, format: str, *arguments: str) -> bytes:
    """Put a disk's content into an image of any format qemu-img writes."""
    with _directory() as directory:
        raw, output = directory / "raw", directory / "output"
        raw.write_bytes(content)
        _run("qemu-img", "convert", "-f", "raw", "-O", format, *arguments,
             str(raw), str(output))
        return output.read_bytes()


@functools.cache
def create(format: str, *arguments: str, size: int = MiB) -> bytes:
    """Return an empty image, as ``qemu-img create -u`` makes it."""
    with _directory() as directory:
        output = directory / "output"
        _run("qemu-img", "create", "-q", "-u", "-f", format, *arguments,
             str(output), str(size))
        return output.read_bytes()


def backed_by(path: pathlib.Path, size: int = MiB) -> bytes:
    """Return a qcow2 image that reads a file of its host."""
    return create("qcow2", "-b", str(path), "-F", "raw", size=size)


def mbr(size: int = MiB) -> bytes:
    """Return a raw disk with one partition, in the old kind of table."""
    return _with_table(content(size), _partition(0x83, size))


def gpt(size: int = MiB) -> bytes:
    """Return a raw disk with the sector that protects a GPT."""
    return _with_table(content(size), _partition(0xee, size, start=1))


def iso(size: int = MiB) -> bytes:
    """Return an ISO 9660 image, as far as its volume descriptor."""
    head = bytes(32 * KiB) + b"\x01CD001\x01" + bytes(73) \
        + struct.pack("<I", size // 2048)
    return head + content(size)[len(head):]


def hybrid_iso(size: int = MiB) -> bytes:
    """Return an ISO 9660 image that boots from a disk as well."""
    return _with_table(iso(size), _partition(0x17, size))


def info(path: pathlib.Path) -> dict[str, Any]:
    """Return what qemu-img takes a file for, left to guess its format."""
    found: dict[str, Any] = json.loads(_run(
        "qemu-img", "info", "--output=json", str(path)))
    return found


def ext_size(path: pathlib.Path) -> int:
    """Return the bytes of an ext file system, whatever its file has."""
    found = _run("dumpe2fs", "-h", str(path))
    count, size = (int(re.findall(rf"^Block {what}: *(\d+)", found,
                                  re.MULTILINE)[0])
                   for what in ("count", "size"))
    return count * size


def read(path: pathlib.Path, format: str) -> bytes:
    """Return what a guest reads from a disk."""
    with _directory() as directory:
        raw = directory / "raw"
        _run("qemu-img", "convert", "-f", format, "-O", "raw", str(path),
             str(raw))
        return raw.read_bytes()


def write(path: pathlib.Path, format: str, data: bytes,
          offset: int = 0) -> None:
    """Write to a disk as a guest does: whole sectors."""
    with _directory() as directory:
        size = -(-len(data) // SECTOR) * SECTOR
        pattern = directory / "pattern"
        pattern.write_bytes(data.ljust(size, b"\0"))
        _run("qemu-io", "-f", format, "-c",
             f"write -s {pattern} {offset} {size}", str(path))


def _with_table(content: bytes, entry: bytes) -> bytes:
    return bytes(446) + entry + bytes(48) + b"\x55\xaa" + content[SECTOR:]


def _partition(kind: int, size: int, start: int = 63) -> bytes:
    """Return an entry of a partition table: a start in CHS, then in LBA."""
    return struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", kind, b"\xff" * 3,
                       start, size // SECTOR - start)


@contextlib.contextmanager
def _directory() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory() as path:
        yield pathlib.Path(path)


def _run(*command: str) -> str:
    try:
        return subprocess.run(  # noqa: S603
            command, check=True, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT).stdout
    except subprocess.CalledProcessError as e:
        e.add_note(e.stdout)
        raise
