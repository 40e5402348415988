# SPDX-License-Identifier: Apache-2.0
"""The directory of bases.

    <bases>/<key>                    committed: complete, proven, read-only
    <bases>/<key>.json               what was proven
    <bases>/.staged/<key>.<unique>/  one attempt: its download, its output
    <bases>/.staged/<key>.in-place   the file <key> is being written: not
                                     a base, whoever sees it

A key names a base only after the last step succeeded, because the rename is
the commit.  Whoever holds the lock of a key may clear away every attempt at
that key: none of them has an owner any more.

The layout is nova's ``_base``, and nova's cache manager ignores the names it
does not know; the two can share the directory.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence

from imagecache import disk_info, durable, exception, qcow2
from imagecache.model import Base, Entry, Format, Proven, Record

_RECORD = ".json"
_READ_ONLY = 0o444
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclasses.dataclass(frozen=True)
class Staging:
    download: pathlib.Path
    output: pathlib.Path


@dataclasses.dataclass(frozen=True)
class DirectoryStore:
    directory: pathlib.Path
    instances: pathlib.Path    # where the disks made of these bases are

    def lookup(self, key: str) -> Entry | None:
        path = self._path(key)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        if self._marker(key).exists():
            return None
        return Entry(key, path, stat.st_size, stat.st_blocks * 512,
                     stat.st_mtime, self._read_record(key, stat.st_size))

    @contextlib.contextmanager
    def stage(self, key: str, *, in_place: bool = False
              ) -> Iterator[Staging]:
        durable.make_directory(self._staged)
        self._clear(key)
        with durable.translated("staging a base", self._staged):
            attempt = pathlib.Path(tempfile.mkdtemp(
                prefix=f"{key}.", dir=self._staged))
        output = attempt / "output"
        try:
            if in_place:
                self._marker(key).touch()
                durable.fsync_directory(self._staged)
                yield Staging(self._path(key), output)
            else:
                yield Staging(attempt / "download", output)
        finally:
            self._clear(key)

    def commit(self, key: str, proven: Proven, record: Record) -> Base:
        path = self._path(key)
        with durable.translated("committing a base", path):
            proven.path.chmod(_READ_ONLY)
            os.rename(proven.path, path)      # the commit
            self._marker(key).unlink(missing_ok=True)
            # Last: a base without a record is proven again, but a record
            # without its base might be taken for that of another.
            self._write_record(key, record)
            durable.fsync_directory(self.directory)
        return Base(key, path, record.format, record.virtual_size,
                    record.cluster_size)

    def record(self, key: str, record: Record) -> Base:
        with durable.translated("recording a base", self._path(key)):
            self._write_record(key, record)
            durable.fsync_directory(self.directory)
        return Base(key, self._path(key), record.format, record.virtual_size,
                    record.cluster_size)

    def touch(self, key: str) -> None:
        # Another user's file, or one on a strict NFS server, is used anyway.
        with contextlib.suppress(PermissionError):
            os.utime(self._path(key))

    def entries(self) -> Iterator[Entry]:
        if not self.directory.is_dir():
            return
        for path in sorted(self.directory.iterdir()):
            if path.suffix == _RECORD or path.name.startswith("."):
                continue
            entry = self.lookup(path.name) if path.is_file() else None
            if entry:
                yield entry

    def in_use(self, key: str) -> Sequence[str]:
        path = self._path(key)
        return [str(disk) for disk in self._disks() if _is_made_of(disk, path)]

    def remove(self, key: str) -> None:
        with durable.translated("removing a base", self._path(key)):
            self._record_path(key).unlink(missing_ok=True)
            self._path(key).unlink(missing_ok=True)
            durable.fsync_directory(self.directory)

    @property
    def _staged(self) -> pathlib.Path:
        return self.directory / ".staged"

    def _path(self, key: str) -> pathlib.Path:
        if not _KEY.fullmatch(key) or key.endswith(_RECORD):
            raise exception.InvalidName(
                name=key, what="the name of a base",
                reason="it must be a plain file name of letters, digits and"
                " -_.")
        return self.directory / key

    def _record_path(self, key: str) -> pathlib.Path:
        return self.directory / (key + _RECORD)

    def _marker(self, key: str) -> pathlib.Path:
        return self._staged / f"{key}.in-place"

    def _clear(self, key: str) -> None:
        """Remove what attempts at this key left; the caller has its lock."""
        if self._marker(key).exists():
            self._path(key).unlink(missing_ok=True)
            self._marker(key).unlink(missing_ok=True)
        for attempt in self._staged.iterdir():
            if attempt.name.rpartition(".")[0] == key:
                shutil.rmtree(attempt)

    def _read_record(self, key: str, size: int) -> Record | None:
        """Return the record, if it is of the base that is there."""
        try:
            found = json.loads(self._record_path(key).read_bytes())
            record = Record(**(found | {"format": Format(found["format"])}))
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None
        return record if record.size == size else None

    def _write_record(self, key: str, record: Record) -> None:
        content = json.dumps(dataclasses.asdict(record), indent=1)
        durable.write_file(self._record_path(key), content.encode())

    def _disks(self) -> Iterator[pathlib.Path]:
        """Yield every file that may be a disk of an instance."""
        for instance in self.instances.iterdir():
            if instance == self.directory or not instance.is_dir():
                continue
            yield from (f for f in instance.iterdir() if f.is_file()
                        and f.name != disk_info.FILE_NAME)


def _is_made_of(disk: pathlib.Path, base: pathlib.Path) -> bool:
    """Say whether a disk reads a base; what cannot be known counts as yes."""
    try:
        backing = qcow2.read_header(disk).backing_file
    except exception.InvalidDiskFormat:
        return False
    except FileNotFoundError:
        return False      # removed since it was listed
    except OSError:
        return True
    return backing is not None and (
        disk.parent / backing).resolve() == base.resolve()
