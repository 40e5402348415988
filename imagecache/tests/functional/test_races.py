# SPDX-License-Identifier: Apache-2.0
"""Many processes and threads make the same disk or base at once."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import threading
import uuid
from collections.abc import Callable, Iterator

import imagecache
from imagecache import exception, fixture
from imagecache.events import Event
from imagecache.model import Description, MiB
from imagecache.sources import Stream
from imagecache.testing import images
from imagecache.testing.memory import MemoryStore
from imagecache.tests import base, processes

SIZE = 4 * MiB
MANY = 32


class CountingStore(MemoryStore):
    """Counts the reads of all processes, in a file."""

    def __init__(self, path: pathlib.Path) -> None:
        super().__init__()
        self.path = path
        path.touch()

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        with self.path.open("ab") as f:
            f.write(b"x")
        with super().read(image, offset) as stream:
            yield stream

    @property
    def downloads(self) -> int:
        return self.path.stat().st_size


class RaceTestCase(base.TestCase):

    image_type = "qcow2"

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("libvirt", images_type=self.image_type)
        self.store = CountingStore(self.root / "downloads")
        self.content = images.content(SIZE)
        self.ref = self.store.add(images.qcow2(self.content), "qcow2")
        self.instances = [str(uuid.uuid4()) for _ in range(MANY)]

    def cache(self, observe: Callable[[Event], None] = lambda event: None
              ) -> imagecache.ImageCache:
        return imagecache.ImageCache(self.images.conf, glance=self.store,
                                     observe=observe)

    def make(self, instance: str, size: int = 2 * SIZE) -> None:
        self.cache().create_disk(instance, self.ref, size=size)

    def assert_whole(self, instance: str) -> None:
        disk = self.cache().disk(instance)
        self.assertTrue(self.content + bytes(SIZE)
                        == images.read(disk.path, disk.format))
        self.assertEqual({"disk", "disk.info"},
                         set(os.listdir(disk.path.parent)))

    def assert_tidy(self) -> None:
        [entry] = self.cache().bases()
        self.assertEqual(
            {entry.key, f"{entry.key}.json"},
            set(os.listdir(entry.path.parent)))


class DiskRaces:
    """What each backend does in its own way."""

    def test_many_processes_make_one_and_the_same_disk(self) -> None:
        instance = self.instances[0]
        ends = processes.at_once([lambda: self.make(instance)] * 8)
        self.assertEqual([0] * 8, ends)
        self.assert_whole(instance)
        self.assert_tidy()

    def test_removing_and_using_a_base_exclude_each_other(self) -> None:
        def remove() -> None:
            for _ in range(20):
                with contextlib.suppress(exception.BaseNotFound,
                                         exception.BaseInUse):
                    self.cache().remove_base(self.ref)

        ends = processes.at_once([remove] * 2 + [
            lambda each=each: self.make(each) for each in self.instances[:8]])
        self.assertEqual([0] * 10, ends)
        for instance in self.instances[:8]:
            self.assert_whole(instance)
        if self.image_type == "qcow2":
            self.assert_tidy()


class Qcow2RaceTest(DiskRaces, RaceTestCase):

    def test_many_processes_make_one_download(self) -> None:
        ends = processes.at_once([
            lambda each=each: self.make(each) for each in self.instances])
        self.assertEqual([0] * MANY, ends)
        self.assertEqual(1, self.store.downloads)
        for instance in self.instances:
            self.assert_whole(instance)
        self.assert_tidy()

    def test_many_threads_make_one_download(self) -> None:
        cache = self.cache()
        threads = [threading.Thread(
            target=cache.create_disk, args=(each, self.ref),
            kwargs={"size": 2 * SIZE}) for each in self.instances]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(1, self.store.downloads)
        for instance in self.instances:
            self.assert_whole(instance)
        self.assert_tidy()

    def test_disks_of_two_kinds_race_for_one_place(self) -> None:
        """One kind wins, and the record says which."""
        instance = self.instances[0]

        def make(kind: str) -> None:
            with contextlib.suppress(exception.InvalidDiskFormat,
                                     exception.DiskExists):
                self.cache().create_disk(instance, self.ref, size=2 * SIZE,
                                         image_type=kind)

        for _ in range(10):
            ends = processes.at_once([
                lambda kind=kind: make(kind)
                for kind in ("qcow2", "raw") * 2])
            self.assertEqual([0] * 4, ends)
            disk = self.cache().disk(instance)
            self.assertEqual(images.info(disk.path)["format"], disk.format)
            self.assert_whole(instance)
            disk.remove()

    def test_processes_that_wait_go_on_when_the_first_is_killed(self) -> None:
        def wait(event: Event) -> None:
            if event.name == "download":
                signal.pause()

        doomed = processes.Child(lambda: self.cache(wait).create_disk(
            self.instances[0], self.ref))
        processes.wait_for(lambda: self.store.downloads)
        rest = [processes.Child(lambda each=each: self.make(each))
                for each in self.instances[1:9]]
        doomed.kill()
        self.assertEqual(-signal.SIGKILL, doomed.wait())
        self.assertEqual([0] * 8, [child.wait() for child in rest])
        self.assertEqual(2, self.store.downloads)
        for instance in self.instances[1:9]:
            self.assert_whole(instance)
        self.assert_tidy()

    def test_records_of_one_instance_are_not_lost(self) -> None:
        names = [f"disk.eph{i}" for i in range(12)]
        ends = processes.at_once([
            lambda name=name: self.cache().create_ephemeral(
                self.instances[0], SIZE, name) for name in names])
        self.assertEqual([0] * len(names), ends)
        self.assertEqual(sorted(names), [
            disk.name for disk in self.cache().disks(self.instances[0])])


class RawRaceTest(DiskRaces, RaceTestCase):

    image_type = "raw"
