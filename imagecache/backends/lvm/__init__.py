# SPDX-License-Identifier: Apache-2.0
"""Lvm: a logical volume, thick or thin."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

from imagecache import exception, sources
from imagecache.backends.lvm import volumes
from imagecache.backends.lvm.thin_store import store_of
from imagecache.backends.lvm.volume_disk import VolumeDisk
from imagecache.backends.lvm.volumes import (
    ThinPool,
    attempt_at,
    own_pool,
    require_free,
)
from imagecache.bases import convert, pipeline
from imagecache.bases.cache import BaseCache
from imagecache.events import Name
from imagecache.host import Host
from imagecache.model import Base, Capabilities, MiB, Validated
from imagecache.system import durable
from imagecache.tools import blockdev
from imagecache.tools.lvm import Pool, Volume, named

# The space in a sparse volume's pool beyond that of the image, as in nova, and
# the space that LVM takes for the pool's metadata, twice.
_SPARE = 64 * MiB
_METADATA = 16 * MiB
# At most this fraction of an empty file system holds data: a journal, and
# tables of inodes, which ext3 has from the start.
_RECORDS = 32


class Lvm(VolumeDisk):
    """A raw volume, made from a base.

    With a thin pool it is a snapshot of the base in that pool.  Without one,
    the base is a file, and is copied into a volume that has all its space at
    once (thick), or that has a thin pool of its own (sparse).
    """

    capabilities = Capabilities(generates_in_place=True, block_device=True)

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        store = store_of(host.policy, host.observe)
        return host.cache_over(store) if store else host.directory_cache

    def create(self, base: Base, size: int | None) -> None:
        full = max(size or 0, base.virtual_size)
        if self._pool and full == base.virtual_size:
            self._make_at_once(base, self._pool)
        else:
            found, state = self._survey()
            if found:
                self._bring_back(found, full)
            else:
                self._make(base, full, state)

    def _make_at_once(self, base: Base, pool: ThinPool) -> None:
        """Make the disk by one command of LVM, which is atomic."""
        if not pool.had_room():
            pool.require(0, "a disk")
        try:
            self._snapshot(self.volume.name, base)
        except exception.CommandFailed:
            found = self._volume()
            if found is None:
                raise
            self._bring_back(found, 0)
            return
        self._observe(Name.CREATED)

    def _snapshot(self, name: str, base: Base) -> None:
        """Make a snapshot of a base that another program may have removed.

        :raises BaseNotFound: the base is gone
        """
        try:
            self._group.snapshot(name, base.path.name, self.tags)
        except exception.CommandFailed:
            self.cache.store.require(base.key)
            raise

    def _make(self, base: Base, full: int, state: Pool | None) -> None:
        with self._new(full, state, base) as volume:
            if self._pool is None:
                self._fill(base.content, volume, base.key)
            if full > base.virtual_size:
                self._grow_filesystem(volume)

    def generate(self, template: sources.Template,
                 size: int | None) -> None:
        found, state = self._survey()
        if found:
            self._bring_back(found, size or 0)
        elif template.on_device and size:
            data = 0 if template.zeros else size // _RECORDS
            with self._new(size, state, data=data) as volume:
                self._generate(template, volume)
        else:
            self._generate_from_file(template, size or 0, state)

    def _generate_from_file(self, template: sources.Template, size: int,
                            state: Pool | None) -> None:
        directory = self.host.policy.bases
        durable.make_directory(directory)
        with durable.staged(directory, self.volume.name) as written:
            content = pipeline.generate(template, written, self.host.policy)
            full = max(size, content.virtual_size)
            data = convert.data_size(content, template.name,
                                      self.host.policy)
            with self._new(full, state, data=data) as volume:
                self._fill(content, volume, template.name)
                if full > content.virtual_size:
                    self._grow_filesystem(volume)

    @property
    def _reads_zeros(self) -> bool:
        """Whether a new volume reads as zeros."""
        return self._pool is not None or self.host.policy.lvm.sparse

    @contextlib.contextmanager
    def _new(self, size: int, state: Pool | None,
             base: Base | None = None,
             data: int = 0) -> Iterator[pathlib.Path]:
        """Yield a volume of ``size``; it is the disk when the block ends.

        Until then it has the name of an attempt, so that an error removes
        only what was made here.

        :param state: the thin pool, if it was looked at
        :param data: bytes that the block will write, beside the base's
        :raises DiskExists: another process has made the disk meanwhile
        """
        attempt = attempt_at(self.volume.name)
        try:
            self._allocate(attempt, size, state, base, data)
            with self._group.chowned(attempt) as path:
                yield path
            with self._first():
                self._group.rename(attempt, self.volume.name)
        except BaseException:
            self._abandon(attempt)
            raise
        self._observe(Name.CREATED)

    def _allocate(self, name: str, size: int, state: Pool | None,
                  base: Base | None, data: int) -> None:
        group, pool = self._group, self._pool
        if pool and state:
            pool.require(data, "a disk", state)
        if pool is None and not self._reads_zeros:
            require_free(group, size, "a disk")
            group.create(name, size, self.tags)
        elif pool is None:
            room = _SPARE + data
            if base:
                room += convert.data_size(base.content, base.key,
                                           self.host.policy)
            require_free(group, room + _METADATA, "a disk")
            group.create_pool(own_pool(name), room)
            group.create_thin(name, size, own_pool(name), self.tags)
        elif base is None:
            group.create_thin(name, size, pool.name, self.tags)
        else:
            self._snapshot(name, base)
            if size > blockdev.size(group.device(name)):
                group.extend(name, size)

    @contextlib.contextmanager
    def _first(self) -> Iterator[None]:
        """:raises DiskExists: the block failed because the disk exists"""
        try:
            yield
        except exception.CommandFailed:
            if self._volume():
                raise exception.DiskExists(location=self.volume) from None
            raise

    def _fill(self, content: Validated, volume: pathlib.Path,
              name: str) -> None:
        convert.to_raw(
            content, volumes.flushed(volume), self.host.policy, name,
            self.host.observe, into_zeros=self._reads_zeros)

    def _generate(self, template: sources.Template,
                  volume: pathlib.Path) -> None:
        with volumes.flushed(volume):
            if template.zeros and not self._reads_zeros:
                blockdev.zero(volume, blockdev.size(volume))
            template.write(volume)

    def _abandon(self, attempt: str) -> None:
        self._sweep(self._group.volumes(named(attempt),
                                        named(own_pool(attempt))))

    def _survey(self) -> tuple[Volume | None, Pool | None]:
        """Return the disk's volume and its pool; None: it does not exist."""
        if self._pool is None:
            return self._find(self._group.volumes(*self._names)), None
        pool, found = self._group.pool_and_volumes(self._pool.name,
                                                   *self._names)
        return self._find(found), pool

    def _bring_back(self, volume: Volume, size: int) -> None:
        """Activate a disk that lost its device in a reboot.

        :raises DiskExists: it has a device
        """
        self._require_kind(volume)
        if volume.active:
            raise exception.DiskExists(location=self.volume)
        self._group.activate(volume.name)
        if size:
            self.grow(size)
