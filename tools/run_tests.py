# SPDX-License-Identifier: Apache-2.0
"""Run suites of tests, and say which tests failed, and why.

    run_tests.py [--limit SECONDS] SUITE... [-- REGEX...]

Tests that do not pass have failed: a test that is skipped, or that never
reports, is a failure too, because its promise was not checked.  The last line
is ``N passed, N failed``; above it stand the slowest tests and the failures.
``stestr last``, ``stestr failing`` and ``stestr slowest`` know the results as
well.

There is no limit for a suite, and ``--limit`` (15 minutes) for each test: its
process is ended then, with a stack of each of its threads, and another process
runs the tests that are left.

The suites unit and functional run in a few processes, one more than there are
processors, because functional tests wait a lot.  The suite named guest runs
under another kernel, by tools/in-guest, beside the others, and in a second
guest when the others have ended.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pathlib
import re
import signal
import sys
import tempfile
import time
import unittest
from collections import deque
from collections.abc import Iterator

import test_lanes
import test_worker
from stestr.repository import abstract as repository
from stestr.repository import util
from test_lanes import Job, Lane, Outcome

LANES = min(4, 1 + (os.cpu_count() or 2))
PASSED = ("success", "xfail")
SHOWN = 20    # of the slowest tests

# Classes that take more than half a minute where their times are not known:
# they come first, so that no process has a long class left at the end.
LONG = ("EmulatedTest", "RefusedTest", "AcceptedTest", "TracedTest",
        "KilledTest", "RaceTest", "SilentTest", "FullTest", "BootTest",
        "WrittenTest", "OverlayTest", "BubblewrapEndTest", "MutationTest",
        "FuzzTest", "EncryptedQcow2Test", "EncryptedRawTest", "NovaTest",
        "RbdGlanceTest", "ClonesTest", "FlattenedTest", "OptionsTest")


def main(arguments: list[str]) -> int:
    options = _parse(arguments)
    # The processes of the tests, and the guest, must end as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    started = time.monotonic()
    jobs, tests = _load(options.suites, options.patterns)
    times = _known_times(list(tests))
    report = Report(started)
    with tempfile.TemporaryDirectory() as directory:
        lanes, spare = _lanes(_ordered(jobs, times), tests,
                              pathlib.Path(directory), options.limit)
        test_lanes.run(lanes, spare, report.ended)
    outcomes = {test: outcome for job in jobs
                for test, outcome in job.outcomes.items()}
    _record(outcomes)
    return report.close(outcomes, lanes + spare)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("suites", nargs="+",
                        choices=("unit", "functional", "guest"))
    parser.add_argument("--limit", type=float, default=15 * 60,
                        help="seconds that one test may take (%(default)s)")
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = parser.parse_args(arguments[:split])
    options.patterns = [re.compile(each) for each in arguments[split + 1:]]
    return options


def _load(suites: list[str], patterns: list[re.Pattern[str]],
          ) -> tuple[list[Job], dict[str, unittest.TestCase]]:
    """Return the tests that match, by class and by id."""
    sys.path[0] = os.getcwd()
    jobs: dict[str, Job] = {}
    tests: dict[str, unittest.TestCase] = {}
    for suite in suites:
        found, errors = test_worker.load(suite)
        if errors:
            failure = Outcome("fail", "\n".join(errors))
            jobs[suite] = Job(suite, suite,
                              {f"the list of {suite} tests": failure})
            continue
        for test, case in found.items():
            if not patterns or any(each.search(test) for each in patterns):
                name = test.rpartition(".")[0]
                jobs.setdefault(name, Job(suite, name, {})).outcomes[
                    test] = Outcome()
                tests[test] = case
    return list(jobs.values()), tests


def _ordered(jobs: list[Job], times: dict[str, float]) -> list[Job]:
    """Order by suite, and within a suite the longest class first."""
    def duration(job: Job) -> float:
        if all(test in times for test in job.outcomes):
            return sum(times[test] for test in job.outcomes)
        name = job.name.rpartition(".")[2]
        return 1000.0 * name.endswith(LONG) + len(job.outcomes)

    return sorted(jobs, key=lambda job: (job.suite != "unit", -duration(job)))


def _lanes(jobs: list[Job], tests: dict[str, unittest.TestCase],
           directory: pathlib.Path, limit: float,
           ) -> tuple[list[Lane], list[Lane]]:
    """Return the lanes to start, and lanes for when the others end."""
    here = deque(job for job in jobs if job.left() and job.suite != "guest")
    guest = deque(job for job in jobs if job.left() and job.suite == "guest")
    lanes = [Lane(here, tests, directory, limit) for _ in range(LANES)]
    if not guest:
        return lanes, []
    guests: list[Lane] = []
    for name in ("guest", "second-guest"):
        (directory / name).mkdir()
        guests.append(test_lanes.GuestLane(guest, tests, directory / name,
                                           limit))
    return ([*lanes, guests[0]], guests[1:]) if here else (guests, [])


class Report:
    """What is said of the tests, while they run and afterwards."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._ended: dict[str, float] = {}    # seconds, of each suite

    def ended(self, job: Job) -> None:
        """Say how a class ended."""
        now = time.monotonic() - self._started
        self._ended[job.suite] = now
        failed = [test for test, outcome in job.outcomes.items()
                  if outcome.status not in PASSED]
        name = job.name.removeprefix("imagecache.tests.")
        print(f"{now:6.0f} s  {name}: {len(job.outcomes)} tests,"
              f" {job.seconds:.1f} s"
              + "".join(f"\n  FAILED {test}" for test in failed), flush=True)

    def close(self, outcomes: dict[str, Outcome],
              lanes: list[Lane]) -> int:
        """Say how all ended; return the exit status."""
        slowest = sorted(outcomes, key=lambda test: -outcomes[test].seconds)
        print(f"\nThe slowest {SHOWN} tests: seconds, of which processor time")
        for test in slowest[:SHOWN]:
            print(f"{outcomes[test].seconds:8.1f} {outcomes[test].cpu:7.1f}"
                  f"  {test}")
        for suite, ended in self._ended.items():
            cpu = sum(lane.cpu.get(suite, 0.0) for lane in lanes)
            print(f"\nThe {suite} tests ended after {ended:.0f} s, and took"
                  f" {cpu:.0f} s of processor time", end="")
        print()
        failed = {test: outcome for test, outcome in sorted(outcomes.items())
                  if outcome.status not in PASSED}
        for test, outcome in failed.items():
            print(f"\n{test}: {outcome.status}, which counts as a failure\n"
                  f"{outcome.reason}")
        passed = len(outcomes) - len(failed)
        print(f"\n{passed} passed, {len(failed)} failed", flush=True)
        return int(bool(failed) or passed == 0)


