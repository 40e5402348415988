# SPDX-License-Identifier: Apache-2.0
"""File systems in qcow2 disks, grown by the host, or kept as they are."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import struct

import ddt

from imagecache import exception, fixture
from imagecache.backends import Disk
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests.functional import processes
from imagecache.tests.guest import base, devices

IMAGE_SIZE = 8 * MiB
SIZE = 32 * MiB
SUPERBLOCK = 1024


def superblock(offset: int, format: str, *values: int) -> tuple[int, bytes]:
    return SUPERBLOCK + offset, struct.pack(format, *values)


def known_to_the_host() -> dict[pathlib.Path, bytes]:
    """Return what libblkid remembers of the file systems it has seen."""
    return {path: path.read_bytes()
            for path in pathlib.Path("/run/blkid").glob("*")}


# What each says in its superblock, which is not true.
LIES = {
    "more-blocks-than-there-can-be": [superblock(4, "<I", 0xFFFFFFFF),
                                      superblock(0x150, "<I", 0xFFFFFFFF)],
    "huge-blocks": [superblock(24, "<I", 0xFFFFFFFF)],
    "no-blocks-in-a-group": [superblock(32, "<I", 0)],
    "no-inodes-in-a-group": [superblock(40, "<I", 0)],
    "huge-inodes": [superblock(88, "<H", 0xFFFF)],
    "begins-behind-its-end": [superblock(20, "<I", 0xFFFFFFF0)],
    "huge-descriptors": [superblock(0xFE, "<H", 0xFFFF)],
    "journal-of-another-inode": [superblock(0xE0, "<I", 2)],
    "unknown-features": [superblock(0x60, "<I", 0xFFFFFFFF)],
    "reserved-for-everything": [superblock(0xCE, "<H", 0xFFFF)],
}


class GrowingTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual([], devices.in_use())
        self.images = self.useFixture(fixture.ImageCacheFixture(
            resize_fs_using_block_device=True))
        # What starts a sandbox takes half a second under User-Mode Linux.
        self.images.config("image_cache", sandbox="never")
        self.addCleanup(self.assert_nothing_left)

    def assert_nothing_left(self) -> None:
        self.assertEqual([], devices.in_use())
        processes.wait_for(lambda: not devices.leftovers())
        self.assertEqual([], [
            str(path) for path in self.images.instances_path.rglob(".disk*")])

    def filesystem(self, kind: str = "ext4", *options: str) -> bytes:
        path = self.root / "filesystem"
        path.unlink(missing_ok=True)
        with path.open("wb") as f:
            f.truncate(IMAGE_SIZE)
        devices.run(f"mkfs.{kind}", "-q", "-F", *options, path)
        return path.read_bytes()

    def make(self, content: bytes, size: int | None = SIZE) -> Disk:
        image = self.images.add(content, "raw")
        return self.images.cache.create_disk(INSTANCE, image, size=size,
                                             image_type="qcow2")

    def content(self, disk: Disk) -> pathlib.Path:
        devices.run("qemu-img", "check", disk.path)
        path = self.root / "content"
        path.write_bytes(images.read(disk.path, "qcow2"))
        return path

    def assert_size(self, size: int, disk: Disk) -> None:
        """Hold the file system's size, by its own word and this kernel's."""
        path = self.content(disk)
        self.assertEqual(size, images.ext_size(path))
        devices.run("e2fsck", "-f", "-n", path)
        self.assertLess(size * 0.75, devices.ext_size(path))


@ddt.ddt
class GrowingTest(GrowingTestCase):

    @ddt.data("ext2", "ext3", "ext4")
    def test_it_grows_at_first_boot_and_with_the_disk(self, kind):
        disk = self.make(self.filesystem(kind))
        self.assert_size(SIZE, disk)
        disk.grow(2 * SIZE)
        self.assert_size(2 * SIZE, disk)
        self.assertEqual("grown", self.images.heard[-1])
        [entry] = self.images.cache.bases()
        self.assertEqual(IMAGE_SIZE, entry.size)
        self.assertEqual(entry.key, disk.base_key())

    def test_it_does_so_in_a_sandbox(self) -> None:
        self.images.config("image_cache", sandbox="required")
        self.assert_size(SIZE, self.make(self.filesystem()))

    def test_switched_off_it_stays_as_it_is(self) -> None:
        self.images.config(resize_fs_using_block_device=False)
        content = self.filesystem()
        disk = self.make(content)
        disk.grow(2 * SIZE)
        self.assertTrue(content + bytes(2 * SIZE - IMAGE_SIZE)
                        == self.content(disk).read_bytes())

    def test_a_size_that_is_no_whole_sectors(self) -> None:
        disk = self.make(self.filesystem(), SIZE - 100)
        self.assert_size(SIZE, disk)

    def test_an_overlay_that_was_flattened_grows(self) -> None:
        disk = self.make(self.filesystem())
        disk.flatten()    # type: ignore[attr-defined]
        disk.grow(2 * SIZE)
        self.assert_size(2 * SIZE, disk)

    @ddt.data(images.mbr, images.gpt)
    def test_partitions_are_left_alone(self, table):
        content = table(IMAGE_SIZE)
        disk = self.make(content)
        self.assertTrue(content + bytes(SIZE - IMAGE_SIZE)
                        == self.content(disk).read_bytes())
        self.assertNotIn("filesystem_not_resized", self.images.heard)

    def test_what_is_no_ext_is_left_alone(self) -> None:
        path = self.root / "vfat"
        path.write_bytes(bytes(IMAGE_SIZE))
        devices.run("mkfs.vfat", path)
        for content in (path.read_bytes(), bytes(IMAGE_SIZE)):
            before = known_to_the_host()
            disk = self.make(content)
            self.assertEqual(before, known_to_the_host())
            self.assertTrue(content + bytes(SIZE - IMAGE_SIZE)
                            == self.content(disk).read_bytes())
            disk.remove()
        self.assertNotIn("filesystem_not_resized", self.images.heard)

    def test_a_disk_with_a_foreign_base_is_not_opened(self) -> None:
        disk = self.make(self.filesystem())
        secret = self.root / "secret"
        secret.write_bytes(bytes(IMAGE_SIZE))
        disk.path.write_bytes(images.backed_by(secret, SIZE))
        self.assertRaises(exception.UnsafeDisk, disk.grow, 2 * SIZE)


@ddt.ddt
class BrokenTest(GrowingTestCase):
    """A bad file system costs its own growth, and nothing else."""

    def assert_kept(self, content: bytes) -> None:
        disk = self.make(content)
        self.assertEqual(SIZE, disk.size())
        self.assertIn("filesystem_not_resized", self.images.heard)
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())
        self.assertEqual("grown", self.images.heard[-1])

    def test_one_without_a_root_directory_is_kept(self) -> None:
        self.filesystem()
        path = self.root / "filesystem"
        devices.run("debugfs", "-w", "-R", "clri <2>", path)
        self.assert_kept(path.read_bytes())

    @ddt.data(*LIES)
    def test_one_that_lies_harms_nobody(self, lie):
        content = bytearray(self.filesystem(
            "ext4", "-O", "^metadata_csum,64bit"))
        for offset, value in LIES[lie]:
            content[offset:offset + len(value)] = value
        disk = self.make(bytes(content))
        self.assertEqual(SIZE, disk.size())
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())

    def test_noise_with_a_superblock_harms_nobody(self) -> None:
        content = bytearray(self.filesystem("ext4", "-O", "^metadata_csum"))
        noise = random.Random(1).randbytes(4 * MiB)
        content[2 * SUPERBLOCK:2 * SUPERBLOCK + len(noise)] = noise
        self.assertEqual(SIZE, self.make(bytes(content)).size())

    def test_one_that_takes_too_long_is_kept(self) -> None:
        self.replace("e2fsck", "exec sleep 100")
        self.images.config("image_cache", conversion_timeout=2)
        self.assert_kept(self.filesystem())

    def test_an_agent_killed_in_the_midst_leaves_no_disk(self) -> None:
        reached = self.root / "reached"
        self.replace("resize2fs", f"echo > {reached}; exec sleep 100")
        content = self.filesystem()
        agent = processes.Child(lambda: self.make(content))
        processes.wait_for(reached.exists)
        agent.kill()
        agent.wait()
        (self.root / "bin/resize2fs").unlink()
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())
        self.assert_size(SIZE, self.make(content))
        self.clean_up()

    def test_an_agent_killed_while_a_disk_grows_leaves_the_disk(self) -> None:
        disk = self.make(self.filesystem())
        reached = self.root / "reached"
        self.replace("resize2fs", f"echo > {reached}; exec sleep 100")
        agent = processes.Child(lambda: disk.grow(2 * SIZE))
        processes.wait_for(reached.exists)
        agent.kill()
        agent.wait()
        (self.root / "bin/resize2fs").unlink()
        self.assert_size(SIZE, disk)
        disk.grow(3 * SIZE)
        self.assert_size(3 * SIZE, disk)
        self.clean_up()

    def replace(self, program: str, script: str) -> None:
        """Put another program in its place, until it is unlinked."""
        directory = self.root / "bin"
        directory.mkdir()
        path = directory / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        self.addCleanup(os.environ.__setitem__, "PATH", os.environ["PATH"])
        os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"

    def clean_up(self) -> None:
        # A killed process cannot remove its directory of sockets.
        for path in pathlib.Path("/scratch").glob("imagecache-nbd.*"):
            shutil.rmtree(path)
