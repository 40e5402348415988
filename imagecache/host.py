# SPDX-License-Identifier: Apache-2.0
"""What one compute host offers its disks; passed in, never looked up."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib

from imagecache import events, exception
from imagecache.bases.cache import BaseCache
from imagecache.bases.directory import DirectoryStore
from imagecache.bases.disk_info import ENCRYPTED_FILE_NAME, DiskInfo
from imagecache.bases.store import BaseStore
from imagecache.model import Format
from imagecache.policy import Policy
from imagecache.system.locks import Locks
from imagecache.tools import qemu_img, qemu_nbd

# A file system takes 255 bytes, and the name of an attempt is longer.
_LONGEST_NAME = 200


@dataclasses.dataclass(frozen=True)
class Host:
    policy: Policy
    observe: events.Observer = events.silent

    @property
    def locks(self) -> Locks:
        return Locks(self.policy.locks, self.policy.lock_prefix)

    @property
    def directory_cache(self) -> BaseCache:
        """The bases that are files."""
        return self.cache_over(
            DirectoryStore(self.policy.bases, self.policy.instances))

    def cache_over(self, store: BaseStore) -> BaseCache:
        return BaseCache(store, self.locks, self.policy, self.observe)

    def instance_directory(self, instance: str) -> pathlib.Path:
        """Return the directory of an instance's disks.

        :raises InvalidName: it would be outside of the instances path, or
            is a directory of this library
        """
        found = self.policy.instances / require_plain(instance, "an instance")
        if found in (self.policy.bases, self.policy.locks):
            raise exception.InvalidName(
                name=instance, what="the name of an instance",
                reason="the cache has a directory of that name")
        return found

    def disk_info(self, directory: pathlib.Path) -> DiskInfo:
        """The record of the formats of the disks in a directory."""
        return DiskInfo(directory, self.locks)

    def encrypted(self, directory: pathlib.Path) -> DiskInfo:
        """The record of those disks in a directory that are encrypted."""
        return DiskInfo(directory, self.locks, ENCRYPTED_FILE_NAME)

    def block_device(self, path: pathlib.Path, format: Format, size: int,
                     backing: pathlib.Path | None
                     ) -> contextlib.AbstractContextManager[pathlib.Path]:
        """Attach a disk in a file, and yield the block device."""
        return qemu_nbd.attached(
            path, format, size, backing=backing, locks=self.locks,
            limits=self.policy.conversion.writing(
                qemu_img.most(size) + path.stat().st_size),
            root_helper=self.policy.root_helper)


def require_plain(name: str, what: str) -> str:
    """Return a name, if a file of that name stays in its directory.

    :raises InvalidName: it may not
    """
    # Names of attempts begin with a dot.
    if not name.isprintable() or not name or name.startswith(".") \
            or "/" in name or len(name.encode()) > _LONGEST_NAME:
        raise exception.InvalidName(
            name=name, what=f"the name of {what}",
            reason="it must be a plain file name of at most"
            f" {_LONGEST_NAME} bytes")
    return name
