# SPDX-License-Identifier: Apache-2.0
"""A file that is qcow2, or may be: how it grows, and what is in it."""

from __future__ import annotations

import pathlib

from imagecache.backends.file.disk import FileDisk
from imagecache.model import Format
from imagecache.tools import qemu_img, qemu_nbd


class Qcow2File(FileDisk):

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
