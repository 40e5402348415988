# SPDX-License-Identifier: Apache-2.0
"""VolumeDisk: all that a disk in a logical volume does once it exists."""

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
    """A raw volume, with the name that nova gives it."""

    formats = (Format.RAW,)
    tags: ClassVar[tuple[str, ...]] = (DISK_TAG,)    # of its volume

    @classmethod
    def listed(cls, host: Host, instance: str | None = None
               ) -> Iterator[Disk]:
        """Yield this library's disks, and volumes with names like nova's."""
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
        """The device of the volume."""
        if self._path is not None:
            return volumes.place(self._path)
        group = volumes.group_of(self.host.policy)
        self.host.instance_directory(self.instance)   # raises InvalidName
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
        """Return whether the volume exists, with a device or without one."""
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
        # The file system grows, too, which a guest must not have mounted.
        removal.require_closed(self._group, volume, "growing a disk")
        self._extend(volume, size)
        with self._group.chowned(volume.name) as path:
            self._grow_filesystem(path)
        self._observe(Name.GROWN, size=size)

    def _extend(self, volume: Volume, size: int) -> None:
        """:raises NoSpace: nothing has changed"""
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
        """Return the volume; activate it if it has no device.

        :raises DiskNotFound: it does not exist
        """
        volume = self._volume()
        if volume is None:
            raise exception.DiskNotFound(location=self.volume)
        self._require_kind(volume)
        if not volume.active:
            self._group.activate(volume.name)
        return volume

    def _require_kind(self, volume: Volume) -> None:
        """Refuse a volume of the wrong kind.

        :raises InvalidDiskFormat: it is encrypted and should not be, or
            the reverse
        """
        if (LUKS_TAG in volume.tags) != self.encrypts:
            raise exception.InvalidDiskFormat(
                f"{self.volume} is{' not' if self.encrypts else ''} on record"
                " as encrypted", disk_format=self.format)

    def _sweep(self, attempts: list[Volume]) -> None:
        removal.sweep(self._group, attempts, self.host.policy.lvm)

    @property
    def _names(self) -> tuple[str, str]:
        """LVM's selections of the disk, and of the attempts at it."""
        return named(self.volume.name), attempts_at(self.volume.name)

    def _find(self, found: list[Volume]) -> Volume | None:
        """Return the disk's volume; remove what killed processes left."""
        # An open attempt may still be written to by a program that outlived
        # its process.
        self._sweep([each for each in found if is_abandoned(each.name)
                     and not each.open])
        return next((each for each in found
                     if each.name == self.volume.name), None)
