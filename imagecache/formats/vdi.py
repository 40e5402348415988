# SPDX-License-Identifier: Apache-2.0
"""vdi: VirtualBox's format, and the rules an image must keep.

Source: block/vdi.c of qemu.  All numbers are little-endian.
"""

from __future__ import annotations

import dataclasses
from typing import BinaryIO

from imagecache.formats import reader
from imagecache.formats.rules import Rule, require
from imagecache.model import MiB

_LAYOUT = "<4I"             # at 0x40: signature, version, header size, type
_TABLES = "<2I"             # at 0x154: offset of the block map, of the data
_GEOMETRY = "<2IQ4I"        # at 0x168: sector, unused, size, block, extra, n
_DYNAMIC, _STATIC = 1, 2
_MOST_BLOCKS = 0x3FFFFFFF   # qemu's limit


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
    Rule("vdi-blocks", "the size of its sectors or blocks is not the usual",
         lambda h: h.sector_size == 512 and h.block_size == MiB),
    Rule("vdi-size", "its block map does not fit its virtual size",
         lambda h: 0 < h.virtual_size <= h.blocks * h.block_size
         and h.blocks <= _MOST_BLOCKS),
    Rule("vdi-place", "its block map is not within the file",
         lambda h: h.map_offset >= 512 and h.map_offset % 512 == 0
         and h.map_offset + h.blocks * 4 <= h.data_offset
         and h.data_offset % 512 == 0 and h.data_offset <= h.file_size),
)


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes.

    :raises RuleViolation: a rule is broken
    """
    _, version, _, kind = reader.unpack(f, 0x40, _LAYOUT)
    map_offset, data_offset = reader.unpack(f, 0x154, _TABLES)
    sector_size, _, virtual_size, block_size, _, blocks, _ = reader.unpack(
        f, 0x168, _GEOMETRY)
    require(RULES, Header(
        version, kind, map_offset, data_offset, sector_size, virtual_size,
        block_size, blocks, reader.read(f, 0x1a8, 32), file_size))
    return int(virtual_size)
