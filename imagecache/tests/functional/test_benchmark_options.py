# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the options, with tiny images and few operations."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess

import fixtures

from benchmarks import guest_io, harness, options
from benchmarks import scratch as scratches
from benchmarks import site as sites
from imagecache.model import GiB, KiB, MiB
from imagecache.tests import base

TINY = sites.Scale(image=8 * MiB, data=MiB, disk=12 * MiB, large=GiB,
                   instances=2, rounds=1, io_rounds=1, reads=512 * KiB,
                   slow_reads=256 * KiB, random_reads=10, writes=512 * KiB,
                   random_writes=10)


class Directory:
    """A volume without a file system of its own; it counts blocks only."""

    def __init__(self, path):
        self.path = path

    def used(self):
        return sum(each.lstat().st_blocks * 512
                   for each in self.path.rglob("*"))

    written = used

    def read(self):
        return 0

    def cool(self):
        pass

    def clear(self):
        for each in self.path.iterdir():
            shutil.rmtree(each)


class OptionsTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatch("os.sync"))
        sources = self.root / "sources"
        shutil.copytree(pathlib.Path(options.__file__).parent, sources,
                        ignore=shutil.ignore_patterns("__pycache__"))
        for name in range(8):    # and something as large as programs are
            (sources / f"noise-{name}").write_bytes(os.urandom(60 * KiB))
        self.image = scratches.make_image(self.root, TINY.image, TINY.data,
                                          [sources])
        self.site = sites.Site(self.image, TINY, self.volume, ("ext4",))

    def volume(self, kind):
        path = self.root / f"volume-{kind}"
        path.mkdir(exist_ok=True)
        return contextlib.nullcontext(Directory(path))

    def test_all_is_measured_that_is_drawn(self):
        drawn = set()
        for result in options.measure(self.site):
            self.assertTrue(harness.table(result))
            if result.chart:
                drawn.add(result.chart.name)
                for row in result.rows:
                    self.assertLessEqual(set(result.chart.bars),
                                         set(row.values))
            if result.title.startswith("Disks larger"):
                self.assertRegex(result.notes[1], r"holds [1-9]\d*\.\d MiB")
            if result.title.startswith("Steps"):
                for row in result.rows:    # all events were heard of
                    self.assertGreater(row.values["receive s"], 0)
                    self.assertGreater(row.values["validate s"], 0)
        self.assertEqual({
            "boot-io", "boot-io-reflink", "space", "guest-reads",
            "guest-crowd", "guest-writes", "guest-writes-storage",
            "preprocessing", "growing"}, drawn)

    def test_the_space_is_that_of_the_cache_and_the_disks(self):
        rows = {row.name: row.values
                for row in options.space(self.site).rows}
        for values in rows.values():
            self.assertAlmostEqual(
                values["all MiB"], values["cache MiB"] + values["disks MiB"])
        self.assertLess(rows["overlay, raw base"]["each MiB"],
                        rows["raw copy"]["each MiB"])
        self.assertGreaterEqual(
            rows["raw copy, preallocated"]["each MiB"], TINY.disk / MiB)

    def test_a_read_that_fails_is_an_error(self):
        pattern = guest_io.Pattern("", "", [(GiB, 4096)])
        self.assertRaisesRegex(
            RuntimeError, "read failed", guest_io.qemu_io, pattern,
            "writeback", guest_io.node("raw", self.image.raw))

    def test_one_content_is_in_all_three_files(self):
        for path in self.image.plain, self.image.compressed:
            subprocess.run(
                ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2",
                 self.image.raw, path], check=True)
        self.assertLess(self.image.compressed.stat().st_size,
                        self.image.plain.stat().st_size)
