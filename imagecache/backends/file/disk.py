# SPDX-License-Identifier: Apache-2.0
"""FileDisk: the common part of the disks that are files."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator
from typing import ClassVar

from imagecache import exception
from imagecache.backends.base import Disk
from imagecache.bases.disk_info import NAMES, DiskInfo
from imagecache.events import Name
from imagecache.formats import qcow2
from imagecache.host import require_plain
from imagecache.inspection import backing
from imagecache.model import Capabilities, Format
from imagecache.system import durable, writers
from imagecache.tools import file_copy, qemu_img

_DISK_MODE = 0o644   # the hypervisor runs as another user


class FileDisk(Disk):
    """A disk that is one file in the directory of its instance."""

    capabilities = Capabilities(file=True)

    # Without a record a disk is raw: read as raw, no bytes that a guest has
    # written mean anything to the host.
    unrecorded: ClassVar[Format] = Format.RAW

    @property
    def format(self) -> Format:
        return self.recorded() or self.unrecorded

    def recorded(self) -> Format | None:
        return self._record.format_of(self.path)

    def is_encrypted(self) -> bool:
        return self._encrypted.format_of(self.path) is not None

    @property
    def path(self) -> pathlib.Path:
        if self._path is not None:
            return self._path
        if self.name in NAMES:
            raise exception.InvalidName(
                name=self.name, what="the name of a disk",
                reason="it is the name of a record; use another name")
        return self.host.instance_directory(self.instance) \
            / require_plain(self.name, "a disk")

    def exists(self) -> bool:
        return self.path.exists()

    def allocated(self) -> int:
        try:
            return self.path.stat().st_blocks * 512
        except FileNotFoundError:
            raise exception.DiskNotFound(location=self.path) from None

    def remove(self) -> None:
        """Delete the disk, and the instance's directory if it is empty."""
        directory = self.path.parent
        if not directory.is_dir():
            return
        records = (self._record, self._encrypted)
        for record in records:
            record.formats()    # a damaged record is an error: mend it first
        with durable.translated("removing a disk", self.path):
            self.path.unlink(missing_ok=True)
            durable.clear_staged(directory, self.path.name)
            for record in records:
                record.forget(self.path)
                durable.clear_staged(directory, record.file_name,
                                     but_alive=True)
            with contextlib.suppress(OSError):   # it is not empty
                directory.rmdir()
        self._observe(Name.REMOVED)

    def extract(self, output: pathlib.Path, output_format: str) -> None:
        """Copy the disk's content into a new file.

        :param output_format: raw, qcow2, vmdk, vdi, vhd or vhdx
        :raises DiskNotFound: there is no disk
        :raises InvalidDiskFormat: the output format is none of these
        """
        self._require()
        self._extract(output, output_format,
                      self._backing(self.path, self.format))

    def _backing(self, path: pathlib.Path,
                 format: Format) -> pathlib.Path | None:
        """Return the base of a qcow2 file, after a check of its header.

        :raises UnsafeDisk: no program may open the file
        """
        if format is not Format.QCOW2:
            return None
        return backing.base_of(path, self.host.policy.bases)

    @property
    def _record(self) -> DiskInfo:
        return self.host.disk_info(self.path.parent)

    @property
    def _encrypted(self) -> DiskInfo:
        return self.host.encrypted(self.path.parent)

    def _require(self) -> None:
        """Refuse a disk that does not exist, or is of another kind.

        :raises DiskNotFound, InvalidDiskFormat: it is
        """
        if not self.exists():
            raise exception.DiskNotFound(location=self.path)
        if self.format not in self.formats:
            raise exception.InvalidDiskFormat(
                f"{self.path} is on record as {self.format}: it is no"
                f" {type(self).__name__} disk", disk_format=self.format)
        if self.is_encrypted() != self.encrypts:
            raise exception.InvalidDiskFormat(
                f"{self.path} is{' not' if self.encrypts else ''} on record"
                " as encrypted", disk_format=self.format)

    def _require_unused(self) -> None:
        """:raises StorageBusy: a process, such as a guest's, may write it"""
        writers.require_none(self.path, "growing a disk")

    @contextlib.contextmanager
    def _new(self, format: Format) -> Iterator[pathlib.Path]:
        """Yield a path for the new disk; the disk appears when the block ends.

        Its format is on record before the disk is visible, and the disk
        survives a power failure.

        :raises DiskExists: another process has made the disk meanwhile
        """
        directory, name = self.path.parent, self.path.name
        with durable.translated("creating a disk", self.path), \
                durable.directory_for(directory), \
                durable.staged(directory, name) as new:
            durable.clear_staged(directory, name, but_alive=True)
            yield new
            new.chmod(_DISK_MODE)    # whatever the umask
            with self._record.recording(self.path, format), \
                    self._encrypted.recording(
                        self.path, format if self.encrypts else None):
                self._commit(new)
            durable.fsync_directory(directory)
        self._observe(Name.CREATED)

    def _commit(self, new: pathlib.Path) -> None:
        try:
            os.link(new, self.path)    # a rename would replace a disk
        except FileExistsError:
            raise exception.DiskExists(location=self.path) from None

    def _preallocate(self, path: pathlib.Path, size: int,
                     format: Format = Format.RAW) -> None:
        """Allocate the space that a guest needs to fill ``size`` bytes.

        :raises NoSpace: there is too little space; almost none was allocated
        """
        if not self.host.policy.preallocate:
            return
        if format is Format.QCOW2:
            # The tables take space, and once more when they move to grow.
            size += 2 * (qemu_img.measure(
                size, format, qcow2.read_header(path).cluster_size) - size)
        needed = size - path.stat().st_blocks * 512
        available = durable.available(path.parent)
        # Do not try with too little space: it would take all that is left
        # from the other guests, and ext4 would not free it.  One byte shows
        # whether the file system can preallocate at all.
        if not file_copy.preallocate(path, size if needed <= available
                                      else 1):
            self._observe(Name.BLOCKS_NOT_ALLOCATED)
        elif needed > available:
            raise exception.NoSpace(
                path=path.parent, what="the blocks of a disk", needed=needed,
                available=available)
