# SPDX-License-Identifier: Apache-2.0
"""Images that are strange in parts that no rule checks.

The result must be an ImageError, or a disk with nothing of the host in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from hostile_images import fields, layout
from hostile_images.canary import Sentinel
from hostile_images.layout import (
    CLUSTER,
    COPIED,
    DATA,
    END,
    L1,
    entry,
    extension,
    image,
)
from hostile_images.sample import Build, Odd, alone
from imagecache.model import KiB, MiB
from imagecache.testing import images


def samples() -> Iterator[Odd]:
    for id, build in (_tables() | _extensions() | _others()).items():
        yield Odd(f"qcow2-odd-{id}", "qcow2", build)
    yield Odd("qcow2-bomb-that-fits", "qcow2", alone(
        fields.shared, 16, 4 * MiB), ("CVE-2013-4463",))
    yield Odd("qcow2-bomb-that-fits-compressed", "qcow2", alone(
        fields.shared, 16, 4 * MiB, compressed=True), ("CVE-2015-5162",))
    yield Odd("raw-looks-like-a-name", "raw", _looks_like_a_name)


def _tables() -> dict[str, Build]:
    return {
        "l2-is-l1": alone(image, l1=entry(L1 | COPIED)),
        "data-is-header": alone(image, l2=entry(COPIED)),
        "data-is-tables": alone(image, l2=entry(L1 | COPIED)),
        "snapshot-of-zeros": alone(
            image, snapshots=1, snapshots_offset=END, tail=bytes(CLUSTER)),
        "snapshot-of-noise": alone(
            image, snapshots=1, snapshots_offset=DATA),
        "snapshots-are-l1": alone(image, snapshots=1, snapshots_offset=L1),
    }


def _extensions() -> dict[str, Build]:
    def bitmaps(number: int, size: int, offset: int) -> bytes:
        return extension(layout.BITMAPS, number.to_bytes(4, "big") + bytes(4)
                         + entry(size) + entry(offset))

    small = extension(0x7777, b"") * ((CLUSTER - 112) // 8 - 2)
    return {
        "extension-flood": alone(image, small),
        "bitmaps-none": alone(image, bitmaps(0, 0, 0), autoclear=1),
        "bitmaps-most": alone(
            image, bitmaps(65535, 1 << 25, DATA), autoclear=1),
        "bitmaps-outside": alone(
            image, bitmaps(1, 24, 1 << 40), autoclear=1),
        "bitmaps-in-header": alone(image, bitmaps(1, 24, 0), autoclear=1),
        "bitmaps-noise": alone(
            image, bitmaps(1, CLUSTER, DATA), autoclear=1),
        "bitmaps-cut": alone(
            image, extension(layout.BITMAPS, b"\0"), autoclear=1),
        "bitmaps-not-valid": alone(image, bitmaps(1, 24, 1 << 40)),
        # oslo.utils looks for features where version 2 has extensions.
        "extension-in-v2": alone(
            image, extension(0x7777, b"unknown"), version=2),
        "feature-names-odd": alone(
            image, extension(layout.FEATURE_NAMES, b"\0\1")),
        "compatible-unknown": alone(image, compatible=1 << 40),
        "autoclear-unknown": alone(image, autoclear=1 << 40),
        "long-header": alone(image, header_length=512),
        "longer-header-filled": lambda sentinel: image(header_length=512)[:112]
        + b"\xff" * 400 + image()[512:],
    }


def _others() -> dict[str, Build]:
    def then(tail: bytes) -> Build:
        return lambda sentinel: image() + tail

    return {
        "and-vhd-footer": then(b"conectix".ljust(512, b"\0")),
        "and-dmg-trailer": then(b"koly".ljust(512, b"\0")),
        "and-zip": then(b"PK\5\6" + bytes(18)),
        "two": then(image()),
        "noise": lambda sentinel: layout.MAGIC + images.content(
            64 * KiB, 12)[4:],
        "header-of-noise": lambda sentinel: image()[:8] + images.content(
            64 * KiB, 13)[8:],
    }


def _looks_like_a_name(sentinel: Sentinel) -> bytes:
    """Return a raw image whose content is a name that qemu would open."""
    path = sentinel.path
    return f"json:{{\"filename\":\"{path}\"}}\n{path}\n".encode()
