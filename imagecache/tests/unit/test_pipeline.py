# SPDX-License-Identifier: Apache-2.0
"""Plans: the steps from a source to a base."""

from __future__ import annotations

import dataclasses
import pathlib
from unittest import mock

from imagecache import exception, sources
from imagecache.bases import convert, pipeline
from imagecache.bases.directory import DirectoryStore, StagedFiles
from imagecache.events import Event
from imagecache.model import Entry, Format, GiB, MiB, Record, Validated
from imagecache.policy import Policy
from imagecache.sources import DelegatedImage, Image, templates
from imagecache.system import durable
from imagecache.testing import images
from imagecache.testing.memory import MemoryStore
from imagecache.tests import base

SIZE = 2 * MiB
CONTENT = images.content(SIZE)


class PipelineTestCase(base.TestCase):

    def setUp(self) -> None:
        super().setUp()
        self.policy = Policy(self.root)
        self.events: list[Event] = []
        self.store = MemoryStore()
        self.staging = StagedFiles(
            DirectoryStore(self.policy.bases, self.policy.instances), "key",
            self.root / "download", self.root / "output")

    def image(self, content: bytes, claim: str) -> Image:
        return Image(self.store, self.store.describe(
            self.store.add(content, claim)))

    def plan(self, source: sources.Source) -> pipeline.Plan:
        return pipeline.plan(source, force_raw=self.policy.force_raw)

    def run_it(self, source: sources.Source, size: int | None = None
               ) -> tuple[Validated, Record]:
        """Run a plan; return what a store would commit."""
        with mock.patch.object(type(self.staging), "commit") as commit:
            pipeline.run(self.plan(source), pipeline.Work(
                source.name, self.staging.download, self.policy,
                self.events.append, size), self.staging)
        return commit.call_args.args

    def heard(self) -> list[str]:
        return [event.name for event in self.events]


class PlanTest(PipelineTestCase):

    def steps(self, source: sources.Source) -> list[str]:
        return names(self.plan(source))

    def test_the_plan_of_an_image_inspects_it_and_converts_it_to_raw(
            self) -> None:
        self.assertEqual(["receive", "inspect", "to_raw"],
                         self.steps(self.image(CONTENT, "raw")))
        self.assertEqual(
            ["delegate", "inspect", "to_raw"],
            self.steps(DelegatedImage("key", lambda path: None)))

    def test_the_plan_of_an_image_can_keep_its_format(self) -> None:
        self.policy = dataclasses.replace(self.policy, force_raw=False)
        self.assertEqual(["receive", "inspect", "to_native"],
                         self.steps(self.image(CONTENT, "raw")))

    def test_the_plan_of_a_trusted_template_does_not_inspect_it(self) -> None:
        self.assertEqual(["delegate", "trust", "to_raw"],
                         self.steps(templates.swap(MiB)))

    def test_the_plan_of_an_untrusted_template_inspects_it(self) -> None:
        template = dataclasses.replace(templates.swap(MiB), trusted=False)
        self.assertEqual(["delegate", "inspect", "to_raw"],
                         self.steps(template))

    def test_a_resized_base_is_a_copy_that_is_enlarged(self) -> None:
        source = sources.Resized(self.image(CONTENT, "raw"), GiB)
        plan = pipeline.plan(source, force_raw=True,
                             original=self.entry(Format.QCOW2))
        self.assertEqual(["copy", "inherit", "enlarge"], names(plan))

    def test_a_resized_base_needs_the_base_of_its_image(self) -> None:
        source = sources.Resized(self.image(CONTENT, "raw"), GiB)
        for original in (None, self.entry(None)):
            self.assertRaises(
                exception.BaseNotFound, pipeline.plan, source,
                force_raw=True, original=original)

    def test_a_base_without_a_record_is_inspected(self) -> None:
        template = dataclasses.replace(templates.swap(MiB), trusted=False)
        for source in (self.image(CONTENT, "raw"), template):
            for format in (None, Format.QCOW2):
                self.assertEqual(
                    ["recall", "inspect_base", "keep"], names(
                        pipeline.adoption(source, self.entry(format))))

    def test_a_trusted_raw_base_without_a_record_is_not_inspected(
            self) -> None:
        for source, format in ((self.image(CONTENT, "raw"), Format.RAW),
                               (templates.swap(MiB), None)):
            self.assertEqual(
                ["recall", "take_as_raw", "keep"],
                names(pipeline.adoption(source, self.entry(format))))

    def test_planning_reads_and_writes_nothing(self) -> None:
        self.steps(self.image(CONTENT, "raw"))
        self.assertEqual([], list(self.root.iterdir()))

    def entry(self, format: Format | None) -> Entry:
        """Return an entry of a base; None: without a record."""
        record = format and Record(format, SIZE, SIZE, 0, "image")
        return Entry("key", self.root / "key", SIZE, SIZE, 0, record)


