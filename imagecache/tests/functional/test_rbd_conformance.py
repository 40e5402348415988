# SPDX-License-Identifier: Apache-2.0
"""Disks in Ceph keep the promises of every backend."""

from __future__ import annotations

from imagecache import exception
from imagecache.testing import conformance
from imagecache.testing.conformance import SIZE
from imagecache.tests.functional import rbd_case


class RbdTestCase(rbd_case.RbdMixin, conformance.DiskTestCase):

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

    def assert_a_base_cannot_be_lost(self):
        """Check that the cluster refuses to remove the base of a clone."""
        disk = self.make()
        self.assertRaises(exception.BaseInUse, disk.cache.store.remove,
                          disk.base_key())
        self.make(2 * SIZE)
        self.assertEqual(1, self.images.store.reads)
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))


class OlderClonesTest(RbdTestCase, conformance.DiskConformance):
    """Clones of protected snapshots keep all promises of the backend."""

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self):
        self.assert_a_base_cannot_be_lost()


class NewerClonesTest(RbdTestCase, conformance.MakingConformance,
                      conformance.RemovingConformance,
                      conformance.BaseConformance):
    """Clones of the newer format, with their bases in another pool.

    The format of clones and the pool of the bases affect which operations
    make a clone, remove a clone and keep its base; a clone that exists grows
    and is read in the same way.
    """

    clone_format = 2
    base_pool = "bases"

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self):
        self.assert_a_base_cannot_be_lost()


class FlattenedTest(RbdTestCase, conformance.MakingConformance,
                    conformance.RemovingConformance,
                    conformance.BaseConformance):
    """Disks that do not stay clones.

    Flattening happens while a disk is made, and detaches it from its base;
    a disk without a parent grows and is read in the same way.
    """

    base_pool = "bases"

    def setUp(self):
        super().setUp()
        self.images.config("image_cache", rbd_flatten_disks=True)

    def test_a_lost_base_is_fetched_again_only_if_it_is_needed(self):
        disk = self.make()
        self.assertIsNone(disk.base_key())
        self.lose_base(disk)
        self.make(2 * SIZE)
        self.assertEqual(1, self.images.store.reads)
        self.assertTrue(self.content + bytes(SIZE) == self.read(disk))
