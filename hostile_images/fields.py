# SPDX-License-Identifier: Apache-2.0
"""qcow2 images of which one field, or one place, is wrong."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator
from typing import Any

from hostile_images import layout
from hostile_images.canary import Sentinel
from hostile_images.layout import (
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    END,
    L1,
    L2,
    REFCOUNT_BLOCK,
    extension,
)
from hostile_images.sample import CLAIM, Refused
from imagecache import exception
from imagecache.model import GiB, KiB, MiB
from imagecache.testing import images

_EIB = 1 << 60
_INPUT = ("CVE-2014-0144",)      # what qemu's driver once believed
_SNAPSHOTS = ("CVE-2014-0143", "CVE-2014-0145", "CVE-2014-0146")
_REFCOUNTS = ("CVE-2014-0147",)
_HUNGRY = ("CVE-2015-5162", "CVE-2018-10908")


def samples() -> Iterator[Refused]:
    yield from _header()
    yield from _extensions()
    yield from _tables()
    yield from _huge_tables()
    yield from _sizes()
    yield from _cuts()


def _lie(id: str, rule: str, *represents: str, **lies: Any) -> Refused:
    return Refused(f"qcow2-{id}", "qcow2", rule,
                   lambda sentinel: layout.image(**lies), represents)


def _header() -> Iterator[Refused]:
    for version in (0, 1, 4, 1 << 31):
        yield _lie(f"version-{version}", "version", version=version)
    for bits in (0, 1, 4, 8, 22, 23, 31, 32, 63, 64, 127, (1 << 32) - 1):
        yield _lie(f"cluster-bits-{bits}", "cluster-size",
                   *_INPUT, cluster_bits=bits)
    for length in (0, 8, 72, 103, 105, 108, CLUSTER + 8, CLUSTER * 8,
                   (1 << 32) - 8, (1 << 32) - 1):
        yield _lie(f"header-length-{length}", "header-length",
                   header_length=length)
    for bit in (1, 5, 6, 31, 32, 63):
        yield _lie(f"feature-{bit}", "features", incompatible=1 << bit)
    for kind, bit in ((1, 0), (0, layout.COMPRESSION), (2, 0),
                      (2, layout.COMPRESSION), (255, layout.COMPRESSION)):
        yield _lie(f"compression-{kind}-{bit}", "compression",
                   compression=kind, incompatible=bit)
    yield _lie("compression-unsaid", "compression", header_length=104,
               incompatible=layout.COMPRESSION)
    yield _lie("extended-l2-small-clusters", "extended-l2",
               incompatible=layout.EXTENDED_L2)
    for order in (7, 8, 63, 64, (1 << 32) - 1):
        yield _lie(f"refcount-order-{order}", "refcount-order", *_INPUT,
                   refcount_order=order)
    for method, name in ((1, "aes"), (2, "luks"), (3, "unknown"),
                         ((1 << 32) - 1, "most")):
        yield _lie(f"crypt-{name}", "encryption", "CVE-2017-18191",
                   crypt=method)
    yield _lie("crypt-aes-v2", "encryption", version=2, crypt=1)


def _extensions() -> Iterator[Refused]:
    room = CLUSTER - 112
    built = {
        "overrun": (extension(0x7777, b"", room),),
        "overrun-4G": (extension(0x7777, b"", (1 << 32) - 1),),
        "overrun-by-1": (extension(0x7777, b"", room - 8 + 1),),
        # The last one ends with the cluster, so no entry ends the list.
        "endless": (extension(0x7777, bytes(room - 8)),),
        "endless-small": (extension(0x7777, b""),) * (room // 8),
    }
    for id, extensions in built.items():
        yield Refused(
            f"qcow2-extension-{id}", "qcow2", "extensions",
            functools.partial(_endless, extensions))
    yield Refused(
        "qcow2-extension-endless-header", "qcow2", "extensions",
        lambda sentinel: layout.image(header_length=CLUSTER))
    # The encryption header of LUKS, in an image that says it has none.
    yield Refused(
        "qcow2-crypt-luks-header", "qcow2", "encryption",
        lambda sentinel: layout.image(extension(
            layout.ENCRYPTION, layout.entry(DATA) + layout.entry(CLUSTER))),
        ("CVE-2017-18191",))


def _endless(extensions: tuple[bytes, ...], sentinel: Sentinel) -> bytes:
    return layout.image(*extensions, end=b"")


def _tables() -> Iterator[Refused]:
    for where, offset in (
            ("nowhere", 0), ("unaligned", L1 + 8), ("outside", END),
            ("far-outside", 1 << 55), ("wrapping", (1 << 64) - CLUSTER),
            ("in-header", 512)):
        yield _lie(f"l1-{where}", "l1-place", *_INPUT, l1_offset=offset)
        yield _lie(f"refcounts-{where}", "refcount-place", *_REFCOUNTS,
                   refcount_offset=offset)
        yield _lie(f"snapshots-{where}", "snapshots", *_SNAPSHOTS,
                   snapshots=1, snapshots_offset=offset)
    yield _lie("l1-empty", "l1-size", l1_size=0)
    yield _lie("l1-short", "l1-size", size=1 << 30)
    yield _lie("l1-partly-outside", "l1-place",
               l1_offset=DATA, l1_size=CLUSTER // 8 + 1)
    yield _lie("l1-most", "l1-size", *_INPUT, l1_size=(1 << 32) - 1)
    yield _lie("refcounts-empty", "refcount-size", refcount_clusters=0)
    yield _lie("refcounts-most", "refcount-size", *_REFCOUNTS,
               refcount_clusters=(1 << 32) - 1)
    yield _lie("refcounts-partly-outside", "refcount-place",
               tail=layout.entry(REFCOUNT_BLOCK).ljust(CLUSTER, b"\0"),
               refcount_offset=END, refcount_clusters=2)
    yield _lie("refcounts-none", "refcount-blocks", refcounts=b"")
    yield _lie("refcounts-in-a-cluster", "refcount-blocks",
               refcounts=layout.entry(REFCOUNT_BLOCK + 512))
    yield _lie("refcounts-of-more", "all-data", refcounts=layout.entry(
        REFCOUNT_BLOCK) * 2)
    for where, offset in (("outside", END), ("far-outside", 1 << 50)):
        yield _lie(f"refcount-block-{where}", "all-data",
                   refcounts=layout.entry(offset))
    yield _lie("snapshots-most", "snapshots", *_SNAPSHOTS,
               snapshots=(1 << 32) - 1, snapshots_offset=DATA)
    yield _lie("snapshots-partly-outside", "snapshots",
               snapshots=CLUSTER // 40 + 1, snapshots_offset=DATA)


def _huge_tables() -> Iterator[Refused]:
    """Yield images with tables that are complete, and larger than allowed."""
    yield _huge("l1-huge", "l1-size", 32 * MiB + CLUSTER,
                l1_offset=END, l1_size=4 * MiB + 1)
    yield _huge("refcounts-huge", "refcount-size", 8 * MiB + CLUSTER,
                refcount_offset=END,
                refcount_clusters=8 * MiB // CLUSTER + 1)
    yield _huge("snapshots-huge", "snapshots", 65537 * 40 + CLUSTER,
                snapshots_offset=END, snapshots=65537)


def _huge(id: str, rule: str, tail: int, **lies: Any) -> Refused:
    return Refused(
        f"qcow2-{id}", "qcow2", rule,
        lambda sentinel: layout.image(tail=bytes(tail), **lies), _HUNGRY)


def _sizes() -> Iterator[Refused]:
    for size in (0, 1, 511, layout.SIZE - 511, layout.SIZE + 1):
        yield _lie(f"size-{size}", "virtual-size", size=size)
    # These sizes need an L1 table that is larger than allowed.
    for size in (1 << 63, (1 << 63) - 512, (1 << 64) - 512):
        yield _lie(f"size-{size:#x}", "l1-size", *_INPUT, size=size)
    yield _too_large("size-100T", lambda: images.create(
        "qcow2", size=100 * 1024 * GiB), "CVE-2013-2096")
    yield _too_large("size-1E", functools.partial(
        shared, 21, _EIB), "CVE-2013-2096")
    yield _too_large("bomb-shared-cluster", functools.partial(
        shared, 16, 1024 * GiB), "CVE-2013-4463", "CVE-2013-4469")
    yield _too_large("bomb-shared-compressed", functools.partial(
        shared, 16, 1024 * GiB, compressed=True),
        "CVE-2013-4463", "CVE-2013-4469", "CVE-2015-5162")


def _too_large(id: str, build: Any, *represents: str) -> Refused:
    return Refused(f"qcow2-{id}", "qcow2", "",
                   lambda sentinel: build(), represents,
                   error=exception.FlavorDiskTooSmall)


def shared(bits: int, size: int, *, compressed: bool = False) -> bytes:
    """Return an image in which all guest clusters share one host cluster.

    Its virtual size is as many times the size of its file as the format
    allows.
    """
    cluster = 1 << bits
    entries = -(-size // (cluster * cluster // 8))
    l2 = 3 * cluster + -(-entries * 8 // cluster) * cluster
    start = l2 + cluster
    data, entry = b"\xaa" * cluster, start | COPIED
    if compressed:
        deflate = zlib.compressobj(9, zlib.DEFLATED, -12)
        data = deflate.compress(data) + deflate.flush()
        entry = start | COMPRESSED | (len(data) // 512) << 62 - (bits - 8)
    return b"".join(part.ljust(room, b"\0") for part, room in (
        (layout.header(cluster_bits=bits, size=size, l1_size=entries,
                       l1_offset=3 * cluster, refcount_offset=cluster),
         cluster),
        (layout.entry(2 * cluster), cluster),
        (b"\0\1" * (start // cluster + 1), cluster),
        (layout.entry(l2 | COPIED) * entries, l2 - 3 * cluster),
        (layout.entry(entry) * (cluster // 8), cluster),
        (data, len(data) if not compressed else 64 * KiB)))


def _cuts() -> Iterator[Refused]:
    def cut(at: int, rule: str) -> Refused:
        return Refused(f"qcow2-cut-at-{at}", "qcow2", rule,
                       lambda sentinel: layout.image()[:at])

    yield cut(0, "empty")
    yield cut(3, CLAIM)
    for at in (4, 8, 24, 71, 72, 103, 104, 111, 112, 511):
        yield cut(at, "magic")      # too short for any
    for at in (512, CLUSTER - 1):
        yield cut(at, "whole")
    for at in (CLUSTER, REFCOUNT_BLOCK - 1, REFCOUNT_BLOCK, L1 - 1, L1,
               L1 + 7):
        yield cut(at, "l1-place")
    for at in (L1 + 8, L2, L2 + 4, L2 + 8, DATA):
        yield cut(at, "all-data")
    yield Refused("qcow2-cut-v2", "qcow2", "magic",
                  lambda sentinel: layout.image(version=2)[:72])
    yield Refused("qcow2-cut-by-qemu-img", "qcow2", "l1-place",
                  _only_a_header)


def _only_a_header(sentinel: Sentinel) -> bytes:
    return images.qcow2(images.content())[:64 * KiB]
