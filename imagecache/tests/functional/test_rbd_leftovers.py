# SPDX-License-Identifier: Apache-2.0
"""What librbd leaves in a pool if it is killed in the middle of a step."""

from __future__ import annotations

import struct

from imagecache import fixture
from imagecache.model import MiB
from imagecache.rbd_store import PREFIX, SNAPSHOT
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE
from imagecache.tests import base
from imagecache.tests.functional import rbd_case

SIZE = 2 * MiB

# Of the objects of a volume, those that are there while it is being made or
# removed: its name, its entry in the pool's directory, its header.
PARTS = (("id",), ("id", "directory"), ("directory",),
         ("directory", "header"), ("header",))
# What a snapshot is while librbd looks for its clones, to unprotect it.
UNPROTECTING = 1


class LeftoversTest(rbd_case.RbdMixin, base.TestCase):

    def setUp(self):
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.configure(self.images)
        self.addCleanup(self.clear)
        self.content = images.content(SIZE)
        self.ref = self.images.add(images.qcow2(self.content), "qcow2")

    def make(self, instance=INSTANCE):
        return self.images.cache.create_disk(instance, self.ref,
                                             size=2 * SIZE)

    def assert_makes_a_disk(self):
        """A disk can be made, and nothing is in its way."""
        disk = self.make()
        self.assertTrue(self.content + bytes(SIZE)
                        == self.read_volume(disk.path))
        [entry] = self.images.cache.bases()
        self.assertEqual({str(disk.path), str(entry.path)}, self.volumes())
        disk.remove()
        self.images.cache.remove_base(entry.key)
        self.assertEqual(set(), self.volumes())

    def leave(self, name, parts):
        """Have a part of a volume."""
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

    def test_a_part_of_a_base_is_in_nobodys_way(self):
        key = self.make().base_key()
        self.clear()
        for parts in PARTS:
            with self.subTest(parts):
                self.leave(PREFIX + key, parts)
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
                    "<QB", volume._image.snap_get_id(SNAPSHOT),
                    UNPROTECTING))
        self.assert_makes_a_disk()
        self.assertEqual(1, self.images.store.reads)


def packed(text: str) -> bytes:
    """As Ceph writes a string."""
    return struct.pack("<I", len(text)) + text.encode()
