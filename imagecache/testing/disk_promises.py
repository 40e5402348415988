# SPDX-License-Identifier: Apache-2.0
"""The promises of every backend, one class of tests for each subject.

A variant of a backend inherits the subjects that its difference can affect;
see ``conformance``.
"""

from __future__ import annotations

import pathlib

from imagecache import exception, sources
from imagecache.backends.base import Extractor, Flattener
from imagecache.provision import provision
from imagecache.sources import templates
from imagecache.testing import images
from imagecache.testing.disk_case import INSTANCE, OTHER, SIZE, DiskTestCase


class MakingConformance(DiskTestCase):
    """A disk has the content of its image, and the requested size."""

    def test_describing_a_disk_creates_no_file(self) -> None:
        self.assertFalse(self.cache.disk(INSTANCE).exists())
        self.assertEqual([], list(self.images.instances_path.iterdir()))

    def test_a_disk_reads_as_its_image(self) -> None:
        self.assertTrue(self.content == self.read(self.make()))

    def test_a_disk_without_a_requested_size_has_that_of_its_image(
            self) -> None:
        for instance, size in ((INSTANCE, None), (OTHER, 0)):
            self.assertEqual(SIZE, self.make(size, instance).size())

    def test_a_disk_has_the_requested_size(self) -> None:
        disk = self.make(3 * SIZE)
        self.assertEqual(3 * SIZE, disk.size())
        self.assertTrue(self.content + bytes(2 * SIZE) == self.read(disk))

    def test_the_size_of_a_disk_is_a_multiple_of_a_sector(self) -> None:
        for instance, size in ((INSTANCE, None), (OTHER, 2 * SIZE - 100)):
            image = self.images.add(b"odd" * 1000, "raw")
            disk = self.cache.create_disk(instance, image, size=size)
            self.assertEqual(0, disk.size() % 512)
            self.assertGreaterEqual(disk.size(), size or 3000)
            self.assertTrue(self.read(disk).startswith(b"odd" * 1000))

    def test_a_write_to_one_disk_is_not_seen_in_another(self) -> None:
        one, other = self.make(), self.make(instance=OTHER)
        self.write(one, b"mine")
        self.assertTrue(self.read(one).startswith(b"mine"))
        self.assertTrue(self.content == self.read(other))

    def test_making_a_disk_that_exists_keeps_its_content(self) -> None:
        self.write(self.make(), b"precious")
        again = self.make()
        self.assertTrue(self.read(again).startswith(b"precious"))

    def test_a_disk_is_not_created_over_an_existing_disk(self) -> None:
        disk = self.make()
        self.write(disk, b"precious")
        before = self.left()
        with disk.cache.lease(self.source()) as base:
            self.assertRaises(exception.DiskExists, disk.create, base, None)
        self.assertTrue(self.read(disk).startswith(b"precious"))
        self.assertEqual(before, self.left())


