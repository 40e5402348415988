# SPDX-License-Identifier: Apache-2.0
"""A thin pool of bases: read-only volumes, of which disks are snapshots.

    <group>/base-<key>                   committed, with its record as tags
    <group>/.base-<key>.<pid>.<unique>   one attempt
    <bases>/.staged/<key>.<unique>/      its download, a file on this host
    <bases>/.used/<host>/<group>.base-<key>
                                         its record once more, so that its
                                         next use takes no command; the time
                                         stamp is its last use

The commit is the rename, one transaction of LVM.  A process that is killed
before it leaves an attempt, which the next attempt at the key removes.  A
committed base has no device, so no program can write to it, or prevent its
removal by having it open; a snapshot needs no device.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from imagecache import events, exception
from imagecache.backends.lvm.volumes import (
    ThinPool,
    attempt_at,
    attempts_at,
    notes,
    pool_of,
)
from imagecache.bases import record_json
from imagecache.bases.directory import DirectoryStore, is_key
from imagecache.model import Base, Entry, Record, Validated
from imagecache.policy import Policy
from imagecache.system import durable
from imagecache.tools import lvm
from imagecache.tools.lvm import Volume, VolumeGroup

_BASE = "base-"
# A tag has at most 1024 bytes.
_TAG = "imagecache.record."
_PIECE = 900


@dataclasses.dataclass(frozen=True)
class StagedVolume:
    store: ThinStore
    key: str
    download: pathlib.Path
    volume: str           # of this attempt; there is none before writing()
    keeps_files: ClassVar[bool] = False

    @property
    def output(self) -> pathlib.Path:
        return self.store.group.device(self.volume)

    @contextlib.contextmanager
    def writing(self, size: int, needed: int) -> Iterator[pathlib.Path]:
        group, pool = self.store.group, self.store.pool
        pool.require(needed, "a base")
        group.create_thin(self.volume, size, pool.name)
        with group.chowned(self.volume) as device, \
                durable.translated("writing a base", device), \
                device.open("r+b") as f:
            yield device
            os.fsync(f.fileno())

    def head(self, size: int) -> bytes:
        with self.store.group.chowned(self.volume) as device, \
                durable.translated("reading a base", device), \
                device.open("rb") as f:
            return f.read(size)

    def commit(self, validated: Validated, record: Record) -> Base:
        group = self.store.group
        group.deactivate(self.volume)
        group.seal(self.volume, _tags(record))
        return self.store.publish(self.key, self.volume, record)


@dataclasses.dataclass(frozen=True)
class ThinStore:
    pool: ThinPool
    files: DirectoryStore    # where downloads are staged

    def __str__(self) -> str:
        return str(self.pool)

    def lookup(self, key: str) -> Entry | None:
        """Return the base, unless another program removed its volume."""
        try:
            record = record_json.loads(self._used(key).read_text())
            used = self._used(key).stat().st_mtime
        except (OSError, ValueError):
            record = None
        if record:
            return Entry(key, self.group.device(self._name(key)),
                         record.size, record.size, used, record, str(self))
        found = self.group.volume(self._name(key))
        if found is None:
            return None
        entry = self._entry(found)
        if entry.record:
            self._remember(key, entry.record)
        return entry

    def require(self, key: str) -> None:
        """Ask LVM for the base; its record alone may be out of date.

        :raises BaseNotFound: it is gone; the next lookup() returns None
        """
        if self.group.volume(self._name(key)) is None:
            self._forget(key)
            raise exception.BaseNotFound(key=key, store=str(self))

    @contextlib.contextmanager
    def stage(self, key: str, *, in_place: bool = False
              ) -> Iterator[StagedVolume]:
        name = self._name(key)
        with self.files.stage(key, in_place=in_place) as attempt:
            self._remove_attempts(name)
            try:
                yield StagedVolume(self, key, attempt.download,
                                   attempt_at(name))
            finally:
                self._remove_attempts(name)

    def attempts(self) -> Iterable[str]:
        return self.files.attempts()

    def clear(self, key: str) -> None:
        # The files last: they name the key as long as volumes are left.
        self._remove_attempts(self._name(key))
        self.files.clear(key)

    def publish(self, key: str, staged: str, record: Record) -> Base:
        """Give a sealed volume the name of its base: the commit."""
        self.group.rename(staged, self._name(key))
        self._remember(key, record)
        return self._base(key, record)

    def record(self, key: str, record: Record) -> Base:
        found = self.group.volume(self._name(key))
        if found is None:
            raise exception.BaseNotFound(key=key, store=str(self))
        new = _tags(record)
        self.group.retag(found.name, [
            tag for tag in found.tags
            if tag.startswith(_TAG) and tag not in new], new)
        self._remember(key, record)
        return self._base(key, record)

    def touch(self, key: str) -> None:
        # Best effort: a read-only cache directory is not an error.
        with contextlib.suppress(OSError):
            os.utime(self._used(key))

    def entries(self) -> Iterator[Entry]:
        found = self.group.volumes(
            f'lv_name=~"^{_BASE}" && pool_lv="{self.pool.name}"')
        for volume in sorted(found, key=lambda each: each.name):
            yield self._entry(volume)

    def in_use(self, key: str) -> Sequence[str]:
        made = self.group.volumes(f'origin="{self._name(key)}"')
        return [str(self.group.device(volume.name)) for volume in made]

    def remove(self, key: str) -> None:
        self._forget(key)
        if self.group.volume(self._name(key)):
            self.group.remove(self._name(key))

    @property
    def group(self) -> VolumeGroup:
        return self.pool.group

    def _name(self, key: str) -> str:
        if not is_key(key):
            raise exception.InvalidName(
                name=key, what="the name of a base",
                reason="it must be of letters, digits and -_.")
        return lvm.require_name(_BASE + key, self.group.name)

    def _used(self, key: str) -> pathlib.Path:
        return notes(self.files.directory) \
            / f"{self.group.name}.{self._name(key)}"

    def _remember(self, key: str, record: Record) -> None:
        # Best effort: without the file, the record is read from the tags.
        with contextlib.suppress(OSError, exception.HostError):
            durable.make_directory(self._used(key).parent)
            durable.write_file(self._used(key),
                               record_json.dumps(record).encode())

    def _forget(self, key: str) -> None:
        with durable.translated("removing a base", self._used(key)):
            self._used(key).unlink(missing_ok=True)

    def _remove_attempts(self, name: str) -> None:
        """Remove all attempts; the caller has the lock of the key."""
        for left in self.group.volumes(attempts_at(name)):
            self.group.remove(left.name)

    def _entry(self, volume: Volume) -> Entry:
        key = volume.name.removeprefix(_BASE)
        try:
            used = self._used(key).stat().st_mtime
        except OSError:
            used = 0.0
        record = _recorded(volume.tags)
        size = record.size if record else volume.size
        return Entry(key, self.group.device(volume.name), size,
                     volume.size if volume.allocated is None
                     else volume.allocated, used, record, str(self))

    def _base(self, key: str, record: Record) -> Base:
        return Base.of(key, self.group.device(self._name(key)), record)


def store_of(policy: Policy, observe: events.Observer) -> ThinStore | None:
    """Return the store of the bases of thin disks; None: disks are thick."""
    pool = pool_of(policy, observe)
    return None if pool is None else ThinStore(
        pool, DirectoryStore(policy.bases, policy.instances))


def _tags(record: Record) -> list[str]:
    """Encode a record as tags, in the characters that tags may have."""
    text = base64.urlsafe_b64encode(
        record_json.dumps(record).encode()).decode()
    return [f"{_TAG}{start // _PIECE}={text[start:start + _PIECE]}"
            for start in range(0, len(text), _PIECE)]


def _recorded(tags: Iterable[str]) -> Record | None:
    """Return the record in the tags; None if a part is missing."""
    pieces = dict(tag.removeprefix(_TAG).split("=", 1)
                  for tag in tags if tag.startswith(_TAG))
    try:
        text = "".join(pieces[str(i)] for i in range(len(pieces)))
        return record_json.loads(base64.urlsafe_b64decode(text).decode())
    except (KeyError, ValueError):
        return None
