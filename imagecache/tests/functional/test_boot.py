# SPDX-License-Identifier: Apache-2.0
"""Guests boot from the disks, and find them as large as was asked for."""

from __future__ import annotations

import uuid

from imagecache.backends import Disk
from imagecache.model import MiB
from imagecache.tests.functional import base, boot

SIZE = 256 * MiB


class BootPromises:
    """What a guest may expect of a disk, whatever backend made it."""

    image_type: str

    def setUp(self) -> None:
        super().setUp()
        self.image = self.useFixture(boot.BootImage())
        self.images = self.cache()

    def make(self) -> Disk:
        return self.images.create_disk(
            {"uuid": str(uuid.uuid4())}, str(self.image.path), size=SIZE,
            image_type=self.image_type)

    def boot(self, disk: Disk) -> boot.Report:
        return self.image.boot(disk.path, disk.format)

    def test_a_guest_finds_its_image_on_a_disk_of_the_size_asked_for(self):
        self.assertGreater(SIZE, self.image.size)
        report = self.boot(self.make())
        self.assertEqual((SIZE, boot.TOKEN, 1),
                         (report.disk_bytes, report.token, report.boots))

    def test_a_disk_keeps_what_its_guest_wrote_and_others_do_not_see_it(self):
        one = self.make()
        self.assertEqual(1, self.boot(one).boots)
        self.assertEqual(2, self.boot(one).boots)
        self.assertEqual(1, self.boot(self.make()).boots)

    def test_a_guest_finds_a_disk_as_large_as_it_has_grown(self):
        disk = self.make()
        self.boot(disk)
        disk.grow(2 * SIZE)
        report = self.boot(disk)
        self.assertEqual((2 * SIZE, 2), (report.disk_bytes, report.boots))

    def test_an_extracted_disk_boots_with_what_the_guest_wrote(self):
        disk = self.make()
        self.boot(disk)
        for output_format in ("raw", "qcow2"):
            snapshot = self.root / f"snapshot.{output_format}"
            disk.extract(snapshot, output_format)
            report = self.image.boot(snapshot, output_format)
            self.assertEqual((SIZE, 2), (report.disk_bytes, report.boots))


class Qcow2BootTest(BootPromises, base.TestCase):

    image_type = "qcow2"

    def test_a_flattened_disk_boots_without_its_base(self):
        disk = self.make()
        self.boot(disk)
        disk.flatten()
        for entry in list(self.images.bases()):
            self.images.remove_base(entry.key)
        self.assertEqual([], list(self.images.bases()))
        report = self.boot(disk)
        self.assertEqual((SIZE, 2), (report.disk_bytes, report.boots))


class RawBootTest(BootPromises, base.TestCase):

    image_type = "raw"

    def test_the_file_system_of_a_guest_fills_its_disk(self):
        # Most of it: a file system keeps records of its own.
        self.assertGreater(self.boot(self.make()).fs_bytes, SIZE * 3 // 4)


class Qcow2BaseBootTest(Qcow2BootTest):
    """The same where the base stays the qcow2 file it was."""

    def cache(self):
        return super().cache(force_raw_images=False)
