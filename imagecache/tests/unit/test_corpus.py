# SPDX-License-Identifier: Apache-2.0
"""The corpus itself, and what the rules say of it.

That samples do no harm on any way into a cache, functional tests show.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import logging
import socket
import subprocess
from collections.abc import Iterable
from unittest import mock

import ddt
import fixtures

import hostile_images as corpus
from hostile_images import (
    advisories,
    claims,
    contents,
    disks,
    fields,
    foreign,
    formats,
    guests,
    layout,
    qemus,
    references,
    tables,
    transports,
    vmdks,
)
from hostile_images.sample import CLAIM, NO_FORMAT, UNKNOWN
from imagecache import exception, fixture
from imagecache.formats import qcow2, vdi, vhd, vhdx, vmdk
from imagecache.formats.rules import RuleViolation
from imagecache.inspection import verify
from imagecache.inspection.inspector import Found
from imagecache.model import Format, MiB
from imagecache.policy import Policy
from imagecache.testing import images, web
from imagecache.tests import base
from imagecache.tests.entry_points import (
    ENTRY_POINTS,
    SIZE,
    EntryPoints,
    Host,
)

VALIDATORS = {"vmdk": vmdk.validate, "vhd": vhd.validate,
              "vhdx": vhdx.validate, "vdi": vdi.validate}


class CorpusTest(base.TestCase):

    def test_there_are_hundreds_of_samples(self) -> None:
        refused, accepted = list(corpus.refused()), list(corpus.accepted())
        self.assertGreaterEqual(len(refused), 350)
        self.assertGreaterEqual(len(accepted), 130)

    def test_each_sample_has_an_id_of_its_own(self) -> None:
        ids = [each.id for each in itertools.chain(
            corpus.refused(), corpus.accepted(), corpus.allowed(),
            corpus.odds(), guests.headers(), guests.rewrites(),
            transports.plays())]
        self.assertEqual(len(set(ids)), len(ids))

    def test_every_advisory_is_represented(self) -> None:
        represented = set().union(*(each.represents for each in (
            *corpus.refused(), *corpus.odds(), *guests.headers(),
            *guests.rewrites(), *transports.plays())))
        self.assertEqual(set(advisories.REPRESENTED), represented)

    def test_no_advisory_is_both_represented_and_elsewhere(self) -> None:
        self.assertEqual(set(), advisories.REPRESENTED.keys()
                         & advisories.ELSEWHERE.keys())

    def test_the_image_without_lies_passes_qemu_img_check(self) -> None:
        path = self.root / "image"
        for version in (2, 3):
            path.write_bytes(layout.image(version=version))
            subprocess.run(["qemu-img", "check", "-q", "-f", "qcow2", path],
                           check=True)

    def test_samples_with_references_point_at_the_sentinel(self) -> None:
        pointing = [each for each in references.samples()
                    if str(corpus.NOWHERE.path).encode()
                    in each.build(corpus.NOWHERE)]
        self.assertGreater(len(pointing), 50)


class CanaryTest(base.TestCase):
    """The canary must notice each kind of access."""

    def setUp(self) -> None:
        super().setUp()
        self.canary = self.enterContext(corpus.Canary(self.root / "canary"))
        self.path = self.canary.sentinel.path

    def test_the_canary_has_no_complaints_if_nothing_happens(self) -> None:
        self.path.stat()
        self.assertEqual([], self.canary.complaints())

    def test_the_canary_notices_a_read_by_another_name(self) -> None:
        other = self.root / "link"
        other.symlink_to(self.path)
        subprocess.run(["cat", other], check=True, stdout=subprocess.DEVNULL)
        self.assertEqual(["secret was opened", "secret was read"],
                         self.canary.complaints())
        self.assertEqual([], self.canary.complaints())

    def test_the_canary_notices_a_change_of_mode(self) -> None:
        self.path.chmod(0o666)
        self.assertIn("it is not what it was", self.canary.complaints())

    def test_the_canary_notices_a_write(self) -> None:
        with self.path.open("ab") as f:
            f.write(b"x")
        self.assertIn("it is not what it was", self.canary.complaints())

    def test_the_canary_notices_a_new_file_beside_it(self) -> None:
        (self.path.parent / "x").touch()
        self.assertIn("x was given company", "\n".join(
            self.canary.complaints()))

    def test_the_canary_notices_a_connection(self) -> None:
        with socket.create_connection(
                ("127.0.0.1", self.canary.sentinel.port)) as connection:
            connection.recv(1)
        self.assertEqual(["its port was called"], self.canary.complaints())

    def test_the_canary_recognizes_its_token(self) -> None:
        self.assertTrue(self.canary.is_in(self.path.read_bytes()[100:]))
        self.assertFalse(self.canary.is_in(bytes(100)))


@ddt.ddt
class RulesTest(base.TestCase):
    """The rules on their own, mostly without qemu-img."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger(level=logging.ERROR))
        self.path = self.root / "image"
        self.policy = Policy(self.root)

    def validate(self, data: bytes, claim: str) -> object:
        self.path.write_bytes(data)
        return verify.validate(self.path, "x", claim, self.policy)

    @ddt.data(references, fields, claims, formats, vmdks, tables)
    def test_the_rule_that_a_sample_breaks_is_named(self, module) -> None:
        self._refuse(module.samples())

    def _refuse(self, samples: Iterable[corpus.Refused]) -> None:
        found = []
        for sample in samples:
            if sample.error is not exception.ImageUnacceptable:
                continue    # the image is in order, and too large
            try:
                self.validate(sample.build(corpus.NOWHERE), sample.claim)
                found.append(f"{sample.id} was accepted")
            except exception.ImageUnacceptable as e:
                if not str(e).endswith(f"(rule {sample.rule})"):
                    found.append(f"{sample.id}, {sample.rule}: {e}")
        if found:
            self.fail("\n".join(found))

    @ddt.data(*VALIDATORS)
    def test_the_rules_of_other_formats_are_named(self, claim: str) -> None:
        found = []
        for sample in corpus.refused():
            if sample.claim != claim or sample.listed in (CLAIM, NO_FORMAT):
                continue
            data = sample.build(corpus.NOWHERE)
            try:
                VALIDATORS[claim](io.BytesIO(data), len(data))
                found.append(f"{sample.id} was accepted")
            except RuleViolation as e:
                if sample.listed != e.rule:
                    found.append(f"{sample.id}, {sample.listed}: {e}")
        if found:
            self.fail("\n".join(found))

    def test_images_that_only_begin_like_an_allowed_format_are_refused(
            self) -> None:
        self.policy = dataclasses.replace(self.policy,
                                          accepted=frozenset(Format))
        self._refuse(dataclasses.replace(each, rule=each.listed)
                     for each in corpus.refused()
                     if each.listed in (CLAIM, NO_FORMAT))

    def test_raw_disks_are_accepted(self) -> None:
        for sample in disks.samples():
            with self.subTest(sample.id):
                validated = self.validate(sample.build(), sample.claim)
                self.assertEqual(Format.RAW, validated.format)
                self.assertEqual(len(sample.seen()), validated.virtual_size)

    def test_qcow2_images_of_other_programs_are_accepted(self) -> None:
        for sample in qemus.by_hand():
            with self.subTest(sample.id):
                validated = self.validate(sample.build(), sample.claim)
                self.assertEqual(Format.QCOW2, validated.format)
                self.assertEqual(len(sample.seen()), validated.virtual_size)


