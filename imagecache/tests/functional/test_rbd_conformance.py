# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph keep what every backend promises."""

from __future__ import annotations

from imagecache import exception
from imagecache.testing import conformance
from imagecache.testing.conformance import SIZE
from imagecache.tests.functional import rbd_case


class RbdConformance(rbd_case.RbdMixin, conformance.DiskConformance):

    image_type = "rbd"

    def setUp(self):
        super().setUp()
        self.configure(self.images)
        self.addCleanup(self.clear)

    def read(self, disk):
        return self.read_volume(disk.path)

    def write(self, disk, data):
        self.write_volume(disk.path, data)

    def left(self):
        return super().left() | self.volumes()

    def is_of_a_base(self, name):
        return name.startswith(f"{self.bases}/imagecache_base_")


class OlderClonesTest(RbdConformance):
    """Clones that need a protected snapshot."""

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self):
        """It cannot be lost, whatever our own remove() is told."""
        disk = self.make()
        self.assertRaises(exception.BaseInUse, disk.cache.store.remove,
                          disk.base_key())
        self.make(2 * SIZE)
        self.assertEqual(1, self.images.store.reads)
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))


class NewerClonesTest(OlderClonesTest):
    """Clones that do not, of bases in a pool of their own."""

    clone_format = 2
    base_pool = "bases"


class FlattenedTest(RbdConformance):
    """Disks that are whole from the beginning."""

    base_pool = "bases"

    def setUp(self):
        super().setUp()
        self.images.config("image_cache", rbd_flatten_disks=True)

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self):
        disk = self.make()
        self.assertIsNone(disk.base_key())
        self._lose_base(disk)
        self.make(2 * SIZE)
        self.assertEqual(1, self.images.store.reads)
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))


del RbdConformance    # it is no test itself