class RefusingConformance(DiskTestCase):
    """A refused request leaves no disk, no base and no lock behind."""

    def test_an_image_larger_than_the_requested_size_is_refused(
            self) -> None:
        self.assertRaises(exception.FlavorDiskSmallerThanImage,
                          self.make, SIZE - 512)
        self.assert_nothing_left()

    def test_a_cached_image_larger_than_the_requested_size_is_refused(
            self) -> None:
        self.make(instance=OTHER)
        before = self.left()
        self.assertRaises(exception.FlavorDiskSmallerThanImage,
                          self.make, SIZE - 512)
        self.assert_nothing_left(but=before)

    def test_a_requested_size_below_min_disk_is_refused(self) -> None:
        self.image = self.images.add(self.content, "raw", min_disk=4 * SIZE)
        self.assertRaises(exception.FlavorDiskSmallerThanMinDisk,
                          self.make, 2 * SIZE)
        self.assert_nothing_left()

    def test_an_image_with_a_backing_file_is_refused(self) -> None:
        secret = pathlib.Path("/etc/passwd")
        self.image = self.images.add(images.backed_by(secret), "qcow2")
        self.assertRaises(exception.ImageUnacceptable, self.make)
        self.assert_nothing_left()

    def test_an_image_of_another_format_than_its_store_says_is_refused(
            self) -> None:
        self.image = self.images.add(images.qcow2(self.content), "raw")
        self.assertRaises(exception.ImageUnacceptable, self.make)
        self.assert_nothing_left()

    def test_a_failed_fetch_leaves_nothing(self) -> None:
        def write(path: pathlib.Path) -> None:
            path.write_bytes(b"half")
            raise exception.SourceUnreachable(
                source="Glance", image_id="x", reason="it is gone")

        image = sources.DelegatedImage("x", write)
        self.assertRaises(exception.SourceUnreachable, provision,
                          self.cache.disk(INSTANCE), image)
        self.assert_nothing_left()

    def test_names_that_are_not_one_component_of_a_path_are_refused(
            self) -> None:
        for name in ("", ".", "..", "../disk", "a/b", "/etc/x", "a\0b",
                     "a\nb", "\ud800", ".disk.1.ab", "x" * 300):
            for names in ((INSTANCE, name), (name, "disk")):
                with self.subTest(names), \
                        self.assertRaises(exception.InvalidName):
                    self.cache.create_disk(names[0], self.image, names[1])
        self.assert_nothing_left()

    def test_an_instance_cannot_have_the_name_of_a_directory_of_the_cache(
            self) -> None:
        for name in ("_base", "locks"):
            with self.assertRaises(exception.InvalidName):
                self.cache.create_disk(name, self.image)
        self.assert_nothing_left()


class GrowingConformance(DiskTestCase):
    """A disk grows and never shrinks; its content stays."""

    def test_a_disk_grows_and_keeps_its_content(self) -> None:
        disk = self.make()
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))

    def test_a_disk_that_exists_grows_to_the_requested_size(self) -> None:
        self.make()
        self.assertEqual(2 * SIZE, self.make(2 * SIZE).size())

    def test_a_disk_never_shrinks(self) -> None:
        disk = self.make(2 * SIZE)
        disk.grow(SIZE)
        self.assertEqual(2 * SIZE, self.make(SIZE).size())
        self.assertEqual(["created"], self.images.heard[-1:])

    def test_a_disk_grows_to_a_multiple_of_a_sector(self) -> None:
        disk = self.make()
        disk.grow(2 * SIZE - 1)
        self.assertEqual(2 * SIZE, disk.size())

    def test_a_missing_disk_has_no_size_and_cannot_grow(self) -> None:
        disk = self.cache.disk(INSTANCE)
        for act in (disk.size, lambda: disk.grow(SIZE)):
            self.assertRaises(exception.DiskNotFound, act)
        self.assertEqual(set(), self.left())

    def test_an_image_header_written_by_a_guest_has_no_effect(self) -> None:
        secret = self.images.instances_path / "secret"
        secret.write_bytes(b"secret" * 1000)
        disk = self.make(2 * SIZE)
        header = images.backed_by(secret)[:1024]
        self.write(disk, header)
        told = disk.format
        disk = self.cache.disk(INSTANCE)
        disk.grow(3 * SIZE)
        self.assertEqual([(told, 3 * SIZE)], [
            (each.format, each.size()) for each in self.cache.disks()])
        self.assertTrue(
            header + self.content[1024:] + bytes(2 * SIZE) == self.read(disk))
        self.assertEqual(b"secret" * 1000, secret.read_bytes())


