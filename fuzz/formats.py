# SPDX-License-Identifier: Apache-2.0
"""Look for files that the parsers of imagecache.formats do not handle.

    python fuzz/formats.py [-runs=N] [LIBFUZZER-OPTION...] [CORPUS...]

An input is either the file itself (if its first byte is 0), or changes to a
file that qemu-img wrote: coverage then starts behind the checks that random
bytes never pass.  A parser must refuse the file, in bounded time and memory,
or accept a file that an independent check finds harmless, too.
"""

from __future__ import annotations

import io
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import BinaryIO, cast

import atheris

with atheris.instrument_imports(include=["imagecache.formats"]):
    from imagecache.formats import qcow2_tables, raw, vdi, vhd, vhdx, vmdk
    from imagecache.formats.rules import RuleViolation

PARSERS: dict[str, Callable[[BinaryIO, int], int]] = {
    "qcow2": qcow2_tables.validate, "vmdk": vmdk.validate, "vhd": vhd.validate,
    "vhdx": vhdx.validate, "vdi": vdi.validate}

# Options of qemu-img, for the smallest files that have all tables.
TEMPLATES = (
    ("qcow2", "cluster_size=512"),
    ("qcow2", "cluster_size=512,compat=0.10"),
    ("qcow2", "cluster_size=16k,extended_l2=on"),
    ("vmdk", "subformat=monolithicSparse"),
    ("vmdk", "subformat=streamOptimized"),
    ("vpc", "subformat=dynamic"),
    ("vhdx", "subformat=dynamic,block_size=1M"),
    ("vdi", "static=off"),
)
_SIZE = "64k"
# A file longer than this is read in its first part only.
_MOST_READ = 16 * 1024 * 1024


class File(io.RawIOBase):
    """A file with changes, which counts the bytes that are read.

    Changes are applied when they are read: a vhdx has eight million bytes,
    and its parser reads a few thousand.
    """

    def __init__(self, content: bytes,
                 changes: Sequence[tuple[int, bytes]] = (),
                 size: int | None = None) -> None:
        self._content = content
        self._changes = changes
        self.size = len(content) if size is None else size
        self._at = 0
        self.taken = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        data = self.at(self._at, size)
        self._at += len(data)
        self.taken += len(data)
        return data

    def at(self, start: int, size: int) -> bytes:
        end = min(start + size, self.size)
        data = bytearray(self._content[start:end])
        for place, change in self._changes:
            low, high = max(place, start), min(place + len(change), end)
            if low < high:
                data[low - start:high - start] = change[
                    low - place:high - place]
        return bytes(data)


def templates() -> list[bytes]:
    with tempfile.TemporaryDirectory() as directory:
        made = []
        for number, (format, options) in enumerate(TEMPLATES):
            path = pathlib.Path(directory, str(number))
            subprocess.run(["qemu-img", "create", "-q", "-f", format, "-o",
                            options, path, _SIZE], check=True)
            made.append(path.read_bytes())
        return made


def check(file: File) -> int | None:
    """Return the virtual size of an accepted file; None if it is refused.

    :raises AssertionError: an accepted file is not harmless
    """
    mark = raw.format_of(file.at(0, raw.NEEDED))
    if mark not in PARSERS:
        return None
    try:
        size = PARSERS[mark](cast(BinaryIO, file), file.size)
    except RuleViolation:
        return None
    finally:
        assert file.taken <= _MOST_READ, f"{mark} read {file.taken} bytes"
    assert 0 < size < 2**63, f"{mark} has {size} bytes"
    if mark in HARMLESS:
        HARMLESS[mark](file.at(0, 4 * 1024 * 1024))
    return size


def harmless_qcow2(content: bytes) -> None:
    """Check independently, from qemu's specification alone."""
    version, backing = struct.unpack_from(">IQ", content, 4)
    assert version in (2, 3)
    assert backing == 0, "a backing file"
    assert content[32:36] == bytes(4), "encryption"
    if version == 3:
        features, = struct.unpack_from(">Q", content, 72)
        assert features & ~0b11001 == 0, "unknown features, or a data file"
        at, = struct.unpack_from(">I", content, 100)
    else:
        at = 72
    end = 1 << struct.unpack_from(">I", content, 20)[0]
    while at + 8 <= end:
        kind, length = struct.unpack_from(">II", content, at)
        if kind == 0:
            break
        assert kind not in (0xE2792ACA, 0x44415441, 0x0537BE77), hex(kind)
        at += 8 + (length + 7 & ~7)


def harmless_vmdk(content: bytes) -> None:
    offset, size = struct.unpack_from("<QQ", content, 28)
    text = content[offset * 512:(offset + size) * 512]
    assert struct.unpack_from("<Q", content, 12)[0], "extents are followed"
    parents = re.findall(rb"parentCID\s*=\s*\"?(\w+)", text)
    assert {parent.lower() for parent in parents} == {b"ffffffff"}, parents
    assert b"parentFileNameHint" not in text, "a parent"
    extents = re.findall(rb'^\s*(?:RW|RDONLY|NOACCESS)\s.*$', text,
                         re.MULTILINE)
    assert len(extents) == 1 and b"/" not in extents[0], extents


def harmless_vhd(content: bytes) -> None:
    assert struct.unpack_from(">I", content, 60)[0] == 3, "not dynamic"
    header, = struct.unpack_from(">Q", content, 16)
    assert content[header + 40:header + 56] == bytes(16), "a parent"


HARMLESS: dict[str, Callable[[bytes], None]] = {
    "qcow2": harmless_qcow2, "vmdk": harmless_vmdk, "vhd": harmless_vhd}


def changed(template: bytes, changes: bytes) -> File:
    """Apply changes: each has a place, a length and bytes.

    Small numbers lead to headers, which all formats have at the beginning or
    at round offsets.
    """
    found: list[tuple[int, bytes]] = []
    provider = atheris.FuzzedDataProvider(changes)
    while provider.remaining_bytes() > 2:
        at = provider.ConsumeIntInRange(0, 2047)
        at += provider.PickValueInList([0, 0, 512, 65536, 131072, 196608,
                                        262144, 2 << 20, 3 << 20])
        found.append((at, provider.ConsumeBytes(
            provider.ConsumeIntInRange(1, 8))))
    size = len(template)
    if provider.remaining_bytes():
        size = size * provider.ConsumeIntInRange(1, 255) // 255
    return File(template, found, size)


def main() -> None:
    bases = templates()
    for (format, _), base in zip(TEMPLATES, bases, strict=True):
        assert check(File(base)), f"{format} as qemu-img writes it is refused"

    def one_input(data: bytes) -> None:
        if not data:
            return
        which = data[0] % (len(bases) + 1)
        check(File(data[1:]) if which == 0
              else changed(bases[which - 1], data[1:]))

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
