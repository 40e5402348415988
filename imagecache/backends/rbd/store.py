# SPDX-License-Identifier: Apache-2.0
"""Bases in a pool of Ceph: made by one host, cloned by all.

    <pool>/imagecache_base_<key>          a raw volume, with its record as
                                          metadata ``imagecache.record``
    <pool>/imagecache_base_<key>@base     protected: it is committed

Nothing is visible before its snapshot is protected, which is the last step.
Whoever makes a base holds the volume's exclusive lock, which is Ceph's: the
lock of a host that died is broken, and the host fenced off, when the cluster
misses it; what it left is then made anew in the same volume.

Whoever only clones takes no lock in the cluster.  A base that another host
removes at that moment is a miss.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import ClassVar

from imagecache import events, exception
from imagecache.bases import record as records
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

PREFIX = "imagecache_base_"
SNAPSHOT = "base"

_RECORD = "imagecache.record"
_ALLOCATED = "imagecache.allocated"
_USED = "imagecache.used."       # of the pool: a base itself never changes
_PATIENCE = 0.5                  # seconds between looks at another's work


@dataclasses.dataclass(frozen=True)
class StagedBase:
    """A volume that only this host may write, and that is no base yet."""

    key: str
    download: pathlib.Path
    output: pathlib.Path
    cluster: rbd.Cluster
    volume: Volume        # open, and its exclusive lock is this host's
    keeps_files: ClassVar[bool] = False

    @contextlib.contextmanager
    def writing(self, size: int, needed: int) -> Iterator[NbdExport]:
        space = self.cluster.space(self.output.parent.name)
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
        volume.note(_ALLOCATED, str(volume.allocated()))
        volume.note(_RECORD, records.written(record))
        volume.create_snapshot(SNAPSHOT)
        volume.protect(SNAPSHOT)           # the commit
        return Base.of(self.key, self.output, record)


@dataclasses.dataclass(frozen=True)
class RbdStore:
    access: rbd.Access
    pool: str
    files: DirectoryStore     # where downloads are staged
    observe: events.Observer = events.silent

    def __str__(self) -> str:
        return f"rbd:{self.pool}"

    def lookup(self, key: str) -> Entry | None:
        with self._opened() as (_, pool):
            return self._entry(pool, key)

    @contextlib.contextmanager
    def stage(self, key: str, *, in_place: bool = False
              ) -> Iterator[StagedBase]:
        # A base in the directory is not this store's to write over.
        in_place = in_place and self.files.lookup(key) is None
        with self.files.stage(key, in_place=in_place) as files, \
                self._opened() as (cluster, pool), \
                self._alone(pool, key) as volume:
            yield StagedBase(key, files.download, self._path(key), cluster,
                             volume)

    def record(self, key: str, record: Record) -> Base:
        with self._opened() as (_, pool), \
                pool.open(self._name(key)) as volume:
            volume.note(_RECORD, records.written(record))
        return Base.of(key, self._path(key), record)

    def recommit(self, key: str) -> bool:
        """Finish the other way round what began as the removal of a base.

        While librbd unprotects a snapshot, nobody can clone it; and if the
        one who removes it dies, nobody ever could.

        :return: False if there is no such base
        """
        with self._opened() as (_, pool):
            while self._entry(pool, key):
                with contextlib.suppress(exception.StorageMissing), \
                        pool.open(self._name(key)) as volume:
                    if volume.lock():
                        # Unless it is busy, and protected after all.
                        with contextlib.suppress(exception.StorageBusy):
                            volume.protect(SNAPSHOT)
                        return True
                time.sleep(_PATIENCE)
        return False

    def touch(self, key: str) -> None:
        # A base in a pool that is full, or not to be written to, is used all
        # the same.
        with contextlib.suppress(exception.NoSpace,
                                 exception.StorageForbidden), \
                self._opened() as (_, pool):
            pool.note(_USED + key, str(int(time.time())))

    def entries(self) -> Iterator[Entry]:
        # All at once: whoever asks may take his time, or never come back.
        with self._opened() as (_, pool):
            found = [self._entry(pool, name.removeprefix(PREFIX))
                     for name in pool.names() if name.startswith(PREFIX)]
        return iter([entry for entry in found if entry])

    def in_use(self, key: str) -> Sequence[str]:
        with contextlib.suppress(exception.StorageMissing), \
                self._opened() as (_, pool), \
                pool.open(self._name(key), read_only=True) as volume:
            return volume.children(SNAPSHOT)
        return []

    def remove(self, key: str) -> None:
        """Delete a base, unless it has clones; other hosts may be at work.

        :raises BaseInUse: it has, even if only since a moment ago
        """
        with self._opened() as (_, pool):
            with contextlib.suppress(exception.StorageMissing), \
                    pool.open(self._name(key)) as volume:
                _uncommit(key, volume)
            # Another host may be making it again, in this very volume.
            _remove_rest(pool, self._name(key))
            pool.note(_USED + key, None)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[tuple[rbd.Cluster, rbd.Pool]]:
        with rbd.connected(self.access) as cluster, \
                cluster.pool(self.pool) as pool:
            yield cluster, pool

    @contextlib.contextmanager
    def _alone(self, pool: rbd.Pool, key: str) -> Iterator[Volume]:
        """Yield the volume of a base that only this host may write.

        It is empty, or a base that another host committed meanwhile.  If the
        block fails, it is removed.
        """
        name = self._name(key)
        try:
            with self._locked(pool, key, name) as volume:
                try:
                    yield volume
                except BaseException:
                    with contextlib.suppress(exception.HostError):
                        self._clear(pool, key, volume)
                    raise
        except exception.StorageUnreachable:
            raise      # and so would be what is left; the next attempt has it
        except BaseException:
            # What has a snapshot is a base, and what is open is another's.
            with contextlib.suppress(exception.HostError):
                pool.remove(name)
            raise

    @contextlib.contextmanager
    def _locked(self, pool: rbd.Pool, key: str,
                name: str) -> Iterator[Volume]:
        """Yield the volume when its lock is ours, and it is empty."""
        waited = False
        while True:
            with contextlib.suppress(exception.StorageExists):
                pool.create(name, 0)
            gone = False
            with contextlib.ExitStack() as stack:
                try:
                    volume = stack.enter_context(pool.open(name))
                    mine = volume.lock()
                    if mine:
                        self._clear(pool, key, volume)
                except exception.StorageMissing:
                    gone, mine = True, False
                if mine:
                    yield volume
                    return
            if waited and gone:
                _remove_rest(pool, name)
            elif not waited:
                self.observe(Event(Name.WAITING, key, {"source": name}))
            waited = True
            time.sleep(_PATIENCE)

    def _clear(self, pool: rbd.Pool, key: str, volume: Volume) -> None:
        """Throw away what is not committed; the caller has its lock."""
        # What is open may not have been told of the latest news.
        if self._entry(pool, key) is None:
            _empty(volume)

    def _entry(self, pool: rbd.Pool, key: str) -> Entry | None:
        try:
            with pool.open(self._name(key), read_only=True) as volume:
                if not volume.is_protected(SNAPSHOT):
                    return None
                size = volume.size()
                record = _read(volume.noted(_RECORD), size)
                allocated = volume.noted(_ALLOCATED)
        except exception.StorageMissing:
            return None
        used = pool.noted(_USED + key)
        return Entry(key, self._path(key), size,
                     int(allocated) if allocated else size,
                     float(used) if used else _committed(record), record,
                     str(self))

    def _path(self, key: str) -> pathlib.Path:
        return pathlib.Path(self.pool, self._name(key))

    def _name(self, key: str) -> str:
        return PREFIX + key


def access(policy: RbdPolicy) -> rbd.Access:
    """Return how to reach a host's cluster."""
    return rbd.Access(policy.conf, policy.user, policy.connect_timeout,
                      policy.timeout)


