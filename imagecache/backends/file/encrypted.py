# SPDX-License-Identifier: Apache-2.0
"""Disks in files that are encrypted with LUKS; their bases are not.

The record ``disk.luks``, beside ``disk.info``, lists these disks.  Their
content is never asked whether it is encrypted: a guest can write a header of
LUKS to the beginning of its raw disk.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

from imagecache import exception
from imagecache.backends.file.disk import FileDisk
from imagecache.backends.file.qcow2 import Qcow2
from imagecache.encryption import Encryption
from imagecache.events import Name
from imagecache.host import Host
from imagecache.inspection.backing import base_of
from imagecache.model import Base, Capabilities, Format, whole_sectors
from imagecache.system import durable
from imagecache.tools import luks


class Encrypted(FileDisk):
    """The common part of both kinds.

    :param encryption: None if no method that needs the key will be called
    """

    encrypts = True

    def __init__(self, host: Host, instance: str, name: str,
                 path: pathlib.Path | None = None,
                 encryption: Encryption | None = None) -> None:
        super().__init__(host, instance, name, path)
        self._encryption = encryption

    @property
    def encryption(self) -> Encryption:
        """:raises KeyRequired: the caller gave no key"""
        if self._encryption is None:
            raise exception.KeyRequired(location=self.path)
        return self._encryption

    def _copy_out(self, new: pathlib.Path, output_format: str,
                  backing: pathlib.Path | None, compress: bool) -> None:
        luks.extract(self.path, self.format, new, output_format,
                     self.encryption, limits=self._limits_of_a_copy,
                     backing=backing, compress=compress,
                     progress=self._extracting)

    def _backing(self, path: pathlib.Path,
                 format: Format) -> pathlib.Path | None:
        if format is not Format.QCOW2:
            return None
        return base_of(path, self.host.policy.bases, encrypted=True)

    @contextlib.contextmanager
    def _new(self, format: Format) -> Iterator[pathlib.Path]:
        with super()._new(format) as new:
            yield new
            durable.fsync_file(new)    # without its key slots, all is lost


class EncryptedQcow2(Encrypted, Qcow2):
    """An encrypted overlay on a base that is not encrypted."""

    def create(self, base: Base, size: int | None) -> None:
        size = size or base.virtual_size
        with self._new(Format.QCOW2) as new:
            luks.create_overlay(new, base.path, base.format, size,
                                base.cluster_size, self.encryption)
            self._preallocate(new, size, Format.QCOW2)

    def grow(self, size: int) -> None:
        if size <= self.size():
            return
        self._require_unused()
        self._preallocate(self.path, size, Format.QCOW2)
        luks.resize(self.path, size, self.encryption,
                    limits=self.host.policy.conversion,
                    backing=self._backing(self.path, Format.QCOW2))
        self._observe(Name.GROWN, size=size)

    def _rebase(self, new: pathlib.Path | None, format: Format) -> None:
        luks.rebase(self.path, self._backing(self.path, Format.QCOW2), new,
                    format, self.encryption,
                    limits=self.host.policy.conversion)


class EncryptedRaw(Encrypted):
    """A copy of the base.

    Behind the end of the image, the guest reads noise until it writes there.
    """

    capabilities = Capabilities(file=True)
    formats = (Format.RAW,)

    def create(self, base: Base, size: int | None) -> None:
        full = whole_sectors(max(size or 0, base.virtual_size))
        durable.require_space(self.host.policy.instances, base.virtual_size,
                              "an encrypted disk, which has no holes")
        with self._new(Format.RAW) as new:
            luks.create(new, full, self.encryption)
            with durable.written(new):
                luks.fill(new, base.path, base.format, self.encryption,
                          limits=self.host.policy.conversion,
                          progress=self._extracting)
            self._preallocate(new, new.stat().st_size, Format.RAW)

    def size(self) -> int:
        self._require()
        return luks.read_header(self.path).virtual_size

    def grow(self, size: int) -> None:
        """Grow to ``size`` bytes; a file system in it stays as it is."""
        now = self.size()
        if size <= now:
            return
        self._require_unused()
        # LUKS reaches to the end of its file: no key is needed.
        full = luks.read_header(self.path).offset + whole_sectors(size)
        self._preallocate(self.path, full, Format.RAW)
        with durable.translated("growing a disk", self.path):
            os.truncate(self.path, full)
        durable.fsync_file(self.path)
        self._observe(Name.GROWN, size=size)
