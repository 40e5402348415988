# SPDX-License-Identifier: Apache-2.0
"""A qcow2 image, field by field; each field can be given a wrong value.

Names and places are those of docs/interop/qcow2.rst of qemu.  Without lies
the image is sound:

    cluster 0        1               2               3         4         5
    header           refcount table  refcount block  L1 table  L2 table  data
"""

from __future__ import annotations

import functools
import random
import struct
from typing import Any

from imagecache.model import MiB

MAGIC = b"QFI\xfb"
BITS = 12                     # of the usual cluster, of 4 KiB
CLUSTER = 1 << BITS
REFCOUNT_TABLE, REFCOUNT_BLOCK, L1, L2, DATA, END = (
    each << BITS for each in range(1, 7))
SIZE = MiB                    # as a guest sees it: one L1 entry will do
NAME_AT = 1024                # where the name of a backing file is put

COPIED = 1 << 63              # in an L1 or L2 entry: its refcount is 1
COMPRESSED = 1 << 62

DIRTY, CORRUPT, DATA_FILE, COMPRESSION, EXTENDED_L2 = (
    1 << bit for bit in range(5))

BACKING_FORMAT = 0xE2792ACA
EXTERNAL_DATA = 0x44415441
ENCRYPTION = 0x0537BE77
FEATURE_NAMES = 0x6803F857
BITMAPS = 0x23852875

_V2 = {
    "magic": "4s", "version": "I", "backing_offset": "Q",
    "backing_size": "I", "cluster_bits": "I", "size": "Q", "crypt": "I",
    "l1_size": "I", "l1_offset": "Q", "refcount_offset": "Q",
    "refcount_clusters": "I", "snapshots": "I", "snapshots_offset": "Q",
}
_V3 = _V2 | {
    "incompatible": "Q", "compatible": "Q", "autoclear": "Q",
    "refcount_order": "I", "header_length": "I", "compression": "B7x",
}
_TRUE = {
    "magic": MAGIC, "version": 3, "backing_offset": 0, "backing_size": 0,
    "cluster_bits": BITS, "size": SIZE, "crypt": 0, "l1_size": 1,
    "l1_offset": L1, "refcount_offset": REFCOUNT_TABLE,
    "refcount_clusters": 1, "snapshots": 0, "snapshots_offset": 0,
    "incompatible": 0, "compatible": 0, "autoclear": 0, "refcount_order": 4,
    "header_length": 112, "compression": 0,
}


@functools.cache
def data() -> bytes:
    """What the guest reads in its first cluster; zeros follow."""
    return random.Random(4).randbytes(CLUSTER)  # noqa: S311


def content() -> bytes:
    """What the guest reads."""
    return data() + bytes(SIZE - CLUSTER)


def header(**lies: Any) -> bytes:
    """Pack a header; ``lies`` are fields of other values than the true."""
    fields = _TRUE | lies
    names = _V2 if fields["version"] == 2 else _V3
    return struct.pack(">" + "".join(names.values()),
                       *(fields[name] for name in names))


def extension(kind: int, data: bytes, length: int | None = None) -> bytes:
    """Pack a header extension."""
    padding = bytes(-len(data) % 8)
    return struct.pack(">II", kind, len(data) if length is None else length
                       ) + data + padding


def image(*extensions: bytes, end: bytes = bytes(8), name: bytes = b"",
          refcounts: bytes | None = None, l1: bytes | None = None,
          l2: bytes | None = None, tail: bytes = b"", **lies: Any) -> bytes:
    """Return an image with the usual clusters.

    :param end: what ends the header extensions
    :param name: is put at NAME_AT
    :param refcounts: the refcount table
    :param tail: more clusters
    """
    first = bytearray((header(**lies) + b"".join(extensions) + end)
                      .ljust(CLUSTER, b"\0"))
    if name:
        first[NAME_AT:NAME_AT + len(name)] = name
    return b"".join(cluster.ljust(CLUSTER, b"\0") for cluster in (
        bytes(first), entry(REFCOUNT_BLOCK) if refcounts is None
        else refcounts, b"\0\1" * (END // CLUSTER),
        entry(L2 | COPIED) if l1 is None else l1,
        entry(DATA | COPIED) if l2 is None else l2, data())) + tail


def entry(value: int) -> bytes:
    """Pack an entry of a table."""
    return value.to_bytes(8, "big")


def backed(name: str | bytes, format: str | None = "raw",
           **lies: Any) -> bytes:
    """Return an image that names a backing file."""
    name = name.encode() if isinstance(name, str) else name
    extensions = [] if format is None else [
        extension(BACKING_FORMAT, format.encode())]
    return image(*extensions, name=name, **{
        "backing_offset": NAME_AT, "backing_size": len(name), **lies})


def external(name: str | bytes, *, raw: bool = False, **lies: Any) -> bytes:
    """Return an image that keeps its data in another file."""
    name = name.encode() if isinstance(name, str) else name
    return image(extension(EXTERNAL_DATA, name), **{
        "incompatible": DATA_FILE, "autoclear": 2 if raw else 0, **lies})
