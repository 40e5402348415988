# SPDX-License-Identifier: Apache-2.0
"""File systems in qcow2 disks, grown or kept by the host."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import struct

import ddt

from imagecache import exception
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import processes
from imagecache.tests.guest import devices
from imagecache.tests.guest.growing_case import (
    IMAGE_SIZE,
    SIZE,
    GrowingTestCase,
    filesystem,
)

SUPERBLOCK = 1024


def superblock(offset: int, format: str, *values: int) -> tuple[int, bytes]:
    return SUPERBLOCK + offset, struct.pack(format, *values)


def known_to_the_host() -> dict[pathlib.Path, bytes]:
    """Return the cache that libblkid keeps of file systems."""
    return {path: path.read_bytes()
            for path in pathlib.Path("/run/blkid").glob("*")}


# False values in a superblock, by what they claim.
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


@ddt.ddt
class GrowingTest(GrowingTestCase):

    @ddt.data("ext2", "ext3", "ext4")
    def test_a_file_system_grows_with_a_new_disk_and_with_a_grown_one(
            self, kind):
        disk = self.make(filesystem(kind))
        self.assert_size(SIZE, disk)
        disk.grow(2 * SIZE)
        self.assert_size(2 * SIZE, disk)
        self.assertEqual("grown", self.images.heard[-1])
        [entry] = self.images.cache.bases()
        self.assertEqual(IMAGE_SIZE, entry.size)
        self.assertEqual(entry.key, disk.base_key())

    def test_a_file_system_grows_in_a_sandbox(self) -> None:
        self.images.config("image_cache", sandbox="required")
        self.assert_size(SIZE, self.make(filesystem()))

    def test_without_the_option_a_file_system_keeps_its_size(self) -> None:
        self.images.config(resize_fs_using_block_device=False)
        content = filesystem()
        disk = self.make(content)
        disk.grow(2 * SIZE)
        self.assertTrue(content + bytes(2 * SIZE - IMAGE_SIZE)
                        == self.content(disk).read_bytes())

    def test_a_file_system_fills_a_disk_of_an_odd_size(self) -> None:
        disk = self.make(filesystem(), SIZE - 100)
        self.assert_size(SIZE, disk)

    def test_a_file_system_in_a_flattened_overlay_grows(self) -> None:
        disk = self.make(filesystem())
        disk.flatten()    # type: ignore[attr-defined]
        disk.grow(2 * SIZE)
        self.assert_size(2 * SIZE, disk)

    @ddt.data(images.mbr, images.gpt)
    def test_a_partitioned_disk_is_not_changed(self, table):
        content = table(IMAGE_SIZE)
        disk = self.make(content)
        self.assertTrue(content + bytes(SIZE - IMAGE_SIZE)
                        == self.content(disk).read_bytes())
        self.assertNotIn("filesystem_not_resized", self.images.heard)

    def test_content_other_than_ext_is_not_changed(self) -> None:
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

    def test_a_disk_whose_backing_file_is_not_its_base_is_not_opened(
            self) -> None:
        disk = self.make(filesystem())
        secret = self.root / "secret"
        secret.write_bytes(bytes(IMAGE_SIZE))
        disk.path.write_bytes(images.backed_by(secret, SIZE))
        self.assertRaises(exception.UnsafeDisk, disk.grow, 2 * SIZE)


@ddt.ddt
class BrokenTest(GrowingTestCase):
    """A damaged file system is not grown; its disk is made and grown."""

    def assert_kept(self, content: bytes) -> None:
        disk = self.make(content)
        self.assertEqual(SIZE, disk.size())
        self.assertIn("filesystem_not_resized", self.images.heard)
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())
        self.assertEqual("grown", self.images.heard[-1])

    def test_a_file_system_without_a_root_directory_is_not_grown(
            self) -> None:
        path = self.root / "filesystem"
        path.write_bytes(filesystem())
        devices.run("debugfs", "-w", "-R", "clri <2>", path)
        self.assert_kept(path.read_bytes())

    @ddt.data(*LIES)
    def test_a_false_superblock_does_not_prevent_the_disk(self, lie):
        content = bytearray(filesystem(
            "ext4", "-O", "^metadata_csum,64bit"))
        for offset, value in LIES[lie]:
            content[offset:offset + len(value)] = value
        disk = self.make(bytes(content))
        self.assertEqual(SIZE, disk.size())
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())

    def test_noise_behind_a_superblock_does_not_prevent_the_disk(
            self) -> None:
        content = bytearray(filesystem("ext4", "-O", "^metadata_csum"))
        noise = random.Random(1).randbytes(4 * MiB)
        content[2 * SUPERBLOCK:2 * SUPERBLOCK + len(noise)] = noise
        self.assertEqual(SIZE, self.make(bytes(content)).size())

    def test_a_file_system_whose_check_takes_too_long_is_not_grown(
            self) -> None:
        self.replace("e2fsck", "exec sleep 100")
        self.images.config("image_cache", conversion_timeout=2)
        self.assert_kept(filesystem())

    def test_an_agent_killed_while_it_makes_a_disk_leaves_no_disk(
            self) -> None:
        reached = self.root / "reached"
        self.replace("resize2fs", f"echo > {reached}; exec sleep 100")
        content = filesystem()
        agent = processes.Child(lambda: self.make(content))
        processes.wait_for(reached.exists)
        agent.kill()
        agent.wait()
        (self.root / "bin/resize2fs").unlink()
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())
        self.assert_size(SIZE, self.make(content))
        self.clean_up()

    def test_an_agent_killed_while_a_disk_grows_leaves_the_disk(self) -> None:
        disk = self.make(filesystem())
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
        """Put a script in front of a program on PATH, for this test."""
        directory = self.root / "bin"
        directory.mkdir()
        path = directory / program
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        self.addCleanup(os.environ.__setitem__, "PATH", os.environ["PATH"])
        os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"

    def clean_up(self) -> None:
        """Remove the directory of sockets that a killed process leaves."""
        for path in pathlib.Path("/scratch").glob("imagecache-nbd.*"):
            shutil.rmtree(path)
