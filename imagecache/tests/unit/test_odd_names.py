# SPDX-License-Identifier: Apache-2.0
"""Odd names, to every public method: an error of this library, or none.

No such name may be used outside the directory it belongs in.
"""
from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

from oslo_config import cfg

from imagecache import exception, imagebackend, opts
from imagecache.image_cache import ImageCache
from imagecache.model import Digest, MiB
from imagecache.sources.file import FileStore
from imagecache.testing.memory import MemoryStore
from imagecache.tests import base

NAMES = (
    "", ".", "..", "...", "-", "--help", "-rf", "/", "//", "a/b", "a/", "/a",
    "../a", "a/../b", "./a", "~", "~root", "$HOME", "`id`", "$(id)", "a;b",
    "a|b", "a&b", "a>b", "*", "?", "[a]", "{a,b}", "'", '"', "\\", "a\\b",
    "\0", "a\0", "a\0b", "\n", "a\nb", "\r", "\t", "\x1b[2J", "\x7f", "\x80",
    " ", " a", "a ", "a b", "a" * 200, "a" * 201, "a" * 255, "a" * 256,
    "a" * 5000, "é", "e\u0301", "é" * 100, "é" * 128, "\u202e", "\u2028",
    "\u200b", "\ufeff", "\U0001f4be", "\udcff", "\ud800", "a\udc80b", "%00",
    "%2e%2e", "%2f", "a%", "%s", "{0}", "{name}", "CON", "a:b", "json:{}",
    "nbd:x:1", "rbd:a/b", "file:///a", "http://", "http://[", "http://\0/",
    "http://a\nb/", "http://\udcff/", "https://%00/", "http://h:99999/",
    "file://", "file:///\0", "file:///%00", "file:///%ff", "file:///%",
    "http://\ud800:a@h/", "http://127.0.0.1:1/\ud800",
    "http://a:\udcff@127.0.0.1:1/", "/\0", "/\ud800", "./\ud800", "file:///\ud800",
    "locks", "_base", "disk.info", ".imagecache", "0", "None",
)


class OddNamesTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.conf = cfg.ConfigOpts()
        opts.register_opts(self.conf)
        self.conf([], default_config_files=[], default_config_dirs=[])
        self.conf.set_override("instances_path", str(self.root / "instances"))
        self.store = MemoryStore()
        self.image = self.store.add(bytes(MiB), "raw")
        self.cache = ImageCache(self.conf, glance=self.store)
        self.instance = str(uuid.uuid4())

    def _try(self, function: Callable[[str], object]) -> Iterator[str]:
        """Yield the names that a function takes."""
        for name in NAMES:
            with self.subTest(name=ascii(name)[:60]):
                try:
                    result = function(name)
                    if isinstance(result, Iterator):
                        list(result)
                except exception.ImageCacheError as e:
                    self.assertTrue(str(e).isprintable(), repr(str(e)))
                else:
                    yield name

    def _refuse(self, function: Callable[[str], object]) -> None:
        list(self._try(function))

    def test_names_of_disks(self) -> None:
        for function in (
                lambda name: self.cache.create_disk(
                    self.instance, self.image, name),
                lambda name: self.cache.create_blank(
                    self.instance, name, MiB),
                lambda name: self.cache.create_swap(
                    self.instance, MiB, name),
                lambda name: self.cache.disk(self.instance, name).remove()):
            self._refuse(function)
        self.assertEqual([self.root / "instances"],
                         list(self.root.iterdir()))

    def test_names_of_instances(self) -> None:
        for function in (
                lambda name: self.cache.create_blank(name, "disk", MiB),
                lambda name: self.cache.disk(name).exists(),
                lambda name: self.cache.disks(name)):
            self._refuse(function)
        self.assertEqual([self.root / "instances"],
                         list(self.root.iterdir()))

    def test_references(self) -> None:
        for function in (self.cache.fetch, self.cache.base,
                         self.cache.remove_base,
                         lambda name: self.cache.create_disk(
                             self.instance, name)):
            self.assertEqual([], list(self._try(function)))

    def test_backends(self) -> None:
        # An empty name is the configured one, as in nova.
        self.assertEqual([""], list(self._try(
            lambda name: self.cache.disk(self.instance, "disk", name))))
        self.assertEqual([""], list(self._try(
            lambda name: self.cache.fetch(self.image, image_type=name))))

    def test_formats(self) -> None:
        self.assertEqual([], list(self._try(
            lambda name: self.cache.fetch(self.image, disk_format=name))))

    def test_digests(self) -> None:
        self.assertEqual([], list(self._try(
            lambda name: Digest(name, "ab" * 32))))
        self.assertEqual([], list(self._try(
            lambda name: Digest("sha256", name))))

    def test_file_systems_and_labels(self) -> None:
        self.assertEqual([], list(self._try(
            lambda name: self.cache.create_ephemeral(
                self.instance, MiB, "eph", name or "/"))))
        self._refuse(lambda name: self.cache.create_ephemeral(
            self.instance, MiB, "eph", "ext4", name))

    def test_outputs_of_extract(self) -> None:
        disk = self.cache.create_blank(self.instance, "disk", MiB)
        (self.root / "out" / "a").mkdir(parents=True)
        self._refuse(lambda name: disk.extract(
            self.root / "out" / name.lstrip("/"), "raw"))
        self._refuse(lambda name: disk.extract(
            self.root / "out.raw", name))

    def test_backend_of_nova(self) -> None:
        backend = imagebackend.Backend(conf=self.conf)
        instance = {"uuid": self.instance}

        def fetch(target: str, **options: object) -> None:
            with open(target, "wb") as f:
                f.truncate(MiB)

        self._refuse(lambda name: backend.by_name(instance, name).cache(
            fetch, "a" * 40, MiB, image_id="x"))
        self._refuse(lambda name: backend.by_name(instance, "disk2").cache(
            fetch, name, MiB, image_id="x"))
        self._refuse(lambda name: backend.by_name(instance, "disk", name))


class SpecialFilesTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.store = FileStore()

    def test_files_that_the_kernel_makes_up_are_refused(self) -> None:
        for path in ("/proc/self/mem", "/proc/self/maps", "/proc/kmsg",
                     "/proc/self/environ", "/proc/self/mountinfo",
                     "/proc/self/pagemap", "/proc/uptime", "/proc/kcore",
                     "/sys/kernel/uevent_seqnum", "/sys/kernel/profiling",
                     "/proc/thread-self/mem", "/proc/self/root/proc/uptime"):
            if os.path.exists(path):
                with self.subTest(path), self.assertRaises(
                        exception.InvalidImageRef) as caught:
                    self.store.describe(path)
                self.assertIn("kernel", str(caught.exception))

    def test_files_that_are_not_regular_are_refused(self) -> None:
        os.mkfifo(self.root / "fifo")
        for path in ("/dev/null", "/dev/zero", "/dev/tty", "/proc",
                     "/proc/self/ns/mnt", "/", self.root, self.root / "fifo"):
            with self.subTest(path), self.assertRaises(
                    exception.ImageError):
                self.store.describe(str(path))

    def test_sparse_and_empty_files_are_images(self) -> None:
        path = self.root / "sparse"
        for size in (0, MiB):
            with open(path, "wb") as f:
                f.truncate(size)
            self.assertEqual(size, self.store.describe(str(path)).size)