class RunTest(PipelineTestCase):

    def test_a_raw_image_stays_where_it_was_written(self) -> None:
        validated, record = self.run_it(self.image(CONTENT, "raw"))
        self.assertEqual(
            Validated(self.staging.download, Format.RAW, SIZE), validated)
        self.assertTrue(validated.path.read_bytes() == CONTENT)
        self.assertEqual((SIZE, SIZE, Format.RAW), (
            record.size, record.virtual_size, record.format))

    def test_a_qcow2_image_becomes_raw_and_its_download_is_removed(
            self) -> None:
        validated, record = self.run_it(
            self.image(images.qcow2(CONTENT, "-c"), "qcow2"))
        self.assertEqual(
            Validated(self.staging.output, Format.RAW, SIZE), validated)
        self.assertTrue(validated.path.read_bytes() == CONTENT)
        self.assertFalse(self.staging.download.exists())
        self.assertTrue(record.digest.startswith("sha512:"))
        self.assertLess(validated.path.stat().st_blocks * 512, SIZE // 2)

    def test_a_store_without_files_gets_everything_in_its_output(self) -> None:
        class Volume(StagedFiles):
            keeps_files = False

        self.staging = Volume(**vars(self.staging))
        for source in (self.image(CONTENT, "raw"),
                       self.image(images.qcow2(CONTENT), "qcow2"),
                       dataclasses.replace(templates.blank(SIZE), write=(
                           lambda path: path.write_bytes(CONTENT)))):
            for self.policy in (self.policy, dataclasses.replace(
                    self.policy, force_raw=False)):
                validated, record = self.run_it(source)
                self.assertEqual(
                    (Validated(self.staging.output, Format.RAW, SIZE),
                     Format.RAW, SIZE),
                    (validated, record.format, record.size))
                self.assertTrue(validated.path.read_bytes() == CONTENT)
                self.assertFalse(self.staging.download.exists())
                validated.path.unlink()

    def test_events_are_sent_in_the_order_of_the_steps(self) -> None:
        self.run_it(self.image(images.qcow2(CONTENT), "qcow2"))
        self.assertEqual(["download", "verified", "validated", "convert"],
                         list(dict.fromkeys(self.heard())))
        validated = self.events[self.heard().index("validated")]
        self.assertEqual({"format": Format.QCOW2, "virtual_size": SIZE},
                         validated.facts)
        last = self.events[-1].facts
        self.assertEqual(last["total"], last["done"])

    def test_an_image_that_does_not_fit_is_not_converted(self) -> None:
        content = images.qcow2(CONTENT)
        for source in (
                self.image(content, "qcow2"),
                DelegatedImage("key", lambda path: path.write_bytes(content)
                               and None)):
            self.assertRaises(exception.FlavorDiskSmallerThanImage,
                              self.run_it, source, SIZE - 512)
            self.assertFalse(self.staging.output.exists())
            self.staging.download.unlink()

    def test_an_image_that_fits_no_disk_is_not_blamed_on_the_host(
            self) -> None:
        """There is no space for it on this host, and there need not be."""
        image = self.image(CONTENT, "raw")
        for claim in ("raw", None):
            huge = Image(self.store, dataclasses.replace(
                image.description, size=2 ** 60, disk_format=claim))
            with self.subTest(claim):
                self.assertRaises(exception.FlavorDiskSmallerThanImage,
                                  self.run_it, huge, 2 * 2 ** 30)
                self.staging.download.unlink(missing_ok=True)
        self.policy = dataclasses.replace(self.policy,
                                          max_virtual_size=2 ** 40)
        self.assertRaises(exception.ImageTooLarge, self.run_it, Image(
            self.store, dataclasses.replace(image.description, size=2 ** 60)))

    def test_an_existing_output_is_not_overwritten(self) -> None:
        self.staging.output.write_text("precious")
        self.assertRaises(
            exception.StorageFailed, self.run_it,
            self.image(images.qcow2(CONTENT), "qcow2"))
        self.assertEqual("precious", self.staging.output.read_text())

    def test_an_image_with_more_content_than_its_size_is_refused(self) -> None:
        """The limit of the output file decides, and not the image."""
        content = images.qcow2(CONTENT)
        self.staging.download.write_bytes(content)
        with self.assertRaises(exception.ImageUnacceptable):
            convert.to_raw(
                Validated(self.staging.download, Format.QCOW2, SIZE // 2),
                durable.filling(self.staging.output, SIZE // 2),
                self.policy, "x", self.events.append)
        self.assertLessEqual(self.staging.output.stat().st_size, SIZE // 2)

    def test_a_fetch_function_gets_the_path_to_write_to(self) -> None:
        seen: list[pathlib.Path] = []

        def write(path: pathlib.Path) -> None:
            seen.append(path)
            path.write_bytes(CONTENT)

        _, record = self.run_it(DelegatedImage("key", write))
        self.assertEqual([self.staging.download], seen)
        self.assertIsNone(record.digest)


def names(plan: pipeline.Plan) -> list[str]:
    """Return the names of a plan's steps."""
    return [getattr(step, "func", step).__name__
            for step in (plan.fill, plan.check, plan.shape)]
