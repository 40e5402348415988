# SPDX-License-Identifier: Apache-2.0
"""The record of disk formats: ``disk.info`` in the instance's directory.

A guest can write an image header into its raw disk; whoever then asked the
disk what it is would follow that header into the host's files.  So the
format is written down when the disk is made, and never asked for again.  The
file is nova's: one JSON object, from the disk's absolute path to its format.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib

from imagecache import durable, exception
from imagecache.locks import Locks
from imagecache.model import Format

FILE_NAME = "disk.info"


@dataclasses.dataclass(frozen=True)
class DiskInfo:
    directory: pathlib.Path
    locks: Locks

    @property
    def path(self) -> pathlib.Path:
        return self.directory / FILE_NAME

    def formats(self) -> dict[pathlib.Path, Format]:
        """Return every disk on record; none if there is no record.

        :raises InvalidDiskInfo: the file is damaged
        :raises DiskInfoReadWriteFail: it cannot be read
        """
        try:
            found = json.loads(self.path.read_bytes())
            return {pathlib.Path(k): Format(v) for k, v in found.items()}
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

    def record(self, disk: pathlib.Path, format: Format) -> None:
        """Write down what a disk is that is about to appear."""
        with self._locked():
            formats = self.formats()
            if formats.get(disk) is not format:
                self._write(formats | {disk: format})

    def forget(self, disk: pathlib.Path) -> None:
        """Take a removed disk off the record."""
        with self._locked():
            formats = self.formats()
            if formats.pop(disk, None) is None:
                return
            if formats:
                self._write(formats)
            else:
                self.path.unlink(missing_ok=True)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        # Lock files stay for ever: 256 are shared by all instances.
        name = hashlib.sha1(str(self.directory).encode(),
                            usedforsecurity=False).hexdigest()[:2]
        return self.locks.holding(f"{FILE_NAME}-{name}")

    def _write(self, formats: dict[pathlib.Path, Format]) -> None:
        content = json.dumps({str(k): v for k, v in formats.items()})
        try:
            durable.write_file(self.path, content.encode())
        except (exception.NoSpace, exception.StorageFailed) as e:
            raise exception.DiskInfoReadWriteFail(reason=str(e)) from e
