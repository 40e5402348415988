# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import graphlib
import json
import pathlib
import subprocess
import sys
import time
import urllib.request
from unittest import mock

from benchmarks import __main__ as bench
from benchmarks import ballast, fetch_once, processes, report, timing
from imagecache.tests import base
from imagecache.tests.unit import test_rooms

TOP = pathlib.Path(bench.__file__).resolve().parent.parent


def _subject(name, run):
    return timing.Subject(name, f"what {name} is", run)


class BenchmarksTest(base.TestCase):

    def test_every_module_that_has_results_is_in_the_table(self):
        having = {path.stem.replace("_", "-")
                  for path in (TOP / "benchmarks").glob("*.py")
                  if "\ndef results(" in path.read_text()}
        self.assertEqual(having, set(bench.BENCHMARKS))

    def test_no_module_imports_one_that_imports_it(self):
        graph = {f"benchmarks.{path.stem}": {
            ".".join(name.split(".")[:2])
            for name in test_rooms.imports(path)}
            for path in (TOP / "benchmarks").glob("*.py")}
        self.assertIn("benchmarks.report", graph["benchmarks.measurements"])
        graphlib.TopologicalSorter(graph).prepare()


class TimingTest(base.TestCase):

    def test_everybody_runs_once_a_round_and_the_order_moves_on(self):
        order = []

        def runner(name):
            return lambda: order.append(name) or timing.Run(len(order))

        with mock.patch("os.sync"):
            timing.race([_subject(n, runner(n)) for n in "abc"], 3,
                        practice=0)
        self.assertEqual("abcbcacab", "".join(order))

    def test_practice_does_not_count(self):
        seconds = iter([99, 1, 2])
        with mock.patch("os.sync"):
            runs = timing.race(
                [_subject("a", lambda: timing.Run(next(seconds)))], 2)
        self.assertEqual([[timing.Run(1), timing.Run(2)]], runs)

    def test_the_first_subject_is_what_the_others_are_compared_with(self):
        subjects = [_subject("slow", None), _subject("fast", None)]
        slow, fast = timing.compare(subjects, [
            [timing.Run(4), timing.Run(8), timing.Run(6)],
            [timing.Run(2), timing.Run(2, ("x", "y")), timing.Run(6)]], "s")
        self.assertEqual(1, slow.values["ratio"])
        self.assertEqual(
            {"min s": 2, "median s": 2, "max s": 6, "ratio": 2 / 6,
             "ratio 25%": 0.375, "ratio 75%": 0.75, "processes started": 2},
            fast.values)

    def test_a_run_knows_its_time_and_its_processes(self):
        run = timing.measure(lambda: subprocess.run(["true"], check=True))
        self.assertGreater(run.seconds, 0)
        self.assertEqual(("true",), run.started)

    def test_processes_of_other_times_are_not_counted(self):
        with processes.counted() as started:
            pass
        subprocess.run(["true"], check=True)
        self.assertEqual([], started)


class ReportTest(base.TestCase):

    result = report.Result("Title", [
        report.Row("one", "what one is", {"time ms": 1.234, "runs": 3}),
        report.Row("number two", "and two", {"time ms": 1234.5, "runs": 12}),
    ], [report.Bar("kept", 1, 1), report.Bar("broken", 2.5, 2)], ["A note."])

    def test_columns_are_as_wide_as_they_must_be(self):
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
            "A note."], report.table(self.result).splitlines())

    def test_every_bar_is_said_to_hold_or_to_be_missed(self):
        self.assertEqual([
            "holds   kept: 1 (at most 1)",
            "MISSED  broken: 2.50 (at most 2)"],
            report.verdicts([self.result]).splitlines())

    def test_json_says_what_the_table_says(self):
        found = json.loads(json.dumps(self.result.as_json()))
        self.assertEqual({"time ms": 1.234, "runs": 3},
                         found["rows"][0]["values"])
        self.assertEqual([True, False],
                         [bar["holds"] for bar in found["bars"]])


class MemoryTest(base.TestCase):

    def test_the_most_is_not_less_than_what_is_held_now(self):
        now = fetch_once.held("self", "VmRSS")
        self.assertGreater(now, 0)
        self.assertGreaterEqual(fetch_once.held("self", "VmHWM"), now)

    def test_ballast_is_held_until_the_block_ends(self):
        before = fetch_once.held("self", "VmRSS")
        with ballast.held(64 * ballast.MiB):
            during = fetch_once.held("self", "VmRSS")
        after = fetch_once.held("self", "VmRSS")
        self.assertGreater(during, before + 60 * ballast.MiB)
        self.assertLess(after, during - 60 * ballast.MiB)

    def test_a_process_that_ended_holds_nothing(self):
        self.assertEqual(0, fetch_once.held("0", "VmRSS"))

    def test_the_memory_of_a_child_is_seen(self):
        with fetch_once.watched_children() as seen, \
                subprocess.Popen(["cat"], stdin=subprocess.PIPE):
            deadline = time.monotonic() + 10
            while not seen[0] and time.monotonic() < deadline:
                time.sleep(0.005)
        self.assertGreater(seen[0], 0)

    def test_the_server_has_images_of_any_size(self):
        with subprocess.Popen(
                [sys.executable, "-m", "benchmarks.server"], cwd=TOP,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
            port = int(server.stdout.readline())
            with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/1500000.raw") as answer:
                content = answer.read()
        self.assertEqual(1500000, len(content))
        self.assertEqual(content[:451424], content[1048576:])
