# SPDX-License-Identifier: Apache-2.0
"""vhd: the dynamic kind of Virtual PC's format, and its rules.

Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006), and
block/vpc.c of qemu.  All numbers are big-endian.  A fixed vhd is a raw disk
with a footer, and begins as such.

The block table has the first sector of each block: a bitmap of its sectors,
which qemu does not read, and then its data.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import BinaryIO

from imagecache.formats import reader
from imagecache.formats.rules import Rule, RuleViolation, require
from imagecache.model import KiB, MiB

_FOOTER = ">8sIIQI4sIIQQHBBII16sB"   # 85 bytes of 512
_DYNAMIC_HEADER = ">8sQQIIII16s"  # 56 bytes of 1024
_DYNAMIC = 3
_LOCATORS = slice(576, 768)       # of the dynamic header: 8 of 24 bytes
_MOST_ENTRIES = 32 * MiB // 4     # of the block table
_LARGEST = 2040 * 1024 * MiB      # the format's own limit
_SECTOR = 512
_UNALLOCATED = 0xFFFFFFFF         # in the block table
# Programs that write the size of the disk.  In images of other programs, qemu
# takes the size from the geometry, unless that is the largest possible one.
_SIZED = {b"win ", b"qem2", b"d2v ", b"CTXS", b"tap\0"}
_LARGEST_GEOMETRY = 65535 * 16 * 255


@dataclasses.dataclass(frozen=True)
class Header:
    version: int
    kind: int
    checksum_right: bool
    saved_state: int
    stated_size: int       # bytes
    creator: bytes
    geometry: int          # sectors
    header_offset: int
    cookie: bytes
    header_checksum_right: bool
    table_offset: int
    entries: int
    block_size: int
    parent: bytes          # uuid, and the places to look for it
    file_size: int

    @property
    def virtual_size(self) -> int:
        """Return the bytes that qemu shows a guest."""
        return _size(self.creator, self.geometry, self.stated_size)

    @property
    def table_end(self) -> int:
        return self.table_offset + self.entries * 4

    @property
    def stored_block(self) -> int:
        """Return the bytes that a block takes in the file."""
        bitmap = self.block_size // (8 * _SECTOR)
        return -(-bitmap // _SECTOR) * _SECTOR + self.block_size


RULES: tuple[Rule[Header], ...] = (
    Rule("vhd-version", "its version is not 1.0",
         lambda h: h.version == 0x00010000),
    Rule("vhd-type", "it is not a dynamic disk",
         lambda h: h.kind == _DYNAMIC),
    Rule("vhd-checksum", "its header is damaged",
         lambda h: h.checksum_right and h.header_checksum_right
         and h.cookie == b"cxsparse"),
    Rule("vhd-parent", "it is a difference to another image",
         lambda h: not any(h.parent)),
    Rule("vhd-state", "it holds the saved state of a machine",
         lambda h: h.saved_state == 0),
    Rule("vhd-block", "its block size is out of range",
         lambda h: 64 * KiB <= h.block_size <= 256 * MiB
         and h.block_size & (h.block_size - 1) == 0),
    Rule("vhd-size", "its block table does not fit its virtual size",
         lambda h: 0 < h.stated_size <= _LARGEST
         and h.stated_size <= h.entries * h.block_size
         and h.entries <= _MOST_ENTRIES),
    Rule("vhd-geometry", "its geometry does not fit its block table",
         lambda h: 0 < h.virtual_size <= _LARGEST
         and h.virtual_size <= h.entries * h.block_size),
    Rule("vhd-place", "its block table is not within the file",
         lambda h: h.header_offset >= 512 and h.table_offset % 512 == 0
         and h.table_offset >= h.header_offset + 1024
         and h.table_end <= h.file_size),
)


def stated_size(start: bytes) -> int:
    """Return the virtual size, in bytes, that the first sector states."""
    (_, _, _, _, _, creator, _, _, _, size, cylinders, heads, sectors,
     *_) = struct.unpack_from(_FOOTER, start)
    return _size(creator, cylinders * heads * sectors, size)


def _size(creator: bytes, geometry: int, size: int) -> int:
    """Return the bytes that qemu shows a guest.

    :param geometry: sectors
    :param size: bytes, as the footer states them
    """
    if creator in _SIZED or geometry == _LARGEST_GEOMETRY:
        return size // _SECTOR * _SECTOR
    return geometry * _SECTOR


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes.

    :raises RuleViolation: a rule is broken
    """
    footer = reader.read(f, 0, 512)
    (_, _, version, header_offset, _, creator, _, _, _, size, cylinders,
     heads, sectors, kind, checksum, _, saved_state) = struct.unpack_from(
         _FOOTER, footer)
    dynamic = reader.read(f, header_offset, 1024) \
        if header_offset < file_size else bytes(1024)
    (cookie, _, table_offset, _, entries, block_size, header_checksum,
     parent) = struct.unpack_from(_DYNAMIC_HEADER, dynamic)
    header = Header(
        version, kind, checksum == _checksum(footer, 64), saved_state,
        size, creator, cylinders * heads * sectors, header_offset, cookie,
        header_checksum == _checksum(dynamic, 36), table_offset, entries,
        block_size, parent + dynamic[_LOCATORS], file_size)
    require(RULES, header)
    _require_blocks(f, header)
    return header.virtual_size


def _require_blocks(f: BinaryIO, header: Header) -> None:
    """Check that each block is in the file, and is named once."""
    allocated, stored = 0, header.stored_block
    for _, part in reader.table(f, header.table_offset, header.entries, 4,
                                "big"):
        for sector in part:
            if sector == _UNALLOCATED:
                continue
            start = sector * _SECTOR
            if start < header.header_offset + 1024 \
                    or start + stored > header.file_size \
                    or header.table_offset - stored < start \
                    < header.table_end:
                raise RuleViolation("vhd-table", "its block table names a"
                                    " block that is not in the file, or is"
                                    " in its headers")
            allocated += 1
    if allocated * stored > header.file_size:
        raise RuleViolation("vhd-table", "its block table names one block many"
                            " times")


def _checksum(block: bytes, at: int) -> int:
    """Return the checksum of a block, which is at ``at`` in it."""
    return ~(sum(block) - sum(block[at:at + 4])) & 0xFFFFFFFF
