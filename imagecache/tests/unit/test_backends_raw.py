# SPDX-License-Identifier: Apache-2.0
"""Raw disks: full copies of their bases."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from unittest import mock

from imagecache import exception, fixture, sources
from imagecache.backends import Disk
from imagecache.model import Format, KiB, MiB
from imagecache.provision import provision
from imagecache.sources import templates
from imagecache.testing import file_conformance, images
from imagecache.testing.conformance import INSTANCE, SIZE
from imagecache.tests import base


class RawTest(file_conformance.FileDiskConformance):

    image_type = "raw"

    def test_flat_is_another_name_for_raw(self) -> None:
        self.images.config("libvirt", images_type="flat")
        self.assertIs(Format.RAW, self.make().format)

    def test_a_disk_needs_nothing_but_its_file(self) -> None:
        disk = self.make()
        self.assertIsNone(disk.base_key())
        self.assertTrue(self.content == disk.path.read_bytes())

    def test_the_holes_of_an_image_take_no_space(self) -> None:
        disk = self.make(64 * SIZE)
        self.assertLess(disk.allocated(), SIZE / 2)

    def test_a_template_needs_no_base(self) -> None:
        self.cache.create_swap(INSTANCE, SIZE)
        self.cache.create_blank(INSTANCE, "blank", SIZE)
        self.assertEqual([], list(self.cache.bases()))
        self.assertEqual(["created"] * 2, self.images.heard)

    def test_a_template_that_is_not_trusted_is_inspected(self) -> None:
        """A driver may pass an image as a template."""
        def hostile(path: pathlib.Path) -> None:
            path.write_bytes(images.backed_by(pathlib.Path("/etc/passwd")))

        def harmless(path: pathlib.Path) -> None:
            path.write_bytes(images.qcow2(self.content))

        disk = self.cache.disk(INSTANCE)
        self.assertRaises(
            exception.ImageUnacceptable, provision, disk,
            sources.Template("key", hostile, trusted=False))
        self.assert_nothing_left()
        provision(disk, sources.Template("key", harmless, trusted=False),
                  2 * SIZE)
        self.assertTrue(self.content + bytes(SIZE) == disk.path.read_bytes())

    def test_two_threads_that_generate_a_disk_make_one(self) -> None:
        first = self.cache.disk(INSTANCE)

        def write(path: pathlib.Path) -> None:
            provision(first, templates.blank(SIZE))
            path.write_bytes(b"second")

        second = self.cache.disk(INSTANCE)
        self.assertRaises(exception.DiskExists, provision, second,
                          sources.Template("key", write))
        self.assertTrue(bytes(SIZE) == self.read(first))
        self.assertEqual({"disk", "disk.info"},
                         set(os.listdir(first.path.parent)))


class FileSystemTest(base.TestCase):
    """A file system on a disk without partitions grows with the disk."""

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture(
            use_cow_images=False))
        path = self.root / "image"
        templates.ephemeral(4 * MiB, "ext4", "label").write(path)
        self.content = path.read_bytes()

    def make(self, content: bytes, size: int) -> pathlib.Path:
        image = self.images.add(content, "raw")
        return self.images.cache.create_disk(
            INSTANCE, image, size=size).path

    def test_a_file_system_fills_a_larger_disk(self) -> None:
        path = self.make(self.content, 16 * MiB)
        self.assertEqual(16 * MiB, images.ext_size(path))
        subprocess.check_call(["e2fsck", "-f", "-n", path],
                              stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)

    def test_a_file_system_grows_when_its_disk_grows(self) -> None:
        path = self.make(self.content, 4 * MiB)
        self.assertEqual(4 * MiB, images.ext_size(path))
        self.images.cache.disk(INSTANCE).grow(8 * MiB)
        self.assertEqual(8 * MiB, images.ext_size(path))

    def test_growing_to_the_same_size_does_not_change_the_disk(self) -> None:
        """The guest may be running, and have written a journal."""
        path = self.make(self.content, 16 * MiB + 512)
        self.assertEqual(16 * MiB + 512, path.stat().st_size)
        subprocess.run(["debugfs", "-w", "-R", "feature needs_recovery", path],
                       check=True, capture_output=True)
        before = path.read_bytes()
        self.images.cache.disk(INSTANCE).grow(16 * MiB + 512)
        self.assertTrue(before == path.read_bytes())

    def test_the_file_system_in_the_base_keeps_its_size(self) -> None:
        self.make(self.content, 16 * MiB)
        [entry] = self.images.cache.bases()
        self.assertTrue(entry.path.read_bytes() == self.content)

    def test_a_broken_file_system_is_not_grown_and_the_disk_is_made(
            self) -> None:
        image = self.root / "image"
        subprocess.run(["debugfs", "-w", "-R", "clri <2>", image], check=True,
                       capture_output=True)    # no root directory
        path = self.make(image.read_bytes(), 16 * MiB)
        self.assertEqual(16 * MiB, path.stat().st_size)
        self.assertIn("filesystem_not_resized", self.images.heard)

    def test_a_file_system_that_cannot_be_checked_is_reported(self) -> None:
        slow = exception.CommandTimedOut(command="dumpe2fs", timeout=60)
        with mock.patch("imagecache.tools.filesystem.is_ext",
                        side_effect=slow):
            self.make(self.content, 16 * MiB)
        [kept] = [e for e in self.images.events
                  if e.name == "filesystem_not_resized"]
        self.assertIn("dumpe2fs", kept.facts["reason"])

    def test_a_partitioned_disk_is_not_changed(self) -> None:
        content = images.mbr(4 * MiB)
        path = self.make(content, 16 * MiB)
        self.assertTrue(path.read_bytes() == content + bytes(12 * MiB))


class Qcow2CopyTest(base.TestCase):
    """Without force_raw_images, the copy of a qcow2 base is qcow2."""

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture(
            use_cow_images=False, force_raw_images=False))
        self.content = images.content(SIZE)
        self.image = images.qcow2(self.content, "-c")
        self.ref = self.images.add(self.image, "qcow2")

    def make(self, size: int | None = None) -> Disk:
        return self.images.cache.create_disk(INSTANCE, self.ref, size=size)

    def test_a_compressed_base_stays_compressed(self) -> None:
        self.make()
        [entry] = self.images.cache.bases()
        self.assertTrue(entry.path.read_bytes() == self.image)

    def test_a_qcow2_copy_equals_its_image_and_is_recorded_as_qcow2(
            self) -> None:
        disk = self.make()
        self.assertTrue(disk.path.read_bytes() == self.image)
        self.assertIs(Format.QCOW2, disk.format)
        self.assertEqual(
            {str(disk.path): "qcow2"},
            json.loads((disk.path.parent / "disk.info").read_bytes()))
        self.assertEqual([Format.QCOW2], [
            each.format for each in self.images.cache.disks()])

    def test_a_qcow2_copy_grows_as_qcow2(self) -> None:
        disk = self.make(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())
        disk.grow(3 * SIZE)
        self.assertTrue(self.content + bytes(2 * SIZE)
                        == images.read(disk.path, "qcow2"))

    def test_a_qcow2_copy_needs_no_base(self) -> None:
        disk = self.make()
        [entry] = self.images.cache.bases()
        self.images.cache.remove_base(entry.key)
        self.make(2 * SIZE)
        self.assertEqual(1, self.images.store.reads)
        self.assertTrue(self.content == images.read(disk.path, "qcow2")[:SIZE])

    def test_a_qcow2_copy_stays_qcow2_when_the_options_change(self) -> None:
        self.make()
        self.images.config(force_raw_images=True)
        disk = self.make(2 * SIZE)
        self.assertEqual((Format.QCOW2, 2 * SIZE),
                         (disk.format, disk.size()))

    def test_a_raw_image_is_a_raw_disk(self) -> None:
        self.ref = self.images.add(self.content, "raw")
        disk = self.make()
        self.assertIs(Format.RAW, disk.format)
        self.assertTrue(disk.path.read_bytes() == self.content)

    def test_a_qcow2_base_becomes_a_raw_disk_if_raw_is_forced(self) -> None:
        self.images.cache.fetch(self.ref)
        self.images.config(force_raw_images=True)
        disk = self.make(2 * SIZE)
        self.assertIs(Format.RAW, disk.format)
        self.assertTrue(disk.path.read_bytes() == self.content + bytes(SIZE))

    def test_preallocating_a_qcow2_copy_leaves_room_for_its_tables(
            self) -> None:
        self.images.config(preallocate_images="space")
        self.ref = self.images.add(images.qcow2(
            self.content, "-c", "-o", "cluster_size=4k"), "qcow2")
        disk = self.make(8 * SIZE)
        before = disk.allocated()
        images.write(disk.path, "qcow2", images.content(8 * SIZE, seed=2))
        # The file system's own tables for the file may grow.
        self.assertLess(disk.allocated(), before + 32 * KiB)
        disk.grow(16 * SIZE)
        self.assertGreater(disk.allocated(), before + 8 * SIZE)