class GeneratingConformance(DiskTestCase):
    """A disk can hold content that this host generates: a template."""

    def test_a_blank_disk_is_zeros(self) -> None:
        disk = self.cache.create_blank(INSTANCE, "disk.blank", SIZE)
        self.assertTrue(bytes(SIZE) == self.read(disk))

    def test_a_swap_disk_is_swap_space(self) -> None:
        disk = self.cache.create_swap(INSTANCE, SIZE)
        self.assertEqual(SIZE, disk.size())
        self.assertEqual(b"SWAPSPACE2", self.read(disk)[4086:4096])

    def test_an_ephemeral_disk_has_a_labelled_file_system(self) -> None:
        disk = self.cache.create_ephemeral(INSTANCE, SIZE, fs_type="ext4",
                                           label="scratch")
        superblock = self.read(disk)[1024:2048]
        self.assertEqual(b"\x53\xef", superblock[56:58])
        self.assertEqual(b"scratch\0", superblock[120:128])

    def test_a_disk_can_be_larger_than_its_template(self) -> None:
        disk = self.cache.disk(INSTANCE)
        provision(disk, templates.blank(SIZE), 2 * SIZE)
        self.assertTrue(bytes(2 * SIZE) == self.read(disk))

    def test_a_failing_template_leaves_nothing(self) -> None:
        def write(path: pathlib.Path) -> None:
            path.write_bytes(b"half")
            raise exception.CommandFailed(
                command="mkfs", exit_code=1, stderr="no")

        self.assertRaises(exception.CommandFailed, provision,
                          self.cache.disk(INSTANCE),
                          sources.Template("x", write))
        self.assert_nothing_left()

    def test_a_template_that_writes_nothing_leaves_nothing(self) -> None:
        with self.assertRaises(exception.ImageCacheError):
            provision(self.cache.disk(INSTANCE),
                      sources.Template("x", lambda path: None))
        self.assert_nothing_left()


class ExtractingConformance(DiskTestCase):
    """The content of a disk can be copied into a file of its own."""

    def test_extracting_copies_the_content(self) -> None:
        disk = self.make(2 * SIZE)
        assert isinstance(disk, Extractor)
        for format in ("raw", "qcow2"):
            output = self.images.instances_path / format
            disk.extract(output, format)
            self.assertTrue(self.content + bytes(SIZE)
                            == images.read(output, format))
        self.assertEqual("qcow2", images.info(output)["format"])
        self.assertNotIn("backing-filename", images.info(output))

    def test_extracting_to_an_unknown_format_leaves_nothing(self) -> None:
        disk = self.make()
        assert isinstance(disk, Extractor)
        before = self.left()
        self.assertRaises(exception.InvalidDiskFormat, disk.extract,
                          self.images.instances_path / "out", "floppy")
        self.assertEqual(before, self.left())


class RemovingConformance(DiskTestCase):
    """Removing a disk leaves its base, and nothing else."""

    def test_removing_a_disk_leaves_only_its_base(self) -> None:
        disk = self.make()
        base = {name for name in self.left() if self.is_of_a_base(name)}
        disk.remove()
        self.assertFalse(disk.exists())
        self.assert_nothing_left(but=base)
        self.assertEqual([], list(self.cache.disks()))

    def test_removing_a_missing_disk_does_nothing(self) -> None:
        self.cache.disk(INSTANCE).remove()
        self.assertEqual([], list(self.images.instances_path.iterdir()))


class BaseConformance(DiskTestCase):
    """Disks share one base, fetched again only for a disk that needs it."""

    def test_a_second_disk_of_an_image_fetches_nothing(self) -> None:
        self.make()
        self.make(2 * SIZE, OTHER)
        self.assertEqual(1, self.images.store.reads)
        self.assertEqual(["miss", "verified", "validated", "committed",
                          "created", "hit", "created"], self.images.heard)

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self) -> None:
        disk = self.make()
        self.lose_base(disk)
        again = self.make()
        self.assertEqual(2 if disk.capabilities.depends_on_base else 1,
                         self.images.store.reads)
        self.assertTrue(self.content == self.read(again))

    def test_a_flattened_disk_needs_no_base(self) -> None:
        disk = self.make(2 * SIZE)
        if not isinstance(disk, Flattener):
            self.assertFalse(disk.capabilities.depends_on_base)
            return
        source = self.source()
        disk.flatten()
        self.lose_base(disk)
        self.images.store.remove(self.image)
        provision(disk, source, 3 * SIZE)
        self.assertTrue(self.content + bytes(2 * SIZE) == self.read(disk))
