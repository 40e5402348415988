# SPDX-License-Identifier: Apache-2.0
"""The harness of the benchmarks counts, compares and prints."""

from __future__ import annotations

import functools
import json
import mmap
import pathlib
import subprocess

import fixtures

from benchmarks import file_disk, harness
from imagecache.model import MiB
from imagecache.tests import base


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
            3)
        self.assertEqual("abcbcacab", "".join(order))

    def test_practice_does_not_count(self):
        seconds = iter([99, 1, 2])
        runs = harness.race(self.subjects(
            a=lambda: harness.Run(next(seconds))), 2, practice=1)
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


class HeldTest(base.TestCase):

    def test_memory_is_held_until_the_block_ends(self):
        before = self.resident()
        with file_disk.held(64 * MiB):
            during = self.resident()
        self.assertGreater(during, before + 60 * MiB)
        self.assertLess(self.resident(), during - 60 * MiB)

    def resident(self):
        pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * mmap.PAGESIZE
