# SPDX-License-Identifier: Apache-2.0
"""Qcow2File: the disks that are qcow2 files, or may be."""

from __future__ import annotations

import pathlib

from imagecache.backends.file.disk import FileDisk
from imagecache.events import Name
from imagecache.formats import qcow2
from imagecache.model import Base, Format
from imagecache.system import durable
from imagecache.tools import qemu_img, qemu_nbd

_STAGED_MODE = 0o600    # until the disk is complete


class Qcow2File(FileDisk):
    """A disk in a file that is qcow2, or may be: operations on such a file."""

    def _virtual_size(self) -> int:
        """Return the bytes that the guest sees, from the header of the disk.

        :raises DiskNotFound: there is no disk
        :raises InvalidDiskFormat: the disk is not qcow2
        """
        self._require()
        return qcow2.read_header(self.path).virtual_size

    def _copy_base(self, base: Base, new: pathlib.Path,
                   size: int | None) -> None:
        """Write the content of a base into a new qcow2 file, and flush it.

        :param size: bytes the guest must see; None, 0 or less than the base
            has: as many as the base has
        """
        durable.create_file(new, _STAGED_MODE)
        with durable.flushed(new):
            qemu_img.convert(base.path, base.format, new, Format.QCOW2,
                             limits=self.host.policy.conversion)
            self._resize_qcow2(new, max(size or 0, base.virtual_size))

    def _grow_qcow2(self, size: int) -> None:
        """Grow a disk that is qcow2; do nothing if it is that large already.

        :raises StorageBusy: a process, such as a guest's, may write it
        """
        if size > self.size():
            self._require_unused()
            self._resize_qcow2(self.path, size)
            self._observe(Name.GROWN, size=size)

    def _resize_qcow2(self, path: pathlib.Path, size: int) -> None:
        """Grow a file, and the file system in it if that is configured.

        :raises NbdUnavailable: it is, and this host cannot do it
        """
        if self.host.policy.resize_fs_using_block_device:
            qemu_nbd.require(path)     # before anything has changed
        self._preallocate(path, size, Format.QCOW2)
        qemu_img.resize(path, Format.QCOW2, size,
                        limits=self.host.policy.inspection,
                        backing=self._backing(path, Format.QCOW2))
        self._grow_inside(path, size)

    def _grow_inside(self, path: pathlib.Path, size: int) -> None:
        """Let an unpartitioned ext file system fill a disk, if asked to."""
        if self.host.policy.resize_fs_using_block_device:
            with self.host.block_device(
                    path, Format.QCOW2, size,
                    self._backing(path, Format.QCOW2)) as device:
                self._grow_filesystem(device)
