# SPDX-License-Identifier: Apache-2.0
"""vhd: the dynamic kind of Virtual PC's format, and its rules.

Source: Virtual Hard Disk Image Format Specification (Microsoft, 2006), and
block/vpc.c of qemu.  All numbers are big-endian.  A fixed vhd is a raw disk
with a footer, and begins as such.
"""

from __future__ import annotations

import dataclasses
import struct
from typing import BinaryIO

from imagecache.formats import reader
from imagecache.formats.rules import Rule, require
from imagecache.model import KiB, MiB

_FOOTER = ">8sIIQIIIIQQIII16sB"   # 85 bytes of 512
_DYNAMIC_HEADER = ">8sQQIIII16s"  # 56 bytes of 1024
_DYNAMIC = 3
_LOCATORS = slice(576, 768)       # of the dynamic header: 8 of 24 bytes
_MOST_ENTRIES = 32 * MiB // 4     # of the block table
_LARGEST = 2040 * 1024 * MiB      # the format's own limit


@dataclasses.dataclass(frozen=True)
class Header:
    version: int
    kind: int
    checksum_right: bool
    saved_state: int
    virtual_size: int
    header_offset: int
    cookie: bytes
    header_checksum_right: bool
    table_offset: int
    entries: int
    block_size: int
    parent: bytes          # uuid, and the places to look for it
    file_size: int


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
         lambda h: 0 < h.virtual_size <= _LARGEST
         and h.virtual_size <= h.entries * h.block_size
         and h.entries <= _MOST_ENTRIES),
    Rule("vhd-place", "its block table is not within the file",
         lambda h: h.header_offset >= 512 and h.table_offset % 512 == 0
         and h.table_offset >= h.header_offset + 1024
         and h.table_offset + h.entries * 4 <= h.file_size),
)


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes; qemu may round it to a geometry.

    :raises RuleViolation: a rule is broken
    """
    footer = reader.read(f, 0, 512)
    (_, _, version, header_offset, _, _, _, _, _, virtual_size, _, kind,
     checksum, _, saved_state) = struct.unpack_from(_FOOTER, footer)
    dynamic = reader.read(f, header_offset, 1024) \
        if header_offset < file_size else bytes(1024)
    (cookie, _, table_offset, _, entries, block_size, header_checksum,
     parent) = struct.unpack_from(_DYNAMIC_HEADER, dynamic)
    require(RULES, Header(
        version, kind, checksum == _checksum(footer, 64), saved_state,
        virtual_size, header_offset, cookie,
        header_checksum == _checksum(dynamic, 36), table_offset, entries,
        block_size, parent + dynamic[_LOCATORS], file_size))
    return int(virtual_size)


def _checksum(block: bytes, at: int) -> int:
    """Return what the four bytes at ``at`` should be."""
    return ~(sum(block) - sum(block[at:at + 4])) & 0xFFFFFFFF
