# SPDX-License-Identifier: Apache-2.0
"""The base classes of the tests of disks in Ceph: a cluster for each class."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import ClassVar

from imagecache import exception, fixture
from imagecache.model import MiB
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tests.functional import ceph_cluster
from imagecache.tools import rbd
from imagecache.tools.rbd_image import Volume

SIZE = 2 * MiB    # of the image that an ImageTestCase has

# Seconds that a busy machine may take to answer.
PATIENCE = 60
# Seconds between two signs of life of a client; by default it is 5.
_ALIVE = 0.5


class RbdMixin:
    """One cluster for the class; its pools are empty before each test."""

    user: ClassVar[str] = "imagecache"
    base_pool: ClassVar[str | None] = None
    clone_format: ClassVar[int] = 1
    # Seconds until the cluster misses a client that fell silent.  A test that
    # waits for it wants few, and others none: a busy machine is not dead.
    missed: ClassVar[int] = 30

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ceph = ceph_cluster.CephCluster()
        cls.ceph.setUp()
        cls.addClassCleanup(cls.ceph.cleanUp)
        cls.ceph.command("config set", who="osd", value=str(cls.missed),
                         name="osd_client_watch_timeout")
        cls.conf_path = cls.ceph.conf_with(
            rbd_default_clone_format=cls.clone_format,
            objecter_tick_interval=_ALIVE)

    def configure(self, images: fixture.ImageCacheFixture,
                  **options: object) -> None:
        """Configure disks in Ceph; ``options`` are of [libvirt]."""
        images.config("libvirt", **{
            "images_type": "rbd", "images_rbd_pool": "vms",
            "rbd_user": self.user,
            "images_rbd_ceph_conf": str(self.conf_path),
            "rbd_connect_timeout": PATIENCE,
            "rbd_destroy_volume_retries": 20,
            "rbd_destroy_volume_retry_interval": 1} | options)
        images.config("image_cache", rbd_base_pool=self.base_pool,
                      rbd_operation_timeout=PATIENCE)

    @property
    def bases(self) -> str:
        """Return the name of the pool of the bases."""
        return self.base_pool or "vms"

    @contextlib.contextmanager
    def pool(self, name: str = "vms") -> Iterator[rbd.Pool]:
        """Yield a pool, opened by the administrator of Ceph."""
        access = rbd.Access(str(self.conf_path), "admin", PATIENCE,
                            PATIENCE)
        with rbd.connected(access) as cluster, cluster.pool(name) as pool:
            yield pool

    @contextlib.contextmanager
    def volume(self, path: pathlib.Path | str) -> Iterator[Volume]:
        path = pathlib.Path(path)
        with self.pool(path.parent.name) as pool, \
                pool.open(path.name) as volume:
            yield volume

    def volumes(self) -> set[str]:
        """Return the volumes of all pools, as pool/name."""
        found: set[str] = set()
        for name in ceph_cluster.POOLS:
            with self.pool(name) as pool:
                found |= {f"{name}/{each}" for each in pool.names()}
        return found

    def read_volume(self, path: pathlib.Path | str) -> bytes:
        with self.volume(path) as volume:
            return volume.read(0, volume.size())

    def write_volume(self, path: pathlib.Path | str, data: bytes,
                     offset: int = 0) -> None:
        written: list[object] = []
        with self.volume(path) as volume:
            volume.write(data, offset, written.append)
            volume.flush()
        assert written in ([], [None]), written

    def clear(self) -> None:
        """Remove all volumes, clones before their parents."""
        deadline = time.monotonic() + 60
        while left := self.volumes():
            for path in left:
                with contextlib.suppress(exception.HostError):
                    self._clear(pathlib.Path(path))
            if time.monotonic() > deadline:
                raise AssertionError(f"{left} cannot be removed")

    def _clear(self, path: pathlib.Path) -> None:
        with contextlib.suppress(exception.StorageMissing), \
                self.volume(path) as volume:
            for snapshot in volume.snapshots():
                if volume.is_protected(snapshot):
                    volume.unprotect(snapshot)
                volume.remove_snapshot(snapshot)
        with self.pool(path.parent.name) as pool:
            pool.remove(path.name)


class ImageTestCase(RbdMixin, base.TestCase):
    """A host, and a qcow2 image in its store."""

    def setUp(self):
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.configure(self.images)
        self.addCleanup(self.clear)
        self.content = images.content(SIZE)
        self.ref = self.images.add(images.qcow2(self.content), "qcow2")