class OpinionsTest(base.TestCase):
    """Each of the three opinions alone refuses references."""

    def setUp(self) -> None:
        super().setUp()
        self.useFixture(fixtures.FakeLogger(level=logging.ERROR))
        self.path = self.root / "image"
        self.policy = Policy(self.root)
        self.samples = [each for each in references.samples()
                        if each.id.endswith(("-abs", "-rel", "-json-file"))]
        self.assertEqual(6, len(self.samples))

    def test_the_second_opinion_refuses_references(self) -> None:
        with mock.patch.object(qcow2, "SELF_CONTAINED", ()):
            for sample in self.samples:
                self.path.write_bytes(sample.build(corpus.NOWHERE))
                self._refused("safety", verify.validate, self.path, "x",
                              "qcow2", self.policy)

    def test_the_second_opinion_refuses_an_unreadable_image(self) -> None:
        self.path.write_bytes(foreign.vhdx()[:200 * 1024])
        self._refused("safety", verify.validate, self.path, "x", "vhdx",
                      dataclasses.replace(self.policy,
                                          accepted=frozenset(Format)))

    def test_the_third_opinion_refuses_references(self) -> None:
        for sample in self.samples:
            self.path.write_bytes(sample.build(corpus.NOWHERE))
            self._confirm(layout.SIZE)

    def test_the_third_opinion_refuses_an_unreadable_image(self) -> None:
        self.path.write_bytes(layout.image(version=9))
        self._confirm(layout.SIZE)

    def test_the_third_opinion_refuses_another_size(self) -> None:
        self.path.write_bytes(layout.image())
        self._confirm(layout.SIZE - 512)

    def _confirm(self, size: int) -> None:
        self._refused("third-opinion", verify.confirm, self.path,
                      Found(Format.QCOW2, size), "x", self.policy)

    def _refused(self, rule: str, act, *arguments: object) -> None:
        with self.assertRaises(exception.ImageUnacceptable) as caught:
            act(*arguments)
        self.assertTrue(str(caught.exception).endswith(f"(rule {rule})"))


