# SPDX-License-Identifier: Apache-2.0
"""Every sample of the corpus, through every door, to every kind of disk."""

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
from imagecache.tests.doors import (
    CLAIMLESS,
    DOORS,
    HOSTS,
    SIZE,
    Doors,
    Host,
)

WAYS = [(f"from_{door}_to_{host}", door, host)
        for door, host in itertools.product(DOORS, HOSTS)]
# What is not refused at the door takes longer: every door, and every host.
LONG_WAYS = [way for way in WAYS if way[1] == "memory" or way[1:] in zip(
    DOORS, itertools.cycle(HOSTS), strict=False)]
ALLOWING = Host(formats=("raw", "qcow2", "vmdk", "vhd", "vhdx", "vdi"))

Sample = TypeVar("Sample", corpus.Refused, corpus.Accepted, corpus.Odd)


class CorpusTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        # oslo.utils' inspector logs its doubts of each hostile image.
        self.useFixture(fixtures.FakeLogger(level=logging.ERROR))
        self.canary = self.enterContext(corpus.Canary(self.root / "canary"))

    def try_all(self, doors: Doors, samples: Iterable[Sample],
                act: Callable[[Sample], None]) -> None:
        """Do something with each sample, and then say what went wrong."""
        found = []
        for sample in samples:
            try:
                act(sample)
                self.assertEqual(set(), doors.left())
            except (AssertionError, exception.ImageCacheError) as e:
                found.append(f"{sample.id}: {e}")
                doors.clean()
            found += [f"{sample.id}: {each}"
                      for each in self.canary.complaints()]
        if found:
            self.fail("\n".join(["of the samples:", *found]))


@ddt.ddt
class RefusedTest(CorpusTestCase):

    @ddt.named_data(*WAYS)
    def test_what_is_hostile_is_refused(self, door: str, host: Host) -> None:
        doors = self.useFixture(Doors(host))

        def refuse(sample: corpus.Refused) -> None:
            data = sample.build(self.canary.sentinel)
            if door in CLAIMLESS and (sample.rule in (CLAIM, UNKNOWN)
                                      or sample.listed == CLAIM):
                self._admit_or_refuse(doors, door, data, sample.claim)
                return
            with self.assertRaises(sample.error) as caught:
                doors.enter(door, data, sample.claim)
            said = str(caught.exception)
            if door not in CLAIMLESS and sample.rule:
                self.assertIn(f"(rule {sample.rule})", said)
            self.assertNotIn(self.canary.token, said)

        self.try_all(doors, corpus.refused(), refuse)

    @ddt.named_data(*LONG_WAYS)
    def test_what_is_odd_does_no_harm(self, door: str, host: Host) -> None:
        doors = self.useFixture(Doors(host))
        self.try_all(doors, corpus.odds(), lambda sample:
                     self._admit_or_refuse(
                         doors, door, sample.build(self.canary.sentinel),
                         sample.claim))

    def _admit_or_refuse(self, doors: Doors, door: str, data: bytes,
                         claim: str) -> None:
        try:
            disk = doors.enter(door, data, claim)
        except exception.ImageCacheError:
            doors.clean()    # of a base that no disk can be made of
            return
        # What nothing can read holds no secret, either.
        with contextlib.suppress(subprocess.CalledProcessError):
            self.assertFalse(self.canary.is_in(
                images.read(disk.path, disk.format)))
        doors.clean()

    def test_what_is_nested_is_refused_once_it_is_raw(self) -> None:
        doors = self.useFixture(Doors(Host("raw", force_raw=True)))

        def refuse(sample: corpus.Odd) -> None:
            with self.assertRaises(exception.ImageUnacceptable):
                doors.enter("memory", sample.build(self.canary.sentinel),
                            sample.claim)

        self.try_all(doors, corpus.nested(), refuse)

    def test_what_cannot_be_read_is_the_fault_of_the_image(self) -> None:
        for host in HOSTS:
            doors = self.useFixture(Doors(host))

            def bring(sample: corpus.Odd, doors: Doors = doors) -> None:
                with contextlib.suppress(exception.ImageError):
                    doors.enter("memory", sample.build(self.canary.sentinel),
                                sample.claim)
                doors.clean()

            self.try_all(doors, corpus.odds(), bring)

    def test_formats_that_are_allowed_have_rules_as_well(self) -> None:
        doors = self.useFixture(Doors(ALLOWING))

        def refuse(sample: corpus.Refused) -> None:
            with self.assertRaises(exception.ImageError):
                doors.enter("memory", sample.build(self.canary.sentinel),
                            sample.claim)

        self.try_all(doors, (sample for sample in corpus.refused()
                             if sample.listed), refuse)


@ddt.ddt
class AcceptedTest(CorpusTestCase):

    @ddt.named_data(*LONG_WAYS)
    def test_what_is_good_is_read_as_it_was(self, door: str,
                                            host: Host) -> None:
        self._admit_all(Doors(host), door, corpus.accepted())

    def test_what_is_allowed_is_read_as_it_was(self) -> None:
        self._admit_all(Doors(ALLOWING), "memory", corpus.allowed())

    def _admit_all(self, doors: Doors, door: str,
                   samples: Iterable[corpus.Accepted]) -> None:
        self.useFixture(doors)

        def admit(sample: corpus.Accepted) -> None:
            disk = doors.enter(door, sample.build(), sample.claim)
            # Not assertEqual: it would show a difference of megabytes.
            self.assertTrue(
                sample.seen().ljust(SIZE, b"\0")
                == images.read(disk.path, disk.format),
                "it does not read as it should")
            doors.clean()

        self.try_all(doors, samples, admit)
