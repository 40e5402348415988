# SPDX-License-Identifier: Apache-2.0
"""qcow2 images with a right header and one wrong entry in a table.

qemu-img reads zeros after the end of a file, so it reads some of these images
without an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from hostile_images import layout
from hostile_images.layout import (
    CLUSTER,
    COMPRESSED,
    COPIED,
    DATA,
    END,
    L1,
    L2,
    REFCOUNT_BLOCK,
    REFCOUNT_TABLE,
    entry,
    image,
)
from hostile_images.sample import Build, Refused, alone
from imagecache.testing import images

_HUNGRY = ("CVE-2013-4463", "CVE-2013-4469", "CVE-2015-5162")
_FAR = 1 << 50
# Of a compressed cluster: how many sectors follow the first.
_SECTORS_AT = 62 - (layout.BITS - 8)


def samples() -> Iterator[Refused]:
    for rule, built in (("l1-entry", _l1()), ("l2-entry", _l2()),
                        ("l2-entry", _compressed()),
                        ("l2-entry", _extended()),
                        ("refcount-blocks", _refcounts())):
        for id, build in built.items():
            yield Refused(f"qcow2-{id}", "qcow2", rule, build)
    yield Refused("qcow2-refcounts-are-l1", "qcow2", "all-data", alone(
        image, refcount_offset=L1))
    yield Refused("qcow2-l2-of-all", "qcow2", "l2-size", alone(
        image, l1=entry(L2 | COPIED) * 7, l1_size=7), _HUNGRY)


def _l1() -> dict[str, Build]:
    return {
        "l2-unaligned": alone(image, l1=entry(L2 + 512 | COPIED)),
        "l2-outside": alone(image, l1=entry(_FAR | COPIED)),
        "l2-after-end": alone(image, l1=entry(END | COPIED)),
        "l2-partly-outside": alone(
            image, l1=entry(END | COPIED), tail=bytes(CLUSTER - 1)),
        "l2-reserved-bits": alone(image, l1=entry(L2 | COPIED | 0x1ff)),
        "l2-reserved-bit-56": alone(image, l1=entry(L2 | 1 << 56)),
        "l2-most": alone(image, l1=b"\xff" * 8),
        "l2-is-header": alone(image, l1=entry(COPIED)),
        "l2-of-no-cluster": alone(
            image, l1=entry(L2 | COPIED) + entry(_FAR), l1_size=2),
        "l1-is-noise": alone(image, l1_offset=DATA),
    }


def _l2() -> dict[str, Build]:
    return {
        "data-unaligned": alone(image, l2=entry(DATA + 512 | COPIED)),
        "data-outside": alone(image, l2=entry(_FAR | COPIED)),
        "data-after-end": alone(image, l2=entry(END | COPIED)),
        "data-last-outside": alone(
            image, l2=entry(DATA | COPIED) * 511 + entry(END)),
        "data-reserved-bits": alone(image, l2=entry(DATA | 0x1fe)),
        "data-reserved-bit-61": alone(image, l2=entry(DATA | 1 << 61)),
        "data-most": alone(image, l2=b"\xff" * 8),
        "data-is-counts": alone(image, l1_offset=REFCOUNT_TABLE),
        # Version 2 has no such flag.
        "data-zeros-in-v2": alone(image, l2=entry(DATA | 1), version=2),
        "data-cut": lambda sentinel: image()[:DATA + 100],
        "data-cut-by-1": lambda sentinel: image()[:-1],
    }


def _compressed() -> dict[str, Build]:
    last = (END - 512) | COMPRESSED
    return {
        "compressed-outside": alone(image, l2=entry(COMPRESSED | 1 << 50)),
        "compressed-after-end": alone(image, l2=entry(COMPRESSED | END)),
        "compressed-partly-outside": alone(
            image, l2=entry(last | 1 << _SECTORS_AT)),
        "compressed-most": alone(image, l2=entry(
            COMPRESSED | (1 << 62) - 1)),
        "compressed-copied": alone(
            image, l2=entry(COMPRESSED | COPIED | DATA)),
        "compressed-nowhere": alone(image, l2=entry(COMPRESSED)),
    }


def _extended() -> dict[str, Build]:
    bit = 1 << 31
    return {
        f"extended-{id}": functools.partial(_with_bitmap, *change)
        for id, change in {
            "both": (0, bit << 32 | bit), "nowhere": (None, 1),
            "compressed-bitmap": (COMPRESSED, 1),
            "zero-flag": (1, 0), "outside": (_FAR, 0),
        }.items()}


def _with_bitmap(bits: int | None, bitmap: int, sentinel: object) -> bytes:
    """Return an image with extended L2 entries, whose first has more bits.

    :param bits: to set in the entry; None: it has none
    :param bitmap: to set in the bitmap beside it
    """
    data = bytearray(images.qcow2(
        images.content(), "-o", "extended_l2=on,cluster_size=16k"))
    l1 = int.from_bytes(data[40:48])
    l2 = int.from_bytes(data[l1:l1 + 8]) & ~COPIED
    old = int.from_bytes(data[l2:l2 + 8])
    data[l2:l2 + 8] = entry(0 if bits is None else old | bits)
    old = int.from_bytes(data[l2 + 8:l2 + 16])
    data[l2 + 8:l2 + 16] = entry(old | bitmap)
    return bytes(data)


def _refcounts() -> dict[str, Build]:
    return {
        "refcount-block-before-last": alone(
            image, refcounts=entry(REFCOUNT_BLOCK + 512)
            + entry(REFCOUNT_BLOCK)),
    }
