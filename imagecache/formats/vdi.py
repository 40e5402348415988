# SPDX-License-Identifier: Apache-2.0
"""vdi: VirtualBox's format, and the rules an image must follow.

Source: block/vdi.c of qemu.  All numbers are little-endian.  The block map
has the number of the block in the file that holds each block of the disk.
"""

from __future__ import annotations

import dataclasses
from typing import BinaryIO

from imagecache.formats import reader
from imagecache.formats.rules import Rule, RuleViolation, require
from imagecache.model import MiB, whole_sectors

_LAYOUT = "<4I"             # at 0x40: signature, version, header size, type
_TABLES = "<2I"             # at 0x154: offset of the block map, of the data
_GEOMETRY = "<2IQ4I"        # at 0x168: sector, unused, size, block, extra, n
_DYNAMIC, _STATIC = 1, 2
_MOST_BLOCKS = 8 * 1024**2  # 8 TiB; qemu allows 1 PiB, and a map of 4 GiB
_UNALLOCATED = 0xFFFFFFFE   # in the block map: this, or the next


@dataclasses.dataclass(frozen=True)
class Header:
    version: int
    kind: int
    map_offset: int
    data_offset: int
    sector_size: int
    virtual_size: int
    block_size: int
    blocks: int
    links: bytes
    file_size: int


RULES: tuple[Rule[Header], ...] = (
    Rule("vdi-version", "its version is not 1.1",
         lambda h: h.version == 0x00010001),
    Rule("vdi-type", "it is neither dynamic nor static",
         lambda h: h.kind in (_DYNAMIC, _STATIC)),
    Rule("vdi-parent", "it is a difference to another image",
         lambda h: not any(h.links)),
    Rule("vdi-blocks", "its sectors are not of 512 bytes, or its blocks not of"
         " 1 MiB",
         lambda h: h.sector_size == 512 and h.block_size == MiB),
    Rule("vdi-size", "its block map does not fit its virtual size",
         lambda h: 0 < h.virtual_size <= h.blocks * h.block_size
         and h.blocks <= _MOST_BLOCKS),
    Rule("vdi-place", "its block map is not within the file",
         lambda h: h.map_offset >= 512 and h.map_offset % 512 == 0
         and h.map_offset + h.blocks * 4 <= h.data_offset
         and h.data_offset % 512 == 0 and h.data_offset <= h.file_size),
)


def stated_size(start: bytes) -> int:
    """Return the virtual size, in bytes, that the first sector states."""
    return whole_sectors(int.from_bytes(start[0x170:0x178], "little"))


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes.

    qemu rounds it up to sectors.

    :raises RuleViolation: a rule is broken
    """
    _, version, _, kind = reader.unpack(f, 0x40, _LAYOUT)
    map_offset, data_offset = reader.unpack(f, 0x154, _TABLES)
    sector_size, _, virtual_size, block_size, _, blocks, _ = reader.unpack(
        f, 0x168, _GEOMETRY)
    header = Header(
        version, kind, map_offset, data_offset, sector_size, virtual_size,
        block_size, blocks, reader.read(f, 0x1a8, 32), file_size)
    require(RULES, header)
    _require_map(f, header)
    return whole_sectors(header.virtual_size)


def _require_map(f: BinaryIO, header: Header) -> None:
    """Check that each block is in the file, and is named once."""
    room = header.file_size - header.data_offset
    allocated = 0
    for first, part in reader.table(f, header.map_offset, header.blocks, 4,
                                    "little"):
        for number, block in enumerate(part, first):
            if block >= _UNALLOCATED:
                continue
            # The last block of a file may end where the disk ends.
            left = header.virtual_size - number * MiB
            used = min(MiB, left) if left > 0 else MiB
            if block >= header.blocks or block * MiB + used > room:
                raise RuleViolation("vdi-map", "its block map names a block"
                                    " that is not in the file")
            allocated += 1
    if (allocated - 1) * MiB > room:
        raise RuleViolation("vdi-map", "its block map names one block many"
                            " times")