def _empty(volume: Volume) -> None:
    """Throw away what an attempt left, or a removal that was cut short.

    That may turn out to have clones, which keep it: it is committed again.
    """
    for snapshot in volume.snapshots():
        try:
            volume.unprotect(snapshot)
        except exception.StorageBusy:
            return
        except exception.StorageFailed:
            pass      # it never was
        volume.remove_snapshot(snapshot)
    volume.resize(0)


def _remove_rest(pool: rbd.Pool, name: str) -> None:
    """Remove what is left of a volume, unless others are at it again.

    It consists of several objects: whoever dies while it is made, or removed,
    leaves some of them, and nobody can make another of its name.
    """
    with contextlib.suppress(exception.StorageBusy,
                             exception.StorageMissing):
        pool.remove(name)


def _uncommit(key: str, volume: Volume) -> None:
    """Make a base invisible, unless it has clones.

    A clone of the older kind needs the protection, which stays as long as
    there is one.  One of the newer kind that comes at this very moment keeps
    the snapshot, unseen.
    """
    users = volume.children(SNAPSHOT)
    if not users:
        try:
            volume.unprotect(SNAPSHOT)
            volume.remove_snapshot(SNAPSHOT)
        except exception.StorageBusy:
            users = volume.children(SNAPSHOT) or ["a clone"]
    if users:
        raise exception.BaseInUse(key=key, users=", ".join(users))


def _read(text: str | None, size: int) -> Record:
    """Return the record of a base, or the least that is true of each.

    It is raw, and nobody knows by which rules it was validated.
    """
    record = records.read(text) if text else None
    return record or Record(Format.RAW, size, size, 0, "unknown")


def _committed(record: Record) -> float:
    try:
        return datetime.datetime.fromisoformat(record.committed).timestamp()
    except ValueError:
        return 0.0
