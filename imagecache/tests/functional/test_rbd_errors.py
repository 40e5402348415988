# SPDX-License-Identifier: Apache-2.0
"""A cluster that is silent, full, or forbidden."""

from __future__ import annotations

import pathlib
import sys
from unittest import mock

import imagecache
from imagecache import exception, fixture
from imagecache.events import Event
from imagecache.model import KiB, MiB
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import base
from imagecache.tests.functional import rbd_case
from imagecache.tools import ceph, rbd

SIZE = 8 * MiB
TIMEOUT = 2     # seconds, until silence that is certain is an error


class ErrorsTestCase(rbd_case.RbdMixin, base.TestCase):

    base_pool = "bases"

    def setUp(self):
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.configure(self.images)
        self.wait_no_longer_than(rbd_case.PATIENCE)
        self.addCleanup(self.clear)
        self.content = images.content(SIZE)
        self.ref = self.images.add(images.qcow2(self.content), "qcow2")

    def wait_no_longer_than(self, seconds):
        self.images.config("image_cache", rbd_operation_timeout=seconds)
        self.images.config("libvirt", rbd_connect_timeout=seconds)

    def make(self, observe=lambda event: None, instance=INSTANCE):
        cache = imagecache.ImageCache(
            self.images.conf, glance=self.images.store, observe=observe)
        return cache.create_disk(instance, self.ref)

    def assert_works(self, instance=INSTANCE):
        """Check that the next call makes a whole disk, and only that."""
        disk = self.make(instance=instance)
        self.assertTrue(self.content == self.read_volume(disk.path))
        [entry] = self.images.cache.bases()
        self.assertEqual({str(disk.path), str(entry.path)}, self.volumes())
        self.assert_nothing_local()

    def assert_nothing_local(self):
        self.assertEqual([], [
            path for path in self.images.instances_path.rglob("*")
            if path.is_file() and path.parent.name != "locks"])


class SilentTest(ErrorsTestCase):
    """A cluster that stops answering causes an error in time."""

    missed = 5

    def when(self, name, *daemons):
        """Return an observer that stops daemons at the first such event."""
        def observe(event: Event):
            if event.name == name and not done:
                done.append(name)
                self.ceph.pause(*daemons)

        done = []
        self.addCleanup(self.ceph.resume, *daemons)
        return observe

    def assert_ends_and_works_again(self, observe):
        self.wait_no_longer_than(TIMEOUT)
        self.assertRaises(exception.StorageUnreachable, self.make, observe)
        self.ceph.resume()
        self.wait_no_longer_than(rbd_case.PATIENCE)
        self.assert_works()

    def test_monitors_are_silent(self):
        self.ceph.pause("mon")
        self.addCleanup(self.ceph.resume, "mon")
        self.assert_ends_and_works_again(lambda event: None)

    def test_silence_at_every_step_of_a_cold_disk(self):
        for name in ("miss", "verified", "validated", "convert", "committed"):
            with self.subTest(name):
                self.assert_ends_and_works_again(self.when(name, "osd"))
            self.clear()

    def test_silence_while_a_disk_is_cloned(self):
        self.make(instance=OTHER).remove()
        self.assert_ends_and_works_again(self.when("hit", "osd"))

    def test_all_are_silent_and_a_disk_is_asked_for_its_size(self):
        self.make()
        self.wait_no_longer_than(TIMEOUT)
        disk = self.images.cache.disk(INSTANCE)
        self.ceph.pause()
        self.addCleanup(self.ceph.resume)
        for act in (disk.exists, disk.size, disk.remove,
                    lambda: list(self.images.cache.bases())):
            self.assertRaises(exception.StorageUnreachable, act)
        self.ceph.resume()
        self.wait_no_longer_than(rbd_case.PATIENCE)
        self.assertEqual(SIZE, self.images.cache.disk(INSTANCE).size())


