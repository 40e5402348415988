# SPDX-License-Identifier: Apache-2.0
"""Bases in a pool of Ceph: made by one host, cloned by all.

    <pool>/imagecache_base_<key>          a raw volume, with its record as
                                          metadata ``imagecache.record``
    <pool>/imagecache_base_<key>@base     protected: it is committed

No base is visible before its snapshot is protected, which is the last step.
The host that makes a base holds the exclusive lock of its volume, which is a
lock of Ceph's.  If that host dies, the cluster notices, breaks the lock and
fences the host off; the next host empties the volume and makes the base in
it.

A host that only clones takes no lock in the cluster.  If another host removes
the base at that moment, the base is fetched again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import pathlib
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from imagecache import events, exception
from imagecache.backends.rbd import base_volume, waiting
from imagecache.backends.rbd.cluster import (
    BASE_SNAPSHOT,
    RbdName,
    connected,
    separately_connected,
)
from imagecache.bases import record_json
from imagecache.bases.directory import DirectoryStore
from imagecache.events import Event, Name
from imagecache.model import (
    Base,
    Entry,
    Format,
    NbdExport,
    Record,
    Validated,
    whole_sectors,
)
from imagecache.policy import RbdPolicy
from imagecache.tools import nbd_server, rbd
from imagecache.tools.rbd_image import Volume

_RECORD = "imagecache.record"
_ALLOCATED = "imagecache.allocated"
_USED = "imagecache.used."       # of the pool: a base itself never changes


@dataclasses.dataclass(frozen=True)
class StagedBase:
    """A volume that only this host may write, and that is no base yet."""

    key: str
    name: RbdName
    download: pathlib.Path
    cluster: rbd.Cluster
    volume: Volume
    locked: bool          # by this host; False: another host committed it
    keeps_files: ClassVar[bool] = False

    @property
    def output(self) -> pathlib.Path:
        return self.name.path

    @contextlib.contextmanager
    def writing(self, size: int, needed: int) -> Iterator[NbdExport]:
        if not self.locked:     # and a third host has removed it since
            raise exception.BaseNotFound(
                key=self.key, store=f"rbd:{self.name.pool}")
        space = self.cluster.space(self.name.pool)
        if space is not None and needed > space:
            raise exception.NoSpace(
                path=self.output, what="converting an image", needed=needed,
                available=space)
        size = whole_sectors(size)
        self.volume.resize(size)
        with nbd_server.serving(self.volume, size) as client:
            yield NbdExport(client)

    def head(self, size: int) -> bytes:
        return self.volume.read(0, min(size, self.volume.size()))

    def commit(self, validated: Validated, record: Record) -> Base:
        volume = self.volume
        volume.set_metadata(_ALLOCATED, str(volume.allocated()))
        volume.set_metadata(_RECORD, record_json.dumps(record))
        volume.create_snapshot(BASE_SNAPSHOT)
        volume.protect(BASE_SNAPSHOT)      # the commit
        return Base.of(self.key, self.output, record)


@dataclasses.dataclass(frozen=True)
class RbdStore:
    policy: RbdPolicy
    files: DirectoryStore     # where downloads are staged
    observe: events.Observer = events.silent

    def __str__(self) -> str:
        return f"rbd:{self.policy.base_pool}"

    def name_of(self, key: str) -> RbdName:
        """Return the volume of a base."""
        return RbdName.of_base(self.policy.base_pool, key)

    def lookup(self, key: str) -> Entry | None:
        with self._pool() as (_, pool):
            return self._entry(pool, key)

    @contextlib.contextmanager
    def stage(self, key: str, *, in_place: bool = False
              ) -> Iterator[StagedBase]:
        # A base in the directory must not be written over by this store.
        in_place = in_place and self.files.lookup(key) is None
        # If this host is paused, Ceph fences off the client that has the lock;
        # lookup() must still work.
        with self.files.stage(key, in_place=in_place) as files, \
                separately_connected(self.policy) as cluster, \
                cluster.pool(self.policy.base_pool) as pool, \
                self._alone(pool, key) as (volume, locked):
            yield StagedBase(key, self.name_of(key), files.download, cluster,
                             volume, locked)

    def attempts(self) -> Iterable[str]:
        return self.files.attempts()

    def clear(self, key: str) -> None:
        """Remove what this host left of a base that no host has committed."""
        # The files last: they name the key as long as the volume is left.
        name = self.name_of(key).image
        with contextlib.suppress(exception.StorageMissing), \
                self._pool() as (_, pool):
            with pool.open(name, read_only=True) as volume:
                in_use = volume.is_open_for_writing()
            if not in_use and self._entry(pool, key) is None:
                with pool.open(name) as volume:
                    if volume.lock():
                        self._clear(pool, key, volume)
                base_volume.remove_rest(pool, name)
        self.files.clear(key)

    def record(self, key: str, record: Record) -> Base:
        name = self.name_of(key)
        with self._pool() as (_, pool), pool.open(name.image) as volume:
            volume.set_metadata(_RECORD, record_json.dumps(record))
        return Base.of(key, name.path, record)

    def require(self, key: str) -> None:
        """Undo an interrupted remove(): protect the snapshot again.

        While librbd unprotects a snapshot it cannot be cloned, and if the
        process that removes it dies, it never can be again.

        :raises BaseNotFound: there is no such base
        """
        name = self.name_of(key).image
        with self._pool() as (_, pool):
            for pause in waiting.pauses():
                if not self._entry(pool, key):
                    break
                with contextlib.suppress(exception.StorageMissing), \
                        pool.open(name) as volume:
                    if volume.lock():
                        # StorageBusy: it is protected, and has clones.
                        with contextlib.suppress(exception.StorageBusy):
                            volume.protect(BASE_SNAPSHOT)
                        return
                time.sleep(pause)
        raise exception.BaseNotFound(key=key, store=str(self))

    def touch(self, key: str) -> None:
        # Best effort: a base can be used although the pool is full, or this
        # host may not write to it.
        with contextlib.suppress(exception.NoSpace,
                                 exception.StorageForbidden), \
                self._pool() as (_, pool):
            pool.set_metadata(_USED + key, str(int(time.time())))

    def entries(self) -> Iterator[Entry]:
        # Collect eagerly: an abandoned iterator must not hold the
        # connection open.
        with self._pool() as (_, pool):
            keys = [RbdName(pool.name, each).base_key
                    for each in pool.names()]
            found = [self._entry(pool, key) for key in keys if key]
        return iter([entry for entry in found if entry])

    def in_use(self, key: str) -> Sequence[str]:
        name = self.name_of(key).image
        with contextlib.suppress(exception.StorageMissing), \
                self._pool() as (_, pool), \
                pool.open(name, read_only=True) as volume:
            return volume.children(BASE_SNAPSHOT)
        return []

    def remove(self, key: str) -> None:
        """Delete a base, unless it has clones; other hosts may be at work.

        :raises BaseInUse: it has clones, even if only since a moment ago
        """
        name = self.name_of(key).image
        with self._pool() as (_, pool):
            with contextlib.suppress(exception.StorageMissing), \
                    pool.open(name) as volume:
                base_volume.uncommit(key, volume)
            # Another host may be making it again, in this very volume.
            base_volume.remove_rest(pool, name)
            pool.set_metadata(_USED + key, None)

    @contextlib.contextmanager
    def _pool(self) -> Iterator[tuple[rbd.Cluster, rbd.Pool]]:
        with connected(self.policy) as cluster, \
                cluster.pool(self.policy.base_pool) as pool:
            yield cluster, pool

    @contextlib.contextmanager
    def _alone(self, pool: rbd.Pool, key: str
               ) -> Iterator[tuple[Volume, bool]]:
        """Yield the volume of a base when no other host writes to it.

        The volume is empty and locked by this host, and is removed if the
        block fails; or another host has committed the base meanwhile.
        """
        try:
            with contextlib.ExitStack() as stack:
                volume, locked = self._take(pool, key, stack)
                try:
                    yield volume, locked
                except BaseException:
                    with contextlib.suppress(exception.HostError):
                        self._clear(pool, key, volume)
                    raise
        except exception.StorageUnreachable:
            raise      # removing would fail, too; the next attempt clears it
        except BaseException:
            # Fails for a volume with a snapshot, which is a base, and for
            # one that another host has open.
            with contextlib.suppress(exception.HostError):
                pool.remove(self.name_of(key).image)
            raise

    def _take(self, pool: rbd.Pool, key: str,
              stack: contextlib.ExitStack) -> tuple[Volume, bool]:
        """Open the volume of a base when no other host writes to it.

        :return: the volume, and True if it is empty and this host has its
            lock; False if another host has committed the base meanwhile
        """
        name = self.name_of(key).image
        told = functools.cache(lambda: self.observe(
            Event(Name.WAITING, key, {"source": name})))
        for pause in waiting.pauses():
            created = base_volume.create(pool, name)
            try:
                if not created:
                    waiting.await_writers(pool, name, told)
                    if self._entry(pool, key):
                        return stack.enter_context(
                            pool.open(name, read_only=True)), False
                volume = stack.enter_context(pool.open(name))
                if volume.lock():
                    self._clear(pool, key, volume)
                    return volume, True
            except exception.StorageMissing:
                # Another host is making it, or died while it did.
                if told.cache_info().currsize:
                    base_volume.remove_rest(pool, name)
            stack.close()
            told()
            time.sleep(pause)
        raise AssertionError("pauses() has no end")

    def _clear(self, pool: rbd.Pool, key: str, volume: Volume) -> None:
        """Empty an uncommitted volume; the caller has its lock."""
        # Asked of the cluster: the open volume may not show the latest
        # changes of another host.
        if self._entry(pool, key) is None:
            base_volume.empty(volume)

    def _entry(self, pool: rbd.Pool, key: str) -> Entry | None:
        name = self.name_of(key)
        try:
            with pool.open(name.image, read_only=True) as volume:
                if not volume.is_protected(BASE_SNAPSHOT):
                    return None
                size = volume.size()
                record = _read(volume.get_metadata(_RECORD), size)
                allocated = volume.get_metadata(_ALLOCATED)
        except exception.StorageMissing:
            return None
        used = pool.get_metadata(_USED + key)
        return Entry(key, name.path, size,
                     int(allocated) if allocated else size,
                     float(used) if used else _committed(record), record,
                     str(self))


def _read(text: str | None, size: int) -> Record:
    """Return the record of a base; without one, what is true of each base.

    Each is raw.  The rules of 0 have it validated again.
    """
    record = record_json.loads(text) if text else None
    return record or Record(Format.RAW, size, size, 0, "unknown")


def _committed(record: Record) -> float:
    try:
        return datetime.datetime.fromisoformat(record.committed).timestamp()
    except ValueError:
        return 0.0