@ddt.ddt
class EntryPointsTest(base.TestCase):
    """A few samples by each entry point; functional tests have them all."""

    @ddt.data(*ENTRY_POINTS)
    def test_hostile_images_are_refused(self, entry: str) -> None:
        canary = self.enterContext(corpus.Canary(self.root / "canary"))
        self.useFixture(fixtures.FakeLogger(level=logging.ERROR))
        host = self.useFixture(EntryPoints(Host()))
        for sample in list(corpus.refused())[::30]:
            if sample.rule in (CLAIM, UNKNOWN):
                continue    # some entry points know no claim
            with self.subTest(sample.id):
                self.assertRaises(sample.error, host.create_disk, entry,
                                  sample.build(canary.sentinel), sample.claim)
                self.assertEqual(set(), host.left())
        self.assertEqual([], canary.complaints())

    @ddt.data(*ENTRY_POINTS)
    def test_good_images_are_accepted(self, entry: str) -> None:
        host = self.useFixture(EntryPoints(Host()))
        for sample in list(qemus.by_hand())[:2]:
            with self.subTest(sample.id):
                disk = host.create_disk(entry, sample.build(), sample.claim)
                self.assertTrue(sample.seen().ljust(SIZE, b"\0")
                                == images.read(disk.path, disk.format))
                host.clean()


@ddt.ddt
class CachedTest(base.TestCase):
    """Images that are in the cache, and claims that change."""

    def setUp(self) -> None:
        super().setUp()
        self.images = self.useFixture(fixture.ImageCacheFixture())

    def test_another_claim_of_a_cached_image_is_refused(self) -> None:
        store, content = self.images.store, images.content(4096)
        image = store.add(content, "raw")
        self.images.cache.fetch(image)
        store.add(content, "qcow2", image_id=image)
        with self.assertRaises(exception.ImageUnacceptable):
            self.images.cache.fetch(image)

    @ddt.data(True, False)
    def test_bad_content_is_refused_before_it_is_a_base(
            self, force_raw: bool) -> None:
        self.images.config(force_raw_images=force_raw)
        for sample in contents.samples():
            image = self.images.add(sample.build(corpus.NOWHERE), "qcow2")
            with self.subTest(sample.id), \
                    self.assertRaises(exception.ImageUnacceptable) as caught:
                self.images.cache.fetch(image)
            self.assertIn(f"(rule {sample.rule})", str(caught.exception))
            self.assertEqual([], list(self.images.cache.bases()))

    def test_a_base_of_older_rules_with_bad_content_is_refused(self) -> None:
        self.images.config(force_raw_images=False)
        good = self.images.add(layout.image(), "qcow2")
        path = self.images.cache.fetch(good).path
        path.with_name(f"{path.name}.json").unlink()
        path.chmod(0o644)
        for sample in contents.samples():
            path.write_bytes(sample.build(corpus.NOWHERE))
            with self.subTest(sample.id), \
                    self.assertRaises(exception.ImageUnacceptable) as caught:
                self.images.cache.fetch(good)
            self.assertIn(f"(rule {sample.rule})", str(caught.exception))

    def test_a_download_ends_when_a_rule_is_broken(self) -> None:
        data = layout.backed("/x") + bytes(16 * MiB)
        with web.WebServer() as server:
            page = server.add("/image", data)
            with self.assertRaises(exception.ImageUnacceptable):
                self.images.cache.fetch(page.url, disk_format="qcow2")
        received = [event.facts["done"] for event in self.images.events
                    if event.name == "download"]
        self.assertLess(sum(received[-1:]), 4 * MiB)

    def test_a_disk_on_record_as_a_foreign_format_is_refused(self) -> None:
        disk = self.images.cache.create_disk("instance", self.images.add(
            images.content(4096)), image_type="raw")
        for format in ("vmdk", "vpc", "luks", "json:{}"):
            (disk.path.parent / "disk.info").write_text(
                json.dumps({str(disk.path): format}))
            with self.assertRaises(exception.InvalidDiskInfo):
                disk.grow(8192)
