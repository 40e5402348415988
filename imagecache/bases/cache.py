# SPDX-License-Identifier: Apache-2.0
"""The bases of a host: each is fetched at most once, and leased to disks."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

from imagecache import events, exception
from imagecache.bases import admission, pipeline
from imagecache.bases.store import BaseStore
from imagecache.events import Event, Name
from imagecache.inspection import verify
from imagecache.model import Base, Entry, Format
from imagecache.policy import Policy
from imagecache.sources import Source
from imagecache.system.locks import Locks


@dataclasses.dataclass(frozen=True)
class BaseCache:
    store: BaseStore
    locks: Locks
    policy: Policy
    observe: events.Observer = events.silent

    @contextlib.contextmanager
    def lease(self, source: Source, size: int | None = None,
              format: Format | None = None) -> Iterator[Base]:
        """Yield the base of a source; fetch it first if it is missing.

        The lock of its key is held until the block ends: meanwhile no other
        process on this host fetches or removes the base.  The lock of a
        process that dies is free, and the next process begins again.

        Lock order: the key of a resized base, then the key of its image.

        :param size: bytes of the disk that is wanted; None: any
        :param format: that the base must have; None: as configured, or as
            it is
        :raises ImageError, SourceError, HostError: nothing is left behind
        """
        admission.require_min_disk(source, size)

        def waiting() -> None:
            self.observe(Event(Name.WAITING, source.key,
                               {"source": source.name}))

        with self.locks.holding(source.key, waiting):
            base = self._committed(source, size) \
                or self._fetch(source, size, format)
            admission.require_format(base, format)
            yield base

    def has(self, source: Source) -> bool:
        return self.store.lookup(source.key) is not None

    def restore(self, source: Source, format: Format | None) -> None:
        """Fetch a missing base again, for a disk that was made of it.

        The configuration may have changed since, or may differ on this
        host; the disk reads its base as it always did.

        :param format: as which the disk reads it; None: as either
        :raises StorageFailed: the base has another format
        """
        entry = self.store.lookup(source.key)
        if entry is None:
            with self.lease(source, format=format):
                pass
        elif entry.record is not None:
            admission.require_format(entry.as_base(), format)

    def entries(self) -> Iterator[Entry]:
        return self.store.entries()

    def remove(self, key: str) -> None:
        """Remove a base that no disk is made of.

        :raises BaseNotFound, BaseInUse: and nothing has changed
        """
        with self.locks.holding(key):
            if self.store.lookup(key) is None:
                raise exception.BaseNotFound(key=key, store=str(self.store))
            users = self.store.in_use(key)
            if users:
                raise exception.BaseInUse(key=key, users=", ".join(users))
            self.store.remove(key)
        self.observe(Event(Name.REMOVED, key))

    def _committed(self, source: Source, size: int | None) -> Base | None:
        """Return the base that is in the store, if there is one."""
        entry = self.store.lookup(source.key)
        if entry is None:
            return None
        admission.require_same_image(source, entry)
        if entry.record is None or entry.record.rules < verify.RULES:
            found = self._adopt(source, entry)
            if found is None:
                return None
            base = found
        else:
            base = entry.as_base()
        admission.require_size(source, base)
        admission.require_fit(source, base.virtual_size, size, self.policy)
        self.store.touch(entry.key)
        self.observe(Event(Name.HIT, entry.key))
        return base

    def _adopt(self, source: Source, entry: Entry) -> Base | None:
        """Validate a base that has no record by today's rules.

        :return: None if its signature was needed, and could not be verified:
            it had no disks, and is removed
        :raises BaseNotVerified: likewise, and it has disks
        """
        try:
            record = pipeline.adopt(pipeline.adoption(source, entry), entry,
                                    self.policy, self.observe)
        except exception.ImageSignatureInvalid:
            if self.store.in_use(entry.key):
                admission.require_signature(source, entry)
            self.store.remove(entry.key)
            self.observe(Event(Name.REMOVED, entry.key))
            return None
        base = self.store.record(entry.key, record)
        self.observe(Event(Name.ADOPTED, entry.key))
        return base

    def _fetch(self, source: Source, size: int | None,
               format: Format | None) -> Base:
        self.observe(Event(Name.MISS, source.key, {"source": source.name}))
        self._clear_abandoned(source.key)
        try:
            return self._make(source, size, format)
        except exception.StorageUnreachable:
            # The store fences off a host that was paused, so that another
            # host can make the base.
            base = self._committed(source, size)
            if base is None:
                raise
            return base

    def _make(self, source: Source, size: int | None,
              format: Format | None) -> Base:
        with self.store.stage(source.key, in_place=source.in_place) as staging:
            # Where hosts share a store, another host may have been quicker.
            base = self._committed(source, size)
            if base:
                return base
            force_raw = self.policy.force_raw if format is None \
                else format is Format.RAW
            work = pipeline.Work(source.name, staging.download, self.policy,
                                 self.observe, size)
            with self._original(source, size, format) as original:
                plan = pipeline.plan(source, force_raw=force_raw,
                                     original=original)
                base = pipeline.run(plan, work, staging)
        self.observe(Event(Name.COMMITTED, source.key))
        return base

    def _clear_abandoned(self, key: str) -> None:
        """Remove what killed processes left of attempts at other bases.

        A key whose lock is free has no attempt that goes on.  Locks are
        tried, never waited for, so the order of locks does not matter here.
        """
        for other in self.store.attempts():
            if other != key:
                with self.locks.trying(other) as free:
                    if free:
                        self._clear(other)

    def _clear(self, key: str) -> None:
        try:
            self.store.clear(key)
        except exception.HostError as e:    # no reason to fail a fetch
            self.observe(Event(Name.LEFTOVERS_KEPT, key,
                               {"reason": str(e)}))

    @contextlib.contextmanager
    def _original(self, source: Source, size: int | None,
                  format: Format | None) -> Iterator[Entry | None]:
        """Lease the base that the source's base is a copy of, if it is."""
        if source.original is None:
            yield None
            return
        with self.lease(source.original, size, format) as base:
            yield self.store.lookup(base.key)
