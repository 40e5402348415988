# SPDX-License-Identifier: Apache-2.0
"""The directory of bases.

    <bases>/<key>                    committed: complete, validated, read-only
    <bases>/<key>.json               what was validated
    <bases>/.staged/<key>.<unique>/  one attempt: its download, its output
    <bases>/.staged/<key>.in-place   the file <key> is being written: it is
                                     not a base yet

A key names a base only after the last step succeeded, because the rename is
the commit.  A process that holds the lock of a key may remove every attempt
at that key: the processes that made them have ended.

The layout is that of nova's ``_base``.  nova's cache manager ignores names
that it does not know, so nova and this library can share the directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from imagecache import exception
from imagecache.bases import disk_info, record_json
from imagecache.formats import qcow2
from imagecache.model import Base, Entry, Record, Validated
from imagecache.system import durable

_RECORD = ".json"
_READ_ONLY = 0o444
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
# Records, and files that nova has not finished.
_NOT_BASES = (_RECORD, ".part", ".converted")


@dataclasses.dataclass(frozen=True)
class StagedFiles:
    store: DirectoryStore
    key: str
    download: pathlib.Path
    output: pathlib.Path
    keeps_files: ClassVar[bool] = True

    @contextlib.contextmanager
    def writing(self, size: int, needed: int) -> Iterator[pathlib.Path]:
        durable.require_space(self.output.parent, needed,
                              "converting an image to raw")
        with durable.filling(self.output, size) as output:
            yield output

    def head(self, size: int) -> bytes:
        with self.output.open("rb") as f:
            return f.read(size)

    def commit(self, validated: Validated, record: Record) -> Base:
        return self.store.publish(self.key, validated.path, record)


@dataclasses.dataclass(frozen=True)
class DirectoryStore:
    directory: pathlib.Path
    instances: pathlib.Path    # where the disks made of these bases are

    def __str__(self) -> str:
        return str(self.directory)

    def lookup(self, key: str) -> Entry | None:
        path = self._path(key)
        with durable.translated("looking up a base", path):
            try:
                status = path.stat()
            except FileNotFoundError:
                return None
            if self._marker(key).exists():
                return None
            if not stat.S_ISREG(status.st_mode):
                raise exception.StorageFailed(
                    what="looking up a base", path=path,
                    reason="it is not a file; move it out of the way")
            record = self._read_record(key, status.st_size)
        return Entry(key, path, status.st_size, status.st_blocks * 512,
                     status.st_mtime, record, str(self))

    @contextlib.contextmanager
    def stage(self, key: str, *, in_place: bool = False
              ) -> Iterator[StagedFiles]:
        path = self._path(key)
        self.clear(key)
        with durable.translated("staging a base", self._staged):
            attempt = self._new_attempt(key)
            if in_place:
                self._marker(key).touch()
                durable.fsync_directory(self._staged)
        try:
            yield StagedFiles(self, key,
                              path if in_place else attempt / "download",
                              attempt / "output")
        finally:
            self.clear(key)

    def attempts(self) -> Iterable[str]:
        with durable.translated("looking for attempts", self._staged):
            keys = {attempt.name.rpartition(".")[0]
                    for attempt in self._attempts()}
        return sorted(filter(is_key, keys))

    def clear(self, key: str) -> None:
        """Remove all attempts at a key; the caller has its lock."""
        with durable.translated("clearing away attempts", self._staged):
            if self._marker(key).exists():
                self._path(key).unlink(missing_ok=True)
                self._marker(key).unlink(missing_ok=True)
            for attempt in self._attempts():
                if attempt.name.rpartition(".")[0] == key:
                    if attempt.is_dir():
                        shutil.rmtree(attempt)
                    else:
                        attempt.unlink()
        # Unless another process has an attempt there.
        with contextlib.suppress(OSError):
            self._staged.rmdir()

    def publish(self, key: str, staged: pathlib.Path,
                record: Record) -> Base:
        """Give a staged file the name of its base: the commit."""
        path = self._path(key)
        with durable.translated("committing a base", path):
            # A base without a record is validated again, but a record without
            # its base might be taken for that of another.
            self._record_path(key).unlink(missing_ok=True)
            staged.chmod(_READ_ONLY)
            os.rename(staged, path)      # the commit
            self._marker(key).unlink(missing_ok=True)
            self._write_record(key, record)
            durable.fsync_directory(self.directory)
        return Base.of(key, path, record)

    def record(self, key: str, record: Record) -> Base:
        with durable.translated("recording a base", self._path(key)):
            self._write_record(key, record)
            durable.fsync_directory(self.directory)
        return Base.of(key, self._path(key), record)

    def require(self, key: str) -> None:
        if self.lookup(key) is None:
            raise exception.BaseNotFound(key=key, store=str(self))

    def touch(self, key: str) -> None:
        path = self._path(key)
        # Best effort: another user's file, or one on a read-only file
        # system, is used all the same.
        with contextlib.suppress(OSError):
            os.utime(path)

    def entries(self) -> Iterator[Entry]:
        if not self.directory.is_dir():
            return
        for path in sorted(self.directory.iterdir()):
            if is_key(path.name) and path.is_file():
                entry = self.lookup(path.name)
                if entry:
                    yield entry

    def in_use(self, key: str) -> Sequence[str]:
        path = self._path(key)
        with durable.translated("looking for its disks", self.instances):
            return [str(disk) for disk in self._disks()
                    if _is_made_of(disk, path)]

    def remove(self, key: str) -> None:
        with durable.translated("removing a base", self._path(key)):
            self._record_path(key).unlink(missing_ok=True)
            self._path(key).unlink(missing_ok=True)
            durable.fsync_directory(self.directory)

    @property
    def _staged(self) -> pathlib.Path:
        return self.directory / ".staged"

    def _path(self, key: str) -> pathlib.Path:
        if not is_key(key):
            raise exception.InvalidName(
                name=key, what="the name of a base",
                reason="it must be a plain file name of letters, digits and"
                " -_., and must not end like a record or an unfinished"
                " file")
        return self.directory / key

    def _record_path(self, key: str) -> pathlib.Path:
        return self.directory / (key + _RECORD)

    def _marker(self, key: str) -> pathlib.Path:
        return self._staged / f"{key}.in-place"

    def _attempts(self) -> list[pathlib.Path]:
        try:
            return list(self._staged.iterdir())
        except FileNotFoundError:
            return []

    def _new_attempt(self, key: str) -> pathlib.Path:
        while True:
            durable.make_directory(self._staged)
            try:
                return pathlib.Path(tempfile.mkdtemp(
                    prefix=f"{key}.", dir=self._staged))
            except FileNotFoundError:
                continue    # another process removed the empty directory

    def _read_record(self, key: str, size: int) -> Record | None:
        """Return the record, if it is of the base that exists."""
        try:
            record = record_json.loads(self._record_path(key).read_bytes())
        except FileNotFoundError:
            return None
        return record if record and record.size == size else None

    def _write_record(self, key: str, record: Record) -> None:
        content = record_json.dumps(record, indent=1)    # for people, too
        durable.write_file(self._record_path(key), content.encode())

    def _disks(self) -> Iterator[pathlib.Path]:
        """Yield every file that may be a disk of an instance."""
        for instance in disk_info.directories(self.instances):
            if instance == self.directory:
                continue
            with contextlib.suppress(FileNotFoundError):   # just removed
                yield from (f for f in list(instance.iterdir())
                            if f.is_file() and f.name not in disk_info.NAMES)


def is_key(name: str) -> bool:
    """Return whether a file of this name may be a base."""
    return bool(_KEY.fullmatch(name)) and not name.endswith(_NOT_BASES)


def _is_made_of(disk: pathlib.Path, base: pathlib.Path) -> bool:
    """Return whether a disk reads a base; True if that cannot be known."""
    try:
        backing = qcow2.read_header(disk).backing_file
    except (exception.InvalidDiskFormat,
            exception.DiskNotFound):      # removed since it was listed
        return False
    except exception.StorageFailed:
        return True
    return backing is not None and (
        disk.parent / backing).resolve() == base.resolve()
