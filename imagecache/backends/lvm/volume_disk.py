# SPDX-License-Identifier: Apache-2.0
"""VolumeDisk: a disk that is a logical volume, once it is there."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import ClassVar

from imagecache import exception
from imagecache.backends.base import Disk
from imagecache.backends.lvm import removal, volumes
from imagecache.backends.lvm.volumes import (
    ThinPool,
    attempted,
    attempts_at,
    is_abandoned,
    require_free,
)
from imagecache.events import Name
from imagecache.host import Host, require_plain
from imagecache.model import Format
from imagecache.sources.resolve import is_uuid
from imagecache.tools import blockdev, lvm
from imagecache.tools.lvm import Volume, VolumeGroup, named

DISK_TAG = "imagecache.disk"         # the tag of a volume that is a disk
LUKS_TAG = "imagecache.luks"    # and of one that is LUKS
# <instance>_<disk>, where the disk's own underscores are doubled.
_NAME = re.compile(r"(?P<instance>.*[^_])_(?P<disk>(?:[^_]|__)+)")


class VolumeDisk(Disk):
    """A raw volume, with nova's name for it."""

    formats = (Format.RAW,)
    tags: ClassVar[tuple[str, ...]] = (DISK_TAG,)    # of its volume

    @classmethod
    def listed(cls, host: Host, instance: str | None = None
               ) -> Iterator[Disk]:
        """Yield what was made here, and what has a name as nova's have."""
        group = volumes.group_of(host.policy)
        for volume in sorted(group.volumes("segtype!=thin-pool"),
                             key=lambda each: each.name):
            match = _NAME.fullmatch(volume.name)
            if match is None or attempted(volume.name):
                continue
            if (DISK_TAG in volume.tags or is_uuid(match["instance"])) \
                    and instance in (None, match["instance"]):
                yield cls(host, match["instance"],
                          match["disk"].replace("__", "_"))

    @property
    def path(self) -> pathlib.Path:
        return self.volume

    @property
    def volume(self) -> pathlib.Path:
        """Where the volume is."""
        if self._path is not None:
            return volumes.place(self._path)
        group = volumes.group_of(self.host.policy)
        self.host.instance_directory(self.instance)   # if it can be one
        name = require_plain(self.name, "a disk").replace("_", "__")
        return group.device(lvm.require_name(
            f"{self.instance}_{name}", group.name))

    @property
    def format(self) -> Format:
        return Format.RAW

    def is_encrypted(self) -> bool:
        volume = self._volume()
        return volume is not None and LUKS_TAG in volume.tags

    def exists(self) -> bool:
        # An inactive volume has no device; create() brings it back.
        return self.volume.is_block_device()

    def has_volume(self) -> bool:
        """Say whether there is a volume, with a device or without one."""
        return self._volume() is not None

    def size(self) -> int:
        try:
            return blockdev.size(self.volume)
        except OSError:
            return self._require().size

    def allocated(self) -> int:
        volume = self._require()
        return volume.size if volume.allocated is None else volume.allocated

    def grow(self, size: int) -> None:
        volume = self._require()
        if size <= volume.size:
            return
        self._extend(volume, size)
        with self._group.chowned(volume.name) as path:
            self._grow_filesystem(path)
        self._observe(Name.GROWN, size=size)

    def _extend(self, volume: Volume, size: int) -> None:
        """:raises NoSpace: and nothing has changed"""
        group, pool = self._group, self._pool
        if volume.pool is None:
            require_free(group, size - volume.size, "a larger disk")
        elif pool and pool.name == volume.pool:
            pool.require(0, "a larger disk")
        group.extend(volume.name, size)

    def extract(self, output: pathlib.Path, output_format: str) -> None:
        """Copy the disk's content into a new file; see FileDisk."""
        with self._group.chowned(self._require().name):
            self._extract(output, output_format)

    def remove(self) -> None:
        """Delete the disk; its content is wiped as the policy has it."""
        volume = self._find(self._group.volumes(*self._names))
        if volume:
            removal.discard(self._group, volume,
                                   self.host.policy.lvm)
            self._observe(Name.REMOVED)

    @property
    def _group(self) -> VolumeGroup:
        return VolumeGroup(self.volume.parent.name,
                           self.host.policy.root_helper)

    @property
    def _pool(self) -> ThinPool | None:
        return volumes.pool_of(self.host.policy, self.host.observe)

    def _volume(self) -> Volume | None:
        return self._group.volume(self.volume.name)

    def _require(self) -> Volume:
        """Return the volume, which then has a device.

        :raises DiskNotFound: there is none
        """
        volume = self._volume()
        if volume is None:
            raise exception.DiskNotFound(location=self.volume)
        self._require_kind(volume)
        if not volume.active:
            self._group.activate(volume.name)
        return volume

    def _require_kind(self, volume: Volume) -> None:
        """:raises InvalidDiskFormat: it is encrypted, or is to be"""
        if (LUKS_TAG in volume.tags) != self.encrypts:
            raise exception.InvalidDiskFormat(
                f"{self.volume} is{' not' if self.encrypts else ''} on record"
                " as encrypted", disk_format=self.format)

    def _sweep(self, attempts: list[Volume]) -> None:
        removal.sweep(self._group, attempts, self.host.policy.lvm)

    @property
    def _names(self) -> tuple[str, str]:
        """The selections of the disk, and of attempts at it."""
        return named(self.volume.name), attempts_at(self.volume.name)

    def _find(self, found: list[Volume]) -> Volume | None:
        """Finish what killed processes have begun: to make, or to remove."""
        # A program may have outlived the process, and write to it still.
        self._sweep([each for each in found if is_abandoned(each.name)
                     and not each.open])
        return next((each for each in found
                     if each.name == self.volume.name), None)
