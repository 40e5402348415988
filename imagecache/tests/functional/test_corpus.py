# SPDX-License-Identifier: Apache-2.0
"""The samples of the corpus become disks, or do not, on every way.

A way is an entry point and a kind of host; there are twenty.  All hostile
samples go one way, which has all steps: download, inspection, conversion and
overlay.  One sample of each rule, and all that no rule refuses, go the other
nineteen ways: they show that each way obeys the rules.  Which rule refuses
which sample is the same on every way, and the unit tests have all of them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import subprocess
from collections.abc import Callable, Iterable
from typing import TypeVar

import ddt
import fixtures

import hostile_images as corpus
from hostile_images.sample import CLAIM, UNKNOWN
from imagecache import exception
from imagecache.testing import images
from imagecache.tests import base
from imagecache.tests.entry_points import (
    CLAIMLESS,
    ENTRY_POINTS,
    HOSTS,
    SIZE,
    EntryPoints,
    Host,
)

WAYS = [(f"from_{entry}_to_{host}", entry, host)
        for entry, host in itertools.product(ENTRY_POINTS, HOSTS)]
WHOLE_WAY = ("glance", HOSTS[0])
# What is not refused at once takes longer: every entry point, and every host.
LONG_WAYS = [way for way in WAYS if way[1] == "memory" or way[1:] in zip(
    ENTRY_POINTS, itertools.cycle(HOSTS), strict=False)]
ALLOWING = Host(formats=("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"))

Sample = TypeVar("Sample", corpus.Refused, corpus.Accepted, corpus.Odd)


class CorpusTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # oslo.utils' inspector logs its doubts of each hostile image.
        self.useFixture(fixtures.FakeLogger(level=logging.ERROR))
        self.canary = self.enterContext(corpus.Canary(self.root / "canary"))

    def try_all(self, host: EntryPoints, samples: Iterable[Sample],
                act: Callable[[Sample], None]) -> None:
        """Do something with each sample, and then say what went wrong."""
        found = []
        for sample in samples:
            try:
                act(sample)
                self.assertEqual(set(), host.left())
            except (AssertionError, exception.ImageCacheError) as e:
                found.append(f"{sample.id}: {e}")
                host.clean()
            found += [f"{sample.id}: {each}"
                      for each in self.canary.complaints()]
        if found:
            self.fail("\n".join(["of the samples:", *found]))


@ddt.ddt
class RefusedTest(CorpusTestCase):

    @ddt.named_data(*WAYS)
    def test_a_hostile_image_is_refused(self, entry: str, kind: Host) -> None:
        host = self.useFixture(EntryPoints(kind))

        def refuse(sample: corpus.Refused) -> None:
            data = sample.build(self.canary.sentinel)
            if entry in CLAIMLESS and (sample.rule in (CLAIM, UNKNOWN)
                                       or sample.listed == CLAIM):
                self._accept_or_refuse(host, entry, data, sample.claim)
                return
            # A driver's function writes the whole file, and the file is
            # inspected whole before its size is compared with the disk's.
            error = (sample.error, exception.ImageUnacceptable) \
                if entry == "fetch_func" else sample.error
            with self.assertRaises(error) as caught:
                host.create_disk(entry, data, sample.claim)
            said = str(caught.exception)
            if entry not in CLAIMLESS and sample.rule:
                self.assertIn(f"(rule {sample.rule})", said)
            self.assertNotIn(self.canary.token, said)

        self.try_all(host, corpus.refused() if (entry, kind) == WHOLE_WAY
                     else corpus.of_each_rule(), refuse)

    @ddt.named_data(*LONG_WAYS)
    def test_an_odd_image_does_no_harm(self, entry: str, kind: Host) -> None:
        host = self.useFixture(EntryPoints(kind))
        samples = list(corpus.odds())
        self.try_all(
            host, samples if entry == "memory" else samples[::5],
            lambda sample: self._accept_or_refuse(
                host, entry, sample.build(self.canary.sentinel),
                sample.claim))

    def _accept_or_refuse(self, host: EntryPoints, entry: str, data: bytes,
                          claim: str) -> None:
        """Make a disk that has no secret, or hear that the image is at fault.

        An error of the host would fail the test.
        """
        with contextlib.suppress(exception.ImageError):
            disk = host.create_disk(entry, data, claim)
            # A disk that cannot be read has no secret, either.
            with contextlib.suppress(subprocess.CalledProcessError):
                self.assertFalse(self.canary.is_in(
                    images.read(disk.path, disk.format)))
        host.clean()    # there may be a base of which no disk can be made

    def test_formats_that_are_allowed_have_rules_as_well(self) -> None:
        host = self.useFixture(EntryPoints(ALLOWING))

        def refuse(sample: corpus.Refused) -> None:
            with self.assertRaises(exception.ImageError):
                host.create_disk("memory", sample.build(self.canary.sentinel),
                                 sample.claim)

        self.try_all(host, (sample for sample in corpus.refused()
                            if sample.listed), refuse)


@ddt.ddt
class AcceptedTest(CorpusTestCase):
    """All good images as raw bases, and as they are; some on other ways."""

    @ddt.named_data(*LONG_WAYS)
    def test_a_good_image_is_read_as_it_was(self, entry: str,
                                            kind: Host) -> None:
        samples = list(corpus.accepted())
        self._accept_all(
            EntryPoints(kind), entry,
            samples if entry == "memory" and kind in (HOSTS[0], HOSTS[-1])
            else samples[::10])

    def test_an_image_of_an_allowed_format_is_read_as_it_was(self) -> None:
        self._accept_all(EntryPoints(ALLOWING), "memory", corpus.allowed())

    def _accept_all(self, host: EntryPoints, entry: str,
                    samples: Iterable[corpus.Accepted]) -> None:
        self.useFixture(host)

        def accept(sample: corpus.Accepted) -> None:
            disk = host.create_disk(entry, sample.build(), sample.claim)
            # Not assertEqual: it would show a difference of megabytes.
            self.assertTrue(
                sample.seen().ljust(SIZE, b"\0")
                == images.read(disk.path, disk.format),
                "it does not read as it should")
            host.clean()

        self.try_all(host, samples, accept)
