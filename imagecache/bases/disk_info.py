# SPDX-License-Identifier: Apache-2.0
"""The record of disk formats: ``disk.info`` in the instance's directory.

A guest can write an image header into its raw disk.  A program that detected
the format of the disk would then follow that header into the host's files.
So the format is recorded when the disk is made, and never detected.  The file
is nova's: one JSON object, from the disk's absolute path to its format.

For the same reason a second record, ``disk.luks``, has the encrypted disks;
nova does not know it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

from imagecache import exception
from imagecache.model import Format, native
from imagecache.system import durable
from imagecache.system.locks import Locks

FILE_NAME = "disk.info"
ENCRYPTED_FILE_NAME = "disk.luks"    # the record of encrypted disks
NAMES = (FILE_NAME, ENCRYPTED_FILE_NAME)

Formats = Mapping[pathlib.Path, Format]


@dataclasses.dataclass(frozen=True)
class DiskInfo:
    directory: pathlib.Path
    locks: Locks
    file_name: str = FILE_NAME

    @property
    def path(self) -> pathlib.Path:
        return self.directory / self.file_name

    def formats(self) -> dict[pathlib.Path, Format]:
        """Return every disk on record; none if there is no record.

        :raises InvalidDiskInfo: the file is damaged
        :raises DiskInfoReadWriteFail: it cannot be read
        """
        try:
            found = json.loads(self.path.read_bytes())
            return {pathlib.Path(k): native(v) for k, v in found.items()}
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise exception.DiskInfoReadWriteFail(reason=str(e)) from e
        except (ValueError, AttributeError, TypeError) as e:
            raise exception.InvalidDiskInfo(
                reason=f"{self.path}: {e}") from e

    def format_of(self, disk: pathlib.Path) -> Format | None:
        """Return the format on record; None if there is none.

        A directory that was moved or restored as a whole keeps its meaning:
        the name of a disk counts where its path is not on record.
        """
        formats = self.formats()
        by_name = {path.name: format for path, format in formats.items()}
        return formats.get(disk, by_name.get(disk.name))

    @contextlib.contextmanager
    def recording(self, disk: pathlib.Path,
                  format: Format | None) -> Iterator[None]:
        """Record the format of a disk that appears during the block.

        If the block fails, the former record comes back: another process may
        have made the disk, in another format.

        :param format: None removes the disk from the record
        """
        if format is None and not self.path.exists():
            yield
            return
        with self._locked():
            before = self.formats()
            after = _without(before, disk) if format is None \
                else before | {disk: format}
            self._replace(before, after)
            try:
                yield
            except BaseException:
                self._replace(after, before)
                raise

    def record(self, disk: pathlib.Path, format: Format) -> None:
        """Record the format of a disk that exists."""
        with self.recording(disk, format):
            pass

    def forget(self, disk: pathlib.Path) -> None:
        """Remove a deleted disk from the record."""
        if not self.path.exists():
            return
        with self._locked():
            before = self.formats()
            self._replace(before, _without(before, disk))

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        # Lock files are never removed: all instances share 256 of them.
        name = hashlib.sha1(str(self.directory).encode(),
                            usedforsecurity=False).hexdigest()[:2]
        return self.locks.holding(f"{self.file_name}-{name}")

    def _replace(self, before: Formats, formats: Formats) -> None:
        if formats == before:
            return
        content = json.dumps({str(k): v for k, v in formats.items()})
        try:
            if formats:
                durable.write_file(self.path, content.encode())
            else:
                self.path.unlink(missing_ok=True)
        except (exception.HostError, OSError) as e:
            raise exception.DiskInfoReadWriteFail(reason=str(e)) from e


def directories(instances: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yield the directories that may be of an instance, in order.

    ``lost+found``, where fsck(8) puts files, is left out if it is unreadable.
    """
    for each in sorted(instances.iterdir()):
        if each.name == "lost+found" \
                and not os.access(each, os.R_OK | os.X_OK):
            continue
        if each.is_dir():    # nova keeps a file there as well
            yield each


def _without(formats: Formats, disk: pathlib.Path) -> Formats:
    return {path: format for path, format in formats.items()
            if path.name != disk.name}
