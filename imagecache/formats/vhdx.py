# SPDX-License-Identifier: Apache-2.0
"""vhdx: Hyper-V's format, and the rules an image must follow.

Source: [MS-VHDX], and block/vhdx.c of qemu.  Numbers are little-endian.

    0         file identifier
    64 KiB    header 1          128 KiB   header 2
    192 KiB   region table 1    256 KiB   region table 2

The block table (BAT) has 8 bytes for each block: its state, and where it is.
After each chunk of blocks comes an entry for a bitmap, which only a
difference to another image has.
"""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from typing import BinaryIO

from imagecache.formats import reader
from imagecache.formats.rules import Rule, RuleViolation, require
from imagecache.model import KiB, MiB

_HEADERS = (64 * KiB, 128 * KiB)
_REGIONS = (192 * KiB, 256 * KiB)
_TABLE_SIZE = 64 * KiB
_LARGEST = 64 * MiB * MiB       # 64 TiB, the format's own limit
_LARGEST_BAT = 64 * MiB         # of 8 TiB, or more with larger blocks
_STATE = 7                      # the bits of an entry that are its state
_PRESENT, _NOT_PRESENT = 6, 0
_ZEROS = {_NOT_PRESENT, 1, 2, 3, 5}    # states that read as zeros


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


_BAT = _guid("2dc27766-f623-4200-9d64-115e9bfd4a08")
_METADATA = _guid("8b7ca206-4790-4b9a-b8fe-575f050f886e")
_PARAMETERS = _guid("caa16737-fa36-4d43-b3b6-33f0aa44e76b")
_SIZE = _guid("2fa54224-cd1b-4876-b211-5dbed83bf4b8")
_SECTOR = _guid("8141bf1d-a96f-4709-ba47-f233a8faab5f")
_PARENT = _guid("a8d35f2d-b30b-454d-abf7-d3d84834ab0c")


@dataclasses.dataclass(frozen=True)
class Image:
    log: bytes              # its guids; zeros: there is nothing to replay
    logs: frozenset[tuple[int, int]]          # offset, size
    regions: dict[bytes, tuple[int, int]]     # guid: offset, size
    copies_agree: bool      # of the region table
    items: dict[bytes, bytes]                 # metadata
    file_size: int

    @property
    def block_size(self) -> int:
        return int.from_bytes(self.items[_PARAMETERS][:4], "little")

    @property
    def flags(self) -> int:
        return int.from_bytes(self.items[_PARAMETERS][4:8], "little")

    @property
    def virtual_size(self) -> int:
        return int.from_bytes(self.items[_SIZE], "little")

    @property
    def sector_size(self) -> int:
        return int.from_bytes(self.items[_SECTOR], "little")

    @property
    def chunk(self) -> int:
        """Return how many blocks stand between two bitmaps."""
        return 2**23 * self.sector_size // self.block_size

    @property
    def entries_needed(self) -> int:
        """Return the entries that the block table must have.

        One for each data block, and one for the bitmap of each chunk.
        """
        blocks = -(-self.virtual_size // self.block_size)
        return blocks + (blocks - 1) // self.chunk

    @property
    def places(self) -> list[tuple[int, int]]:
        """Return where the regions and the log are: offset, size."""
        return [*self.regions.values(), *self.logs]

    def is_free(self, start: int, size: int) -> bool:
        """Return whether no region and no log has a part of the file."""
        return not any(_overlap((start, size), each) for each in self.places)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] < sum(other) and other[0] < sum(one)


