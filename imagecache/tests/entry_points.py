# SPDX-License-Identifier: Apache-2.0
"""Every way for an image to become a disk, as one method."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import shutil
import uuid
from collections.abc import Callable

import fixtures

from imagecache import fixture
from imagecache.backends.base import Disk
from imagecache.image_cache import ImageCache
from imagecache.model import MiB
from imagecache.sources.glance import GlanceStore
from imagecache.testing import glance, web

INSTANCE = "5f0d8b9e-94c1-4f3a-9a53-1d5b1c2c6d7e"
SIZE = 16 * MiB    # of every disk: what is larger does not fit


@dataclasses.dataclass(frozen=True)
class Host:
    """A way to configure a host, as far as it matters to an image."""

    image_type: str = "qcow2"
    force_raw: bool = True
    formats: tuple[str, ...] = ("raw", "qcow2")

    def __str__(self) -> str:
        return f"{self.image_type}{'_forced_raw' * self.force_raw}"


HOSTS = tuple(Host(image_type, force_raw)
              for image_type in ("qcow2", "raw")
              for force_raw in (True, False))


class EntryPoints(fixtures.Fixture):
    """One host, and each way to bring an image there.

    :param host: how it is configured
    """

    def __init__(self, host: Host) -> None:
        self.host = host

    def _setUp(self) -> None:
        self.images = self.useFixture(fixture.ImageCacheFixture(
            force_raw_images=self.host.force_raw))
        self.images.config("libvirt", images_type=self.host.image_type)
        self.images.config("image_cache", download_retries=0,
                           accepted_formats=list(self.host.formats))
        self._files = pathlib.Path(
            self.useFixture(fixtures.TempDir()).path)
        self.web = web.WebServer()
        self.glance = glance.FakeGlance()
        for server in (self.web, self.glance):
            server.start()
            self.addCleanup(server.stop)
        self.store = GlanceStore.from_token(self.glance.url,
                                            self.glance.token)
        self._from_memory = self.images.cache
        self._from_glance = ImageCache(self.images.conf, glance=self.store)
        self._backend = self.images.backend()

    def create_disk(self, entry: str, data: bytes, claim: str | None) -> Disk:
        """Make a disk of an image that comes by one of ENTRY_POINTS."""
        return ENTRY_POINTS[entry](self, data, claim)

    def memory(self, data: bytes, claim: str) -> Disk:
        image_id = self.images.store.add(data, claim)
        try:
            return self._from_memory.create_disk(INSTANCE, image_id,
                                                 size=SIZE)
        finally:
            self.images.store.remove(image_id)

    def from_glance(self, data: bytes, claim: str) -> Disk:
        image_id = self.glance.add_image(data, disk_format=claim)
        return self._from_glance.create_disk(INSTANCE, image_id, size=SIZE)

    def http(self, data: bytes, claim: str) -> Disk:
        page = self.web.add(f"/{uuid.uuid4()}", data)
        return self._from_memory.create_disk(
            INSTANCE, page.url, size=SIZE, disk_format=claim)

    def file(self, data: bytes, claim: str) -> Disk:
        # qemu takes any file with such a name for Apple's format.
        path = self._files / f"{uuid.uuid4()}.dmg"
        path.write_bytes(data)
        try:
            return self._from_memory.create_disk(
                INSTANCE, str(path), size=SIZE, disk_format=claim)
        finally:
            path.unlink()

    def fetch_func(self, data: bytes, claim: str) -> Disk:
        """As nova's driver does; its function claims no format."""
        def fetch(context: object, target: str, image_id: str) -> None:
            pathlib.Path(target).write_bytes(data)

        image = self._backend.by_name({"uuid": INSTANCE}, "disk")
        key = hashlib.sha1(uuid.uuid4().bytes).hexdigest()
        image.cache(fetch, key, SIZE, context=None, image_id=key)
        return image.disk

    def left(self) -> set[str]:
        """Return the files there are, but for locks."""
        root = self.images.instances_path
        return {str(path.relative_to(root)) for path in root.rglob("*")
                if not path.is_dir()
                and path.parent != self._from_memory.host.locks.directory}

    def clean(self) -> None:
        """Remove all files and directories."""
        for each in self.images.instances_path.iterdir():
            shutil.rmtree(each)


ENTRY_POINTS: dict[str, Callable[[EntryPoints, bytes, str], Disk]] = {
    "memory": EntryPoints.memory,
    "glance": EntryPoints.from_glance,
    "http": EntryPoints.http,
    "file": EntryPoints.file,
    "fetch_func": EntryPoints.fetch_func,
}
CLAIMLESS = ("fetch_func",)
