# SPDX-License-Identifier: Apache-2.0
"""Lvm: a logical volume, thick or thin."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import time
from collections.abc import Iterator
from typing import ClassVar

from imagecache import (
    durable,
    exception,
    pipeline,
    proof,
    sources,
    volumes,
)
from imagecache.backends.base import Disk
from imagecache.base_cache import BaseCache
from imagecache.directory_store import DirectoryStore
from imagecache.host import Host, require_plain
from imagecache.model import Base, Capabilities, Format, MiB, Proven
from imagecache.sources.resolve import is_uuid
from imagecache.thin_store import ThinStore
from imagecache.tools import device, lvm, qemu_img
from imagecache.tools.lvm import Volume, VolumeGroup, named
from imagecache.volumes import (
    ThinPool,
    attempt_at,
    attempted,
    attempts_at,
    is_abandoned,
    own_pool,
    require_free,
)

_TAG = "imagecache.disk"
ENCRYPTED = "imagecache.luks"    # what is in it is LUKS
# What a sparse volume's pool has beyond what the image takes, as nova has
# it, and what LVM takes for the pool's metadata, twice.
_SPARE = 64 * MiB
_METADATA = 16 * MiB
# Seconds for udev to look at a volume and to close it.
_PATIENCE = 5
# <instance>_<disk>, where the disk's own underscores are doubled.
_NAME = re.compile(r"(?P<instance>.*[^_])_(?P<disk>(?:[^_]|__)+)")


class Lvm(Disk):
    """A raw volume, with nova's name for it.

    Thin, if there is a pool for that: a snapshot of the base in it.  Else the
    base is in the directory, and is copied into a volume that has all its
    space at once (thick), or has a thin pool to itself (sparse).
    """

    capabilities = Capabilities(generates_in_place=True, block_device=True)
    formats = (Format.RAW,)
    tags: ClassVar[tuple[str, ...]] = (_TAG,)    # of its volume

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        pool = volumes.pool_of(host.policy, host.observe)
        if pool is None:
            return host.directory_cache
        return host.cache_over(ThinStore(pool, DirectoryStore(
            host.policy.bases, host.policy.instances)))

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
            if (_TAG in volume.tags or is_uuid(match["instance"])) \
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
        return volume is not None and ENCRYPTED in volume.tags

    def exists(self) -> bool:
        # An inactive volume has no device.
        return self.volume.is_block_device() or self._volume() is not None

    def size(self) -> int:
        try:
            return device.size(self.volume)
        except OSError:
            return self._require().size

    def allocated(self) -> int:
        volume = self._require()
        return volume.size if volume.allocated is None else volume.allocated

    def create(self, base: Base, size: int | None) -> None:
        full = max(size or 0, base.virtual_size)
        with self._new(full, base) as volume:
            if self._pool is None:
                self._fill(Proven(base.path, base.format, base.virtual_size),
                           volume, base.key)
            if full > base.virtual_size:
                self._grow_filesystem(volume)

    def generate(self, template: sources.Template,
                 size: int | None) -> None:
        if template.on_device and size:
            with self._new(size) as volume:
                self._generate(template, volume)
            return
        directory = self.host.policy.bases
        durable.make_directory(directory)
        with durable.staged(directory, self.volume.name) as written:
            pipeline.write(template, written)
            proven = proof.trust(written) if template.trusted \
                else proof.prove(written, template.name, None,
                                 self.host.policy)
            full = max(size or 0, proven.virtual_size)
            with self._new(full) as volume:
                self._fill(proven, volume, template.name)
                if full > proven.virtual_size:
                    self._grow_filesystem(volume)

    def grow(self, size: int) -> None:
        volume = self._require()
        if size <= volume.size:
            return
        self._extend(volume, size)
        with self._group.lent(volume.name) as path:
            self._grow_filesystem(path)
        self._observe("grown", size=size)

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
        with self._group.lent(self._require().name):
            self._extract(output, output_format)

    def remove(self) -> None:
        """Delete the disk; its content is wiped as the policy has it."""
        volume = self._volume()
        if volume:
            self._require_closed(volume)
            self._discard(volume)
            self._observe("removed")
        self._clear()

    @property
    def _group(self) -> VolumeGroup:
        return VolumeGroup(self.volume.parent.name,
                           self.host.policy.root_helper)

    @property
    def _pool(self) -> ThinPool | None:
        return volumes.pool_of(self.host.policy, self.host.observe)

    @property
    def _reads_zeros(self) -> bool:
        """Whether a new volume holds nothing of any other."""
        return self._pool is not None or self.host.policy.lvm.sparse

    def _volume(self) -> Volume | None:
        return self._group.volume(self.volume.name)

    def _require(self) -> Volume:
        """Return the volume, which then has a device.

        :raises DiskNotFound: there is none
        """
        volume = self._volume()
        if volume is None:
            raise exception.DiskNotFound(location=self.volume)
        if (ENCRYPTED in volume.tags) != self.encrypts:
            raise exception.InvalidDiskFormat(
                f"{self.volume} is{' not' if self.encrypts else ''} on record"
                " as encrypted", disk_format=self.format)
        if not volume.active:
            self._group.activate(volume.name)
        return volume

    @contextlib.contextmanager
    def _new(self, size: int, base: Base | None = None, data: int = 0
             ) -> Iterator[pathlib.Path]:
        """Yield a volume of ``size``; it is the disk when the block ends.

        Until then it has a name of its own, so that whatever goes wrong,
        nothing is removed but what was made here.

        :param data: bytes that the block will write, beside the base's
        :raises DiskExists: another made the disk meanwhile
        """
        self._clear()
        attempt = attempt_at(self.volume.name)
        try:
            self._make(attempt, size, base, data)
            with self._group.lent(attempt) as path:
                yield path
            self._commit(attempt)
        except BaseException:
            self._abandon(attempt)
            raise
        self._observe("created")

    def _make(self, name: str, size: int, base: Base | None,
              data: int) -> None:
        group, pool = self._group, self._pool
        if pool is None and not self._reads_zeros:
            require_free(group, size, "a disk")
            group.create(name, size, self.tags)
        elif pool is None:
            room = _SPARE + data + (self._data(base) if base else 0)
            require_free(group, room + _METADATA, "a disk")
            group.create_pool(own_pool(name), room)
            group.create_thin(name, size, own_pool(name), self.tags)
        elif base is None:
            pool.require(data, "a disk")
            group.create_thin(name, size, pool.name, self.tags)
        else:
            pool.require(0, "a disk")
            group.snapshot(name, base.path.name, self.tags)
            if size > device.size(group.device(name)):
                group.extend(name, size)

    def _commit(self, attempt: str) -> None:
        try:
            self._group.rename(attempt, self.volume.name)
        except exception.CommandFailed:
            if self._volume():
                raise exception.DiskExists(location=self.volume) from None
            raise

    def _data(self, base: Base) -> int:
        """Return about how many bytes of a base are not holes."""
        if base.format is Format.RAW:
            return base.path.stat().st_blocks * 512
        return qemu_img.required(base.path, base.format, Format.QCOW2,
                                 limits=self.host.policy.inspection)

    def _fill(self, proven: Proven, volume: pathlib.Path, name: str) -> None:
        pipeline.convert_to_raw(
            proven, volumes.flushed(volume), self.host.policy, name,
            self.host.observe, into_zeros=self._reads_zeros)

    def _generate(self, template: sources.Template,
                  volume: pathlib.Path) -> None:
        with volumes.flushed(volume):
            if template.zeros and not self._reads_zeros:
                device.zero(volume, device.size(volume))
            template.write(volume)

    def _abandon(self, attempt: str) -> None:
        self._sweep(self._group.volumes(named(attempt),
                                        named(own_pool(attempt))))

    def _clear(self) -> None:
        """Finish what killed processes have begun: to make, or to remove."""
        self._sweep([left for left
                     in self._group.volumes(attempts_at(self.volume.name))
                     if is_abandoned(left.name)])

    def _sweep(self, found: list[Volume]) -> None:
        for left in found:
            if left.volumes is None:
                self._destroy(left)
            elif left.volumes == 0:
                self._group.remove(left.name)

    def _discard(self, volume: Volume) -> None:
        """Remove the disk, so that no one ever sees one that is half wiped."""
        if volume.pool:
            self._destroy(volume)
            return
        gone = attempt_at(volume.name)
        self._group.rename(volume.name, gone)
        try:
            self._destroy(dataclasses.replace(volume, name=gone))
        except BaseException:
            self._group.rename(gone, volume.name)
            raise

    def _destroy(self, volume: Volume) -> None:
        """Remove a volume, and the thin pool it has to itself."""
        if volume.pool is None:
            volumes.wipe(self._group, volume, self.host.policy.lvm)
        elif attempted(volume.pool) == self.volume.name:
            self._group.remove(volume.pool)    # with what is in it
            return
        self._group.remove(volume.name)

    def _require_closed(self, volume: Volume | None) -> None:
        """Refuse to wipe what a guest may be running on.

        :raises StorageFailed: somebody has it open
        """
        give_up = time.monotonic() + _PATIENCE
        while volume and volume.open:
            if time.monotonic() > give_up:
                raise exception.StorageFailed(
                    what="removing a disk", path=self.volume,
                    reason="somebody has it open; is its guest running?")
            time.sleep(0.2)
            volume = self._volume()

