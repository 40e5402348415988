# SPDX-License-Identifier: Apache-2.0

import os
import pathlib
import subprocess

from imagecache.tests.guest import base

MODULES = ("dm_mod", "dm_thin_pool", "dm_snapshot", "dm_crypt", "loop", "nbd")


class KernelTest(base.TestCase):
    """What the other tests here take for granted."""

    def test_the_kernel_has_what_the_tests_need(self):
        found = pathlib.Path("/proc/modules").read_text()
        there = {line.split()[0] for line in found.splitlines()}
        self.assertEqual(set(), set(MODULES) - there)

    def test_the_tests_are_root(self):
        self.assertEqual(0, os.geteuid())

    def test_there_is_a_scratch_disk(self):
        self.assertTrue(self.scratch.is_block_device())
        size = subprocess.run(["blockdev", "--getsize64", self.scratch],
                              check=True, stdout=subprocess.PIPE).stdout
        self.assertLessEqual(6 << 30, int(size))
