# SPDX-License-Identifier: Apache-2.0
"""What block devices are not needed for, where there are none.

What they are needed for is in the tests under another kernel.
"""

from __future__ import annotations

from unittest import mock

from imagecache import exception, fixture
from imagecache.backends import Disk
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE
from imagecache.tests import base
from imagecache.tools import block_device


class WithoutDevicesTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # The machine that runs the tests may have some.
        self.enterContext(mock.patch.object(
            block_device, "devices", return_value=[]))
        self.images = self.useFixture(fixture.ImageCacheFixture(
            resize_fs_using_block_device=True))
        self.image = self.images.add(images.content(SIZE), "raw")

    def make(self, size: int | None, instance: str = INSTANCE) -> Disk:
        return self.images.cache.create_disk(instance, self.image, size=size)

    def test_a_disk_that_is_to_be_larger_is_refused(self) -> None:
        with self.assertRaises(exception.NbdUnavailable) as caught:
            self.make(2 * SIZE)
        for words in ("modprobe nbd", "resize_fs_using_block_device"):
            self.assertIn(words, str(caught.exception))
        self.assertFalse(self.images.cache.disk(INSTANCE).path.parent.exists())

    def test_a_disk_that_is_to_grow_stays_as_it_is(self) -> None:
        disk = self.make(None)
        before = disk.path.read_bytes()
        self.assertRaises(exception.NbdUnavailable, disk.grow, 2 * SIZE)
        self.assertTrue(before == disk.path.read_bytes())

    def test_so_does_a_copy_that_is_qcow2(self) -> None:
        self.images.config(use_cow_images=False, force_raw_images=False)
        self.image = self.images.add(images.qcow2(images.content(SIZE)),
                                     "qcow2")
        self.assertRaises(exception.NbdUnavailable, self.make, 2 * SIZE)
        disk = self.make(None)
        self.assertRaises(exception.NbdUnavailable, disk.grow, 2 * SIZE)
        self.assertEqual(SIZE, disk.size())

    def test_a_disk_as_large_as_its_image_needs_none(self) -> None:
        self.make(None)
        self.make(SIZE, OTHER).grow(SIZE)

    def test_raw_disks_need_none(self) -> None:
        self.images.config(use_cow_images=False)
        self.make(2 * SIZE).grow(4 * SIZE)

    def test_disks_of_this_hosts_own_making_need_none(self) -> None:
        cache = self.images.cache
        cache.create_swap(INSTANCE, MiB)
        cache.create_ephemeral(INSTANCE, SIZE)
        cache.create_blank(INSTANCE, "disk.blank", SIZE)

    def test_nothing_is_asked_of_them_unless_configured(self) -> None:
        self.images.config(resize_fs_using_block_device=False)
        self.make(2 * SIZE).grow(4 * SIZE)
