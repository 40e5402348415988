# SPDX-License-Identifier: Apache-2.0
"""What instance disks can turn into once a guest, or worse, has them.

A guest can write any bytes to its disk; for a raw disk these are the bytes of
the file.  It cannot write the header of a qcow2 file.  An attacker who broke
out into qemu can, and so can a host from which a disk was migrated.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
from collections.abc import Callable, Iterator

from hostile_images import foreign, layout, references
from hostile_images.canary import Sentinel
from hostile_images.sample import Build, alone
from imagecache.testing import images

_PROBED = ("CVE-2008-2004", "CVE-2010-3851", "CVE-2013-1922",
           "CVE-2014-0134", "CVE-2014-3641", "CVE-2015-7548",
           "CVE-2016-2140", "CVE-2026-24708")

# From the directory of an instance these lead to where bases are, if one takes
# them for paths; qemu does not.
_INTO_BASES = {
    "bases-by-nbd": "nbd://127.0.0.1:{port}/../../../_base/x",
    "bases-by-http": "http://127.0.0.1:{port}/../../../_base/x",
    "bases-by-ssh": "ssh://127.0.0.1:{port}/../../../_base/x",
    "bases-by-blkdebug": "blkdebug:{path}:/{up}/_base/x",
    "bases-by-blkverify": "blkverify:{path}:/{up}/_base/x",
    "bases-by-json": 'json:{{"driver":"file","filename":"{path}",'
                     '"x":"/{up}/_base/x"}}',
    "bases-by-through": "../_base/{out}{path}",
    "bases-by-itself": "disk",
}

_NAMES = ("abs", "rel", "json-file", "fat-rw", "nbd", "file")
_BACKING_FORMATS = ("raw", "qcow2", None)


@dataclasses.dataclass(frozen=True)
class Written:
    """A header that a guest writes to the start of its raw disk."""

    id: str
    build: Build
    represents: tuple[str, ...] = _PROBED


@dataclasses.dataclass(frozen=True)
class Rewritten:
    """A change to the file of a qcow2 disk."""

    id: str
    change: Callable[[bytes, Sentinel], bytes]
    represents: tuple[str, ...] = _PROBED


def headers() -> Iterator[Written]:
    """Yield headers of image formats."""
    for name in _NAMES:
        yield Written(f"runtime-raw-qcow2-backing-{name}",
                      functools.partial(_header, layout.backed, name))
        yield Written(f"runtime-raw-qcow2-datafile-{name}",
                      functools.partial(_header, layout.external, name))
    written: dict[str, Build] = {
        "qcow2": alone(layout.image),
        "qed": lambda sentinel: images.create(
            "qed", "-b", str(sentinel.path), "-F", "raw"),
        "qcow": lambda sentinel: images.create(
            "qcow", "-b", str(sentinel.path), "-F", "raw"),
        "vmdk-flat": lambda sentinel: foreign.descriptor(
            "monolithicFlat", foreign.flat(sentinel)),
        "vmdk-sparse-flat": lambda sentinel: foreign.vmdk(
            foreign.sparse_text(extent=foreign.flat(sentinel)), capacity=0),
        "vhd": alone(foreign.vhd),
        "vdi": alone(foreign.vdi),
        "luks": alone(foreign.luks),
        "bochs": alone(foreign.bochs),
        "ext4-with-journal-elsewhere": alone(_ext4),
    }
    for id, build in written.items():
        yield Written(f"runtime-raw-{id}", build)


def _header(make: Callable[[str], bytes], name: str,
            sentinel: Sentinel) -> bytes:
    return make(references.name(name, sentinel))


def rewrites() -> Iterator[Rewritten]:
    """Yield ways to point a qcow2 disk elsewhere, or to break it."""
    for name in _NAMES:
        for format in _BACKING_FORMATS:
            yield Rewritten(
                f"overlay-on-{name}-as-{format or 'anything'}",
                functools.partial(_based_on, name, format))
        yield Rewritten(
            f"overlay-datafile-{name}",
            functools.partial(_with_data_in, name))
    for name in _INTO_BASES:
        yield Rewritten(f"overlay-into-{name}",
                        functools.partial(_based_on, name, "raw"))
    broken: dict[str, Callable[[bytes, Sentinel], bytes]] = {
        "is-raw": lambda disk, sentinel: bytes(len(disk)),
        "is-empty": lambda disk, sentinel: b"",
        "is-cut": lambda disk, sentinel: disk[:100],
        "is-vmdk": lambda disk, sentinel: foreign.descriptor(
            "monolithicFlat", foreign.flat(sentinel)),
        "is-of-1E": lambda disk, sentinel: disk[:24] + layout.entry(1 << 60)
        + disk[32:],
        "is-encrypted": lambda disk, sentinel: disk[:32] + b"\0\0\0\2"
        + disk[36:],
        "l1-elsewhere": lambda disk, sentinel: disk[:40]
        + layout.entry(1 << 50) + disk[48:],
        "l1-huge": lambda disk, sentinel: disk[:36] + b"\xff" * 4 + disk[40:],
        "unknown-feature": lambda disk, sentinel: disk[:72]
        + layout.entry(1 << 60) + disk[80:],
    }
    for id, change in broken.items():
        yield Rewritten(f"overlay-{id}", change)


def _based_on(kind: str, format: str | None, disk: bytes,
              sentinel: Sentinel) -> bytes:
    """Return a qcow2 disk that is now an overlay of something else."""
    name = _name(kind, sentinel)
    extensions = b"" if format is None else layout.extension(
        layout.BACKING_FORMAT, format.encode())
    end = _header_length(disk)
    first = disk[:8] + struct.pack(">QI", layout.NAME_AT, len(name)) \
        + disk[20:end] + extensions
    return first.ljust(layout.NAME_AT, b"\0") + name.encode().ljust(
        3072, b"\0") + disk[4096:]


def _name(kind: str, sentinel: Sentinel) -> str:
    if kind in _INTO_BASES:
        return _INTO_BASES[kind].format(
            path=sentinel.path, port=sentinel.port,
            up="/".join([".."] * (1 + len(sentinel.path.parts))),
            out="../" * 40)
    return references.name(kind, sentinel)


def _with_data_in(kind: str, disk: bytes, sentinel: Sentinel) -> bytes:
    """Return a qcow2 disk whose data is now said to be in another file."""
    name = references.name(kind, sentinel)
    end = _header_length(disk)
    incompatible = int.from_bytes(disk[72:80]) | layout.DATA_FILE
    first = disk[:8] + bytes(12) + disk[20:72] + layout.entry(incompatible) \
        + disk[80:88] + layout.entry(2) + disk[96:end] + layout.extension(
            layout.EXTERNAL_DATA, name.encode())
    return first.ljust(4096, b"\0") + disk[4096:]


def _header_length(disk: bytes) -> int:
    return int.from_bytes(disk[100:104])


def _ext4() -> bytes:
    """Return a superblock that says its journal is on another device."""
    superblock = bytearray(1024)
    for at, layout_, value in (
            (0, "<I", 128), (4, "<I", 1024), (20, "<I", 1), (32, "<I", 8192),
            (36, "<I", 8192), (40, "<I", 128), (56, "<H", 0xEF53),
            (58, "<H", 1), (76, "<I", 1), (84, "<I", 11), (88, "<H", 128),
            (92, "<I", 4), (96, "<I", 2), (208, "<Q", 0x1122334455667788),
            (228, "<I", 0x801)):      # s_journal_dev: 8:1
        struct.pack_into(layout_, superblock, at, value)
    return bytes(1024) + bytes(superblock)
