# SPDX-License-Identifier: Apache-2.0
"""librbd leaves parts of volumes if it is killed during a step."""

from __future__ import annotations

import contextlib
import os
import signal
import struct
import uuid

import fixtures

import imagecache
from imagecache import exception
from imagecache.backends.rbd.cluster import BASE_SNAPSHOT, RbdName
from imagecache.model import MiB
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import processes
from imagecache.tests.functional import rbd_case
from imagecache.tests.functional.rbd_case import SIZE

# Of the objects of a volume, those that are there while it is being made or
# removed: its name, its entry in the pool's directory, its header.
PARTS = (("id",), ("id", "directory"), ("directory",),
         ("directory", "header"), ("header",))
# What a snapshot is while librbd looks for its clones, to unprotect it.
UNPROTECTING = 1


class LeftoversTestCase(rbd_case.ImageTestCase):

    def make(self, instance=INSTANCE, observe=lambda event: None):
        return imagecache.ImageCache(
            self.images.conf, glance=self.images.store, observe=observe,
        ).create_disk(instance, self.ref, size=2 * SIZE)


class LeftoversTest(LeftoversTestCase):

    def assert_makes_a_disk(self):
        """Check that a disk can be made, and removed with its base."""
        disk = self.make()
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(disk.path))
        [entry] = self.images.cache.bases()
        self.assertEqual({str(disk.path), str(entry.path)}, self.volumes())
        disk.remove()
        self.images.cache.remove_base(entry.key)
        self.assertEqual(set(), self.volumes())

    def leave(self, name, parts):
        """Make a volume that has only some of its objects."""
        with self.pool() as pool:
            pool.create(name, SIZE)
            with pool.open(name) as volume:
                number = volume._image.id()
            if "id" not in parts:
                pool._context.remove_object(f"rbd_id.{name}")
            if "directory" not in parts:
                pool._context.execute("rbd_directory", "rbd",
                                      "dir_remove_image",
                                      packed(name) + packed(number))
            if "header" not in parts:
                pool._context.remove_object(f"rbd_header.{number}")

    def test_a_part_of_a_base_does_not_stop_a_disk(self):
        key = self.make().base_key()
        self.clear()
        for parts in PARTS:
            with self.subTest(parts):
                self.leave(RbdName.of_base("vms", key).image, parts)
                self.assertEqual([], list(self.images.cache.bases()))
                self.assert_makes_a_disk()

    def test_a_base_whose_removal_was_cut_short_is_cloned_all_the_same(self):
        disk = self.make()
        [entry] = self.images.cache.bases()
        disk.remove()
        with self.pool() as pool, pool.open(entry.path.name) as volume:
            pool._context.execute(
                f"rbd_header.{volume._image.id()}", "rbd",
                "set_protection_status", struct.pack(
                    "<QB", volume._image.snap_get_id(BASE_SNAPSHOT),
                    UNPROTECTING))
        self.assert_makes_a_disk()
        self.assertEqual(1, self.images.store.reads)

    def test_a_part_of_a_disk_does_not_stop_a_disk(self):
        for parts in PARTS:
            with self.subTest(parts):
                self.leave(f"{INSTANCE}_disk", parts)
                self.assertFalse(self.images.cache.disk(INSTANCE).exists())
                self.assert_makes_a_disk()

    def test_a_clone_without_its_parent_is_no_disk(self):
        with self.pool() as pool:
            pool.create(f"{INSTANCE}_disk", SIZE)
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())
        self.assert_makes_a_disk()

    def test_a_clone_that_its_parent_does_not_know_is_no_disk(self):
        disk = self.make(OTHER)
        [entry] = self.images.cache.bases()
        self.clone(entry.path.name, f"{INSTANCE}_disk")
        self.forget(entry.path.name, f"{INSTANCE}_disk")
        self.assertFalse(self.images.cache.disk(INSTANCE).exists())
        disk.remove()
        self.assert_makes_a_disk()

    def test_a_volume_that_another_program_made_is_a_disk(self):
        """A volume counts as a disk as long as there is data to lose."""
        self.make(OTHER)
        [entry] = self.images.cache.bases()
        made = [f"{uuid.uuid4()}_disk" for _ in range(4)]
        clone, written, late, snapshot = made
        self.clone(entry.path.name, clone)
        self.clone(entry.path.name, written)
        self.write_volume(f"vms/{written}", b"precious")
        self.forget(entry.path.name, written)
        # Before its parent, which does not wait for it.
        self.addCleanup(self.remove, written)
        with self.pool() as pool:
            pool.create(late, 256 * MiB)
            pool.create(snapshot, SIZE)
            with pool.open(snapshot) as volume:
                volume.create_snapshot("of-something")
        self.write_volume(f"vms/{late}", b"precious", 255 * MiB)
        for name in made:
            disk = self.images.cache.disk(name.partition("_")[0])
            with self.subTest(made.index(name)):
                self.assertTrue(disk.exists())
                self.assertRaises(exception.DiskExists, disk.clone_snapshot,
                                  RbdName(*entry.path.parts), BASE_SNAPSHOT,
                                  None)

    def test_a_disk_may_be_zeros(self):
        cache = self.images.cache
        self.images.config("image_cache", rbd_flatten_disks=True)
        ref = self.images.add(bytes(SIZE), "raw")
        empty = self.root / "empty"
        empty.write_bytes(bytes(SIZE))
        cache.disk(INSTANCE, "disk.config").import_file(empty)
        self.images.cache.create_disk(INSTANCE, ref)
        for name in ("disk", "disk.config"):
            disk = cache.disk(INSTANCE, name)
            self.assertIsNone(disk.parent())
            self.assertTrue(disk.exists())

    def test_a_disk_that_was_not_flattened_is_flattened_by_the_next_call(
            self):
        """A process is killed right after the clone."""
        self.images.config("image_cache", rbd_flatten_disks=True)

        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)

        with fixtures.MonkeyPatch(
                "imagecache.backends.rbd.clones.finish", die):
            child = processes.Child(self.make)
            self.assertEqual(-signal.SIGKILL, child.wait())
        self.assertIsNotNone(self.images.cache.disk(INSTANCE).parent())
        disk = self.make()
        self.assertIsNone(disk.parent())
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(disk.path))

    def test_a_disk_that_was_complete_stays_a_clone(self):
        self.make()
        self.images.config("image_cache", rbd_flatten_disks=True)
        self.assertIsNotNone(self.make().parent())

    def test_two_processes_flatten_a_disk(self):
        self.make(OTHER)
        [entry] = self.images.cache.bases()
        self.clone(entry.path.name, f"{INSTANCE}_disk")
        self.images.config("image_cache", rbd_flatten_disks=True)
        self.assertEqual([0] * 4, processes.at_once([self.make] * 4))
        self.assertIsNone(self.images.cache.disk(INSTANCE).parent())

    def remove(self, name):
        with self.pool() as pool:
            pool.remove(name)

    def clone(self, parent, name):
        """Clone a volume without this library."""
        with self.pool() as pool:
            pool.clone(pool, parent, BASE_SNAPSHOT, name)

    def forget(self, parent, name):
        """Remove a clone from the list of its parent's children."""
        with self.pool() as pool, pool.open(name) as clone, \
                pool.open(parent) as volume:
            pool._context.execute("rbd_children", "rbd", "remove_child", (
                struct.pack("<q", pool._context.get_pool_id())
                + packed(volume._image.id())
                + struct.pack("<Q", volume._image.snap_get_id(BASE_SNAPSHOT))
                + packed(clone._image.id())))
            self.assertNotIn(f"vms/{name}", volume.children(BASE_SNAPSHOT))


class KilledTest(LeftoversTestCase):

    missed = 5

    def clear(self):
        """The cluster goes with its only test."""

    def test_a_disk_is_whole_after_a_kill_at_any_moment_of_its_clone(self):
        self.make(OTHER)
        self.images.config("libvirt", rbd_destroy_volume_retries=8)
        whole = 0
        for moment in range(2, 42, 4):    # milliseconds
            def die(event, moment=moment):
                if event.name == "hit":
                    signal.setitimer(signal.ITIMER_REAL, moment / 1000)

            instance = str(uuid.uuid4())
            with self.subTest(moment):
                child = processes.Child(
                    lambda die=die, instance=instance:
                    self.make(instance, die))
                self.assertIn(child.wait(), (0, -signal.SIGALRM))
                # Ceph 16 never misses a client that dies at the wrong moment.
                with contextlib.suppress(exception.StorageBusy):
                    self.assert_whole(self.make(instance))
                    whole += 1
        self.assertGreater(whole, 5)

    def assert_whole(self, disk):
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(disk.path))
        self.assertIn(str(disk.path),
                      disk.cache.store.in_use(disk.base_key()))


def packed(text: str) -> bytes:
    """As Ceph writes a string."""
    return struct.pack("<I", len(text)) + text.encode()
