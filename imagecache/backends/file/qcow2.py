# SPDX-License-Identifier: Apache-2.0
"""Qcow2: a thin overlay on the base."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterator

from imagecache import sources
from imagecache.backends.file.qcow2_file import Qcow2File
from imagecache.events import Name
from imagecache.formats import qcow2
from imagecache.model import NATIVE, Base, Capabilities, Format, GiB
from imagecache.tools import qemu_img


class Qcow2(Qcow2File):
    capabilities = Capabilities(depends_on_base=True, file=True)
    formats = (Format.QCOW2,)
    unrecorded = Format.QCOW2

    def create(self, base: Base, size: int | None) -> None:
        size = size or base.virtual_size
        with self._new(Format.QCOW2) as new:
            qemu_img.create_overlay(new, base.path, base.format, size,
                                    base.cluster_size)
            self._preallocate(new, size, Format.QCOW2)
            # The file system in a resized qcow2 base has not grown.
            if size > base.virtual_size or (base.format is Format.QCOW2 \
                    and sources.is_resized(base.key)):
                self._grow_inside(new, size)

    def lease(self, source: sources.Source, size: int | None
              ) -> contextlib.AbstractContextManager[Base]:
        resized = source.resized(size) \
            if self.host.policy.resized_bases and size else None
        if not resized or not size:
            return self.cache.lease(source, size)
        if size % GiB:
            self._observe(Name.BASE_NOT_RESIZED, reason="bases are resized to"
                          f" whole GiB, and {size} bytes are not")
            return self.cache.lease(source, size)
        return self._lease_resized(resized)

    def size(self) -> int:
        return self._header().virtual_size

    def base_key(self) -> str | None:
        base = self._header().backing_file
        return None if base is None else pathlib.Path(base).name

    def base_format(self) -> Format | None:
        named = self._header().backing_format
        return Format(named) if named in NATIVE else None

    def grow(self, size: int) -> None:
        self._grow_qcow2(size)

    def flatten(self) -> None:
        """Copy all that the disk reads from its base, and detach it.

        No guest may be running on the disk.
        """
        self._require()
        if self._backing(self.path, Format.QCOW2):
            self._rebase(None, Format.RAW)

    def rebase(self, base: Base) -> None:
        """Move the disk to another base; its content does not change.

        No guest may be running on the disk.
        """
        self._require()
        self._rebase(base.path, base.format)

    @contextlib.contextmanager
    def _lease_resized(self, source: sources.Resized) -> Iterator[Base]:
        if not self.cache.has(source):
            with self.cache.lease(source.original, source.size) as base:
                if base.virtual_size == source.size:
                    yield base    # the image has the size already
                    return
        with self.cache.lease(source, source.size) as base:
            yield base

    def _rebase(self, new: pathlib.Path | None, format: Format) -> None:
        old = self._backing(self.path, Format.QCOW2)
        qemu_img.rebase(self.path, old, new, format,
                        limits=self.host.policy.conversion)

    def _header(self) -> qcow2.Header:
        self._require()
        return qcow2.read_header(self.path)
