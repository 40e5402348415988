# SPDX-License-Identifier: Apache-2.0
"""Bytes on their way in, from stores that do as they please."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import os
import tracemalloc
from collections.abc import Iterator

import fixtures

from imagecache import exception
from imagecache.bases import download
from imagecache.events import Event
from imagecache.inspection.inspector import Inspector
from imagecache.model import (
    NATIVE,
    Description,
    Digest,
    Format,
    GiB,
    KiB,
    MiB,
)
from imagecache.sources import Image, Stream
from imagecache.testing import images
from imagecache.tests import base

CONTENT = images.content(3 * MiB) + b"odd"


class Store:
    """Holds one image, and breaks where it is told to."""

    def __init__(self, content: bytes = CONTENT,
                 breaks: Iterator[int] = iter(())) -> None:
        self.content = content
        self.breaks = breaks        # after so many bytes of the image
        self.error: Exception = exception.SourceUnreachable(
            source="here", image_id="x", reason="it broke")
        self.starts_anywhere = True
        self.shift = 0              # starts so many bytes from where it says
        self.offsets: list[int] = []
        self.sent = 0

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        self.offsets.append(offset)
        start = offset if self.starts_anywhere else 0
        yield Stream(start + self.shift, self._chunks(start))

    def _chunks(self, start: int) -> Iterator[bytes]:
        end = next(self.breaks, None)
        for at in range(start, len(self.content), MiB):
            chunk = self.content[at:at + MiB][:None if end is None
                                              else max(end - at, 0)]
            self.sent += len(chunk)
            yield chunk
            if end is not None and at + MiB >= end:
                raise self.error


def new_inspector() -> Inspector:
    return Inspector("x", None, NATIVE)


class DownloadTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.path = self.root / "download"
        self.store = Store()
        self.described = Description(
            "x", identity="x", size=len(CONTENT),
            digest=Digest("sha512", hashlib.sha512(CONTENT).hexdigest()))
        self.events: list[Event] = []
        self.pauses: list[float] = []

    def download(self, *, limit: int | None = None, retries: int = 3,
                 **changes: object) -> download.Received:
        image = Image(self.store, dataclasses.replace(
            self.described, **changes))
        return download.download(
            image, self.path, download.DownloadLimits(limit, retries),
            new_inspector, self.events.append, self.pauses.append)

    def assert_arrived(self) -> None:
        self.assertTrue(self.path.read_bytes() == CONTENT)


class WholeTest(DownloadTestCase):

    def test_the_bytes_arrive(self) -> None:
        received = self.download()
        self.assertEqual(len(CONTENT), received.size)
        self.assertEqual(self.described.digest, received.digest)
        self.assert_arrived()

    def test_an_image_without_size_or_digest_arrives(self) -> None:
        received = self.download(size=None, digest=None)
        self.assertEqual(
            Digest("sha256", hashlib.sha256(CONTENT).hexdigest()),
            received.digest)
        self.assert_arrived()

    def test_what_happens_is_told_in_order(self) -> None:
        self.store.breaks = iter([2 * MiB])
        self.download()
        self.assertEqual(
            ["download"] * 2 + ["retry"] + ["download"] * 2 + ["verified"],
            [event.name for event in self.events])
        self.assertEqual(
            [MiB, 2 * MiB, None, 3 * MiB, len(CONTENT), None],
            [event.facts.get("done") for event in self.events])
        self.assertEqual(
            {"offset": 2 * MiB, "reason": str(self.store.error)},
            self.events[2].facts)
        self.assertEqual({"x"}, {event.subject for event in self.events})

    def test_zeros_take_no_space(self) -> None:
        self.download()
        self.assertLess(self.path.stat().st_blocks * 512, 300 * KiB)

    def test_an_image_that_ends_in_zeros_has_its_size(self) -> None:
        for size in (1, 64 * KiB, MiB + 1):
            with self.subTest(size):
                self.store.content = b"x" + bytes(size)
                self.download(size=None, digest=None)
                self.assertTrue(
                    self.store.content == self.path.read_bytes())
                self.path.unlink()

    def test_an_empty_image_is_refused(self) -> None:
        self.store.content = b""
        with self.assertRaisesRegex(exception.ImageUnacceptable, "empty"):
            self.download(size=0, digest=None)

    def test_what_breaks_a_rule_is_not_read_to_its_end(self) -> None:
        self.store.content = b"QED\0" + bytes(16 * MiB)
        with self.assertRaisesRegex(exception.ImageUnacceptable, "qed"):
            self.download(size=None, digest=None)
        self.assertEqual(
            [], [e.name for e in self.events if e.name == "download"])

    def test_the_judge_begins_anew_with_the_image(self) -> None:
        """As the image may, if the store does not know its version."""
        qed = b"QED\0" + bytes(MiB)
        self.assertRaises(
            exception.ImageUnacceptable, download.download,
            Image(Fickle(CONTENT, qed), dataclasses.replace(
                self.described, size=None, digest=None)),
            self.path, download.DownloadLimits(retries=1), new_inspector,
            self.events.append, self.pauses.append)

    def test_memory_does_not_grow_with_the_image(self) -> None:
        peaks = []
        for size in (8 * MiB, 64 * MiB):
            self.store = Zeros()
            tracemalloc.start()
            self.download(size=size, digest=None)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            self.path.unlink()
            self.events.clear()
        self.assertLess(peaks[1], peaks[0] + 256 * KiB)
        self.assertLess(peaks[1], 8 * MiB)

    def test_a_file_that_is_there_is_not_written_to(self) -> None:
        self.path.write_text("precious")
        self.assertRaises(exception.StorageFailed, self.download)
        self.assertEqual("precious", self.path.read_text())


class BrokenTest(DownloadTestCase):

    def test_it_goes_on_where_it_broke(self) -> None:
        self.store.breaks = iter([1000, MiB + 5])
        self.download()
        self.assert_arrived()
        self.assertEqual([0, 1000, MiB + 5], self.store.offsets)
        self.assertEqual(len(CONTENT), self.store.sent)

    def test_it_starts_again_where_the_store_cannot_go_on(self) -> None:
        self.store.starts_anywhere = False
        self.store.breaks = iter([1000, MiB + 5])
        self.download()
        self.assert_arrived()

    def test_starting_again_leaves_no_bytes_of_before(self) -> None:
        self.store = Fickle(b"x" * MiB, bytes(MiB))
        self.download(size=MiB, digest=None)
        self.assertTrue(bytes(MiB) == self.path.read_bytes())

    def test_a_store_that_never_sends_is_given_up(self) -> None:
        self.store.breaks = itertools.repeat(0)
        with self.assertRaises(exception.SourceUnreachable) as caught:
            self.download(retries=3)
        self.assertIs(self.store.error, caught.exception)
        self.assertEqual([0] * 4, self.store.offsets)
        self.assertEqual([0.5, 1, 2], self.pauses)

    def test_no_retries_means_none(self) -> None:
        self.store.breaks = itertools.repeat(0)
        self.assertRaises(exception.SourceUnreachable, self.download,
                          retries=0)
        self.assertEqual([0], self.store.offsets)

    def test_every_byte_that_comes_renews_the_patience(self) -> None:
        self.store.breaks = iter(range(100, 2000, 100))
        self.download(retries=1)
        self.assert_arrived()
        self.assertEqual({0.5}, set(self.pauses))

    def test_a_store_that_gets_no_further_is_given_up(self) -> None:
        """It breaks here and there, and each time starts from nothing."""
        self.store.starts_anywhere = False
        self.store.breaks = itertools.islice(
            itertools.cycle([1000, 1001]), 100)
        self.assertRaises(exception.SourceUnreachable, self.download)
        self.assertLess(len(self.store.offsets), 10)

    def test_a_store_that_always_starts_again_is_given_up(self) -> None:
        """Each attempt gets one byte further, and reads all the others."""
        self.store.starts_anywhere = False
        self.store.breaks = iter(range(1000, 1100))
        self.assertRaises(exception.SourceUnreachable, self.download,
                          retries=3)
        self.assertEqual(4, len(self.store.offsets))

    def test_a_store_that_goes_on_elsewhere_misbehaves(self) -> None:
        self.store.breaks = iter([1000])
        self.store.shift = 5
        self.assertRaises(exception.SourceMisbehaved, self.download,
                          digest=None)

    def test_an_image_that_ends_early_is_asked_for_again(self) -> None:
        self.store.content = CONTENT[:-1]
        with self.assertRaises(exception.DownloadTruncated) as caught:
            self.download(retries=2)
        self.assertEqual([0, len(CONTENT) - 1, len(CONTENT) - 1],
                         self.store.offsets)
        self.assertEqual(len(CONTENT), caught.exception.facts["expected"])

    def test_what_is_the_images_fault_is_not_tried_again(self) -> None:
        self.store.breaks = itertools.repeat(1000)
        self.store.error = exception.ImageNotFound(image_id="x")
        self.assertRaises(exception.ImageNotFound, self.download)
        self.assertEqual([0], self.store.offsets)


class RefusedTest(DownloadTestCase):

    def test_too_many_bytes_are_refused(self) -> None:
        self.store.content += b"x"
        self.assertRaises(exception.ImageSizeMismatch, self.download)
        self.assertEqual([0], self.store.offsets)

    def test_an_image_that_never_ends_is_cut_off(self) -> None:
        self.store = Zeros()
        self.assertRaises(exception.ImageSizeMismatch, self.download)
        self.assertLess(self.store.sent, len(CONTENT) + 2 * MiB)

    def test_other_bytes_are_refused(self) -> None:
        self.store.content = b"X" + CONTENT[1:]
        with self.assertRaises(exception.ImageDigestMismatch) as caught:
            self.download()
        self.assertEqual(self.described.digest.value,
                         caught.exception.facts["expected"])
        self.assertEqual([0], self.store.offsets)

    def test_an_image_over_the_limit_is_not_even_read(self) -> None:
        with self.assertRaises(exception.ImageTooLarge) as caught:
            self.download(limit=len(CONTENT) - 1)
        self.assertIn("max_image_size", str(caught.exception))
        self.assertEqual([], self.store.offsets)
        self.assertEqual([], os.listdir(self.root))

    def test_an_image_of_the_limit_is_read(self) -> None:
        self.download(limit=len(CONTENT))
        self.assert_arrived()

    def test_a_store_that_hides_the_size_is_held_to_the_limit(self) -> None:
        self.store = Zeros()
        self.assertRaises(exception.ImageTooLarge, self.download,
                          limit=4 * MiB, size=None)
        self.assertLess(self.store.sent, 6 * MiB)

    def test_a_raw_image_for_which_there_is_no_space_is_not_read(
            self) -> None:
        self.assertRaises(exception.NoSpace, self.download, size=2 ** 60,
                          disk_format="raw")
        self.assertEqual([], self.store.offsets)

    def test_no_image_for_which_there_is_no_space_is_read_to_its_end(
            self) -> None:
        self.store = Zeros()
        self.assertRaises(exception.NoSpace, self.download, size=2 ** 60)
        self.assertLess(self.store.sent, 6 * MiB)


class FitTest(DownloadTestCase):
    """An image that fits no disk is refused as soon as its size is known."""

    def refuse(self, most: int, **changes: object) -> None:
        image = Image(self.store, dataclasses.replace(
            self.described, **{"digest": None} | changes))

        def require_fit(size: int) -> None:
            if size > most:
                raise exception.FlavorDiskSmallerThanImage(
                    flavor_size=most, image_size=size)

        with self.assertRaises(exception.FlavorDiskSmallerThanImage):
            download.download(
                image, self.path, download.DownloadLimits(),
                lambda: Inspector("x", None, Format),
                self.events.append, require_fit=require_fit)
        self.path.unlink(missing_ok=True)

    def test_a_raw_image_with_a_claim_is_not_read(self) -> None:
        for claim in ("raw", "iso", "ami"):
            self.refuse(GiB, size=8192 * GiB, disk_format=claim)
        self.assertEqual([], self.store.offsets)

    def test_a_raw_image_without_a_claim_is_refused_at_its_first_bytes(
            self) -> None:
        self.store = Zeros()
        self.refuse(GiB, size=8192 * GiB)
        self.assertLess(self.store.sent, 4 * MiB)

    def test_a_raw_image_of_unknown_size_is_refused_when_it_is_too_large(
            self) -> None:
        self.store = Zeros()
        self.refuse(8 * MiB, size=None)
        self.assertLess(self.store.sent, 12 * MiB)

    def test_other_images_are_refused_after_their_first_cluster(self) -> None:
        small = images.content(MiB)
        for format in ("qcow2", "vmdk", "vpc", "vdi"):
            self.store = Followed(images.convert(small, format))
            with self.subTest(format):
                self.refuse(MiB - 512, size=2 ** 50)
                self.assertLess(self.store.sent, 8 * MiB)


class ReceiverTest(base.TestCase):

    def test_a_write_that_takes_less_is_continued(self) -> None:
        """As one does where the file system is nearly full."""
        with Stingy(self.root / "file", "xb") as file:
            receiver = download.Receiver(
                file, "sha256", download.Admission(
                    Description("x", "x"), self.root, lambda size: None),
                new_inspector)
            receiver.take(CONTENT)
            receiver.finish(Description("x", "x"), self.root / "file")
        self.assertTrue((self.root / "file").read_bytes() == CONTENT)


class Stingy(io.FileIO):

    def write(self, data: bytes) -> int:
        return super().write(data[:1000])


class Fickle(Store):
    """An image that is another one when it is read again."""

    def __init__(self, *contents: bytes) -> None:
        super().__init__(breaks=iter([MiB // 2]))
        self.contents = iter(contents)
        self.starts_anywhere = False

    def _chunks(self, start: int) -> Iterator[bytes]:
        self.content = next(self.contents)
        return super()._chunks(start)


class Zeros(Store):
    """An image of zeros, of its size or else of far too many."""

    @contextlib.contextmanager
    def read(self, image: Description, offset: int = 0) -> Iterator[Stream]:
        yield Stream(offset, self._zeros(image.size))

    def _zeros(self, size: int | None) -> Iterator[bytes]:
        while self.sent != size and self.sent < 64 * MiB:
            self.sent += MiB
            yield bytes(MiB)


class Followed(Zeros):
    """An image that begins with some bytes, and goes on with zeros."""

    def __init__(self, start: bytes) -> None:
        super().__init__()
        self._start = start

    def _zeros(self, size: int | None) -> Iterator[bytes]:
        yield self._start
        yield from super()._zeros(size)


class PaceTest(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.now = 0.0
        self.rate = download.RateLimit(Description("x", "x"), 1000,
                                  clock=lambda: self.now)

    def test_fast_enough_is_not_noticed(self) -> None:
        for minute in range(1, 10):
            self.now = 60.0 * minute
            self.rate.count(60000)

    def test_a_trickle_is_no_download(self) -> None:
        self.now = 59.0
        self.rate.count(1)
        self.now = 61.0
        with self.assertRaises(exception.DownloadTooSlow) as caught:
            self.rate.count(1)
        self.assertIn("download_min_rate", str(caught.exception))

    def test_what_came_before_the_last_minute_does_not_count(self) -> None:
        self.now = 60.0
        self.rate.count(10 ** 9)
        self.now = 120.0
        self.assertRaises(exception.DownloadTooSlow, self.rate.count, 1)

    def test_breaking_off_after_each_byte_is_slow_as_well(self) -> None:
        """Each attempt gets further, so none of them is the last."""
        seconds = iter(range(1000))
        self.useFixture(fixtures.MonkeyPatch(
            "imagecache.bases.download.RateLimit", functools.partial(
                download.RateLimit, clock=lambda: next(seconds))))

        class Breaking(Store):
            def _chunks(self, start: int) -> Iterator[bytes]:
                yield b"x"
                raise exception.SourceUnreachable(
                    source="s", image_id="x", reason="again")

        self.assertRaises(
            exception.DownloadTooSlow, download.download,
            Image(Breaking(), Description("x", "x")), self.root / "download",
            download.DownloadLimits(min_rate=1000), new_inspector,
            lambda event: None, lambda seconds: None)

    def test_too_slow_is_not_tried_again(self) -> None:
        class Slow(Store):
            reads = 0

            def _chunks(self, start: int) -> Iterator[bytes]:
                self.reads += 1
                raise exception.DownloadTooSlow(
                    source="s", image_id="x", rate=1, min_rate=2, received=0)

        store = Slow()
        self.assertRaises(
            exception.DownloadTooSlow, download.download,
            Image(store, Description("x", "x")), self.root / "download",
            download.DownloadLimits(), new_inspector, lambda event: None)
        self.assertEqual(1, store.reads)
