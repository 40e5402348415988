# SPDX-License-Identifier: Apache-2.0
"""Guests boot from the disks, and find them as large as was asked for."""

from __future__ import annotations

import uuid

from imagecache import ImageCache
from imagecache.backends import Disk
from imagecache.model import MiB
from imagecache.tests.functional import base, boot

SIZE = 256 * MiB


class BootTestCase(base.TestCase):

    image_type: str

    def setUp(self) -> None:
        super().setUp()
        self.image = self.useFixture(boot.BootImage())
        self.images = self.configured_cache()

    def configured_cache(self) -> ImageCache:
        return self.cache()

    def make(self) -> Disk:
        return self.images.create_disk(
            {"uuid": str(uuid.uuid4())}, str(self.image.path), size=SIZE,
            image_type=self.image_type)

    def boot(self, disk: Disk) -> boot.Report:
        return self.image.boot(disk.path, disk.format)

    def assert_found(self, report: boot.Report, size: int,
                     boots: int) -> None:
        """Check the size that a guest found, and the boots it counts."""
        self.assertEqual((size, boot.TOKEN, boots), (
            report.disk_bytes, report.token, report.boots))


class DiskPromises:
    """What a guest may expect of a disk, from any backend.

    An emulated guest takes seconds to boot, so each boot shows several
    things.
    """

    def test_a_disk_has_its_size_grows_and_keeps_what_its_guest_wrote(self):
        self.assertGreater(SIZE, self.image.size)
        disk = self.make()
        self.assert_found(self.boot(disk), SIZE, 1)
        disk.grow(2 * SIZE)
        self.assert_found(self.boot(disk), 2 * SIZE, 2)
        # Another guest does not see what this one wrote.
        self.assert_found(self.boot(self.make()), SIZE, 1)

    def test_an_extracted_disk_boots_with_what_the_guest_wrote(self):
        disk = self.make()
        self.boot(disk)
        for output_format in ("raw", "qcow2"):
            snapshot = self.root / f"snapshot.{output_format}"
            disk.extract(snapshot, output_format)
            self.assert_found(self.image.boot(snapshot, output_format),
                              SIZE, 2)


class FlattenedPromises:

    def test_a_flattened_disk_boots_without_its_base(self):
        disk = self.make()
        self.assert_found(self.boot(disk), SIZE, 1)
        disk.flatten()
        for entry in list(self.images.bases()):
            self.images.remove_base(entry.key)
        self.assertEqual([], list(self.images.bases()))
        self.assert_found(self.boot(disk), SIZE, 2)


class Qcow2BootTest(DiskPromises, FlattenedPromises, BootTestCase):

    image_type = "qcow2"


class RawBootTest(DiskPromises, BootTestCase):

    image_type = "raw"

    def test_the_file_system_of_a_guest_fills_its_disk(self):
        # Most of it: a file system keeps records of its own.
        self.assertGreater(self.boot(self.make()).fs_bytes, SIZE * 3 // 4)


class Qcow2BaseBootTest(FlattenedPromises, BootTestCase):
    """An overlay on a base that stays the qcow2 file it was."""

    image_type = "qcow2"

    def configured_cache(self) -> ImageCache:
        return self.cache(force_raw_images=False)
