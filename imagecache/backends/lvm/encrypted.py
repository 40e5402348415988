# SPDX-License-Identifier: Apache-2.0
"""Disks that are encrypted logical volumes, which the kernel decrypts.

The volume is LUKS, and a tag says so.  The guest gets a device of dm-crypt,
which exists while the disk is open: from its creation to the next boot of the
host, and from open() to close().
"""

from __future__ import annotations

import os
import pathlib

from imagecache import exception
from imagecache.backends.lvm import Lvm
from imagecache.backends.lvm.volume_disk import LUKS_TAG
from imagecache.bases.cache import BaseCache
from imagecache.encryption import Encryption
from imagecache.events import Name
from imagecache.host import Host
from imagecache.model import Base, Capabilities, Format, whole_sectors
from imagecache.tools import blockdev, cryptsetup, luks

SUFFIX = "-dmcrypt"    # nova's, of the device that a guest gets


class EncryptedLvm(Lvm):
    """A copy of a base in the directory, in a volume of its own.

    Behind the end of the image, the guest reads noise until it writes there.
    """

    capabilities = Capabilities(block_device=True)
    encrypts = True
    tags = (*Lvm.tags, LUKS_TAG)

    def __init__(self, host: Host, instance: str, name: str,
                 path: pathlib.Path | None = None,
                 encryption: Encryption | None = None) -> None:
        super().__init__(host, instance, name, path)
        self._encryption = encryption

    @classmethod
    def cache_of(cls, host: Host) -> BaseCache:
        # A snapshot of a base cannot be encrypted.
        return host.directory_cache

    @property
    def encryption(self) -> Encryption:
        """:raises KeyRequired: the caller gave no key"""
        if self._encryption is None:
            raise exception.KeyRequired(location=self.volume)
        return self._encryption

    @property
    def path(self) -> pathlib.Path:
        return cryptsetup.device(self.volume.name + SUFFIX)

    def create(self, base: Base, size: int | None) -> None:
        found, state = self._survey()
        if found:
            self._bring_back(found, size or 0)
            self.open()
            return
        full = whole_sectors(max(size or 0, base.virtual_size))
        _, extent = self._group.space()
        # The header takes whole extents, so that the guest gets whole ones.
        offset = -(-cryptsetup.HEADER // extent) * extent
        with self._new(offset + full, state,
                       data=offset + base.virtual_size) as volume:
            cryptsetup.create(volume, offset, self.encryption,
                              self._root_helper)
            with volume.open("rb") as f:
                luks.fill(volume, base.path, base.format, self.encryption,
                          limits=self.host.policy.conversion,
                          progress=self._extracting)
                os.fsync(f.fileno())
        try:
            self.open()
        except BaseException:
            self.remove()
            raise

    def open(self) -> None:
        """Make the device for the guest; do nothing if it exists.

        :raises KeyRequired, WrongKey: the disk stays closed
        """
        if not self.path.is_block_device():
            self._require()
            cryptsetup.open(self.volume, self.path.name, self.encryption,
                          self._root_helper)

    def close(self) -> None:
        """Remove the guest's device, and the key from the kernel.

        :raises StorageFailed: the guest still uses it
        """
        try:
            cryptsetup.close(self.path.name, self._root_helper)
        except exception.CommandFailed as e:
            if self.path.is_block_device():
                raise exception.StorageFailed(
                    what="closing an encrypted disk", path=self.path,
                    reason=str(e)) from e
            raise

    def size(self) -> int:
        try:
            return blockdev.size(self.path)
        except OSError:
            return self._header().virtual_size

    def _header(self) -> luks.Header:
        with self._group.chowned(self._require().name) as volume:
            return luks.read_header(volume)

    def grow(self, size: int) -> None:
        """Grow to ``size`` bytes; a file system in it stays as it is.

        :raises KeyRequired, WrongKey: its size has not changed
        """
        if size > self.size():
            self.open()
            volume, full = self._require(), self._header().offset + size
            if full > volume.size:    # False: an earlier call was killed here
                self._extend(volume, full)
            cryptsetup.resize(self.path.name, self._root_helper)
            self._observe(Name.GROWN, size=size)

    def remove(self) -> None:
        """Delete the disk; its content is wiped as the policy has it."""
        self.close()
        super().remove()

    def _copy_out(self, new: pathlib.Path, output_format: str,
                  backing: pathlib.Path | None, compress: bool) -> None:
        luks.extract(self.volume, Format.RAW, new, output_format,
                     self.encryption, limits=self._limits_of_a_copy,
                     compress=compress, progress=self._extracting)

    @property
    def _root_helper(self) -> str:
        return self.host.policy.root_helper
