# SPDX-License-Identifier: Apache-2.0
"""The bases of a host: fetched at most once, leased to whoever uses one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator

from imagecache import events, exception, sources
from imagecache.bases import pipeline
from imagecache.bases import resize as resizing
from imagecache.bases.store import BaseStore, Staging
from imagecache.events import Event, Name
from imagecache.inspection import inspector, verify
from imagecache.model import (
    NATIVE,
    Base,
    Entry,
    Format,
    Record,
    Validated,
    whole_sectors,
)
from imagecache.policy import Policy
from imagecache.system.locks import Locks

Origin = sources.Source | sources.Resized    # what a base is made from


@dataclasses.dataclass(frozen=True)
class BaseCache:
    store: BaseStore
    locks: Locks
    policy: Policy
    observe: events.Observer = events.silent

    @contextlib.contextmanager
    def lease(self, source: Origin,
              size: int | None = None) -> Iterator[Base]:
        """Yield the base of a source, fetched first if it is not there.

        The lock of its key is held until the block ends: nobody else fetches
        the same image meanwhile, and nobody removes the base.  A process that
        dies lets go of the lock, and the next one starts afresh.

        :param size: bytes of the disk that is wanted; None: any
        :raises ImageError, SourceError, HostError: and nothing is left behind
        """
        require_min_disk(_image(source), size)
        waiting = functools.partial(self.observe, Event(
            Name.WAITING, source.key, {"source": source.name}))
        with self.locks.holding(source.key, waiting):
            yield self._committed(source, size) or self._fetch(source, size)

    def has(self, source: Origin) -> bool:
        return self.store.lookup(source.key) is not None

    def restore(self, source: Origin, format: Format | None) -> None:
        """Fetch a base again, if it is lost, for a disk that was made of it.

        What is configured may have changed since, or be other on this host;
        the disk reads its base as it always did.

        :param format: as which; None: as whatever it turns out to be
        :raises StorageFailed: it is there as another format
        """
        entry = self.store.lookup(source.key)
        if entry is not None:
            if entry.record is not None:
                _require_format(entry.as_base(), format)
            return
        cache = self if format is None else dataclasses.replace(
            self, policy=dataclasses.replace(
                self.policy, force_raw=format is Format.RAW))
        if isinstance(source, sources.Resized):
            with cache.lease(source.image) as base:
                _require_format(base, format)    # before it is copied
        with cache.lease(source) as base:
            _require_format(base, format)

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

    def _committed(self, source: Origin, size: int | None) -> Base | None:
        entry = self.store.lookup(source.key)
        if entry is None:
            return None
        _require_same_image(_image(source), entry)
        _require_same_signer(_image(source), entry)
        if entry.record is None or entry.record.rules < verify.RULES:
            base = self._adopt(source, entry)
        else:
            base = entry.as_base()
        if isinstance(source, sources.Resized):
            _require_resized(source, base)
        else:
            pipeline.require_fit(source, base.virtual_size, size, self.policy)
        self.store.touch(entry.key)
        self.observe(Event(Name.HIT, entry.key))
        return base

    def _adopt(self, source: Origin, entry: Entry) -> Base:
        """Validate a base whose record has older rules, or that has none."""
        record = entry.record
        base = self.store.record(entry.key, pipeline.describe(
            self._validate(source, entry), entry.size, source.name,
            record.source_format if record else None,
            record.digest if record else None,
            record.signature if record else None))
        self.observe(Event(Name.ADOPTED, entry.key))
        return base

    def _validate(self, source: Origin, entry: Entry) -> Validated:
        # What it was made from may have been converted since, so the image's
        # claim of a format says nothing about it; its record does.  What is
        # on record as raw may begin as it likes: nobody asks it.
        recorded = entry.record.format if entry.record else None
        own = isinstance(source, sources.Template) and source.trusted
        if own or recorded is Format.RAW:
            return Validated(entry.path, Format.RAW, whole_sectors(entry.size))
        # Disks are made of it as it is, so no other format will do.
        policy = dataclasses.replace(
            self.policy, accepted=self.policy.accepted & set(NATIVE))
        return verify.validate(entry.path, source.name, recorded, policy)

    def _fetch(self, source: Origin, size: int | None) -> Base:
        self.observe(Event(Name.MISS, source.key, {"source": source.name}))
        in_place = isinstance(source, sources.DelegatedImage) \
            and source.in_place
        with self.store.stage(source.key, in_place=in_place) as staging:
            base = self._committed(source, size)
            if base:      # where hosts share a store, another was quicker
                return base
            if isinstance(source, sources.Resized):
                validated, record = self._resize(source, staging, size)
            else:
                validated, record = pipeline.run(pipeline.Work(
                    source, staging, self.policy, size, self.observe))
            base = staging.commit(validated, record)
        self.observe(Event(Name.COMMITTED, source.key))
        return base

    def _resize(self, source: sources.Resized, staging: Staging,
                size: int | None) -> tuple[Validated, Record]:
        def complain(reason: str) -> None:
            self.observe(Event(Name.FILESYSTEM_NOT_RESIZED, source.key,
                               {"reason": reason}))

        # Who makes a base of another has the lock of both, and takes that of
        # the copy first; so nobody can wait for himself.
        with self.lease(source.image, size) as base:
            entry = self.store.lookup(base.key)
            record = entry.record if entry else None
            if record is None:
                raise exception.BaseNotFound(key=base.key,
                                             store=str(self.store))
            return resizing.copy(base, record, staging.output, source.size,
                                 self.policy, complain)


def _image(source: Origin) -> sources.Source:
    """Return what a base is of in the end."""
    return source.image if isinstance(source, sources.Resized) else source


def _require_resized(source: sources.Resized, base: Base) -> None:
    """Refuse what somebody, years ago, began to resize, and did not finish.

    Disks may have been made of it all the same, so it stays as it is.

    :raises StorageFailed: it has not the size that its name says
    """
    if base.virtual_size != source.size:
        raise exception.StorageFailed(
            what="using a resized base", path=base.path,
            reason=f"it has {base.virtual_size} bytes, and not"
            f" {source.size}: whoever made it did not finish")


def _require_format(base: Base, format: Format | None) -> None:
    """Refuse to have a guest see another content than it always saw."""
    if format not in (None, base.format):
        raise exception.StorageFailed(
            what="reading a disk through its base", path=base.path,
            reason=f"it is {base.format}, and the disk reads it as {format}:"
            " the disk was made where force_raw_images was set otherwise")


def require_min_disk(source: sources.Source, size: int | None) -> None:
    if isinstance(source, sources.Image) and size \
            and size < source.description.min_disk:
        raise exception.FlavorDiskSmallerThanMinDisk(
            flavor_size=size, image_min_disk=source.description.min_disk)


def _require_same_image(source: sources.Source, entry: Entry) -> None:
    """Refuse a base that was made from another image than the one described.

    :raises ImageChanged: from other bytes
    :raises ImageUnacceptable: from bytes of another format than claimed
    """
    if not isinstance(source, sources.Image) or entry.record is None:
        return
    wanted, had = source.description.digest, entry.record.digest
    # A store that has learnt a better algorithm since says nothing new.
    if wanted and had and had.startswith(f"{wanted.algorithm}:") \
            and had != str(wanted):
        raise exception.ImageChanged(
            image_id=source.name, actual=wanted, expected=had, key=entry.key)
    claim, found = source.description.disk_format, entry.record.source_format
    if claim and found and inspector.CLAIMS.get(claim) != found:
        raise exception.ImageUnacceptable(
            image_id=source.name, reason=f"it claims to be {claim}, and its"
            f" content was {found} (rule claim)", rule="claim")


def _require_same_signer(source: sources.Source, entry: Entry) -> None:
    """Refuse a base that nobody has verified as is demanded now.

    Its bytes are not those that were signed, if it was converted: it cannot
    be verified any more, nor fetched again while disks are made of it.

    :raises BaseNotVerified: its image's signature was not, or by another
    """
    if not isinstance(source, sources.Image) or source.signer is None:
        return
    wanted = source.signer.certificate
    had = entry.record.signature if entry.record else None
    if had != wanted:
        raise exception.BaseNotVerified(
            image_id=source.name, wanted=wanted, key=entry.key,
            had=f"was verified with {had}" if had else "was not verified")
