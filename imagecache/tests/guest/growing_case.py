# SPDX-License-Identifier: Apache-2.0
"""The fixture of the tests that grow file systems in qcow2 disks."""

from __future__ import annotations

import functools
import pathlib
import tempfile

from imagecache import fixture
from imagecache.backends import Disk
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import processes
from imagecache.tests.guest import base, devices

IMAGE_SIZE = 8 * MiB
SIZE = 32 * MiB


@functools.cache
def filesystem(kind: str = "ext4", *options: str) -> bytes:
    """Return a disk of IMAGE_SIZE that is one file system."""
    with tempfile.NamedTemporaryFile() as f:
        f.truncate(IMAGE_SIZE)
        devices.run(f"mkfs.{kind}", "-q", "-F", *options, f.name)
        return pathlib.Path(f.name).read_bytes()


class GrowingTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual([], devices.in_use())
        self.images = self.useFixture(fixture.ImageCacheFixture(
            resize_fs_using_block_device=True))
        # Under User-Mode Linux each start of a sandbox takes half a second.
        self.images.config("image_cache", sandbox="never")
        self.addCleanup(self.assert_nothing_left)

    def assert_nothing_left(self) -> None:
        self.assertEqual([], devices.in_use())
        processes.wait_for(lambda: not devices.leftovers())
        self.assertEqual([], [
            str(path) for path in self.images.instances_path.rglob(".disk*")])

    def make(self, content: bytes, size: int | None = SIZE) -> Disk:
        image = self.images.add(content, "raw")
        return self.images.cache.create_disk(INSTANCE, image, size=size,
                                             image_type="qcow2")

    def content(self, disk: Disk) -> pathlib.Path:
        """Return a raw copy of a disk, after a check of its format."""
        devices.run("qemu-img", "check", disk.path)
        path = self.root / "content"
        path.write_bytes(images.read(disk.path, "qcow2"))
        return path

    def assert_size(self, size: int, disk: Disk) -> None:
        """Check the file system's size, and that the kernel mounts it."""
        path = self.content(disk)
        self.assertEqual(size, images.ext_size(path))
        devices.run("e2fsck", "-f", "-n", path)
        self.assertLess(size * 0.75, devices.ext_size(path))
