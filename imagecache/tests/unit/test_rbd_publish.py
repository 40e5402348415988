# SPDX-License-Identifier: Apache-2.0
"""Direct snapshots: each of their steps fails in turn."""

from __future__ import annotations

import contextlib

from imagecache import exception
from imagecache.backends.rbd import publish
from imagecache.backends.rbd.cluster import RbdName
from imagecache.tests import base

FSID, DISK, IMAGE = "the-fsid", "disk", "image"


class Cluster:
    """Volumes and their snapshots, protected or not; one step may fail."""

    fsid = FSID

    def __init__(self, failing=None, error=None):
        self.volumes = {DISK: {}}
        self.steps = []
        self.failing, self.error = failing, error

    def step(self, *names):
        step = " ".join(names)
        self.steps.append(step)
        if step == self.failing:
            raise self.error

    def pool(self, name):
        return contextlib.nullcontext(Pool(self))


class Pool:

    def __init__(self, cluster):
        self.cluster = cluster

    def open(self, name):
        if name not in self.cluster.volumes:
            raise exception.StorageMissing(what="", path=name, reason="")
        return contextlib.nullcontext(Volume(self.cluster, name))

    def clone(self, parent, name, snapshot, clone):
        self.cluster.step("clone")
        assert self.cluster.volumes[name][snapshot] == "protected"
        self.cluster.volumes[clone] = {}

    def remove(self, name):
        assert not self.cluster.volumes.get(name), "it has snapshots"
        self.cluster.volumes.pop(name, None)


class Volume:

    def __init__(self, cluster, name):
        self.cluster, self.name = cluster, name
        self.snapshots = cluster.volumes[name]

    def flatten(self):
        self.cluster.step("flatten")

    def create_snapshot(self, name):
        self.cluster.step(self.name, "snapshot")
        self.snapshots[name] = "loose"

    def protect(self, name):
        self.cluster.step(self.name, "protect")
        self.snapshots[name] = "protected"

    def unprotect(self, name):
        self.snapshots[name] = "loose"

    def is_protected(self, name):
        return self.snapshots.get(name) == "protected"

    def remove_snapshot(self, name):
        if name not in self.snapshots:
            raise exception.StorageMissing(what="", path=name, reason="")
        assert self.snapshots.pop(name) == "loose"


class PublishTest(base.TestCase):

    def _publish(self, *trouble):
        self.cluster = Cluster(*trouble)
        return str(publish.publish(
            self.cluster, RbdName("vms", DISK), "temporary", "images", IMAGE))

    def test_a_published_image_equals_one_that_glance_made(self):
        self.assertEqual(f"rbd://{FSID}/images/{IMAGE}/snap",
                         self._publish())
        self.assertEqual({DISK: {}, IMAGE: {"snap": "protected"}},
                         self.cluster.volumes)

    def test_each_failed_step_leaves_nothing(self):
        self._publish()
        self.assertEqual(6, len(self.cluster.steps))
        for step in self.cluster.steps:
            for error, seen in (
                    (exception.StorageUnreachable, exception.HostError),
                    (exception.StorageForbidden, exception.Forbidden
                     if step != f"{DISK} snapshot"
                     else exception.StorageForbidden)):
                with self.assertRaises(seen, msg=step):
                    self._publish(step, error(what="", path="", reason=""))
                self.assertEqual({DISK: {}}, self.cluster.volumes, step)

    def test_withdrawing_an_image_removes_it(self):
        location = publish.Location.parse(self._publish())
        for _ in range(2):    # the second time there is nothing left
            publish.withdraw(self.cluster, location, volume_too=True)
            self.assertEqual({DISK: {}}, self.cluster.volumes)

    def test_withdrawing_an_image_keeps_the_volume_unless_asked(self):
        location = publish.Location.parse(self._publish())
        publish.withdraw(self.cluster, location, volume_too=False)
        self.assertEqual({DISK: {}, IMAGE: {}}, self.cluster.volumes)


class PoolTest(base.TestCase):

    def _pool(self, *locations, parent=None):
        return publish.pool_of_glance(Cluster(), IMAGE, locations, parent)

    def test_the_pool_is_the_one_of_the_image_in_glance(self):
        self.assertEqual("pictures", self._pool(
            "file:///there", f"rbd://other/images/{IMAGE}/snap",
            f"rbd://{FSID}/vms/somebody_disk/snap",
            f"rbd://{FSID}/pictures/{IMAGE}/snap",
            parent=("elsewhere", IMAGE, "snap")))

    def test_the_pool_is_that_of_the_parent_if_glance_names_none(self):
        self.assertEqual("pictures", self._pool(
            parent=("pictures", IMAGE, "snap")))

    def test_the_pool_of_our_bases_is_not_a_pool_of_glance(self):
        for parent in (None, ("vms", "imagecache_base_key", "base")):
            with self.assertRaises(exception.ImageUnacceptable):
                self._pool(f"rbd://other/images/{IMAGE}/snap", parent=parent)
