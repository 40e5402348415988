# SPDX-License-Identifier: Apache-2.0
"""Disks on a full file system."""

from __future__ import annotations

import os
import pathlib
from unittest import mock

import ddt
from oslo_concurrency import processutils

from imagecache import exception
from imagecache.model import MiB
from imagecache.tests.functional import base, loop
from imagecache.tools import file_copy

ROOM = 96 * MiB
IMAGE_SIZE = 48 * MiB    # so that there is room for one and not for two


@ddt.ddt
class FullTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.mounted = self.useFixture(
            loop.LoopFilesystem("ext4", ROOM)).path
        self.instances = self.mounted / "instances"

    def image(self, size: int) -> pathlib.Path:
        path = self.root / "image.raw"
        path.write_bytes(os.urandom(size))
        return path

    def make(self, size: int, image_type: str) -> None:
        self.cache(self.instances).create_disk(
            "instance", str(self.image(size)), image_type=image_type,
            disk_format="raw")

    def files(self) -> list[pathlib.Path]:
        """Return all files except locks."""
        return [path.relative_to(self.instances)
                for path in self.instances.rglob("*")
                if path.is_file() and path.parent.name != "locks"]

    def test_an_image_that_does_not_fit_leaves_nothing(self):
        self.assertRaises(exception.NoSpace, self.make, 2 * ROOM, "qcow2")
        self.assertEqual([], self.files())

    def test_a_copy_that_does_not_fit_leaves_the_base_alone(self):
        self.assertRaises(exception.NoSpace, self.make, IMAGE_SIZE, "raw")
        self.assertEqual({"_base"}, {str(f.parent) for f in self.files()})

    @ddt.data("qcow2", "raw")
    def test_blocks_that_are_not_there_are_missed_at_once(self, image_type):
        self.make(8 * MiB, image_type)
        cache = self.cache(self.instances, preallocate_images="space")
        self.assertRaises(
            exception.NoSpace, cache.create_disk, "another",
            str(self.root / "image.raw"), size=2 * ROOM,
            image_type=image_type, disk_format="raw")
        self.assertEqual([], list(self.instances.glob("another/*")))

    def test_preallocating_more_than_there_is_is_no_space(self):
        path = self.mounted / "disk"
        path.touch()
        with self.assertRaises(exception.NoSpace) as caught:
            file_copy.preallocate(path, 2 * ROOM)
        self.assertIn(str(path), str(caught.exception))


@ddt.ddt
class UnableTest(base.TestCase):
    """A file system without extents cannot allocate blocks beforehand."""

    @ddt.data("qcow2", "raw")
    def test_the_file_system_of_a_directory_is_asked_once(self, image_type):
        (self.root / "image").write_bytes(os.urandom(MiB))
        mounted = self.useFixture(loop.LoopFilesystem("ext3", ROOM)).path
        for instances, asked in ((mounted, 1), (mounted, 0),
                                 (self.root / "elsewhere", 3)):
            cache = self.cache(instances, preallocate_images="space")
            with mock.patch.object(processutils, "execute",
                                   wraps=processutils.execute) as execute:
                for name in "abc":
                    cache.create_disk(
                        f"{name}{asked}", str(self.root / "image"),
                        disk_format="raw", image_type=image_type)
            self.assertEqual(asked, sum(
                call.args[0] == "fallocate"
                for call in execute.call_args_list), instances)
