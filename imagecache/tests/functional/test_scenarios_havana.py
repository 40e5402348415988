# SPDX-License-Identifier: Apache-2.0
"""Havana's scenario, switched off: no file system in a qcow2 is touched.

Switched on it needs a block device: tests/guest/test_scenarios_havana.py.
"""

from __future__ import annotations

import ddt

from imagecache.tests.functional import scenarios
from imagecache.tests.functional.scenarios import (
    APPEAR,
    COPY,
    FETCH_AS_IT_IS,
    FETCH_RAW,
    GROW,
    IMAGE_SIZE,
    SIZE,
    overlay,
)

APIS = ("ImageCache", "imagebackend")
RESIZE = f"qemu-img resize -q -f qcow2 disk.new {SIZE}"
GROWN = f"qemu-img resize -q -f qcow2 disk {2 * SIZE}"


@ddt.ddt
class SwitchedOffTest(scenarios.ScenarioTestCase):

    def configure(self, **options):
        super().configure(resize_fs_using_block_device=False, **options)

    @ddt.data(*APIS)
    def test_at_first_boot(self, api):
        for kind in ("ext2", "ext3", "ext4"):
            self.publish(self.qcow2(self.filesystem(kind)))
            self.configure()
            self.assert_made([*FETCH_RAW, overlay("raw"), *APPEAR], api=api)
            self.assert_disk("qcow2", [("base", "raw")])
            self.assert_filesystem(IMAGE_SIZE)

    @ddt.data(*APIS)
    def test_when_the_disk_grows(self, api):
        image = self.filesystem()
        self.publish(self.qcow2(image))
        self.configure()
        self.make()
        self.assert_made([GROWN], size=2 * SIZE, api=api,
                         instance=self.instance)
        self.assert_disk("qcow2", [("base", "raw")], 2 * SIZE)
        self.assert_filesystem(IMAGE_SIZE)
        self.assert_content(image)
        self.assert_files("base")

    def test_a_copy_that_is_qcow2(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(use_cow_images=False, force_raw_images=False)
        self.assert_made([*FETCH_AS_IT_IS, COPY, RESIZE, *APPEAR])
        self.assert_disk("qcow2", [])
        self.assert_filesystem(IMAGE_SIZE)

    def test_raw_disks_grow_directly(self):
        self.publish(self.qcow2(self.filesystem()))
        self.configure(use_cow_images=False)
        self.assert_made([*FETCH_RAW, COPY, *GROW, *APPEAR])
        self.assert_disk("raw", [])
        self.assert_filesystem(SIZE)
