# SPDX-License-Identifier: Apache-2.0
"""qcow2: the tables that say where each cluster is; each entry is checked.

Source: docs/interop/qcow2.rst of qemu.  Entries are big-endian, 8 bytes:

* The refcount table and the L1 table hold offsets of refcount blocks and of
  L2 tables; 0: there is none.
* An L2 table holds offsets of data clusters.  Bit 62 says that a cluster is
  compressed: the low bits are then an offset in bytes, and the bits above it
  the number of further sectors.  With extended L2 entries, 8 bytes more
  follow each entry: 32 bits "allocated" and 32 bits "reads as zeros".

qemu-img reads zeros from behind the end of a file, so a table that is not in
the file goes unnoticed there.  Here each entry must be aligned, must have no
reserved bit set, and must lead to a place in the file.

Memory is limited by the size of one L2 table (2 MiB), time by _LARGEST_MAP: an
entry costs 50 ns in a table of plain clusters, and 400 ns in other tables.
"""

from __future__ import annotations

import array
from typing import BinaryIO

from imagecache.formats import qcow2, reader
from imagecache.formats.qcow2 import Header
from imagecache.formats.rules import RuleViolation, require
from imagecache.model import MiB

_OFFSET = (1 << 56) - (1 << 9)       # where an offset is in an entry
_COPIED = 1 << 63                    # the refcount is 1
_COMPRESSED = 1 << 62
_ZERO = 1                            # reads as zeros, in version 3
_SUBCLUSTERS = 0xFFFFFFFF
_SECTOR = 512

# L2 tables together.  With clusters of 64 KiB this is 2 TiB of data.
_LARGEST_MAP = 256 * MiB


def validate(f: BinaryIO, file_size: int) -> int:
    """Return the virtual size, in bytes, of an image that is all there.

    :raises RuleViolation: a rule is broken
    """
    start = f.read(qcow2.SMALLEST)
    start += f.read(qcow2.needed(start) - len(start))
    header = qcow2.parse(start, file_size)
    require(qcow2.SELF_CONTAINED, header)
    _require_all_data(f, header)
    _require_map(f, header)
    return header.virtual_size


def has_compressed_clusters(f: BinaryIO, header: Header) -> bool:
    """Say whether an image has data that must be inflated to be read.

    :raises RuleViolation: a rule is broken
    """
    return _require_map(f, header) > 0


def _require_all_data(f: BinaryIO, header: Header) -> None:
    """Check that the file has each cluster that its refcounts count."""
    last, index = 0, -1
    entries = header.refcount_clusters * header.cluster_size // 8
    for first, part in reader.table(f, header.refcount_offset, entries, 8,
                                    "big"):
        for number, offset in enumerate(part, first):
            if not offset:
                continue
            if offset % header.cluster_size:
                raise RuleViolation("refcount-blocks", "a refcount block does"
                                    " not begin at a cluster")
            if not header.inside(offset, header.cluster_size):
                raise RuleViolation("all-data", "it is cut off: a refcount"
                                    " block is after the end of the file")
            last, index = offset, number
    if index < 0:
        raise RuleViolation("refcount-blocks", "its refcount table is empty")
    counts = reader.read(f, last, header.cluster_size).rstrip(b"\0")
    each = header.cluster_size * 8 >> header.refcount_order   # in a block
    cluster = index * each + ((max(len(counts), 1) - 1) * 8
                              >> header.refcount_order)
    if cluster * header.cluster_size >= header.file_size:
        raise RuleViolation("all-data", "it is cut off: it has allocated"
                            " clusters after the end of the file")


def _require_map(f: BinaryIO, header: Header) -> int:
    """Check each L1 and each L2 entry; return how many are compressed."""
    l2 = _L2Tables(header)
    tables = compressed = 0
    for first, part in reader.table(f, header.l1_offset, header.l1_entries,
                                    8, "big"):
        for number, entry in enumerate(part, first):
            if not entry:
                continue
            offset = entry & _OFFSET
            if entry & ~(_OFFSET | _COPIED) or not header.aligned(offset):
                raise RuleViolation("l1-entry", "an entry of its L1 table"
                                    " is not the place of a table")
            if not header.inside(offset, header.cluster_size):
                raise RuleViolation("l1-entry", "an L2 table is not within"
                                    " the file")
            tables += 1
            _require_size(tables * header.cluster_size, header)
            compressed += l2.check(
                reader.read(f, offset, header.cluster_size), number)
    return compressed


