# SPDX-License-Identifier: Apache-2.0
"""Images of every format for tests, as bytes.

The real qemu-img makes the images of all formats that it can write.  The
*content* of a disk is what its guest reads, without the format around it.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
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
    """Return ``size`` bytes: noise, zeros and noise.

    The same ``size`` and ``seed`` give the same bytes.
    """
    noise = random.Random(seed).randbytes(min(size, 96 * KiB))  # noqa: S311
    end = noise[:min(4 * KiB, size - len(noise))]
    return noise + bytes(size - len(noise) - len(end)) + end


@functools.cache
def qcow2(content: bytes, *arguments: str) -> bytes:
    """Return a qcow2 image of a disk's content.

    :param arguments: further arguments of ``qemu-img convert``, such as
        "-c", or "-o" and "compat=v3"
    """
    return convert(content, "qcow2", *arguments)


@functools.cache
def convert(content: bytes, format: str, *arguments: str) -> bytes:
    """Return an image of a disk's content, in any format of qemu-img.

    :param arguments: further arguments of ``qemu-img convert``
    """
    with _directory() as directory:
        raw, output = directory / "raw", directory / "output"
        raw.write_bytes(content)
        _run("qemu-img", "convert", "-f", "raw", "-O", format, *arguments,
             str(raw), str(output))
        return output.read_bytes()


@functools.cache
def create(format: str, *arguments: str, size: int = MiB) -> bytes:
    """Return an empty image, made by ``qemu-img create -u``.

    :param arguments: further arguments of ``qemu-img create``
    :param size: bytes that the guest sees
    """
    with _directory() as directory:
        output = directory / "output"
        _run("qemu-img", "create", "-q", "-u", "-f", format, *arguments,
             str(output), str(size))
        return output.read_bytes()


def backed_by(path: pathlib.Path, size: int = MiB) -> bytes:
    """Return a qcow2 image whose backing file is a file of the host."""
    return create("qcow2", "-b", str(path), "-F", "raw", size=size)


def mbr(size: int = MiB) -> bytes:
    """Return a raw disk with one partition in an MBR partition table."""
    return _with_table(content(size), _partition(0x83, size))


def gpt(size: int = MiB) -> bytes:
    """Return a raw disk with the protective MBR of a GPT."""
    return _with_table(content(size), _partition(0xee, size, start=1))


def iso(size: int = MiB) -> bytes:
    """Return the beginning of an ISO 9660 image: its volume descriptor."""
    head = bytes(32 * KiB) + b"\x01CD001\x01" + bytes(73) \
        + struct.pack("<I", size // 2048)
    return head + content(size)[len(head):]


def hybrid_iso(size: int = MiB) -> bytes:
    """Return an ISO 9660 image that also has an MBR partition table."""
    return _with_table(iso(size), _partition(0x17, size))


def info(path: pathlib.Path) -> dict[str, Any]:
    """Return what ``qemu-img info`` says of a file whose format it probes.

    Only for files that the test itself has made: probing is not safe.
    """
    found: dict[str, Any] = json.loads(_run(
        "qemu-img", "info", "--output=json", str(path)))
    return found


def ext_size(path: pathlib.Path) -> int:
    """Return the size of an ext file system in bytes, from its superblock."""
    found = _run("dumpe2fs", "-h", str(path))
    count, size = (int(re.findall(rf"^Block {what}: *(\d+)", found,
                                  re.MULTILINE)[0])
                   for what in ("count", "size"))
    return count * size


def read(path: pathlib.Path, format: str) -> bytes:
    """Return the content of a disk, as its guest reads it."""
    if format == "raw":
        return path.read_bytes()    # a program would take ten times as long
    with _directory() as directory:
        raw = directory / "raw"
        _run("qemu-img", "convert", "-f", format, "-O", "raw", str(path),
             str(raw))
        return raw.read_bytes()


def write(path: pathlib.Path, format: str, data: bytes,
          offset: int = 0) -> None:
    """Write whole sectors to a disk, as a guest does.

    The last sector is filled up with zeros.

    :param offset: bytes from the beginning of the disk
    """
    size = -(-len(data) // SECTOR) * SECTOR
    data = data.ljust(size, b"\0")
    if format == "raw":
        with path.open("r+b") as f:
            f.seek(offset)
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        return
    with _directory() as directory:
        pattern = directory / "pattern"
        pattern.write_bytes(data)
        _run("qemu-io", "-f", format, "-c",
             f"write -s {pattern} {offset} {size}", str(path))


def _with_table(content: bytes, entry: bytes) -> bytes:
    return bytes(446) + entry + bytes(48) + b"\x55\xaa" + content[SECTOR:]


def _partition(kind: int, size: int, start: int = 63) -> bytes:
    """Return an entry of an MBR partition table."""
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
