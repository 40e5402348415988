# SPDX-License-Identifier: Apache-2.0
"""File systems in files: make, recognise and grow them."""

from __future__ import annotations

import os
import subprocess
from unittest import mock

from imagecache import exception
from imagecache.model import Limits, MiB
from imagecache.policy import CONVERSION, INSPECTION
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tools import filesystem


class FilesystemTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "disk"
        self.path.touch()
        os.truncate(self.path, 4 * MiB)

    def make(self, fs_type: str = "ext4") -> None:
        filesystem.mkfs(fs_type, "label", self.path)

    def write(self, data: bytes, offset: int) -> None:
        with self.path.open("r+b") as f:
            f.seek(offset)
            f.write(data)

    def is_ext(self) -> bool:
        return filesystem.is_ext(self.path, INSPECTION)

    def size(self) -> int:
        return images.ext_size(self.path)

    def test_only_ext_file_systems_are_recognised(self) -> None:
        self.assertFalse(self.is_ext())
        for fs_type, expected in (("ext2", True), ("ext3", True),
                                  ("ext4", True), ("vfat", False),
                                  ("swap", False)):
            self.make(fs_type)
            self.assertEqual(expected, self.is_ext(), fs_type)
            os.truncate(self.path, 0)
            os.truncate(self.path, 4 * MiB)

    def test_an_old_superblock_behind_partitions_is_not_recognised(
            self) -> None:
        """sfdisk leaves an old superblock as it was."""
        for table in (images.mbr, images.gpt):
            self.make()
            self.write(table(4 * MiB)[446:512], 446)
            self.assertFalse(self.is_ext())

    def test_a_file_system_with_a_boot_loader_is_recognised(self) -> None:
        self.make()
        for code in (bytes(64), b"\xfa\x31\xc0\x8e" * 16):
            self.write(code + b"\x55\xaa", 446)
            self.assertTrue(self.is_ext())

    def test_a_failure_of_dumpe2fs_is_an_error(self) -> None:
        self.make()
        with self.assertRaises(exception.CommandTimedOut):
            filesystem.is_ext(self.path, Limits(wall_clock=0.0001))
        with self.assertRaises(exception.CommandFailed):
            filesystem.is_ext(self.path, Limits(address_space=MiB))

    def test_recognising_a_file_system_does_not_change_it(self) -> None:
        self.make()
        before = self.path.read_bytes()
        self.is_ext()
        self.assertTrue(before == self.path.read_bytes())

    def test_ext_grows_to_fill_its_disk(self) -> None:
        self.make()
        self.assertEqual(4 * MiB, self.size())
        os.truncate(self.path, 16 * MiB)
        filesystem.grow_ext(self.path, CONVERSION)
        self.assertEqual(16 * MiB, self.size())

    def test_no_program_is_asked_about_what_is_none(self) -> None:
        with mock.patch("imagecache.system.execute.run") as run:
            self.assertFalse(self.is_ext())
        run.assert_not_called()

    def test_a_file_keeps_its_length_if_that_is_no_whole_number_of_blocks(
            self) -> None:
        self.make()
        os.truncate(self.path, 16 * MiB + 512)
        filesystem.grow_ext(self.path, CONVERSION)
        self.assertEqual(16 * MiB, self.size())
        self.assertEqual(16 * MiB + 512, self.path.stat().st_size)

    def test_a_file_system_that_was_not_unmounted_grows(self) -> None:
        self.make()
        subprocess.run(["debugfs", "-w", "-R", "ssv state 0", self.path],
                       check=True, capture_output=True)
        os.truncate(self.path, 16 * MiB)
        filesystem.grow_ext(self.path, CONVERSION)

    def test_a_broken_file_system_keeps_its_size(self) -> None:
        self.make()
        subprocess.run(["debugfs", "-w", "-R", "clri <2>", self.path],
                       check=True, capture_output=True)
        os.truncate(self.path, 16 * MiB)
        self.assertRaises(exception.CommandFailed, filesystem.grow_ext,
                          self.path, CONVERSION)
        self.assertEqual(4 * MiB, self.size())

    def test_making_a_file_system_in_too_small_a_file_is_an_error(
            self) -> None:
        os.truncate(self.path, 1024)
        for fs_type in ("ext4", "swap"):
            self.assertRaises(exception.CommandFailed, self.make, fs_type)
