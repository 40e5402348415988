# SPDX-License-Identifier: Apache-2.0
"""The promises of every image store, as tests to inherit."""

from __future__ import annotations

import contextlib
import os
import pickle
import random
import threading
import time
import unittest

from imagecache import exception
from imagecache.model import Description, MiB
from imagecache.sources import ImageStore

DATA = random.Random(2).randbytes(2 * MiB + MiB // 2 + 1)  # noqa: S311


class StoreConformance(unittest.TestCase):
    """Inherit this, set ``store``, and implement the two methods below."""

    store: ImageStore
    starts_anywhere = True   # False: read() starts at 0, whatever it is asked

    def publish(self, data: bytes) -> str:
        """Put an image into the store and return its reference."""
        raise NotImplementedError

    def missing(self) -> str:
        """Return a reference that is well formed and names no image."""
        raise NotImplementedError

    def test_description_tells_the_size(self) -> None:
        self.assertEqual(len(DATA), self.describe_new().size)

    def test_same_image_has_the_same_identity(self) -> None:
        ref = self.publish(DATA)
        self.assertEqual(self.store.describe(ref).identity,
                         self.store.describe(ref).identity)

    def test_other_image_has_another_identity(self) -> None:
        self.assertNotEqual(self.describe_new().identity,
                            self.describe_new(b"other").identity)

    def test_description_survives_pickling(self) -> None:
        image = pickle.loads(pickle.dumps(self.describe_new()))  # noqa: S301
        self.assert_same(DATA, self.read_all(image))

    def test_all_bytes_are_read(self) -> None:
        self.assert_same(DATA, self.read_all(self.describe_new()))

    def test_empty_image_has_no_bytes(self) -> None:
        self.assertEqual(b"", self.read_all(self.describe_new(b"")))

    def test_chunks_are_of_a_mebibyte_at_most_and_never_empty(self) -> None:
        with self.store.read(self.describe_new()) as stream:
            sizes = {len(chunk) for chunk in stream.chunks}
        self.assertLessEqual(max(sizes), MiB)
        self.assertGreater(min(sizes), 0)

    def test_reading_goes_on_from_an_offset(self) -> None:
        with self.store.read(self.describe_new(), 1_000_001) as stream:
            self.assertEqual(1_000_001 if self.starts_anywhere else 0,
                             stream.offset)
            self.assert_same(DATA[stream.offset:], b"".join(stream.chunks))

    def test_image_is_read_twice_at_once(self) -> None:
        image = self.describe_new()
        with self.store.read(image) as one, self.store.read(image) as other:
            pairs = list(zip(one.chunks, other.chunks, strict=True))
        self.assert_same(DATA, b"".join(chunk for chunk, _ in pairs))
        self.assert_same(DATA, b"".join(chunk for _, chunk in pairs))

    def test_threads_share_a_store(self) -> None:
        image = self.describe_new()
        read: list[bytes] = []

        def append() -> None:
            read.append(self.read_all(image))

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(4, len(read))
        self.assert_same(DATA * 4, b"".join(read))

    def test_missing_image_is_not_found(self) -> None:
        with self.assertRaises(exception.ImageNotFound) as caught:
            self.store.describe(self.missing())
        again = pickle.loads(pickle.dumps(caught.exception))  # noqa: S301
        self.assertEqual(str(caught.exception), str(again))

    def test_leaving_early_leaves_nothing_open(self) -> None:
        image = self.describe_new()
        self.read_all(image)
        before = _open_files()
        with self.store.read(image) as stream:
            next(stream.chunks)
        with contextlib.suppress(ZeroDivisionError), self.store.read(image):
            raise ZeroDivisionError
        # A server in this process may need a moment to close its side.
        deadline = time.monotonic() + 5
        while _open_files() > before and time.monotonic() < deadline:
            time.sleep(0.001)
        self.assertLessEqual(_open_files(), before)

    def assert_same(self, expected: bytes, found: bytes) -> None:
        """Compare without listing the differences, which takes minutes."""
        self.assertTrue(expected == found, "the bytes differ")

    def describe_new(self, data: bytes = DATA) -> Description:
        return self.store.describe(self.publish(data))

    def read_all(self, image: Description) -> bytes:
        with self.store.read(image) as stream:
            return b"".join(stream.chunks)


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))
