# SPDX-License-Identifier: Apache-2.0
"""The other guest tests need these features of the kernel."""

import os
import pathlib

from imagecache.tests.guest import base, devices

TARGETS = {"thin", "thin-pool", "snapshot", "crypt", "linear"}


class KernelTest(base.TestCase):

    def test_device_mapper_has_the_targets_of_all_kinds_of_volumes(self):
        found = {line.split()[0] for line in
                 devices.run("dmsetup", "targets").splitlines()}
        self.assertEqual(set(), TARGETS - found)

    def test_there_are_loop_devices_and_network_block_devices(self):
        self.assertTrue(pathlib.Path("/dev/loop-control").exists())
        for number in range(4):
            self.assertTrue(
                pathlib.Path(f"/dev/nbd{number}").is_block_device())

    def test_the_tests_are_root(self):
        self.assertEqual(0, os.geteuid())

    def test_there_is_a_scratch_disk(self):
        self.assertTrue(self.scratch.is_block_device())
        size = devices.run("blockdev", "--getsize64", self.scratch)
        self.assertLessEqual(6 << 30, int(size))
