# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run, and count what they say they count.

The options are measured at a size at which times mean nothing.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
import shutil
import subprocess
import time
import urllib.request

import fixtures

from benchmarks import fetch_memory, file_disk, guest_io, harness, options
from benchmarks import scratch as scratches
from benchmarks import site as sites
from imagecache.model import GiB, KiB, MiB
from imagecache.tests import base

TINY = sites.Scale(image=8 * MiB, data=MiB, disk=12 * MiB, large=GiB,
                   instances=2, rounds=1, io_rounds=1, reads=512 * KiB,
                   slow_reads=256 * KiB, random_reads=10, writes=512 * KiB,
                   random_writes=10)


class HarnessTest(base.TestCase):

    def setUp(self):
        super().setUp()
        self.useFixture(fixtures.MockPatch("os.sync"))

    def subjects(self, **runs):
        return [harness.Subject(name, f"what {name} is", run)
                for name, run in runs.items()]

    def test_each_subject_runs_once_a_round_and_the_order_moves_on(self):
        order = []
        harness.race(self.subjects(**{
            name: functools.partial(order.append, name) for name in "abc"}),
            3, practice=0)
        self.assertEqual("abcbcacab", "".join(order))

    def test_practice_does_not_count(self):
        seconds = iter([99, 1, 2])
        runs = harness.race(self.subjects(
            a=lambda: harness.Run(next(seconds))), 2)
        self.assertEqual([[harness.Run(1), harness.Run(2)]], runs)

    def test_the_first_subject_is_what_the_others_are_compared_with(self):
        slow, fast = harness.rows(self.subjects(slow=None, fast=None), [
            [harness.Run(4), harness.Run(8), harness.Run(6)],
            [harness.Run(2), harness.Run(2, ("x", "y")), harness.Run(6)]])
        self.assertEqual(1, slow.values["ratio"])
        self.assertEqual(
            {"min s": 2, "median s": 2, "max s": 6, "ratio": 2 / 6,
             "ratio 25%": 0.375, "ratio 75%": 0.75, "ratio min": 0.5,
             "processes started": 2, "CPU s": 0}, fast.values)

    def test_a_run_knows_its_time_and_its_processes(self):
        subprocess.run(["false"], check=False)
        run = harness.measure(lambda: subprocess.run(["true"], check=True))
        self.assertGreater(run.seconds, 0)
        self.assertEqual(("true",), run.started)

    def test_a_run_knows_what_it_wrote(self):
        run = harness.measure(lambda: (self.root / "file").write_bytes(
            bytes(3 * MiB)))
        self.assertGreaterEqual(run.written, 3)

    def test_table_verdicts_and_json_have_the_same_numbers(self):
        result = harness.Result("Title", [
            harness.Row("one", "what one is", {"time ms": 1.234, "runs": 3}),
            harness.Row("number two", "and two",
                        {"time ms": 1234.5, "runs": 12}),
        ], [harness.Bar("kept", 1, 1), harness.Bar("broken", 2.5, 2)],
            ["A note."])
        self.assertEqual([
            "Title",
            "-----",
            "            time  runs",
            "              ms",
            "one         1.23     3",
            "number two  1234    12",
            "",
            "one         what one is",
            "number two  and two",
            "",
            "A note."], harness.table(result).splitlines())
        self.assertEqual([
            "holds   kept: 1 (at most 1)",
            "MISSED  broken: 2.50 (at most 2)"],
            harness.verdicts([result]).splitlines())
        harness.keep(self.root / "name.json", {"when": "now"}, [result])
        kept = json.loads((self.root / "name.json").read_text())
        self.assertEqual({"time ms": 1.234, "runs": 3},
                         kept["results"][0]["rows"][0]["values"])
        self.assertIn(harness.table(result),
                      (self.root / "name.txt").read_text())


class MemoryTest(base.TestCase):

    def test_memory_is_held_until_the_block_ends(self):
        before = fetch_memory.held("self", "VmRSS")
        with file_disk.held(64 * MiB):
            during = fetch_memory.held("self", "VmRSS")
        after = fetch_memory.held("self", "VmRSS")
        self.assertGreater(during, before + 60 * MiB)
        self.assertLess(after, during - 60 * MiB)

    def test_a_process_that_ended_holds_nothing(self):
        self.assertEqual(0, fetch_memory.held("0", "VmRSS"))

    def test_the_memory_of_a_child_is_seen(self):
        with fetch_memory.watched_children() as seen, \
                subprocess.Popen(["cat"], stdin=subprocess.PIPE):
            deadline = time.monotonic() + 10
            while not seen[0] and time.monotonic() < deadline:
                time.sleep(0.005)
        self.assertGreater(seen[0], 0)

    def test_an_image_full_of_data_is_served(self):
        name = fetch_memory._full(self.root / "full", "raw", MiB)
        with fetch_memory.served(self.root) as address, \
                urllib.request.urlopen(f"{address}/{name}") as answer:
            self.assertEqual(b"U" * MiB, answer.read())


class Directory:
    """A volume without a file system of its own; it counts blocks only."""

    counter = "not at all"

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
        self.site = sites.Site(self.image, TINY, self.volume, sharing=())

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
        pattern = guest_io.Pattern("", "", [(GiB, 4096)], mode="writeback")
        self.assertRaisesRegex(
            RuntimeError, "read failed", guest_io.qemu_io, pattern,
            guest_io._chain(False, self.image.raw, "raw"))

    def test_one_content_is_in_all_three_files(self):
        for path in self.image.plain, self.image.compressed:
            subprocess.run(
                ["qemu-img", "compare", "-q", "-f", "raw", "-F", "qcow2",
                 self.image.raw, path], check=True)
        self.assertLess(self.image.compressed.stat().st_size,
                        self.image.plain.stat().st_size)
