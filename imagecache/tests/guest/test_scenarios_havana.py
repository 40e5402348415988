# SPDX-License-Identifier: Apache-2.0
"""Havana's scenario: a file system in a qcow2 grows by a block device."""

from __future__ import annotations

import re

from imagecache.tests import processes
from imagecache.tests.functional import scenarios
from imagecache.tests.functional.scenarios import (
    APPEAR,
    COPY,
    FETCH_COMPRESSED,
    FETCH_RAW,
    IMAGE_SIZE,
    SIZE,
    overlay,
)
from imagecache.tests.guest import devices

RESIZE = f"qemu-img resize -q -f qcow2 disk.new {SIZE}"
GROWN = f"qemu-img resize -q -f qcow2 disk {2 * SIZE}"
ATTACH = ["qemu-storage-daemon qcow2", "qemu-nbd --connect /dev/nbd0 raw"]
GROW = ["dumpe2fs -h /dev/nbd0", "e2fsck -f -p /dev/nbd0",
        "resize2fs /dev/nbd0"]
DETACH = ["qemu-nbd --disconnect /dev/nbd0"]
THROUGH_DEVICE = [*ATTACH, *GROW, *DETACH]


class SwitchedOnTest(scenarios.ScenarioTestCase):

    def setUp(self):
        super().setUp()
        self.assertEqual([], devices.in_use())

    def configure(self, **options):
        # Not in a sandbox, which bubblewrap would try out first.
        super().configure(resize_fs_using_block_device=True,
                          image_cache__sandbox="never", **options)

    def make(self, *args, **how):
        outcome = super().make(*args, **how)
        self.assertEqual([], devices.in_use())
        processes.wait_for(lambda: not devices.leftovers())
        outcome.steps[:] = [_plain(step) for step in outcome.steps]
        return outcome

    def test_at_first_boot(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure()
        self.assert_made([*FETCH_RAW, overlay("raw"), *THROUGH_DEVICE,
                          *APPEAR])
        self.assert_grown(SIZE, [("base", "raw")])
        # The base is unchanged, and the next disk is made in the same way.
        self.assertEqual(IMAGE_SIZE, self.base().stat().st_size)
        self.assert_made([overlay("raw", 2 * SIZE), *THROUGH_DEVICE, *APPEAR],
                         size=2 * SIZE)
        self.assert_grown(2 * SIZE, [("base", "raw")], disks=2)

    def test_when_the_disk_grows(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure()
        self.make(IMAGE_SIZE)
        self.assert_made([GROWN, *THROUGH_DEVICE], size=2 * SIZE,
                         api="imagebackend", instance=self.instance)
        self.assert_grown(2 * SIZE, [("base", "raw")])

    def test_on_a_base_that_stayed_qcow2(self):
        self.publish(self.qcow2(self.filesystem(), "-c"))
        self.configure(force_raw_images=False)
        self.assert_made([*FETCH_COMPRESSED, overlay(
            "qcow2", cluster_size=65536), *THROUGH_DEVICE, *APPEAR])
        self.assert_grown(SIZE, [("base", "qcow2")])

    def test_a_copy_that_is_qcow2(self):
        self.publish(self.qcow2(self.filesystem(), "-c"))
        self.configure(use_cow_images=False, force_raw_images=False)
        self.assert_made([*FETCH_COMPRESSED, COPY, RESIZE, *THROUGH_DEVICE,
                          *APPEAR])
        self.assert_grown(SIZE, [])

    def test_a_partitioned_image_is_left_alone(self):
        image = self.partitioned()
        self.publish(self.qcow2(image))
        self.configure()
        self.assert_made([*FETCH_RAW, overlay("raw"), *ATTACH, *DETACH,
                          *APPEAR])
        self.assert_disk("qcow2", [("base", "raw")])
        self.assert_content(image)
        self.assert_files("base")

    def test_a_disk_as_large_as_its_image_needs_no_device(self):
        image = self.filesystem()
        self.publish(self.qcow2(image))
        self.configure()
        self.assert_made([*FETCH_RAW, overlay("raw", IMAGE_SIZE), *APPEAR],
                         size=IMAGE_SIZE)
        self.assert_content(image)

    def assert_grown(self, size, chain, disks=1):
        """Hold the disk and its file system, which this kernel mounts."""
        self.assert_disk("qcow2", chain, size)
        self.assert_filesystem(size)
        self.assertLess(size * 0.85, devices.ext_size(self.content()))
        self.assert_files("base", disks=disks)


def _plain(step):
    """Put in a few words how a device is connected."""
    words = step.split()
    if words[0] == "qemu-storage-daemon":
        return f"{words[0]} " + re.search('"driver": "(\\w+)"', step)[1]
    if words[:2] == ["qemu-nbd", "--verbose"]:
        device, driver = re.search(
            "(--connect \\S+) --image-opts driver=(\\w+)", step).groups()
        return f"qemu-nbd {device} {driver}"
    return step
