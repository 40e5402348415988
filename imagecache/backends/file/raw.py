# SPDX-License-Identifier: Apache-2.0
"""Raw: a flat copy of the base, in a file of its own."""

from __future__ import annotations

import os
import pathlib

from imagecache import exception, sources
from imagecache.backends.file.qcow2_file import Qcow2File
from imagecache.bases import convert, pipeline
from imagecache.events import Name
from imagecache.formats import qcow2
from imagecache.inspection import verify
from imagecache.model import (
    Base,
    Capabilities,
    Format,
    Validated,
    whole_sectors,
)
from imagecache.system import durable
from imagecache.tools import file_copy


class Raw(Qcow2File):
    """A disk that needs nothing but its own file.

    Where ``force_raw_images`` is off and the base is qcow2, the copy stays
    qcow2: its record and all its descriptions say so.
    """

    capabilities = Capabilities(generates_in_place=True, file=True)

    def create(self, base: Base, size: int | None) -> None:
        format = Format.RAW if self.host.policy.force_raw else base.format
        with self._new(format) as new:
            if format is base.format:
                self._copy(base, new)
            else:
                self._convert(base.content, base.key, new)
            # qemu-img reads the tables of a qcow2 copy for the first time.
            with durable.flushed(new), verify.blaming(
                    base.content, base.key, self.host.policy):
                self._extend(new, format, base.virtual_size, size or 0)

    def generate(self, template: sources.Template,
                 size: int | None) -> None:
        with self._new(Format.RAW) as new:
            self._fill(template, new)
            with durable.flushed(new):
                self._extend(new, Format.RAW, new.stat().st_size, size or 0)

    def size(self) -> int:
        self._require()
        if self.format is Format.QCOW2:
            return qcow2.read_header(self.path).virtual_size
        try:
            return whole_sectors(self.path.stat().st_size)
        except FileNotFoundError:
            raise exception.DiskNotFound(location=self.path) from None

    def grow(self, size: int) -> None:
        now = self.size()
        if size > now:
            self._require_unused()
            with durable.flushed(self.path):
                self._extend(self.path, self.format, now, size)
            self._observe(Name.GROWN, size=size)

    def _fill(self, template: sources.Template, new: pathlib.Path) -> None:
        with durable.staged(new.parent, self.name) as written:
            content = pipeline.generate(template, written, self.host.policy)
            if content.format is Format.RAW:
                os.rename(written, new)
            else:
                self._convert(content, template.name, new)

    def _convert(self, content: Validated, name: str,
                 new: pathlib.Path) -> None:
        convert.to_raw(
            content, durable.filling(new, content.virtual_size),
            self.host.policy, name, self.host.observe)

    def _copy(self, base: Base, path: pathlib.Path) -> None:
        path.touch(exist_ok=False)
        file_copy.copy(base.path, path,
                        share=not self.host.policy.preallocate)

    def _extend(self, path: pathlib.Path, format: Format, now: int,
                size: int) -> None:
        """Grow a file to its full size, and the file system in it."""
        if size > now and format is Format.QCOW2:
            self._resize_qcow2(path, size)
            return
        full = whole_sectors(max(size, now))
        self._preallocate(path, full, format)
        # An unchanged size keeps every byte: a kernel may be signed.
        if size > now:
            with durable.translated("growing a disk", self.path):
                os.truncate(path, full)
            self._grow_filesystem(path)