RULES: tuple[Rule[Image], ...] = (
    Rule("vhdx-log", "its log was not replayed",
         lambda i: not any(i.log)),
    Rule("vhdx-regions",
         "its two region tables differ, or name unknown regions",
         lambda i: i.copies_agree and set(i.regions) == {_BAT, _METADATA}),
    Rule("vhdx-place", "its regions are not within the file",
         lambda i: all(offset >= MiB and offset % MiB == 0 and size > 0
                       and offset + size <= i.file_size
                       for offset, size in i.regions.values())),
    Rule("vhdx-overlap", "its regions, or its log, overlap",
         lambda i: not any(itertools.starmap(
             _overlap, itertools.combinations(i.places, 2)))),
    Rule("vhdx-metadata", "its metadata is not complete",
         lambda i: {_PARAMETERS, _SIZE, _SECTOR} <= set(i.items)
         and len(i.items[_PARAMETERS]) == 8 and len(i.items[_SIZE]) == 8
         and len(i.items[_SECTOR]) == 4),
    Rule("vhdx-parent", "it is a difference to another image",
         lambda i: not i.flags & 2 and _PARENT not in i.items),
    Rule("vhdx-block", "its block or sector size is out of range",
         lambda i: MiB <= i.block_size <= 256 * MiB
         and i.block_size & (i.block_size - 1) == 0
         # qemu takes other sectors for sectors of 512 bytes.
         and i.sector_size == 512),
    Rule("vhdx-size", "its block table does not fit its virtual size",
         lambda i: 0 < i.virtual_size <= _LARGEST
         and i.virtual_size % i.sector_size == 0
         and i.entries_needed * 8 <= i.regions[_BAT][1]),
    # qemu reads all of it into memory.
    Rule("vhdx-bat-size", "its block table is larger than 64 MiB",
         lambda i: i.regions[_BAT][1] <= _LARGEST_BAT),
)


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes.

    :raises RuleViolation: a rule is broken
    """
    logs = [reader.unpack(f, at + 48, "<16s4xIQ") for at in _HEADERS
            if reader.read(f, at, 4) == b"head"]
    tables = [reader.read(f, at, _TABLE_SIZE) for at in _REGIONS]
    regions = _regions(tables[0])
    items = _items(f, *regions[_METADATA]) if _METADATA in regions else {}
    image = Image(
        b"".join(guid for guid, *_ in logs),
        frozenset((offset, size) for _, size, offset in logs if size),
        regions, tables[0] == tables[1], items, file_size)
    require(RULES, image)
    _require_blocks(f, image)
    return image.virtual_size


def _require_blocks(f: BinaryIO, image: Image) -> None:
    """Check that each block is in the file, and is named once."""
    allocated = 0
    for first, part in reader.table(f, image.regions[_BAT][0],
                                    image.entries_needed, 8, "little"):
        for number, entry in enumerate(part, first):
            bitmaps, rest = divmod(number, image.chunk + 1)
            if entry & _STATE == _PRESENT and rest < image.chunk:
                _require_block(image, number - bitmaps, entry & -MiB)
                allocated += 1
            elif entry & _STATE not in (
                    _ZEROS if rest < image.chunk else {_NOT_PRESENT}):
                raise RuleViolation("vhdx-bat", "its block table has a state"
                                    " that only other kinds of vhdx have")
    if (allocated - 1) * image.block_size > image.file_size:
        raise RuleViolation("vhdx-bat", "its block table names one block many"
                            " times")


def _require_block(image: Image, block: int, offset: int) -> None:
    # qemu once wrote the last block no longer than the disk.
    used = min(image.block_size,
               image.virtual_size - block * image.block_size)
    if offset < MiB or offset + used > image.file_size \
            or not image.is_free(offset, used):
        raise RuleViolation("vhdx-bat", "its block table names a block that"
                            " is not in the file, or is in its headers")


def _regions(table: bytes) -> dict[bytes, tuple[int, int]]:
    count = int.from_bytes(table[8:12], "little")
    if table[:4] != b"regi" or count > 2:
        raise RuleViolation("vhdx-regions", "its region table is damaged, or"
                            " has regions that are not known")
    found = {}
    for at in range(16, 16 + 32 * count, 32):
        found[table[at:at + 16]] = (
            int.from_bytes(table[at + 16:at + 24], "little"),
            int.from_bytes(table[at + 24:at + 28], "little"))
    return found


def _items(f: BinaryIO, offset: int, size: int) -> dict[bytes, bytes]:
    table = reader.read(f, offset, _TABLE_SIZE)
    count = int.from_bytes(table[10:12], "little")
    if table[:8] != b"metadata" or count > 2047:
        raise RuleViolation("vhdx-metadata", "its metadata table is damaged")
    found = {}
    for at in range(32, 32 + 32 * count, 32):
        start = int.from_bytes(table[at + 16:at + 20], "little")
        length = int.from_bytes(table[at + 20:at + 24], "little")
        if start < _TABLE_SIZE or start + length > size or length > KiB \
                or table[at:at + 16] in found:
            raise RuleViolation("vhdx-metadata", "an item of its metadata is"
                                " outside its region, too long or there"
                                " twice")
        found[table[at:at + 16]] = reader.read(f, offset + start, length)
    return found
