# SPDX-License-Identifier: Apache-2.0
"""Grizzly's scenarios: the disk is resized, and no base is."""

from __future__ import annotations

import ddt

from imagecache.model import KiB
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
RESIZE = f"qemu-img resize -q -f qcow2 disk.new {SIZE}"


@ddt.ddt
class GrizzlyTest(scenarios.ScenarioTestCase):

    @ddt.data(*APIS)
    def test_cow_of_a_raw_base(self, api):
        """The default of every option."""
        self.publish(self.qcow2(self.filesystem()))
        self.configure()
        self.assert_made([*FETCH_RAW, overlay("raw"), *APPEAR], api=api)
        self.assert_disk("qcow2", [("base", "raw")])
        self.assert_filesystem(IMAGE_SIZE)
        # The next disk of this image, of any size.
        self.assert_made([overlay("raw", 2 * SIZE), *APPEAR], size=2 * SIZE,
                         api=api)
        self.assert_disk("qcow2", [("base", "raw")], 2 * SIZE)
        self.assert_files("base", disks=2)

    @ddt.data(*APIS)
    def test_cow_of_a_qcow2_base(self, api):
        image = self.qcow2(self.filesystem(), "-c", "-o", "cluster_size=16k")
        self.publish(image)
        self.configure(force_raw_images=False)
        self.assert_made([
            *FETCH_COMPRESSED, overlay("qcow2", cluster_size=16 * KiB),
            *APPEAR], api=api)
        self.assert_disk("qcow2", [("base", "qcow2")])
        self.assert_filesystem(IMAGE_SIZE)
        self.assert_files("base")
        self.assertTrue(self.base().read_bytes() == image.read_bytes())

    @ddt.data(*APIS)
    def test_copy_of_a_raw_base(self, api):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(use_cow_images=False)
        self.assert_made([*FETCH_RAW, COPY, *GROW, *APPEAR], api=api)
        self.assert_disk("raw", [])
        self.assert_filesystem(SIZE)
        self.assert_files("base")
        self.assertEqual(IMAGE_SIZE, self.base().stat().st_size)

    @ddt.data(*APIS)
    def test_copy_of_a_qcow2_base(self, api):
        image = self.qcow2(self.filesystem(), "-c")
        self.publish(image)
        self.configure(use_cow_images=False, force_raw_images=False)
        self.assert_made([*FETCH_COMPRESSED, COPY, RESIZE, *APPEAR], api=api)
        self.assert_disk("qcow2", [])
        self.assert_filesystem(IMAGE_SIZE)
        self.assert_files("base")
        self.assertTrue(self.base().read_bytes() == image.read_bytes())

    @ddt.data("ext2", "ext3")
    def test_the_older_file_systems_grow_as_well(self, kind):
        self.publish(self.qcow2(self.filesystem(kind)))
        self.configure(use_cow_images=False)
        self.assert_made([*FETCH_RAW, COPY, *GROW, *APPEAR])
        self.assert_filesystem(SIZE)

    @ddt.data(True, False)
    def test_partitions_are_left_alone(self, cow):
        image = self.partitioned()
        self.publish(self.qcow2(image))
        self.configure(use_cow_images=cow)
        made = overlay("raw") if cow else COPY
        self.assert_made([*FETCH_RAW, made, *APPEAR])
        self.assert_content(image)

    @ddt.data(True, False)
    def test_a_disk_of_the_size_of_its_image_is_not_resized(self, cow):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(use_cow_images=cow)
        made = overlay("raw", IMAGE_SIZE) if cow else COPY
        self.assert_made([*FETCH_RAW, made, *APPEAR], size=0)
        self.assert_filesystem(IMAGE_SIZE)

    @ddt.data(True, False)
    def test_a_disk_too_small_is_refused_before_a_program_reads_the_image(
            self, cow):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(use_cow_images=cow)
        outcome = self.make(IMAGE_SIZE // 2)
        self.assertEqual("FlavorDiskSmallerThanImage", outcome.error[0])
        self.assertEqual(["write download"], outcome.steps)
        self.assert_files(disks=0)


@ddt.ddt
class BootTest(scenarios.ScenarioTestCase):
    """One scenario of each backend, as its guest sees it."""

    @ddt.data((True, "qcow2"), (False, "raw"))
    @ddt.unpack
    def test_a_guest_sees_the_size(self, cow, format):
        image = self.useFixture(boot.BootImage())
        self.publish(image.path)
        self.configure(use_cow_images=cow)
        self.assertIsNone(self.make().error)
        report = image.boot(self.disk().path, format)
        self.assertEqual((SIZE, boot.TOKEN),
                         (report.disk_bytes, report.token))
        if cow:
            self.assertLess(report.fs_bytes, image.size)
        else:
            self.assertGreater(report.fs_bytes, SIZE * 3 // 4)
