# SPDX-License-Identifier: Apache-2.0
"""Make a disk from a source: the whole story, in order, on one page."""

from __future__ import annotations

import contextlib
from typing import ClassVar, Protocol

from imagecache import exception, sources
from imagecache.bases.cache import BaseCache
from imagecache.model import Base, Capabilities, Format


class Disk(Protocol):
    """What provisioning asks of a disk; see backends.base for the manual."""

    capabilities: ClassVar[Capabilities]

    @property
    def cache(self) -> BaseCache: ...
    def exists(self) -> bool: ...
    def base_key(self) -> str | None: ...
    def base_format(self) -> Format | None: ...
    def lease(self, source: sources.Source, size: int | None
              ) -> contextlib.AbstractContextManager[Base]: ...
    def session(self) -> contextlib.AbstractContextManager[object]: ...
    def clone(self, source: sources.Source, size: int | None) -> bool: ...
    def create(self, base: Base, size: int | None) -> None: ...
    def generate(self, template: sources.Template,
                 size: int | None) -> None: ...
    def open(self) -> None: ...
    def size(self) -> int: ...
    def grow(self, size: int) -> None: ...
    def remove(self) -> None: ...


def provision(disk: Disk, source: sources.Source,
              size: int | None = None) -> None:
    """Make ``disk`` exist with the content of ``source``.

    A disk that exists keeps its content; it grows if it must, and gets its
    base back if that was lost.

    :param size: bytes the guest must see; None or 0 keeps the image's size
    :raises ImageError, SourceError, HostError: no half-made disk is left
    """
    with disk.session():
        _provision(disk, source, size)


def _provision(disk: Disk, source: sources.Source,
               size: int | None) -> None:
    if disk.exists():
        _restore_base(disk, source)
        disk.open()
        if size:
            disk.grow(size)
    elif isinstance(source, sources.Template) \
            and disk.capabilities.generates_in_place:
        disk.generate(source, size)
    elif not disk.clone(source, size):
        _make(disk, source, size)


def _make(disk: Disk, source: sources.Source, size: int | None) -> None:
    for attempts_left in (2, 1, 0):
        try:
            with disk.lease(source, size) as base:
                if not disk.exists():   # while we waited, another made it
                    disk.create(base, size)
            return
        except exception.BaseNotFound:
            # In a store that hosts share, another has just removed it.
            if not attempts_left:
                raise
        except exception.ImageNotFound:
            # A driver's function may have cloned the disk, and written none.
            if not disk.exists():
                raise
            _fit(disk, size)
            return


def _fit(disk: Disk, size: int | None) -> None:
    """Bring a disk that somebody else has just made to its size."""
    if size and size < disk.size():
        found = disk.size()
        disk.remove()
        raise exception.FlavorDiskSmallerThanImage(
            flavor_size=size, image_size=found)
    if size:
        disk.grow(size)


def _restore_base(disk: Disk, source: sources.Source) -> None:
    """Fetch the base again that a disk cannot be read without."""
    key = disk.base_key()
    base = sources.behind(key, source) if key else None
    if base:
        disk.cache.restore(base, disk.base_format())
