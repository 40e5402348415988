# SPDX-License-Identifier: Apache-2.0
"""A raw disk shares the blocks of its base where the file system can."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import uuid

from imagecache.backends import Disk
from imagecache.model import MiB
from imagecache.tests.functional import base, loop

IMAGE_SIZE = 128 * MiB
DATA_SIZE = 48 * MiB     # of it; the rest is a hole
DISK_SIZE = 256 * MiB
# What a file system may take for itself when it keeps a new file.
RECORDS = 2 * MiB
BLOCK_SIZE = 4096


class ReflinkPromises:
    """The cost and the content of a raw disk, on any file system."""

    filesystem: str

    def setUp(self) -> None:
        super().setUp()
        self.mounted = self.useFixture(
            loop.LoopFilesystem(self.filesystem)).path
        self.images = self.cache(self.mounted / "instances")
        self.image = self.root / "image.raw"
        self.data = os.urandom(DATA_SIZE)
        with self.image.open("wb") as f:
            f.write(self.data)
            f.truncate(IMAGE_SIZE)

    def make(self) -> Disk:
        return self.images.create_disk(
            {"uuid": str(uuid.uuid4())}, str(self.image), size=DISK_SIZE,
            image_type="raw", disk_format="raw")

    def used(self) -> int:
        """Return the bytes of the file system that are in use."""
        os.sync()
        status = os.statvfs(self.mounted)
        return (status.f_blocks - status.f_bfree) * status.f_frsize

    def cost(self, disks: int) -> int:
        """Return the space that some disks of a base take."""
        self.make()
        before = self.used()
        for _ in range(disks):
            self.make()
        return self.used() - before

    def test_the_disk_holds_the_image_and_then_zeros(self):
        with self.make().path.open("rb") as f:
            self.assertTrue(f.read(DATA_SIZE) == self.data)
            self.assertEqual(DISK_SIZE, f.seek(0, os.SEEK_END))
            self.assertEqual(b"\0" * MiB,
                             os.pread(f.fileno(), MiB, DATA_SIZE))
            self.assertEqual(b"\0" * MiB,
                             os.pread(f.fileno(), MiB, DISK_SIZE - MiB))

    def test_writing_to_a_disk_changes_neither_base_nor_other_disks(self):
        one, other = self.make(), self.make()
        [entry] = self.images.bases()
        with one.path.open("r+b") as f:
            f.write(b"scribble" * MiB)
        for path in (other.path, entry.path):
            with path.open("rb") as f:
                self.assertTrue(f.read(DATA_SIZE) == self.data, path)


class SharingPromises(ReflinkPromises):
    """Where blocks can be shared, a disk costs almost nothing."""

    def test_the_disk_occupies_the_blocks_of_its_base(self):
        disk = self.make()
        [entry] = self.images.bases()
        places = blocks(disk.path)
        self.assertEqual(DATA_SIZE // BLOCK_SIZE, len(places))
        self.assertTrue(places == blocks(entry.path))

    def test_another_disk_takes_no_space(self):
        # Ten copies would not even fit.
        self.assertLess(self.cost(10), RECORDS)

    def test_a_preallocated_disk_shares_nothing(self):
        # A shared block needs one of its own when the guest writes to it,
        # and the guest was promised that there is one.
        self.images = self.cache(self.mounted / "instances",
                                 preallocate_images="space")
        disk = self.make()
        [entry] = self.images.bases()
        shared = (set(blocks(disk.path).values())
                  & set(blocks(entry.path).values()))
        self.assertEqual(0, len(shared))
        self.assertGreaterEqual(disk.allocated(), DISK_SIZE)


class XfsTest(SharingPromises, base.TestCase):

    filesystem = "xfs"


class BtrfsTest(SharingPromises, base.TestCase):

    filesystem = "btrfs"


class Ext4Test(ReflinkPromises, base.TestCase):

    filesystem = "ext4"

    def test_another_disk_takes_the_data_and_no_space_for_holes(self):
        cost = self.cost(2)
        self.assertGreaterEqual(cost, 2 * DATA_SIZE)
        self.assertLess(cost, 2 * DATA_SIZE + RECORDS)


def blocks(path: pathlib.Path) -> dict[int, int]:
    """Return where each data block of the image is on disk."""
    table = subprocess.run(["filefrag", "-s", "-v", path], check=True,
                           stdout=subprocess.PIPE, text=True).stdout
    places: dict[int, int] = {}
    # ext:   logical_offset:      physical_offset: length: expected: flags:
    for row in re.finditer(r"^ *\d+: +(\d+)\.\. *(\d+): +(\d+)\.\.",
                           table, re.MULTILINE):
        first, last, place = map(int, row.groups())
        places |= {block: place + block - first
                   for block in range(first, last + 1)}
    # XFS leaves a new file some room to grow; that is not data.
    return {block: place for block, place in places.items()
            if block < DATA_SIZE // BLOCK_SIZE}
