# SPDX-License-Identifier: Apache-2.0
"""qcow2 images as qemu-img writes them, with each of its options."""

from __future__ import annotations

import functools
import pathlib
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from hostile_images import layout
from hostile_images.sample import Accepted
from imagecache.model import KiB, MiB
from imagecache.testing import images

# Data in a cluster of its own, data that shares one, and mostly holes.
_content = images.content
_OPTIONS = {
    "default": "",
    "v2": "compat=0.10",
    "v3": "compat=1.1",
    "zstd": "compression_type=zstd",
    "zlib": "compression_type=zlib",
    **{f"clusters-{size}": f"cluster_size={size}" for size in (
        512, 1 * KiB, 2 * KiB, 4 * KiB, 8 * KiB, 16 * KiB, 32 * KiB,
        128 * KiB, 256 * KiB, 512 * KiB, 1 * MiB, 2 * MiB)},
    "extended-l2": "extended_l2=on",
    "extended-l2-16K": "extended_l2=on,cluster_size=16k",
    "extended-l2-2M": "extended_l2=on,cluster_size=2M",
    **{f"refcounts-{bits}": f"refcount_bits={bits}"
       for bits in (1, 2, 4, 8, 32, 64)},
    "refcounts-64-small": "refcount_bits=64,cluster_size=512",
    "lazy-refcounts": "lazy_refcounts=on",
    **{f"preallocation-{how}": f"preallocation={how},cluster_size=4k"
       for how in ("off", "metadata", "falloc", "full")},
    "extended-l2-preallocated": "extended_l2=on,preallocation=metadata",
    "many": "lazy_refcounts=on,refcount_bits=8,cluster_size=128k,"
            "compression_type=zstd",
}


def samples() -> Iterator[Accepted]:
    for id, options in _OPTIONS.items():
        yield _written(id, functools.partial(
            images.qcow2, _content(), *_flags(options)))
    for id, options in {
            "zlib": "", "zlib-v2": "compat=0.10",
            "zstd": "compression_type=zstd",
            "zstd-2M": "compression_type=zstd,cluster_size=2M",
            "zlib-512": "cluster_size=512",
            "extended-l2": "extended_l2=on"}.items():
        yield _written(f"compressed-{id}", functools.partial(
            images.qcow2, _content(), "-c", *_flags(options)))
    yield Accepted("qcow2-empty", "qcow2", functools.partial(
        images.create, "qcow2"), functools.partial(bytes, MiB))
    for size in (512, 513, 64 * KiB + 512, MiB + 4096):
        yield Accepted(f"qcow2-of-{size}", "qcow2", functools.partial(
            images.qcow2, _content(size)), functools.partial(_content, size))
    yield from _with_a_past()
    yield from by_hand()


def _written(id: str, build: Callable[[], bytes]) -> Accepted:
    return Accepted(f"qcow2-{id}", "qcow2", build, _content)


def _flags(options: str) -> tuple[str, ...]:
    return ("-o", options) if options else ()


# What happened to images before they were uploaded.
_PASTS = {
    "snapshot": ("qemu-img snapshot -c one {}",),
    "snapshots": tuple(f"qemu-img snapshot -c 'number {n}' {{}}"
                       for n in range(5)),
    "snapshot-deleted": ("qemu-img snapshot -c one {}",
                         "qemu-img snapshot -d one {}"),
    "bitmap": ("qemu-img bitmap -f qcow2 --add {} b0",),
    "bitmaps": ("qemu-img bitmap -f qcow2 --add {} b0",
                "qemu-img bitmap -f qcow2 --add --disable {} b1"),
    "amended-to-v2": ("qemu-img amend -f qcow2 -o compat=0.10 {}",),
    "amended-refcounts": ("qemu-img amend -f qcow2 -o refcount_bits=64 {}",),
    # Its L1 table keeps the entries it no longer needs.
    "grown-and-shrunk": ("qemu-img resize -q -f qcow2 {} 100M",
                         "qemu-img resize -q -f qcow2 --shrink {} 1M"),
    "rebased": ("qemu-img create -q -f qcow2 -b {} -F qcow2 {}.over",
                "qemu-img rebase -f qcow2 -b '' {}.over", "mv {}.over {}"),
    "checked": ("qemu-img check -q -f qcow2 -r all {}",),
}
_REWRITTEN = "qemu-io -f qcow2 -d unmap -c 'discard 0 64k' -c 'write -P 1 0" \
    " 4k' -c flush"
_CRASHED = ("qemu-img amend -f qcow2 -o lazy_refcounts=on {}",
            f"{_REWRITTEN} -c 'sigraise 9' {{}}")


def _with_a_past() -> Iterator[Accepted]:
    for id, commands in _PASTS.items():
        yield _written(id, functools.partial(_after, *commands))
    for id, commands in (("rewritten", (f"{_REWRITTEN} {{}}",)),
                         ("crashed", _CRASHED)):
        yield Accepted(f"qcow2-{id}", "qcow2",
                       functools.partial(_after, *commands), _rewritten)


def _rewritten() -> bytes:
    return b"\1" * 4096 + bytes(60 * KiB) + _content()[64 * KiB:]


@functools.cache
def _after(*commands: str) -> bytes:
    """Return what an image becomes by commands."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "image"
        # With larger clusters, amending one takes a second.
        path.write_bytes(images.qcow2(_content(), "-o", "cluster_size=4k"))
        for command in commands:
            # The command that kills itself is expected to fail.
            subprocess.run(  # noqa: S603
                shlex.split(command.replace("{}", str(path))),
                check="sigraise" not in command,
                stdout=subprocess.DEVNULL)
        return path.read_bytes()


def by_hand() -> Iterator[Accepted]:
    """Yield images as older or other programs than qemu-img write them."""
    unknown = layout.extension(0x7777, b"unknown")
    names = layout.extension(layout.FEATURE_NAMES, bytes(48))
    for id, image in {
            "sound": layout.image(),
            "sound-v2": layout.image(version=2),
            "extensions": layout.image(unknown, names, unknown),
            # As qemu before 5.1 wrote it, without a compression type.
            "header-104": layout.header(header_length=104)[:104].ljust(
                layout.CLUSTER, b"\0") + layout.image()[layout.CLUSTER:],
            "dirty": layout.image(incompatible=layout.DIRTY, compatible=1),
            "l1-longer": layout.image(l1_size=layout.CLUSTER // 8),
            "more-at-end": layout.image(tail=bytes(100)),
            }.items():
        yield Accepted(f"qcow2-by-hand-{id}", "qcow2",
                       functools.partial(bytes, image), layout.content)