def _require_size(size: int, header: Header) -> None:
    """Limit the work: an image could name one L2 table a million times."""
    if size > min(header.file_size, _LARGEST_MAP):
        raise RuleViolation("l2-size", "its L2 tables take more space than"
                            " the file has, or more than 256 MiB")


class _L2Tables:
    """Checks the L2 tables of an image."""

    def __init__(self, header: Header) -> None:
        size = header.cluster_size
        self._header = header
        self._extended = header.extended_l2
        self._zero = 0 if header.version == 2 or self._extended else _ZERO
        offsets = _OFFSET & -size
        self._offsets = _repeated(offsets, size)
        self._not_plain = _repeated(~(offsets | _COPIED | self._zero), size)
        # Of the entry of a compressed cluster.
        self._sectors_at = 62 - (header.cluster_bits - 8)

    def check(self, table: bytes, index: int) -> int:
        """Return the number of compressed clusters.

        :param index: of the table's entry in the L1 table
        :raises RuleViolation: an entry is wrong
        """
        if self._extended:
            return self._check_extended(table, index)
        if self._is_plain(table):
            return 0
        words = _words(table)
        compressed = 0
        for number, entry in enumerate(words, index * len(words)):
            if entry & _COMPRESSED:
                self._check_compressed(entry)
                compressed += 1
            elif entry:
                self._check_plain(entry, None, number)
        return compressed

    def _check_extended(self, table: bytes, index: int) -> int:
        words = _words(table)
        pairs = zip(words[::2], words[1::2], strict=True)
        compressed = 0
        for number, (entry, bitmap) in enumerate(
                pairs, index * len(words) // 2):
            if entry & _COMPRESSED and not bitmap:
                self._check_compressed(entry)
                compressed += 1
            elif entry or bitmap:
                self._check_plain(entry, bitmap, number)
        return compressed

    def _is_plain(self, table: bytes) -> bool:
        """Say quickly that all entries are right and none is compressed.

        Arithmetic on the table as one large number looks at all at once.
        """
        number = int.from_bytes(table)
        if number & self._not_plain:
            return False
        highest = max(_words((number & self._offsets).to_bytes(len(table))))
        return self._header.inside(highest, self._header.cluster_size)

    def _check_compressed(self, entry: int) -> None:
        offset = entry & (1 << self._sectors_at) - 1
        sectors = (entry & _COMPRESSED - 1) >> self._sectors_at
        if entry & _COPIED or not offset:
            raise RuleViolation("l2-entry", "an entry of an L2 table is not"
                                " the place of a compressed cluster")
        # Its last sector may end after the file.
        if (offset // _SECTOR + sectors) * _SECTOR >= self._header.file_size:
            raise RuleViolation("l2-entry", "a compressed cluster is not"
                                " within the file")

    def _check_plain(self, entry: int, bitmap: int | None,
                     cluster: int) -> None:
        offset = entry & _OFFSET
        if entry & ~(_OFFSET | _COPIED | self._zero) \
                or offset % self._header.cluster_size \
                or (bitmap and not self._is_bitmap(offset, bitmap)):
            raise RuleViolation("l2-entry", "an entry of an L2 table is not"
                                " the place of a cluster")
        if offset + self._used(cluster, entry, bitmap) \
                > self._header.file_size:
            raise RuleViolation("l2-entry", "it is cut off: a cluster is not"
                                " within the file")

    def _is_bitmap(self, offset: int, bitmap: int) -> bool:
        """Say whether each subcluster is allocated, or zeros, or neither."""
        zeros, allocated = bitmap >> 32, bitmap & _SUBCLUSTERS
        return not zeros & allocated and (not allocated or offset > 0)

    def _used(self, cluster: int, entry: int, bitmap: int | None) -> int:
        """Return how many bytes of a cluster a guest reads from the file.

        The last cluster of a file may end with the disk, or with the last
        of its subclusters.
        """
        header = self._header
        if not entry & _OFFSET or (bitmap is None and entry & _ZERO):
            return 0
        used = header.cluster_size
        if bitmap is not None:
            used = used // 32 * (bitmap & _SUBCLUSTERS).bit_length()
        left = header.virtual_size - cluster * header.cluster_size
        return min(used, left) if left > 0 else used


def _words(table: bytes) -> array.array[int]:
    return reader.numbers(table, 8, "big")


def _repeated(word: int, size: int) -> int:
    """Return a number of ``size`` bytes that repeats a word."""
    return int.from_bytes((word & (1 << 64) - 1).to_bytes(8) * (size // 8))