def _known_times(tests: list[str]) -> dict[str, float]:
    """Return how long tests took when they ran last, in seconds."""
    known: dict[str, float] = _repository().get_test_times(tests)["known"]
    return known


def _record(outcomes: dict[str, Outcome]) -> None:
    """Let stestr know."""
    run = _repository().get_inserter()
    run.startTestRun()
    for test, outcome in outcomes.items():
        for arguments in _events(outcome):
            run.status(test_id=test, **arguments)
    run.stopTestRun()


def _events(outcome: Outcome) -> Iterator[dict[str, object]]:
    ended = datetime.datetime.fromtimestamp(outcome.ended, datetime.UTC)
    began = ended - datetime.timedelta(seconds=outcome.seconds)
    yield {"test_status": "inprogress", "timestamp": began}
    if outcome.reason:
        yield {"file_name": "traceback", "eof": True, "timestamp": ended,
               "file_bytes": outcome.reason.encode(errors="replace"),
               "mime_type": 'text/plain;charset="utf8"'}
    status = "fail" if outcome.status == Outcome.status else outcome.status
    yield {"test_status": status, "timestamp": ended}


def _repository() -> repository.AbstractRepository:
    try:
        return util.get_repo_open()
    except repository.RepositoryNotFound:
        return util.get_repo_initialise()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
