# SPDX-License-Identifier: Apache-2.0
"""The scenario of preallocate_images=space, for each kind of file."""

from __future__ import annotations

import json

import ddt

from imagecache.model import KiB, MiB
from imagecache.system import durable
from imagecache.tests.functional import loop, scenarios
from imagecache.tests.functional.scenarios import (
    APPEAR,
    FETCH_AS_IT_IS,
    FETCH_RAW,
    GROW,
    IMAGE_SIZE,
    overlay,
)

SIZE = 4 * IMAGE_SIZE
# What shares a block with the base needs another once it is written.
COPY = scenarios.COPY.replace("--reflink=auto", "--reflink=never")
MEASURE = "qemu-img measure --output=json -O qcow2 -o cluster_size=65536" \
    f" --size {SIZE}"


def fallocate(size: int) -> str:
    return f"fallocate --keep-size --length {size} disk.new"


@ddt.ddt
class PreallocatedTest(scenarios.ScenarioTestCase):

    def setUp(self) -> None:
        super().setUp()
        self.publish(self.qcow2(self.filesystem()))
        measured = json.loads(scenarios.run(*MEASURE.split()))
        self.tables = measured["fully-allocated"] - SIZE

    def assert_allocated(self, size: int) -> None:
        found = self.disk().allocated()
        self.assertGreaterEqual(found, size)
        self.assertLess(found, size + MiB)    # the file system's own

    @ddt.data(True, False)
    def test_an_overlay_takes_its_blocks_and_its_tables(self, force_raw):
        self.configure(preallocate_images="space", force_raw_images=force_raw)
        base = "raw" if force_raw else "qcow2"
        self.assert_made([
            *(FETCH_RAW if force_raw else FETCH_AS_IT_IS),
            overlay(base, SIZE, cluster_size=None if force_raw else 64 * KiB),
            MEASURE,
            fallocate(SIZE + 2 * self.tables), *APPEAR], size=SIZE)
        self.assert_disk("qcow2", [("base", base)], SIZE)
        self.assert_allocated(SIZE + 2 * self.tables)
        self.assert_files("base")
        self.assert_filesystem(IMAGE_SIZE)

    def test_a_raw_copy_takes_its_blocks(self):
        self.configure(preallocate_images="space", use_cow_images=False)
        self.assert_made([*FETCH_RAW, COPY, fallocate(SIZE), *GROW, *APPEAR],
                         size=SIZE)
        self.assert_disk("raw", [], SIZE)
        self.assert_allocated(SIZE)
        self.assert_files("base")
        self.assert_filesystem(SIZE)

    def test_a_qcow2_copy_takes_its_blocks_and_its_tables(self):
        self.configure(preallocate_images="space", use_cow_images=False,
                       force_raw_images=False)
        self.assert_made([
            *FETCH_AS_IT_IS, COPY, MEASURE,
            fallocate(SIZE + 2 * self.tables),
            f"qemu-img resize -q -f qcow2 disk.new {SIZE}", *APPEAR],
            size=SIZE)
        self.assert_disk("qcow2", [], SIZE)
        self.assert_allocated(SIZE + 2 * self.tables)
        self.assert_files("base")
        self.assert_filesystem(IMAGE_SIZE)

    @ddt.data(True, False)
    def test_space_that_is_not_there_is_missed_at_once(self, cow):
        self.instances = self.useFixture(
            loop.LoopFilesystem("ext4", 2 * IMAGE_SIZE)).path
        self.configure(preallocate_images="space", use_cow_images=cow)
        outcome = self.make(SIZE)
        kind, message = outcome.error
        self.assertEqual("NoSpace", kind)
        self.assertIn(f"{self.instances}/{self.instance} for", message)
        self.assertEqual([fallocate(1)], [
            step for step in outcome.steps if "fallocate" in step])
        self.assertFalse((self.instances / self.instance).exists())
        (self.instances / "lost+found").rmdir()
        self.assert_files("base", disks=0)
        # What there is room for can still be made.
        self.assertIsNone(self.make(IMAGE_SIZE).error)
        # And what there is no room for to grow leaves the others theirs.
        free = durable.available(self.instances)
        outcome = self.make(SIZE, instance=self.instance)
        self.assertEqual("NoSpace", outcome.error[0])
        self.assertEqual((IMAGE_SIZE, free), (
            self.disk().size(), durable.available(self.instances)))

    @ddt.data(True, False)
    def test_a_file_system_that_cannot_is_no_reason_to_fail(self, cow):
        self.instances = self.useFixture(loop.LoopFilesystem("ext3")).path
        self.configure(preallocate_images="space", use_cow_images=cow)
        for size in (SIZE, 2 * loop.SIZE):    # nor is it if it is too small
            outcome = self.make(size)
            self.assertIsNone(outcome.error, outcome.log)
            self.assertIn(("blocks_not_allocated", None), outcome.events)
            self.assert_disk("qcow2" if cow else "raw",
                             [("base", "raw")] if cow else [], size)
            self.assertLess(self.disk().allocated(), SIZE // 2)
