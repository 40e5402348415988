# SPDX-License-Identifier: Apache-2.0
"""Qcow2: a thin overlay on the base."""

from __future__ import annotations

import pathlib

from imagecache.backends.base import FileDisk
from imagecache.formats import qcow2
from imagecache.model import Base, Capabilities, Format
from imagecache.tools import qemu_img


class Qcow2(FileDisk):
    capabilities = Capabilities(depends_on_base=True)
    formats = (Format.QCOW2,)
    unrecorded = Format.QCOW2

    def create(self, base: Base, size: int | None) -> None:
        size = size or base.virtual_size
        with self._new(Format.QCOW2) as new:
            qemu_img.create_overlay(new, base.path, base.format, size,
                                    base.cluster_size)
            self._preallocate(new, size, Format.QCOW2)

    def size(self) -> int:
        return self._header().virtual_size

    def base_key(self) -> str | None:
        base = self._header().backing_file
        return None if base is None else pathlib.Path(base).name

    def grow(self, size: int) -> None:
        if size <= self.size():
            return
        self._preallocate(self.path, size, Format.QCOW2)
        qemu_img.resize(self.path, Format.QCOW2, size,
                        limits=self.host.policy.inspection,
                        backing=self._backing(self.path,
                                              Format.QCOW2))
        self._observe("grown", size=size)

    def flatten(self) -> None:
        """Copy in what the disk still reads from its base, and let it go.

        No guest may be running on the disk.
        """
        self._require()
        if self._backing(self.path, Format.QCOW2):
            self._rebase(None, Format.RAW)

    def rebase(self, base: Base) -> None:
        """Put the disk on another base; its content stays as it is.

        No guest may be running on the disk.
        """
        self._require()
        self._rebase(base.path, base.format)

    def _rebase(self, new: pathlib.Path | None, format: Format) -> None:
        old = self._backing(self.path, Format.QCOW2)
        qemu_img.rebase(self.path, old, new, format,
                        limits=self.host.policy.conversion)

    def _header(self) -> qcow2.Header:
        self._require()
        return qcow2.read_header(self.path)
