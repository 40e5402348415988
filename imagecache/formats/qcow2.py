# SPDX-License-Identifier: Apache-2.0
"""qcow2: every field of the header, and the rules an image must follow.

Source: docs/interop/qcow2.rst of qemu.  All numbers are big-endian:

======  =====  =====================================================
offset  bytes  field
======  =====  =====================================================
     0      4  magic, "QFI" and 0xfb
     4      4  version
     8      8  offset of the backing file's name; 0: no backing file
    16      4  length of the backing file's name
    20      4  cluster_bits
    24      8  virtual size, in bytes
    32      4  encryption method
    36      4  entries of the active L1 table
    40      8  offset of the active L1 table
    48      8  offset of the refcount table
    56      4  clusters of the refcount table
    60      4  number of snapshots
    64      8  offset of the snapshot table
    72      8  incompatible features            (version 3)
    80      8  compatible features              (version 3)
    88      8  autoclear features               (version 3)
    96      4  refcount order                   (version 3)
   100      4  length of the header             (version 3)
   104      1  compression type                 (if the header is longer)
======  =====  =====================================================

Header extensions follow: type, length, data, padded to 8 bytes; type 0 ends
them.  The header and its extensions are within the first cluster.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct
from collections.abc import Iterator

from imagecache import exception
from imagecache.formats.rules import Rule, RuleViolation, require
from imagecache.model import MiB
from imagecache.system import durable

MAGIC = b"QFI\xfb"
SMALLEST = 512           # bytes; less is no qcow2
_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_V3 = struct.Struct(">QQQII")
_EXTENSION = struct.Struct(">II")

_DIRTY, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = 1, 4, 8, 16
_KNOWN_FEATURES = _DIRTY | _COMPRESSION | _EXTENDED_L2
_RAW_EXTERNAL = 2        # autoclear: an external data file, readable as raw

_BACKING_FORMAT = 0xE2792ACA
_EXTERNAL_DATA = 0x44415441
_ENCRYPTION = 0x0537BE77

# qemu's own limits.
_LARGEST_L1 = 32 * MiB
_LARGEST_REFCOUNT_TABLE = 8 * MiB
_MOST_SNAPSHOTS = 65536
_LONGEST_NAME = 1023


@dataclasses.dataclass(frozen=True)
class Header:
    """The fields of the first cluster of a file, and the size of the file."""

    version: int
    backing_offset: int
    backing_length: int
    cluster_bits: int
    virtual_size: int             # bytes
    crypt_method: int
    l1_entries: int
    l1_offset: int
    refcount_offset: int
    refcount_clusters: int
    snapshots: int
    snapshots_offset: int
    incompatible: int
    autoclear: int
    refcount_order: int
    length: int                   # bytes
    compression_type: int
    extensions: tuple[int, ...]   # the types of the extensions
    backing_format: str | None    # as an extension names it
    backing_file: str | None      # the name, as the header has it
    file_size: int                # bytes

    @property
    def cluster_size(self) -> int:
        return 1 << self.cluster_bits

    @property
    def l1_needed(self) -> int:
        """Return how many L1 entries the virtual size needs."""
        entry = 16 if self.extended_l2 else 8
        covered = self.cluster_size // entry * self.cluster_size
        return -(-self.virtual_size // covered)

    @property
    def extended_l2(self) -> bool:
        return bool(self.incompatible & _EXTENDED_L2)

    @property
    def dirty(self) -> bool:
        """Return whether refcounts may be out of date: qemu was killed."""
        return bool(self.incompatible & _DIRTY)

    def aligned(self, offset: int) -> bool:
        """Return whether a table may begin there: not in the first cluster."""
        return offset > 0 and offset % self.cluster_size == 0

    def inside(self, offset: int, size: int) -> bool:
        """Return whether the file is long enough to hold this."""
        return offset + size <= self.file_size

    def has(self, extension: int) -> bool:
        return extension in self.extensions


# Without these fields the rest of the header cannot be read.
_READABLE: tuple[Rule[Header], ...] = (
    Rule("version", "its version is neither 2 nor 3",
         lambda h: h.version in (2, 3)),
    Rule("cluster-size", "its cluster size is out of range",
         lambda h: 9 <= h.cluster_bits <= 21),
    Rule("header-length", "the length of its header is impossible",
         lambda h: h.length % 8 == 0 and h.length <= h.cluster_size
         and h.length >= (104 if h.version == 3 else 72)),
)

# The header is right, and its tables are in the file.
SOUND: tuple[Rule[Header], ...] = (
    Rule("whole", "it is cut off: the file ends within its first cluster",
         lambda h: h.file_size >= h.cluster_size),
    Rule("virtual-size",
         "its virtual size is 0, or not a multiple of 512 bytes",
         lambda h: h.virtual_size > 0 and h.virtual_size % 512 == 0),
    Rule("features", "it uses features that are not known or not allowed",
         lambda h: not h.incompatible & ~_KNOWN_FEATURES),
    Rule("compression", "its compression type is not known",
         lambda h: h.compression_type
         == (1 if h.incompatible & _COMPRESSION else 0)),
    Rule("extended-l2", "its clusters are too small for extended L2 entries",
         lambda h: not h.extended_l2 or h.cluster_bits >= 14),
    Rule("refcount-order", "its refcounts are wider than 64 bits",
         lambda h: h.refcount_order <= 6),
    Rule("encryption", "it is encrypted",
         lambda h: h.crypt_method == 0 and not h.has(_ENCRYPTION)),
    Rule("l1-size", "its L1 table does not fit its virtual size",
         lambda h: h.l1_needed <= h.l1_entries
         and h.l1_entries * 8 <= _LARGEST_L1),
    Rule("l1-place", "its L1 table is not within the file",
         lambda h: h.aligned(h.l1_offset)
         and h.inside(h.l1_offset, h.l1_entries * 8)),
    Rule("refcount-size", "its refcount table is empty, or too large",
         lambda h: 0 < h.refcount_clusters * h.cluster_size
         <= _LARGEST_REFCOUNT_TABLE),
    Rule("refcount-place", "its refcount table is not within the file",
         lambda h: h.aligned(h.refcount_offset)
         and h.inside(h.refcount_offset,
                      h.refcount_clusters * h.cluster_size)),
    Rule("snapshots", "its snapshot table is not within the file, or too"
         " large",
         lambda h: h.snapshots == 0 or (
             h.snapshots <= _MOST_SNAPSHOTS and h.aligned(h.snapshots_offset)
             and h.inside(h.snapshots_offset, h.snapshots * 40))),
)

# The same, for a disk of this host that is on record as encrypted.
SOUND_ENCRYPTED: tuple[Rule[Header], ...] = (
    *(rule for rule in SOUND if rule.name != "encryption"),
    Rule("encryption", "it is on record as LUKS, and has no LUKS header",
         lambda h: h.crypt_method == 2 and h.has(_ENCRYPTION)),
)

# All its data is in this one file.
NO_DATA_FILE: tuple[Rule[Header], ...] = (
    Rule("data-file", "it keeps its data in another file",
         lambda h: not h.incompatible & _DATA_FILE
         and not h.has(_EXTERNAL_DATA) and not h.autoclear & _RAW_EXTERNAL),
)
NO_BACKING_FILE: tuple[Rule[Header], ...] = (
    Rule("backing-file", "it is an overlay of another file",
         lambda h: h.backing_offset == 0 and h.backing_length == 0
         and not h.has(_BACKING_FORMAT)),
)

SELF_CONTAINED = NO_DATA_FILE + NO_BACKING_FILE + SOUND


def stated_size(start: bytes) -> int:
    """Return the virtual size, in bytes, that the first sector states."""
    return int.from_bytes(start[24:32])


def needed(start: bytes) -> int:
    """Return how many bytes parse() needs, as far as ``start`` shows."""
    if len(start) < SMALLEST:
        return SMALLEST
    bits = int.from_bytes(start[20:24])
    return max(1 << bits, SMALLEST) if 9 <= bits <= 21 else SMALLEST


def parse(start: bytes, file_size: int) -> Header:
    """Read the header in a file's first cluster.

    :param start: the first needed() bytes, or the whole file
    :raises RuleViolation: it cannot be read
    """
    if len(start) < SMALLEST or not start.startswith(MAGIC):
        raise RuleViolation("magic", "it does not begin as a qcow2 file, or"
                            " is shorter than 512 bytes")
    (_, version, backing_offset, backing_length, bits, virtual_size, crypt,
     l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots,
     snapshots_offset) = _V2.unpack_from(start)
    # Version 2 has none of these fields; these values are implied.
    incompatible, autoclear, order, length, compression = 0, 0, 4, 72, 0
    if version == 3:
        incompatible, _, autoclear, order, length = _V3.unpack_from(start, 72)
        compression = start[104] if length > 104 else 0
    header = Header(
        version, backing_offset, backing_length, bits, virtual_size, crypt,
        l1_entries, l1_offset, refcount_offset, refcount_clusters, snapshots,
        snapshots_offset, incompatible, autoclear, order, length,
        compression, (), None, None, file_size)
    require(_READABLE, header)
    first = start[:header.cluster_size]
    extensions = list(_extensions(header, first))
    formats = [data for kind, data in extensions if kind == _BACKING_FORMAT]
    return dataclasses.replace(
        header, extensions=tuple(kind for kind, _ in extensions),
        backing_format=os.fsdecode(formats[-1]) if formats else None,
        backing_file=_backing_file(header, first))


def read_header(path: pathlib.Path) -> Header:
    """Read the header of a file that is on record as qcow2.

    The record says the format.  A file that a guest has written is never
    asked for its format.

    :raises DiskNotFound: there is no such file
    :raises StorageFailed: it cannot be read
    :raises InvalidDiskFormat: it is not qcow2, or is damaged
    """
    with durable.translated("reading a disk", path):
        try:
            with path.open("rb") as f:
                start = f.read(SMALLEST)
                start += f.read(needed(start) - len(start))
                size = os.fstat(f.fileno()).st_size
        except FileNotFoundError:
            raise exception.DiskNotFound(location=path) from None
    try:
        return parse(start, size)
    except RuleViolation as e:
        raise exception.InvalidDiskFormat(
            f"{path} should be qcow2: {e}", disk_format="unknown",
            path=path) from e


def _extensions(header: Header,
                first: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the type and the data of the header extensions, in order."""
    at = header.length
    # The name of the backing file, if there is one, comes after them.
    end = header.backing_offset or len(first)
    while at + _EXTENSION.size <= min(end, len(first)):
        kind, length = _EXTENSION.unpack_from(first, at)
        if kind == 0:
            return
        data = first[at + _EXTENSION.size:at + _EXTENSION.size + length]
        if len(data) < length:
            raise RuleViolation("extensions", "a header extension is longer"
                                " than the first cluster")
        at += _EXTENSION.size + -(-length // 8) * 8
        yield kind, data
    if not header.backing_offset:
        raise RuleViolation("extensions", "its header extensions never end")


def _backing_file(header: Header, first: bytes) -> str | None:
    offset, length = header.backing_offset, header.backing_length
    if not offset:
        return None
    name = first[offset:offset + length]
    if length > _LONGEST_NAME or len(name) != length or b"\0" in name:
        raise RuleViolation("backing-name", "the name of its backing file is"
                            " damaged")
    return os.fsdecode(name) or None
