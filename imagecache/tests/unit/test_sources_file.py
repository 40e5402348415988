# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import hashlib
import os
import socket
from unittest import mock

from imagecache import exception
from imagecache.model import Digest, MiB
from imagecache.sources import file
from imagecache.testing import stores
from imagecache.tests import base


class FileStoreConformanceTest(stores.StoreConformance, base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.store = file.FileStore()

    def publish(self, data):
        name = hashlib.sha256(data).hexdigest()
        (self.root / name).write_bytes(data)
        return str(self.root / name)

    def missing(self):
        return str(self.root / "missing")


class DescribeTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.store = file.FileStore()
        self.path = self.root / "disk.qcow2"
        self.path.write_bytes(b"bytes")

    def _refused(self, ref, error=exception.InvalidImageRef):
        with self.assertRaises(error) as caught:
            self.store.describe(str(ref))
        return str(caught.exception)

    def test_url_and_path_name_the_same_image(self):
        self.assertEqual(self.store.describe(str(self.path)),
                         self.store.describe(f"file://{self.path}"))
        self.assertEqual(self.store.describe(str(self.path)),
                         self.store.describe(f"FILE://localhost{self.path}"))

    def test_relative_path_is_resolved(self):
        relative = os.path.relpath(self.path)
        self.assertEqual(str(self.path), self.store.describe(relative).ref)

    def test_link_is_followed(self):
        (self.root / "latest").symlink_to(self.path)
        self.assertEqual(self.store.describe(str(self.path)),
                         self.store.describe(str(self.root / "latest")))

    def test_url_is_percent_decoded(self):
        path = self.root / "a b#c?é"
        path.write_bytes(b"bytes")
        self.assertEqual(str(path), self.store.describe(path.as_uri()).ref)

    def test_name_need_not_be_utf8(self):
        path = os.fsencode(self.root) + b"/\xff.raw"
        with open(path, "wb"):
            image = self.store.describe(os.fsdecode(path))
        self.assertEqual(40, len(image.key))

    def test_end_of_the_name_is_the_claim(self):
        self.assertEqual("qcow2",
                         self.store.describe(str(self.path)).disk_format)
        other = self.path.rename(self.root / "disk.img")
        self.assertIsNone(self.store.describe(str(other)).disk_format)

    def test_digest_comes_from_the_fragment_and_is_the_identity(self):
        digest = hashlib.sha256(b"bytes").hexdigest()
        ref = f"{self.path.as_uri()}#sha256={digest.upper()}"
        image = self.store.describe(ref)
        self.assertEqual(Digest("sha256", digest), image.digest)
        os.utime(self.path, (0, 0))
        self.assertEqual(image.identity, self.store.describe(ref).identity)

    def test_fragment_that_is_no_digest_is_refused(self):
        for fragment in ("sha256=12", "sha256", "sha256=", "crc32=00",
                         "shake_128="):
            with self.subTest(fragment):
                self._refused(f"{self.path.as_uri()}#{fragment}")

    def test_replaced_file_is_another_image(self):
        before = self.store.describe(str(self.path))
        new = self.root / "new"
        new.write_bytes(b"other")
        os.utime(new, ns=(self.path.stat().st_mtime_ns,) * 2)
        new.rename(self.path)
        self.assertNotEqual(before.key,
                            self.store.describe(str(self.path)).key)

    def test_touched_file_is_another_image(self):
        before = self.store.describe(str(self.path))
        os.utime(self.path, (1, 1))
        self.assertNotEqual(before.key,
                            self.store.describe(str(self.path)).key)

    def test_only_regular_files_are_images(self):
        os.mkfifo(self.root / "pipe")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.root / "socket"))
        for ref, kind in ((self.root, "a directory"),
                          (self.root / "pipe", "a named pipe"),
                          (self.root / "socket", "a socket"),
                          ("/dev/zero", "a character device")):
            with self.subTest(kind):
                self.assertIn(kind, self._refused(ref))

    def test_device_is_not_even_opened(self):
        with mock.patch("os.open") as opened:
            self._refused("/dev/zero")
        opened.assert_not_called()

    def test_device_that_takes_the_place_of_a_file_is_refused(self):
        real = os.open

        def swap(path, *args):
            self.path.unlink()
            self.path.symlink_to("/dev/zero")
            return real(path, *args)

        with mock.patch("os.open", swap):
            self.assertIn("device", self._refused(self.path))

    def test_other_hosts_queries_and_nonsense_are_refused(self):
        for ref in ("file://elsewhere/x", "file:///x?y", "file://", "",
                    "a\0b", "file:///a%00b", "/" + "x" * 300):
            with self.subTest(ref):
                self._refused(ref)

    def test_circle_of_links_is_refused(self):
        self.path.unlink()
        self.path.symlink_to(self.path)
        self._refused(self.path)

    def test_nothing_below_a_file_is_found(self):
        self._refused(self.path / "x", exception.ImageNotFound)

    def test_file_that_may_not_be_read_is_forbidden(self):
        # Root may read everything.
        with mock.patch("os.open", side_effect=PermissionError(
                errno.EACCES, "no")):
            self._refused(self.path, exception.Forbidden)

    def test_broken_storage_is_the_host_operators_business(self):
        with mock.patch("os.open", side_effect=OSError(errno.EIO, "no")):
            message = self._refused(self.path, exception.StorageFailed)
        self.assertIn("Input/output error", message)


class ReadTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.store = file.FileStore()
        self.path = self.root / "image"
        self.path.write_bytes(bytes(2 * MiB))
        self.image = self.store.describe(str(self.path))

    def _read(self, error, between=lambda: None):
        with self.assertRaises(error) as caught:
            with self.store.read(self.image) as stream:
                between()
                list(stream.chunks)
        return str(caught.exception)

    def test_file_that_changed_before_is_not_read_at_all(self):
        os.utime(self.path, (1, 1))
        self._read(exception.ImageUnacceptable, self.fail)

    def test_file_that_went_before_is_not_found(self):
        self.path.unlink()
        self._read(exception.ImageNotFound)

    def test_file_that_grows_is_refused(self):
        def grow():
            with self.path.open("ab") as f:
                f.write(b"x")
        message = self._read(exception.ImageSizeMismatch, grow)
        self.assertIn(str(2 * MiB + 1), message)

    def test_file_that_shrinks_is_refused(self):
        self._read(exception.ImageSizeMismatch,
                   lambda: os.truncate(self.path, 5))

    def test_file_that_is_written_to_is_refused(self):
        def write():
            with self.path.open("r+b") as f:
                f.write(b"x")
            os.utime(self.path, (1, 1))   # a tick of the clock later
        self._read(exception.ImageUnacceptable, write)

    def test_deleted_file_is_read_to_its_end(self):
        with self.store.read(self.image) as stream:
            self.path.unlink()
            self.assertEqual(2 * MiB, sum(map(len, stream.chunks)))

    def test_broken_storage_is_the_host_operators_business(self):
        with mock.patch("os.read", side_effect=OSError(errno.EIO, "no")):
            self._read(exception.StorageFailed)
