# SPDX-License-Identifier: Apache-2.0
"""Copies and preallocated files.  Functional tests cover shared blocks."""

from __future__ import annotations

import pathlib

from imagecache import exception
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tools import file_copy


class AllocationTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "-x; id"     # an odd name
        self.path.touch()

    def allocated(self) -> int:
        return self.path.stat().st_blocks * 512

    def test_a_copy_has_the_same_content_and_holes(self) -> None:
        source = self.root / "source"
        content = images.content(8 * MiB)
        with source.open("wb") as f:
            f.write(content[:MiB])
            f.truncate(8 * MiB)
        source.chmod(0o400)
        self.path.chmod(0o640)
        file_copy.copy(source, self.path)
        self.assertTrue(source.read_bytes() == self.path.read_bytes())
        self.assertLessEqual(self.allocated(), 2 * MiB)
        self.assertEqual(0o640, self.path.stat().st_mode & 0o777)

    def test_copying_a_missing_file_is_an_error(self) -> None:
        self.assertRaises(FileNotFoundError, file_copy.copy,
                          self.root / "no", self.path)

    def test_preallocating_reserves_blocks_and_keeps_the_length(self) -> None:
        self.path.write_bytes(b"content")
        self.assertTrue(file_copy.preallocate(self.path, MiB))
        self.assertGreaterEqual(self.allocated(), MiB)
        self.assertEqual(b"content", self.path.read_bytes())

    def test_a_file_system_that_cannot_preallocate_is_reported(self) -> None:
        """One such file system is sysfs."""
        self.assertFalse(file_copy.preallocate(
            pathlib.Path("/sys/kernel/mm/ksm/run"), MiB))

    def test_another_error_of_fallocate_is_raised(self) -> None:
        self.assertRaises(exception.CommandFailed, file_copy.preallocate,
                          self.root, MiB)      # a directory
