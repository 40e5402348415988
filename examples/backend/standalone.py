# SPDX-License-Identifier: Apache-2.0
"""Standalone: a qcow2 file that needs no base.

It takes as little space as an overlay, and can be moved like a full copy.
"""

from __future__ import annotations

from imagecache import Format
from imagecache.backends import Qcow2File
from imagecache.model import Base, Capabilities


class Standalone(Qcow2File):
    capabilities = Capabilities(depends_on_base=False, file=True)
    formats = (Format.QCOW2,)
    unrecorded = Format.QCOW2

    def create(self, base: Base, size: int | None) -> None:
        with self._new(Format.QCOW2) as new:
            self._copy_base(base, new, size)

    def size(self) -> int:
        return self._virtual_size()

    def grow(self, size: int) -> None:
        self._grow_qcow2(size)
