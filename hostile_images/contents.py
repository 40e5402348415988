# SPDX-License-Identifier: Apache-2.0
"""qcow2 images with right tables and wrong content.

The content is read when an image is converted, or, if it becomes a base
without a conversion, before the commit.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

from hostile_images import foreign, layout
from hostile_images.canary import Sentinel
from hostile_images.foreign import descriptor, flat
from hostile_images.layout import COMPRESSED, DATA, L2, entry, image
from hostile_images.sample import Build, Refused, alone
from imagecache.testing import images


def samples() -> Iterator[Refused]:
    yield from _nested()
    yield from _damaged()


def _nested() -> Iterator[Refused]:
    """Yield images whose content begins as another image.

    Once converted to raw they are what raw must not be.
    """
    contents: dict[str, Build] = {
        "qcow2": lambda sentinel: layout.image(),
        "qcow2-backing": lambda sentinel: layout.backed(str(sentinel.path)),
        "qcow2-datafile": lambda sentinel: layout.external(str(sentinel.path)),
        "vmdk-flat": lambda sentinel: descriptor(
            "monolithicFlat", flat(sentinel)),
        "luks": alone(foreign.luks),
        "vdi": alone(foreign.vdi),
    }
    for id, content in contents.items():
        for kind, flags in (("", ()), ("-compressed", ("-c",)), (
                "-zstd", ("-c", "-o", "compression_type=zstd"))):
            yield Refused(
                f"qcow2-holds-{id}{kind}", "qcow2", "nested",
                functools.partial(_holding, content, flags),
                ("CVE-2024-32498", "CVE-2024-40767"))


def _holding(content: Build, flags: tuple[str, ...],
             sentinel: Sentinel) -> bytes:
    return images.qcow2(content(sentinel), *flags)


def _damaged() -> Iterator[Refused]:
    for id, build in {
            "noise": alone(image, l2=entry(COMPRESSED | DATA)),
            "zeros": alone(image, l2=entry(COMPRESSED | L2 + 2048)),
            "zlib": alone(_overwritten),
            "zlib-v2": alone(_overwritten, "-o", "compat=0.10"),
            "zlib-512": alone(_overwritten, "-o", "cluster_size=512"),
            "zstd": alone(_overwritten, "-o", "compression_type=zstd"),
            }.items():
        yield Refused(f"qcow2-compressed-{id}-damaged", "qcow2", "corrupt",
                      build)


def _overwritten(*options: str) -> bytes:
    """Return a compressed image whose last data is overwritten."""
    data = bytearray(images.qcow2(_text(), "-c", *options))
    end = len(data.rstrip(b"\0"))
    data[end - 64:end - 32] = b"\xff" * 32
    return bytes(data)


def _text() -> bytes:
    """Return a content that takes less space when it is compressed."""
    return b"".join(b"%07d\n" % n for n in range(1 << 17))
