# SPDX-License-Identifier: Apache-2.0
"""A thin overlay on the base."""

from __future__ import annotations

import json
import sys

from imagecache import exception, sources
from imagecache.backends import Qcow2
from imagecache.model import Format, KiB
from imagecache.provision import provision
from imagecache.sources import templates
from imagecache.testing import file_conformance, images
from imagecache.testing.conformance import INSTANCE, OTHER, SIZE


class Qcow2Test(file_conformance.FileDiskConformance):

    image_type = "qcow2"

    def test_a_disk_reads_its_base_by_format_and_path(self) -> None:
        disk = self.make()
        [entry] = self.cache.bases()
        found = images.info(disk.path)
        self.assertEqual((str(entry.path), "raw"), (
            found["backing-filename"], found["backing-filename-format"]))
        self.assertEqual(entry.key, disk.base_key())

    def test_a_disk_of_a_qcow2_base_names_the_format_of_its_base(self) -> None:
        self.images.config(force_raw_images=False)
        disk = self.make(2 * SIZE)
        self.assertEqual("qcow2", images.info(disk.path)[
            "backing-filename-format"])
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))

    def test_a_disk_has_the_clusters_of_its_base(self) -> None:
        self.images.config(force_raw_images=False)
        self.image = self.images.add(images.qcow2(
            self.content, "-o", "cluster_size=256k"), "qcow2")
        self.assertEqual(256 * 1024, images.info(
            self.make().path)["cluster-size"])

    def test_preallocating_leaves_room_for_the_tables_of_small_clusters(
            self) -> None:
        self.images.config(force_raw_images=False,
                           preallocate_images="space")
        self.image = self.images.add(images.qcow2(
            self.content, "-o", "cluster_size=1k"), "qcow2")
        disk = self.make(64 * SIZE)
        before = disk.allocated()
        images.write(disk.path, "qcow2", b"full" * (16 * SIZE))
        # The file system's own tables for the file may grow.
        self.assertLess(disk.allocated(), before + 32 * KiB)

    def test_a_disk_holds_only_what_its_guest_wrote(self) -> None:
        disk = self.make(64 * SIZE)
        self.assertLess(disk.allocated(), SIZE / 2)

    def test_making_a_disk_of_a_cached_image_starts_one_program(self) -> None:
        self.make()
        self.assertEqual(["qemu-img"], started(
            lambda: self.make(2 * SIZE, OTHER)))

    def test_describing_a_disk_starts_no_program(self) -> None:
        disk = self.make()
        self.assertEqual([], started(lambda: (
            disk.size(), disk.format, disk.base_key(), disk.allocated(),
            disk.grow(SIZE), self.make(SIZE))))

    def test_a_template_is_made_once_for_all_disks(self) -> None:
        for instance in (INSTANCE, OTHER):
            disk = self.cache.create_swap(instance, SIZE)
            self.assertEqual("swap_1", disk.base_key())
        self.assertEqual(1, self.images.heard.count("miss"))

    def test_a_lost_template_is_made_again(self) -> None:
        disk = self.cache.create_swap(INSTANCE, SIZE)
        disk.cache.store.remove("swap_1")
        provision(disk, templates.swap(SIZE), SIZE)
        self.assertIn(b"SWAPSPACE2", self.read(disk)[:4096])

    def test_a_lost_base_is_fetched_in_the_format_that_the_disk_reads(
            self) -> None:
        """The present options, also of another host, do not matter."""
        for before in (True, False):
            self.images.config(force_raw_images=before)
            disk = self.make()
            disk.cache.store.remove(disk.base_key())
            self.images.config(force_raw_images=not before)
            self.make(2 * SIZE)
            self.assertTrue(self.content + bytes(SIZE) == self.read(disk))
            key = disk.base_key()
            disk.remove()
            self.cache.remove_base(key)

    def test_a_base_of_another_format_than_the_disk_reads_is_refused(
            self) -> None:
        """Another host may have a base of the same image in another format."""
        for before in (True, False):
            self.images.config(force_raw_images=before)
            disk = self.make()
            disk.cache.store.remove(disk.base_key())
            self.images.config(force_raw_images=not before)
            other = self.make(instance=OTHER)
            with self.assertRaises(exception.StorageFailed) as caught:
                self.make()
            self.assertIn("force_raw_images", str(caught.exception))
            self.assertTrue(self.content == self.read(other))
            key = disk.base_key()
            for each in (disk, other):
                each.remove()
            self.cache.remove_base(key)

    def test_a_flattened_disk_keeps_its_content_and_has_no_base(self) -> None:
        disk = self.make(2 * SIZE)
        self.write(disk, b"mine")
        before = self.read(disk)
        for _ in range(2):
            disk.flatten()
            self.assertIsNone(disk.base_key())
            self.assertTrue(before == self.read(disk))

    def test_rebasing_keeps_the_content(self) -> None:
        disk = self.make(2 * SIZE)
        self.write(disk, b"mine")
        before = self.read(disk)
        other = self.images.add(images.content(SIZE, seed=2), "raw")
        image = sources.Image(self.images.store,
                              self.images.store.describe(other))
        with disk.cache.lease(image) as base:
            disk.rebase(base)
            self.assertEqual(base.key, disk.base_key())
        self.assertTrue(before == self.read(disk))

    def test_a_missing_disk_cannot_be_flattened_or_rebased(self) -> None:
        disk = self.cache.disk(INSTANCE)
        self.assertRaises(exception.DiskNotFound, disk.flatten)
        self.assertRaises(exception.DiskNotFound, disk.base_key)
        with disk.cache.lease(self.source()) as base:
            self.assertRaises(exception.DiskNotFound, disk.rebase, base)

    def test_a_disk_without_a_qcow2_header_is_refused(self) -> None:
        disk = self.make()
        disk.path.write_bytes(b"")
        self.assertRaises(exception.InvalidDiskFormat, disk.size)
        self.assertRaises(exception.InvalidDiskFormat, disk.grow, 2 * SIZE)

    def test_a_disk_on_record_as_raw_is_not_read_as_qcow2(self) -> None:
        """Its guest may have written a qcow2 header to the raw disk."""
        secret = self.images.instances_path / "secret"
        secret.write_bytes(b"secret" * 1000)
        raw = self.make(image_type="raw")
        images.write(raw.path, "raw", images.backed_by(secret)[:1024])
        disk = Qcow2(self.cache.host, INSTANCE, "disk")
        output = self.images.instances_path / "output"
        for act in (disk.size, lambda: disk.grow(2 * SIZE), disk.base_key,
                    disk.flatten, lambda: disk.extract(output, "raw"),
                    lambda: provision(disk, self.source(), 2 * SIZE)):
            self.assertRaises(exception.InvalidDiskFormat, act)
        self.assertEqual((Format.RAW, SIZE), (disk.format, raw.size()))
        self.assertFalse(output.exists())

    def test_a_disk_in_a_moved_directory_keeps_its_format(self) -> None:
        """After a restore the record holds the old paths."""
        disk = self.make()
        record = disk.path.parent / "disk.info"
        record.write_text(json.dumps({"/elsewhere/disk": "qcow2"}))
        [found] = self.cache.disks()
        self.assertEqual((disk.path, Format.QCOW2),
                         (found.path, found.format))


def started(action) -> list[str]:
    """Return the programs that an action starts."""
    found: list[str] = []
    _LISTENERS.append(found)
    try:
        action()
    finally:
        _LISTENERS.remove(found)
    return found


_LISTENERS: list[list[str]] = []


def _listen(event: str, arguments: tuple) -> None:
    if _LISTENERS and event == "subprocess.Popen":
        _LISTENERS[-1].append(arguments[0])
    elif _LISTENERS and event in ("os.fork", "os.exec", "os.system",
                                  "os.posix_spawn"):
        _LISTENERS[-1].append(event)


sys.addaudithook(_listen)    # Python cannot remove an audit hook
