# SPDX-License-Identifier: Apache-2.0
"""Standalone: a qcow2 file that needs no base, and no more than its data.

As thin as an overlay, and as free to move as a full copy.
"""

from __future__ import annotations

import pathlib

from imagecache.backends import FileDisk
from imagecache.formats import qcow2
from imagecache.model import Base, Capabilities, Format
from imagecache.system import durable
from imagecache.tools import qemu_img


class Standalone(FileDisk):
    capabilities = Capabilities(depends_on_base=False, file=True)
    formats = (Format.QCOW2,)
    unrecorded = Format.QCOW2

    def create(self, base: Base, size: int | None) -> None:
        with self._new(Format.QCOW2) as new:
            qemu_img.convert(base.path, base.format, new, Format.QCOW2,
                             limits=self.host.policy.conversion)
            self._resize(new, max(size or 0, base.virtual_size))
            durable.fsync_file(new)

    def size(self) -> int:
        self._require()
        return qcow2.read_header(self.path).virtual_size

    def grow(self, size: int) -> None:
        if size > self.size():
            self._resize(self.path, size)
            self._observe("grown", size=size)

    def _resize(self, path: pathlib.Path, size: int) -> None:
        self._preallocate(path, size, Format.QCOW2)    # or it stays as it is
        qemu_img.resize(path, Format.QCOW2, size,
                        limits=self.host.policy.inspection,
                        backing=self._backing(path, Format.QCOW2))
