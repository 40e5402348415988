# SPDX-License-Identifier: Apache-2.0
"""Make a disk from a source: the whole story, in order, on one page."""

from __future__ import annotations

from imagecache import exception, sources
from imagecache.backends.base import Disk


def provision(disk: Disk, source: sources.Source, size: int | None = None,
              *, exists: bool | None = None) -> None:
    """Make ``disk`` exist with the content of ``source``.

    A disk that exists keeps its content; it grows if ``size`` is larger,
    and its base is fetched again if it is missing.

    :param size: bytes the guest must see; None or 0 keeps the image's size
    :param exists: whether the disk exists; None: ask its storage, once
    :raises ImageError, SourceError, HostError: no half-made disk is left
    """
    with disk.session():
        if exists is None:
            exists = disk.exists()
        _provision(disk, source, size, exists)


def _provision(disk: Disk, source: sources.Source, size: int | None,
               exists: bool) -> None:
    if exists:
        _use(disk, source, size)
    elif isinstance(source, sources.Template) \
            and disk.capabilities.generates_in_place:
        disk.generate(source, size)
    elif not _clone(disk, source, size):
        _make(disk, source, size)


def _use(disk: Disk, source: sources.Source, size: int | None) -> None:
    _restore_base(disk, source)
    disk.open()
    if size:
        disk.grow(size)


def _clone(disk: Disk, source: sources.Source, size: int | None) -> bool:
    try:
        return disk.clone(source, size)
    except exception.DiskExists:
        # Another process made the disk in the meantime.
        if not disk.exists():
            raise
        _use(disk, source, size)
        return True


def _make(disk: Disk, source: sources.Source, size: int | None) -> None:
    for attempts_left in (2, 1, 0):
        try:
            with disk.lease(source, size) as base:
                disk.create(base, size)
            return
        except exception.BaseNotFound:
            # Another host that shares the store has just removed the base.
            if not attempts_left:
                raise
        except exception.DiskExists:
            # Another process made the disk during the wait for the lease.
            if not disk.exists():
                raise
            _use(disk, source, size)
            return


def _restore_base(disk: Disk, source: sources.Source) -> None:
    """Fetch the base again through which an existing disk is read."""
    key = disk.base_key()
    base = sources.behind(key, source) if key else None
    if base:
        disk.cache.restore(base, disk.base_format())
