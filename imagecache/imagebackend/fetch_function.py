# SPDX-License-Identifier: Apache-2.0
"""What a nova driver means by the function that it passes to cache()."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable
from typing import Any

from imagecache import exception, sources
from imagecache.backends.base import Disk
from imagecache.host import require_plain
from imagecache.provision import provision

# Arguments of the functions with which nova's drivers make swap space and
# file systems.  These functions can also write to a block device.
_ON_DEVICE = {"ephemeral_size", "swap_mb"}


def source_of(fetch_func: Callable[..., object], filename: str,
              safe: bool, *args: Any, **kwargs: Any
              ) -> sources.DelegatedImage | sources.Template:
    """Return the source that a driver's call describes.

    A driver passes ``image_id`` for an image, and does not pass it for a
    template.  There is one exception: to copy a base from another host, a
    driver passes only the name of the base, and the function writes to the
    base's own path, which is the same on both hosts.

    :param safe: the driver vouches for what the function writes
    :raises InvalidName: no base can have this name
    """
    require_plain(filename, "a base")

    def write(path: pathlib.Path) -> None:
        fetch_func(*args, target=str(path), **kwargs)

    if "image_id" in kwargs:
        return sources.DelegatedImage(filename, write)
    if re.fullmatch(r"[0-9a-f]{40}", filename):
        return sources.DelegatedImage(filename, write, in_place=True)
    return sources.Template(filename, write, trusted=safe,
                            on_device=not _ON_DEVICE.isdisjoint(kwargs))


def provision_or_adopt(disk: Disk, source: sources.Source,
                       size: int | None) -> None:
    """Make a disk; accept one that the driver's function made itself.

    A driver's function may clone the disk from its image, and then writes
    no file.

    :raises NothingWritten: it wrote no file, and there is no disk either
    :raises FlavorDiskSmallerThanImage: the clone is larger than ``size``;
        it is removed
    """
    with disk.session():
        try:
            provision(disk, source, size)
        except exception.NothingWritten:
            if not disk.exists():
                raise
            _resize_clone(disk, size)


def _resize_clone(disk: Disk, size: int | None) -> None:
    if not size:
        return
    cloned = disk.size()
    if size < cloned:
        disk.remove()
        raise exception.FlavorDiskSmallerThanImage(
            flavor_size=size, image_size=cloned)
    disk.grow(size)
