# SPDX-License-Identifier: Apache-2.0
"""What every backend promises, as tests to inherit.

    class LvmTest(conformance.DiskConformance):
        image_type = "lvm"

A backend's own test module adds only what is its own.
"""

from __future__ import annotations

import pathlib
import threading
import unittest
from collections.abc import Set
from typing import Any, ClassVar

import fixtures

from imagecache import exception, sources
from imagecache.backends.base import Disk, Extractor, Flattener
from imagecache.image_cache import ImageCache
from imagecache.model import MiB
from imagecache.provision import provision
from imagecache.sources import templates
from imagecache.testing import fixture, images

INSTANCE = "8a6a8b1f-7f0c-4b3c-a8a2-3f7d2b6d6d5e"
OTHER = "0d4a1d5e-52a6-4c1e-9d2b-4e1c9b8f7a60"
SIZE = MiB           # of the image, as a guest sees it


class DiskConformance(fixtures.TestWithFixtures, unittest.TestCase):
    """Inherit this and name the backend.

    The methods that no test calls as such say what "to read a disk" or "to
    leave nothing" means; those here are for disks that are files.
    """

    image_type: ClassVar[str]

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("libvirt", images_type=self.image_type)
        self.content = images.content(SIZE)
        self.image = self.images.add(images.qcow2(self.content), "qcow2")

    @property
    def cache(self) -> ImageCache:
        return self.images.cache

    def make(self, size: int | None = None, instance: str = INSTANCE,
             **options: Any) -> Disk:
        return self.cache.create_disk(instance, self.image, size=size,
                                      **options)

    def source(self) -> sources.Image:
        store = self.images.store
        return sources.Image(store, store.describe(self.image))

    def read(self, disk: Disk) -> bytes:
        """Return what a guest reads from the disk."""
        return images.read(disk.path, disk.format)

    def write(self, disk: Disk, data: bytes) -> None:
        """Write to where the disk begins, as a guest does."""
        images.write(disk.path, disk.format, data)

    def left(self) -> set[str]:
        """Return the files there are, but for locks."""
        root = self.images.instances_path
        return {str(path.relative_to(root)) for path in root.rglob("*")
                if not path.is_dir()
                and path.parent != self.cache.host.locks.directory}

    def is_of_a_base(self, name: str) -> bool:
        """Say whether something of what left() returns is kept for bases."""
        return name.startswith("_base/")

    def assert_nothing_left(self, *, but: Set[str] = frozenset()) -> None:
        self.assertEqual(but, self.left())
        self.assertFalse((self.images.instances_path / INSTANCE).exists())
        holder = threading.Thread(target=self._hold_all, daemon=True)
        holder.start()
        holder.join(10)
        self.assertFalse(holder.is_alive(), "a lock is still held")

    def _hold_all(self) -> None:
        locks = self.cache.host.locks
        for path in locks.directory.glob(f"{locks.prefix}*"):
            with locks.holding(path.name.removeprefix(locks.prefix)):
                pass

    # Making one.

    def test_naming_a_disk_creates_nothing(self) -> None:
        self.assertFalse(self.cache.disk(INSTANCE).exists())
        self.assertEqual([], list(self.images.instances_path.iterdir()))

    def test_a_disk_reads_as_its_image(self) -> None:
        self.assertTrue(self.content == self.read(self.make()))

    def test_a_disk_of_no_size_has_the_images(self) -> None:
        for instance, size in ((INSTANCE, None), (OTHER, 0)):
            self.assertEqual(SIZE, self.make(size, instance).size())

    def test_a_disk_has_the_size_that_was_asked_for(self) -> None:
        disk = self.make(3 * SIZE)
        self.assertEqual(3 * SIZE, disk.size())
        self.assertTrue(self.content + bytes(2 * SIZE) == self.read(disk))

    def test_a_guest_sees_whole_sectors(self) -> None:
        for instance, size in ((INSTANCE, None), (OTHER, 2 * SIZE - 100)):
            image = self.images.add(b"odd" * 1000, "raw")
            disk = self.cache.create_disk(instance, image, size=size)
            self.assertEqual(0, disk.size() % 512)
            self.assertTrue(self.read(disk).startswith(b"odd" * 1000))

    def test_the_second_disk_fetches_nothing(self) -> None:
        self.make()
        self.make(2 * SIZE, OTHER)
        self.assertEqual(1, self.images.store.reads)
        self.assertEqual(["miss", "verified", "validated", "committed",
                          "created", "hit", "created"], self.images.heard)

    def test_disks_of_one_image_are_apart(self) -> None:
        one, other = self.make(), self.make(instance=OTHER)
        self.write(one, b"mine")
        self.assertTrue(self.content == self.read(other))

    def test_an_existing_disk_keeps_its_content(self) -> None:
        self.write(self.make(), b"precious")
        again = self.make()
        self.assertTrue(self.read(again).startswith(b"precious"))

    def test_a_disk_is_not_made_over_another(self) -> None:
        disk = self.make()
        self.write(disk, b"precious")
        before = self.left()
        with disk.cache.lease(self.source()) as base:
            self.assertRaises(exception.DiskExists, disk.create, base, None)
        self.assertTrue(self.read(disk).startswith(b"precious"))
        self.assertEqual(before, self.left())

    # Refusing.

    def test_an_image_that_does_not_fit_is_refused(self) -> None:
        self.assertRaises(exception.FlavorDiskSmallerThanImage,
                          self.make, SIZE - 512)
        self.assert_nothing_left()

    def test_a_cached_image_that_does_not_fit_is_refused(self) -> None:
        self.make(instance=OTHER)
        before = self.left()
        self.assertRaises(exception.FlavorDiskSmallerThanImage,
                          self.make, SIZE - 512)
        self.assert_nothing_left(but=before)

    def test_an_image_that_asks_for_a_larger_disk_is_refused(self) -> None:
        self.image = self.images.add(self.content, "raw", min_disk=4 * SIZE)
        self.assertRaises(exception.FlavorDiskSmallerThanMinDisk,
                          self.make, 2 * SIZE)
        self.assert_nothing_left()

    def test_an_image_with_a_backing_file_is_refused(self) -> None:
        secret = pathlib.Path("/etc/passwd")
        self.image = self.images.add(images.backed_by(secret), "qcow2")
        self.assertRaises(exception.ImageUnacceptable, self.make)
        self.assert_nothing_left()

    def test_an_image_that_is_not_what_it_claims_is_refused(self) -> None:
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

    def test_names_that_leave_the_directory_are_refused(self) -> None:
        for name in ("", ".", "..", "../disk", "a/b", "/etc/x", "a\0b",
                     "a\nb", "\ud800", ".disk.1.ab", "x" * 300):
            for names in ((INSTANCE, name), (name, "disk")):
                with self.subTest(names), \
                        self.assertRaises(exception.InvalidName):
                    self.cache.create_disk(names[0], self.image, names[1])
        self.assert_nothing_left()

    def test_the_caches_own_directories_are_no_instances(self) -> None:
        for name in ("_base", "locks"):
            with self.assertRaises(exception.InvalidName):
                self.cache.create_disk(name, self.image)
        self.assert_nothing_left()

    # Growing.

    def test_a_disk_grows_and_keeps_its_content(self) -> None:
        disk = self.make()
        disk.grow(2 * SIZE)
        self.assertEqual(2 * SIZE, disk.size())
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))

    def test_a_disk_that_exists_grows_to_what_is_asked_for(self) -> None:
        self.make()
        self.assertEqual(2 * SIZE, self.make(2 * SIZE).size())

    def test_a_disk_never_shrinks(self) -> None:
        disk = self.make(2 * SIZE)
        disk.grow(SIZE)
        self.assertEqual(2 * SIZE, self.make(SIZE).size())
        self.assertEqual(["created"], self.images.heard[-1:])

    def test_a_disk_grows_to_whole_sectors(self) -> None:
        disk = self.make()
        disk.grow(2 * SIZE - 1)
        self.assertEqual(2 * SIZE, disk.size())

    def test_a_disk_that_is_not_there_is_not_found(self) -> None:
        disk = self.cache.disk(INSTANCE)
        for act in (disk.size, lambda: disk.grow(SIZE)):
            self.assertRaises(exception.DiskNotFound, act)
        self.assertEqual(set(), self.left())

    # Of this host's own making.

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

    def test_a_templates_disk_grows_beyond_its_template(self) -> None:
        disk = self.cache.disk(INSTANCE)
        provision(disk, templates.blank(SIZE), 2 * SIZE)
        self.assertTrue(bytes(2 * SIZE) == self.read(disk))

    # What a guest wrote.

    def test_an_image_header_written_by_a_guest_means_nothing(self) -> None:
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

    # Taking it out, and away.

    def test_extracting_copies_the_content(self) -> None:
        disk = self.make(2 * SIZE)
        assert isinstance(disk, Extractor)
        for format in ("raw", "qcow2"):
            output = self.images.instances_path / format
            disk.extract(output, format)
            self.assertTrue(self.content + bytes(SIZE)
                            == images.read(output, format))
        self.assertEqual({"backing-filename"} & set(images.info(output)),
                         set())

    def test_extracting_to_an_unknown_format_leaves_nothing(self) -> None:
        disk = self.make()
        assert isinstance(disk, Extractor)
        before = self.left()
        self.assertRaises(exception.InvalidDiskFormat, disk.extract,
                          self.images.instances_path / "out", "floppy")
        self.assertEqual(before, self.left())

    def test_removing_leaves_nothing_but_the_base(self) -> None:
        disk = self.make()
        base = {name for name in self.left() if self.is_of_a_base(name)}
        disk.remove()
        self.assertFalse(disk.exists())
        self.assert_nothing_left(but=base)
        self.assertEqual([], list(self.cache.disks()))

    def test_removing_what_is_not_there_does_nothing(self) -> None:
        self.cache.disk(INSTANCE).remove()
        self.assertEqual([], list(self.images.instances_path.iterdir()))

    # Its base.

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self) -> None:
        disk = self.make()
        self._lose_base(disk)
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
        self._lose_base(disk)
        self.images.store.remove(self.image)
        provision(disk, source, 3 * SIZE)
        self.assertTrue(self.content + bytes(2 * SIZE) == self.read(disk))

    def _lose_base(self, disk: Disk) -> None:
        [entry] = list(disk.cache.entries())
        disk.cache.store.remove(entry.key)
