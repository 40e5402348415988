# SPDX-License-Identifier: Apache-2.0
"""Folsom's scenarios: the base is resized, once for each size."""

from __future__ import annotations

import ddt

from imagecache.model import GiB, MiB
from imagecache.tests.functional import boot, scenarios
from imagecache.tests.functional.scenarios import (
    APPEAR,
    COPY,
    FETCH_COMPRESSED,
    FETCH_RAW,
    GROW,
    IMAGE_SIZE,
    SIZE,
    overlay,
)

APIS = ("ImageCache", "imagebackend")
COPY_BASE = ("write download",
             "cp --reflink=auto --sparse=auto -- base download")
GROW_BASE = [each.replace("disk.new", "download") for each in GROW]
RESIZE = f"qemu-img resize -q -f qcow2 disk.new {SIZE}"


def commit(gib: int) -> list[str]:
    return [f"mv download base_{gib}",
            f"mv base_{gib}.json.new base_{gib}.json"]


RESIZE_RAW = [*COPY_BASE, *GROW_BASE, *commit(1)]
RESIZE_QCOW2 = [*COPY_BASE, RESIZE.replace("disk.new", "download"), *commit(1)]


@ddt.ddt
class FolsomTest(scenarios.ScenarioTestCase):

    def configure(self, **options: object) -> None:
        super().configure(image_cache__resized_bases=True, **options)

    @ddt.data(*APIS)
    def test_cow_of_a_resized_raw_base(self, api):
        self.publish(self.qcow2(self.filesystem()))
        self.configure()
        self.assert_made([
            *FETCH_RAW, *RESIZE_RAW, overlay("raw", of="base_1"), *APPEAR],
            api=api)
        self.assert_disk("qcow2", [("base_1", "raw")])
        self.assert_filesystem(SIZE)
        self.assert_files("base", "base_1")
        # The next one of this size does none of that.
        self.assert_made([overlay("raw", of="base_1"), *APPEAR], api=api)
        self.assert_disk("qcow2", [("base_1", "raw")])
        self.assert_filesystem(SIZE)
        # And one of another size all but the download.
        self.assert_made([
            *COPY_BASE, *GROW_BASE, *commit(2),
            overlay("raw", 2 * GiB, of="base_2"), *APPEAR],
            size=2 * GiB, api=api)
        self.assert_filesystem(2 * GiB)
        self.assert_files("base", "base_1", "base_2", disks=3)
        self.assertEqual(IMAGE_SIZE, self.base().stat().st_size)

    @ddt.data(*APIS)
    def test_cow_of_a_resized_qcow2_base(self, api):
        image = self.qcow2(self.filesystem(), "-c")
        self.publish(image)
        self.configure(force_raw_images=False)
        disk = [overlay("qcow2", of="base_1", cluster_size=65536), *APPEAR]
        self.assert_made([*FETCH_COMPRESSED, *RESIZE_QCOW2, *disk], api=api)
        self.assert_disk("qcow2", [("base_1", "qcow2")])
        self.assert_filesystem(IMAGE_SIZE)    # it is within the qcow2
        self.assert_made(disk, api=api)
        self.assert_files("base", "base_1", disks=2)
        self.assertTrue(self.base().read_bytes() == image.read_bytes())

    @ddt.data(*APIS)
    def test_copy_of_a_raw_base_which_is_resized(self, api):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(use_cow_images=False)
        self.assert_made([*FETCH_RAW, COPY, *GROW, *APPEAR], api=api)
        self.assert_disk("raw", [])
        self.assert_filesystem(SIZE)
        self.assert_files("base")

    @ddt.data(*APIS)
    def test_copy_of_a_qcow2_base_which_is_resized(self, api):
        self.publish(self.qcow2(self.filesystem(), "-c"))
        self.configure(use_cow_images=False, force_raw_images=False)
        self.assert_made([*FETCH_COMPRESSED, COPY, RESIZE, *APPEAR], api=api)
        self.assert_disk("qcow2", [])
        self.assert_filesystem(IMAGE_SIZE)
        self.assert_files("base")

    @ddt.data("ext2", "ext3")
    def test_the_older_file_systems_grow_as_well(self, kind):
        self.publish(self.qcow2(self.filesystem(kind)))
        self.configure()
        self.assert_made([*FETCH_RAW, *RESIZE_RAW,
                          overlay("raw", of="base_1"), *APPEAR])
        self.assert_filesystem(SIZE)

    def test_partitions_are_left_alone(self):
        image = self.partitioned()
        self.publish(self.qcow2(image))
        self.configure()
        self.assert_made([*FETCH_RAW, *COPY_BASE, *commit(1),
                          overlay("raw", of="base_1"), *APPEAR])
        self.assert_disk("qcow2", [("base_1", "raw")])
        self.assert_content(image)

    def test_a_size_of_no_whole_gib_is_left_to_the_disk(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure()
        size = SIZE + 512 * MiB
        outcome = self.make(size)
        self.assertEqual([*FETCH_RAW, overlay("raw", size), *APPEAR],
                         outcome.steps)
        self.assertIn(
            ("base_not_resized", "bases are resized to whole GiB, and"
             f" {size} bytes are not"), outcome.events)
        self.assert_disk("qcow2", [("base", "raw")], size)
        self.assert_files("base")

    def test_a_disk_without_a_size_has_the_size_of_the_image(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure()
        events = self.assert_made(
            [*FETCH_RAW, overlay("raw", IMAGE_SIZE), *APPEAR], size=0)
        self.assertNotIn("base_not_resized", events)
        self.assert_files("base")

    def test_a_guest_sees_the_size_and_its_file_system_fills_it(self):
        image = self.useFixture(boot.BootImage())
        self.publish(image.path)
        self.configure()
        self.assertIsNone(self.make().error)
        report = image.boot(self.disk().path, "qcow2")
        self.assertEqual((SIZE, boot.TOKEN),
                         (report.disk_bytes, report.token))
        self.assertGreater(report.fs_bytes, SIZE * 3 // 4)