class FullTest(ErrorsTestCase):
    """A full pool causes an error at once, and nothing is left."""

    def setUp(self):
        super().setUp()
        for name in ("bases", "vms"):
            self.addCleanup(self.ceph.set_quota, name, 0)
            with self.pool(name) as pool:    # so that it has a trash
                pool.create("filler", 0)
                pool.remove("filler")

    def fill(self, pool, size=256 * KiB):
        """Fill a pool."""
        with self.pool(pool) as found:
            found.create("filler", MiB)
        self.write_volume(f"{pool}/filler", b"x" * size)
        self.ceph.set_quota(pool, size // 2)
        self.ceph.await_full(pool)

    def drain(self, pool):
        self.ceph.set_quota(pool, 0)
        with self.pool(pool) as found:
            found.remove("filler")

    def test_an_image_that_does_not_fit_is_not_converted(self):
        self.ceph.set_quota("bases", 64 * KiB)
        heard = []
        with self.assertRaises(exception.NoSpace) as caught:
            self.make(lambda event: heard.append(event.name))
        self.assertNotIn("convert", heard)
        self.assertIn(" bytes needed, ", str(caught.exception))
        self.assertEqual(set(), self.volumes())
        self.assert_nothing_local()
        self.ceph.set_quota("bases", 0)
        self.assert_works()

    def test_a_pool_that_is_full(self):
        self.fill("bases")
        self.assertRaises(exception.NoSpace, self.make)
        self.assertEqual(0, self.images.store.reads)    # asked before
        self.assertEqual({"bases/filler"}, self.volumes())
        self.assert_nothing_local()
        self.drain("bases")
        self.assert_works()

    def test_a_pool_that_gets_full_in_the_middle(self):
        full = []

        def fill(event):
            if event.name == "validated":
                self.fill("bases")
                full.append(True)

        with mock.patch.object(rbd.Cluster, "space", return_value=None):
            self.assertRaises(exception.NoSpace, self.make, fill)
        self.assertEqual([True], full)
        self.assertEqual({"bases/filler"}, self.volumes())
        self.assert_nothing_local()
        self.drain("bases")
        self.assert_works()

    def test_no_room_for_a_clone(self):
        self.make(instance=OTHER).remove()
        self.fill("vms")
        before = self.volumes()
        self.assertRaises(exception.NoSpace, self.make)
        self.assertEqual(before, self.volumes())
        self.drain("vms")
        self.assert_works()

    def test_a_full_pool_of_bases_has_no_effect_on_clones(self):
        self.make(instance=OTHER).remove()
        self.fill("bases")
        self.make()
        self.drain("bases")
        self.assert_works()

    def test_a_disk_in_a_full_pool_can_be_removed(self):
        disk = self.make()
        self.fill("vms")
        disk.remove()
        self.assertFalse(disk.exists())


class RefusedTest(ErrorsTestCase):

    def refused(self, kind, **options):
        self.images.config("libvirt", **options)
        with self.assertRaises(kind) as caught:
            self.make()
        return str(caught.exception)

    def test_no_cluster(self):
        self.wait_no_longer_than(TIMEOUT)
        self.refused(
            exception.StorageUnreachable, images_rbd_ceph_conf=str(
                self.ceph.conf_with(mon_host='"[v2:127.0.0.1:1/0]"')))

    def test_wrong_key(self):
        self.refused(exception.StorageForbidden, images_rbd_ceph_conf=str(
            self.ceph.conf_with_wrong_key(self.user)))

    def test_no_such_user(self):
        self.refused(exception.StorageForbidden, rbd_user="unknown")

    def test_no_ceph_conf(self):
        self.assertIn("no such file", self.refused(
            exception.InvalidConfiguration,
            images_rbd_ceph_conf="/no/such/ceph.conf"))

    def test_no_such_pool(self):
        self.assertIn("no-such-pool", self.refused(
            exception.StorageMissing, images_rbd_pool="no-such-pool"))
        self.images.config("libvirt", images_rbd_pool="vms")
        self.images.config("image_cache", rbd_base_pool="no-such-pool")
        self.assertRaises(exception.StorageMissing, self.make)

    def test_a_pool_of_disks_that_is_forbidden(self):
        self.assertIn("vms", self.refused(
            exception.StorageForbidden, rbd_user="glance"))

    def test_a_pool_of_bases_that_is_forbidden(self):
        self.assertIn("bases", self.refused(
            exception.StorageForbidden, rbd_user="nova"))

    def test_no_bindings(self):
        with mock.patch.dict(sys.modules, {"rados": None}), \
                self.assertRaises(exception.InvalidConfiguration) as caught:
            ceph.bindings()
        for word in ("python3-rados", "python3-rbd", ".pth"):
            self.assertIn(word, str(caught.exception))

    def test_a_key_is_in_no_error(self):
        with self.ceph.connect() as connection:
            keys = pathlib.Path(connection.conf_get("keyring")).read_text()
        secret = keys.split(f"client.{self.user}]")[1].split()[2]
        self.assertGreater(len(secret), 30)
        self.assertNotIn(secret, self.refused(
            exception.StorageForbidden, images_rbd_ceph_conf=str(
                self.ceph.conf_with_wrong_key(self.user))))
