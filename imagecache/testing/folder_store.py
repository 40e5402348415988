# SPDX-License-Identifier: Apache-2.0
"""A complete, minimal store of bases: the worked example of ``BaseStore``.

    <directory>/<key>/record.json   exists only for a committed base
    <directory>/<key>/base          the base
    <directory>/<key>/download      of an attempt
    <directory>/<key>/output        of an attempt

The write of the record is the commit: a folder without a record is an
attempt.  No disk reads a base from here later, so any base can be removed.

The backend that uses the store names it in ``cache_of``::

    class Copied(Raw):
        @classmethod
        def cache_of(cls, host):
            return host.cache_over(FolderStore(pathlib.Path("/var/bases")))
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

from imagecache import exception
from imagecache.bases import record_json
from imagecache.bases.directory import is_key
from imagecache.model import Base, Entry, Record, Validated
from imagecache.system import durable


@dataclasses.dataclass(frozen=True)
class FolderStaging:
    """One attempt at the base of ``key``."""

    store: FolderStore
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
        base = self.store.base(self.key)
        with durable.translated("committing a base", base):
            os.rename(validated.path, base)
        return self.store.record(self.key, record)    # the commit


@dataclasses.dataclass(frozen=True)
class FolderStore:
    """Bases in folders of ``directory``."""

    directory: pathlib.Path

    def __str__(self) -> str:
        return str(self.directory)

    def lookup(self, key: str) -> Entry | None:
        with durable.translated("looking up a base", self.base(key)):
            try:
                record = record_json.loads(self._record(key).read_bytes())
            except FileNotFoundError:
                return None
            status = self.base(key).stat()
        return Entry(key, self.base(key), status.st_size,
                     status.st_blocks * 512, status.st_mtime, record,
                     str(self))

    @contextlib.contextmanager
    def stage(self, key: str, *, in_place: bool = False
              ) -> Iterator[FolderStaging]:
        folder = self.base(key).parent
        self._clear(key)
        durable.make_directory(folder)
        try:
            yield FolderStaging(
                self, key,
                self.base(key) if in_place else folder / "download",
                folder / "output")
        finally:
            self._clear(key)

    def attempts(self) -> Iterable[str]:
        if not self.directory.is_dir():
            return []
        return [folder.name for folder in self.directory.iterdir()
                if self.lookup(folder.name) is None]

    def clear(self, key: str) -> None:
        self._clear(key)

    def record(self, key: str, record: Record) -> Base:
        with durable.translated("recording a base", self.base(key)):
            durable.write_file(self._record(key),
                               record_json.dumps(record).encode())
            for folder in (self.base(key).parent, self.directory):
                durable.fsync_directory(folder)
        return Base.of(key, self.base(key), record)

    def require(self, key: str) -> None:
        if self.lookup(key) is None:
            raise exception.BaseNotFound(key=key, store=str(self))

    def touch(self, key: str) -> None:
        with durable.translated("marking a base as used", self.base(key)):
            os.utime(self.base(key))

    def entries(self) -> Iterator[Entry]:
        if not self.directory.is_dir():
            return
        for folder in sorted(self.directory.iterdir()):
            entry = self.lookup(folder.name)
            if entry:
                yield entry

    def in_use(self, key: str) -> Sequence[str]:
        return ()

    def remove(self, key: str) -> None:
        with durable.translated("removing a base", self.base(key)):
            self._record(key).unlink(missing_ok=True)
        self._clear(key)

    def base(self, key: str) -> pathlib.Path:
        """Return the path of a base, whether or not it exists.

        :raises InvalidName: the path could be outside of the directory
        """
        if not is_key(key):
            raise exception.InvalidName(
                name=key, what="the name of a base",
                reason="it must be a file name of letters, digits and -_.")
        return self.directory / key / "base"

    def _record(self, key: str) -> pathlib.Path:
        return self.base(key).with_name("record.json")

    def _clear(self, key: str) -> None:
        """Remove what is not committed; the caller holds the lock of it."""
        folder = self.base(key).parent
        with durable.translated("clearing away attempts", folder):
            if not folder.exists():
                return
            if not self._record(key).exists():
                shutil.rmtree(folder)
                return
            for name in ("download", "output"):
                (folder / name).unlink(missing_ok=True)
