# SPDX-License-Identifier: Apache-2.0
"""A failure at any step leaves a whole disk, or none."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import fixtures

import imagecache
from imagecache import exception, fixture, sources
from imagecache.events import Event
from imagecache.model import Description, GiB, KiB, MiB
from imagecache.provision import provision
from imagecache.sources import Image, Stream
from imagecache.testing import images
from imagecache.testing.conformance import INSTANCE, OTHER
from imagecache.tests import base, processes

SIZE = 2 * MiB


class FaultTestCase(base.TestCase):

    image_type = "qcow2"

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())
        self.images.config("libvirt", images_type=self.image_type)
        self.content = images.content(SIZE)
        self.ref = self.images.add(images.qcow2(self.content), "qcow2")

    @property
    def instances(self) -> pathlib.Path:
        return pathlib.Path(self.images.conf.instances_path)

    def cache(self, observe: Callable[[Event], None] = lambda event: None
              ) -> imagecache.ImageCache:
        return imagecache.ImageCache(
            self.images.conf, glance=self.images.store, observe=observe)

    def make(self, observe: Callable[[Event], None] = lambda event: None,
             instance: str = INSTANCE) -> None:
        self.cache(observe).create_disk(instance, self.ref, size=2 * SIZE)

    def forget(self) -> None:
        """Remove the disk and its base."""
        self.cache().disk(INSTANCE).remove()
        self.cache().remove_base(self.ref)

    def files(self) -> set[str]:
        """Return all files except locks."""
        return {str(path.relative_to(self.instances))
                for path in self.instances.rglob("*")
                if not path.is_dir() and path.parent.name != "locks"
                and not is_second_name(path)}

    def assert_nothing_left(self) -> None:
        self.assertEqual(set(), self.files())
        self.assertFalse((self.instances / INSTANCE).exists())

    def assert_recovers(self) -> None:
        """Check that the next process makes a whole disk."""
        self.assertEqual(0, processes.Child(self.make).wait())
        disk = self.cache().disk(INSTANCE)
        self.assertTrue(self.content + bytes(SIZE)
                        == images.read(disk.path, disk.format))
        [entry] = self.cache().bases()
        self.assertIsNotNone(entry.record)
        self.assertEqual(
            {f"_base/{entry.key}", f"_base/{entry.key}.json",
             f"{INSTANCE}/disk", f"{INSTANCE}/disk.info"}, self.files())


class KilledTest(FaultTestCase):

    def test_killed_at_every_event_of_a_cold_disk(self) -> None:
        told: list[str] = []
        self.make(lambda event: told.append(event.name))
        self.forget()
        self.assertEqual(
            {"miss", "download", "verified", "validated", "convert",
             "committed", "created"}, set(told))
        for name in set(told):
            def die(event: Event, name: str = name) -> None:
                if event.name == name:
                    os.kill(os.getpid(), signal.SIGKILL)

            with self.subTest(name):
                child = processes.Child(lambda die=die: self.make(die))
                self.assertEqual(-signal.SIGKILL, child.wait())
                self.assert_recovers()
            self.forget()

    def test_killed_before_every_call_of_a_cold_disk(self) -> None:
        for step in itertools.count(1):
            child = processes.Child(lambda step=step: (
                die_before_call(step), self.make()))
            if not child.wait():
                break
            with self.subTest(step):
                self.assert_recovers()
            self.forget()
        self.assertGreater(step, 20)
        self.assert_recovers()

    def test_killed_before_every_call_of_a_removal(self) -> None:
        for step in itertools.count(1):
            self.make()
            child = processes.Child(lambda step=step: (
                die_before_call(step), self.forget()))
            if not child.wait():
                break
            with self.subTest(step):
                self.assert_recovers()
        self.assertGreater(step, 5)
        self.assertEqual(set(), self.files())

    def test_killed_when_a_disk_has_grown(self) -> None:
        self.make()

        def die(event: Event) -> None:
            if event.name == "grown":
                os.kill(os.getpid(), signal.SIGKILL)

        child = processes.Child(lambda: self.cache(die).create_disk(
            INSTANCE, self.ref, size=3 * SIZE))
        self.assertEqual(-signal.SIGKILL, child.wait())
        self.assertEqual(3 * SIZE, self.cache().disk(INSTANCE).size())


class RawKilledTest(FaultTestCase):
    """A raw disk of a base that is there: all that its backend adds."""

    image_type = "raw"

    def test_killed_before_every_call_of_a_warm_disk(self) -> None:
        self.cache().fetch(self.ref)
        for step in itertools.count(1):
            child = processes.Child(lambda step=step: (
                die_before_call(step), self.make()))
            if not child.wait():
                break
            with self.subTest(step):
                self.assert_recovers()
            self.cache().disk(INSTANCE).remove()
        self.assertGreater(step, 10)
        self.assert_recovers()

    test_killed_when_a_disk_has_grown = \
        KilledTest.test_killed_when_a_disk_has_grown


def is_second_name(path: pathlib.Path) -> bool:
    """Say whether it is a second name of a disk, removed with the disk.

    A process that is killed when its disk has just appeared leaves it.
    """
    disk = path.parent / "disk"
    return path.name.startswith(".disk.") and path != disk \
        and disk.exists() and path.samefile(disk)


def die_before_call(step: int) -> None:
    """Kill this process before its nth call that changes files.

    The calls are those that Python audits: calls that open, make, move or
    remove a file, or start a program.
    """
    calls = itertools.count(1)

    def listen(event: str, arguments: object) -> None:
        if event.startswith(("open", "os.", "subprocess.", "tempfile.")) \
                and next(calls) == step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(listen)


class ProgramTest(FaultTestCase):
    """qemu-img, or the agent that started it, is killed during its work."""

    def setUp(self) -> None:
        super().setUp()
        # Long enough to be caught in the act.
        image = self.root / "image.qcow2"
        raw = self.root / "raw"
        with raw.open("wb") as f:
            for _ in range(64):
                f.write(os.urandom(64 * KiB) * 64)
        subprocess.check_call(["qemu-img", "convert", "-f", "raw", "-O",
                               "qcow2", raw, image])
        raw.unlink()
        self.ref = str(image)

    def test_a_killed_program_is_a_failure_that_leaves_nothing(self) -> None:
        def make() -> None:
            try:
                self.make()
            except exception.CommandFailed as e:
                os._exit(-e.facts["exit_code"])

        child = processes.Child(make)
        program = processes.stop_below(child.pid, "qemu-img", "convert")
        os.kill(program, signal.SIGKILL)
        self.assertEqual(signal.SIGKILL, child.wait())
        self.assert_nothing_left()
        self.assertEqual(0, processes.Child(self.cache_it).wait())

    def test_a_program_dies_with_its_agent(self) -> None:
        child = processes.Child(self.make)
        program = processes.stop_below(child.pid, "qemu-img", "convert")
        child.kill()
        child.wait()
        processes.wait_for(lambda: not processes.is_alive(program))
        self.assertEqual(0, processes.Child(self.cache_it).wait())
        [entry] = self.cache().bases()
        self.assertFalse((entry.path.parent / ".staged").exists())

    def test_a_copy_dies_with_its_agent(self) -> None:
        self.images.config("libvirt", images_type="raw")
        self.cache_it()
        child = processes.Child(self.make)
        program = processes.stop_below(child.pid, "cp")
        child.kill()
        child.wait()
        processes.wait_for(lambda: not processes.is_alive(program))
        self.make()
        self.assertEqual({"disk", "disk.info"},
                         set(os.listdir(self.instances / INSTANCE)))

    def make(self, *args: object, **kwargs: object) -> None:
        self.cache().create_disk(INSTANCE, self.ref)

    def cache_it(self) -> None:
        self.cache().fetch(self.ref)


class FullTest(FaultTestCase):
    """A file system that is too small for each step in turn."""

    image_type = "raw"

    def mount(self, size: int, *options: str) -> pathlib.Path:
        path = self.useFixture(Tmpfs(size, *options)).path
        self.images.config(instances_path=str(path / "instances"))
        return path

    def assert_no_space(self, act: Callable[[], object]
                        ) -> exception.NoSpace:
        before = self.free()
        with self.assertRaises(exception.NoSpace) as caught:
            act()
        self.assertIn(str(self.instances), str(caught.exception))
        self.assert_nothing_left()
        # A lock stays; and Landlock lets go of a file a moment later.
        processes.wait_for(lambda: before - self.free() <= 64 * KiB)
        return caught.exception

    def free(self) -> int:
        status = os.statvfs(self.instances.parent)
        return status.f_bavail * status.f_frsize

    def test_an_image_that_cannot_fit_is_not_even_read(self) -> None:
        self.mount(SIZE)
        self.ref = self.images.add(bytes(2 * SIZE), "raw")
        self.assert_no_space(self.make)
        self.assertEqual(0, self.images.store.reads)

    def test_a_download_of_unknown_size(self) -> None:
        self.mount(SIZE)
        image = Image(Endless(2 * SIZE, os.urandom(2 * SIZE)),
                      Description("x", identity="x"))
        self.assert_no_space(lambda: provision(
            self.cache().disk(INSTANCE), image))

    def test_a_download_whose_room_another_process_takes(self) -> None:
        """There was room when the download began."""
        path = self.mount(4 * SIZE)
        self.ref = self.images.add(os.urandom(SIZE), "raw")

        def fill(event: Event) -> None:
            if event.name == "download" and not ballast.exists():
                room = self.free() - 100 * KiB
                ballast.write_bytes(bytes(room))

        ballast = path / "ballast"
        self.assertRaises(exception.NoSpace, self.make, fill)
        self.assert_nothing_left()
        ballast.unlink()
        self.make()

    def test_the_last_bytes_of_a_download(self) -> None:
        """The write before the one that fails takes less than it is given."""
        content = os.urandom(SIZE)
        image = Image(Endless(SIZE, content), Description("x", identity="x"))
        for missing in range(0, 80 * KiB, 16 * KiB):
            ballast = self.mount(2 * SIZE) / "ballast"

            def fill(event: Event, ballast: pathlib.Path = ballast,
                     missing: int = missing) -> None:
                if event.name == "miss":
                    ballast.write_bytes(bytes(self.free() - SIZE + missing))
                elif event.name == "verified":
                    ballast.unlink()    # and now there is room again

            with self.subTest(missing), \
                    contextlib.suppress(exception.NoSpace):
                cache = self.cache(fill).host.directory_cache
                with cache.lease(image) as found:
                    self.assertTrue(found.path.read_bytes() == content)

    def test_a_conversion_that_cannot_fit_is_not_started(self) -> None:
        self.mount(SIZE)
        self.ref = self.images.add(images.qcow2(
            bytes(range(256)) * (2 * SIZE // 256), "-c"), "qcow2")
        needed = self.assert_no_space(self.make).facts["needed"]
        self.assertGreaterEqual(needed, 2 * SIZE)

    def test_a_disk_that_cannot_fit_beside_its_base(self) -> None:
        self.mount(3 * SIZE // 2)
        self.ref = self.images.add(os.urandom(SIZE), "raw")
        self.cache().fetch(self.ref)
        before = self.files()
        self.assertRaises(exception.NoSpace, self.make)
        self.assertEqual(before, self.files())
        self.assertFalse((self.instances / INSTANCE).exists())

    def test_a_disk_that_cannot_be_preallocated(self) -> None:
        self.mount(8 * SIZE)
        self.images.config(preallocate_images="space")
        for kind in ("raw", "qcow2"):
            self.images.config("libvirt", images_type=kind)
            self.cache().fetch(self.ref)
            before = self.files()
            with self.assertRaises(exception.NoSpace):
                self.cache().create_disk(INSTANCE, self.ref, size=16 * SIZE)
            self.assertEqual(before, self.files())
            self.assertFalse((self.instances / INSTANCE).exists())

    def test_a_disk_that_cannot_grow_keeps_its_size(self) -> None:
        self.mount(8 * SIZE)
        self.images.config(preallocate_images="space")
        for kind in ("raw", "qcow2"):
            self.images.config("libvirt", images_type=kind)
            self.make()
            disk = self.cache().disk(INSTANCE)
            self.assertRaises(exception.NoSpace, disk.grow, 16 * SIZE)
            self.assertEqual(2 * SIZE, disk.size())
            self.assertTrue(self.content + bytes(SIZE)
                            == images.read(disk.path, disk.format))
            disk.remove()

    def test_a_template_that_cannot_fit(self) -> None:
        self.mount(SIZE)

        def write(path: pathlib.Path) -> None:
            subprocess.run(["cp", "/dev/zero", path], capture_output=True,
                           check=False)
            raise exception.NoSpace("cp found no more space", path=path)

        for kind in ("raw", "qcow2"):
            self.images.config("libvirt", images_type=kind)
            self.assertRaises(exception.NoSpace, provision,
                              self.cache().disk(INSTANCE),
                              sources.Template("x", write))
            self.assert_nothing_left()

    def test_no_room_for_another_name(self) -> None:
        """Disk space is not all that can run out."""
        for inodes in range(3, 40):
            self.mount(64 * SIZE, f"nr_inodes={inodes}")
            self.instances.mkdir()
            with self.subTest(inodes):
                try:
                    self.make()
                except (exception.NoSpace, exception.DiskInfoReadWriteFail,
                        exception.CommandFailed):
                    self.assertFalse(self.cache().disk(INSTANCE).exists())
                    self.assertFalse((self.instances / INSTANCE).exists())
                else:
                    break
        else:
            self.fail("there never was enough room")

    def test_an_extract_that_cannot_fit_leaves_nothing(self) -> None:
        path = self.mount(3 * SIZE)
        self.ref = self.images.add(os.urandom(SIZE), "raw")
        self.cache().create_disk(INSTANCE, self.ref)
        before = self.files()
        self.assertRaises(exception.NoSpace, self.cache().disk(
            INSTANCE).extract, path / "output", "raw")
        self.assertEqual(before, self.files())
        self.assertEqual(["instances"], os.listdir(path))


class ReadOnlyTest(FaultTestCase):

    def protect(self, path: pathlib.Path) -> None:
        processes.as_root("mount", "--bind", path, path)
        self.addCleanup(processes.as_root, "umount", path)
        processes.as_root("mount", "-o", "remount,bind,ro", path)

    def test_bases_on_a_read_only_file_system_can_be_used(self) -> None:
        self.make()
        bases = self.instances / "_base"
        self.protect(bases)
        self.make(instance=OTHER)
        self.assertTrue(self.cache().disk(OTHER).exists())

    def test_no_base_is_added_on_a_read_only_file_system(self) -> None:
        bases = self.instances / "_base"
        bases.mkdir()
        self.protect(bases)
        with self.assertRaises(exception.StorageFailed) as caught:
            self.make()
        self.assertIn("Read-only", str(caught.exception))
        self.assertFalse((self.instances / INSTANCE).exists())


class MemoryTest(FaultTestCase):

    def test_memory_does_not_grow_with_the_image(self) -> None:
        def fetch() -> None:
            image = Image(Endless(GiB // 2), Description("x", identity="x"))
            before = peak_memory()
            provision(self.cache().disk(INSTANCE), image)
            grown = peak_memory() - before
            if grown > 32 * MiB:
                raise AssertionError(f"{grown} bytes more")

        self.assertEqual(0, processes.Child(fetch).wait())
        self.assertEqual(GiB // 2, self.cache().disk(INSTANCE).size())


class Endless:
    """An image store with one image, of zeros at its end or in whole."""

    def __init__(self, size: int, content: bytes = b"") -> None:
        self.size = size
        self.content = content
        self.sent = 0

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        yield Stream(0, self._chunks())

    def _chunks(self) -> Iterator[bytes]:
        for start in range(0, self.size, MiB):
            self.sent += MiB
            yield self.content[start:start + MiB] or (
                bytes(MiB) if not self.content else b"")


class Tmpfs(fixtures.Fixture):
    """A small file system in memory."""

    def __init__(self, size: int, *options: str) -> None:
        super().__init__()
        self._options = ",".join((f"size={size}", *options))

    def _setUp(self) -> None:
        self.path = pathlib.Path(self.useFixture(fixtures.TempDir()).path)
        processes.as_root("mount", "-t", "tmpfs", "-o", self._options,
                          "tmpfs", self.path)
        self.addCleanup(processes.as_root, "umount", self.path)


def peak_memory() -> int:
    """Return the peak of this process's memory since the last call."""
    status = pathlib.Path("/proc/self/status").read_text()
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    [line] = [line for line in status.splitlines() if "VmHWM" in line]
    return int(line.split()[1]) * KiB
