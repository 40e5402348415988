# SPDX-License-Identifier: Apache-2.0
"""The fixture of every conformance test: a host, an image and its disks."""

from __future__ import annotations

import threading
import unittest
from collections.abc import Set
from typing import Any, ClassVar

import fixtures

from imagecache import sources
from imagecache.backends.base import Disk
from imagecache.image_cache import ImageCache
from imagecache.model import MiB
from imagecache.testing import fixture, images

INSTANCE = "8a6a8b1f-7f0c-4b3c-a8a2-3f7d2b6d6d5e"
OTHER = "0d4a1d5e-52a6-4c1e-9d2b-4e1c9b8f7a60"
SIZE = MiB           # of the image, as a guest sees it


class DiskTestCase(fixtures.TestWithFixtures, unittest.TestCase):
    """A host whose disks are of one backend, and an image to make them from.

    The methods below read, write and list disks that are files.  The test
    of a backend with other storage overrides them.
    """

    # The name of the backend, as in the option images_type.
    image_type: ClassVar[str]
    # The format of the image in its store.  A raw image needs no conversion,
    # which saves the time of three programs in each test.
    image_format: ClassVar[str] = "qcow2"

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("libvirt", images_type=self.image_type)
        self.content = images.content(SIZE)
        data = images.qcow2(self.content) if self.image_format == "qcow2" \
            else self.content
        self.image = self.images.add(data, self.image_format)

    @property
    def cache(self) -> ImageCache:
        return self.images.cache

    def make(self, size: int | None = None, instance: str = INSTANCE,
             **options: Any) -> Disk:
        """Make a disk of the image.

        :param size: bytes; None for the size of the image
        :param options: further arguments of ``ImageCache.create_disk``
        """
        return self.cache.create_disk(instance, self.image, size=size,
                                      **options)

    def source(self) -> sources.Image:
        store = self.images.store
        return sources.Image(store, store.describe(self.image))

    def read(self, disk: Disk) -> bytes:
        """Return the content of the disk, as its guest reads it."""
        return images.read(disk.path, disk.format)

    def write(self, disk: Disk, data: bytes) -> None:
        """Write to the first bytes of the disk, as its guest does."""
        images.write(disk.path, disk.format, data)

    def left(self) -> set[str]:
        """Return the names of all disks, bases and other files, not locks."""
        root = self.images.instances_path
        return {str(path.relative_to(root)) for path in root.rglob("*")
                if not path.is_dir()
                and path.parent != self.cache.host.locks.directory}

    def is_of_a_base(self, name: str) -> bool:
        """Return True if ``name``, from left(), belongs to a base."""
        return name.startswith("_base/")

    def lose_base(self, disk: Disk) -> None:
        """Remove the only base, although a disk may need it."""
        [entry] = list(disk.cache.entries())
        disk.cache.store.remove(entry.key)

    def assert_nothing_left(self, *, but: Set[str] = frozenset()) -> None:
        """Check that no disk is left, and that no lock is held.

        :param but: the names that left() must return, and no others
        """
        self.assertEqual(but, self.left())
        self.assertFalse((self.images.instances_path / INSTANCE).exists())
        holder = threading.Thread(target=self._hold_all, daemon=True)
        holder.start()
        holder.join(10)
        self.assertFalse(holder.is_alive(), "a lock is still held")

    def _hold_all(self) -> None:
        locks = self.cache.host.locks
        for path in locks.directory.glob(f"{locks.prefix}*"):
            with locks.holding(path.name.removeprefix(locks.prefix)):
                pass
