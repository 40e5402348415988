# SPDX-License-Identifier: Apache-2.0
"""Run suites of tests under stestr, and count what it recorded.

    run_tests.py SUITE... [-- REGEX...]

The last line is ``N passed, N failed``.  What did not pass failed: a test
that was skipped, or that is listed and never reported, is a failure too,
because nobody checked its promise.  The suite named guest runs under another
kernel, by tools/in-guest: one start of that for all of it.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import subprocess
import sys
from typing import Any

import psutil
import subunit
import testtools
from stestr.repository import abstract as repository
from stestr.repository import util

STESTR = (sys.executable, "-m", "stestr")

PASSED = ("success", "xfail")
SHOWN_BY_STESTR = ("fail", "uxsuccess")

# Guests, servers and mounts would compete for the machine.
SERIAL = ("functional", "guest")
IN_GUEST = pathlib.Path(__file__).with_name("in-guest")

# Seconds for a whole suite: far more than it takes, so that a test that hangs
# fails the run and does not become it.
LIMIT = {"unit": 10 * 60, "functional": 45 * 60, "guest": 30 * 60}


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    _repository()    # stestr does not even list tests without one
    suites, patterns = arguments[:split], arguments[split + 1:]
    statuses: collections.Counter[str] = collections.Counter()
    for suite in suites:
        print(f"\n{suite} tests\n{'=' * len(suite)}======", flush=True)
        statuses.update(_run(suite, patterns).values())
    passed = sum(statuses[status] for status in PASSED)
    failed = statuses.total() - passed
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return int(failed > 0 or passed == 0)


def _run(suite: str, patterns: list[str]) -> dict[str, str]:
    """Run one suite; return the status of each of its tests by name."""
    where = ["--test-path", f"imagecache/tests/{suite}", "--top-dir", "."]
    listing = subprocess.run([*STESTR, "list", *where, *patterns],
                             stdout=subprocess.PIPE, text=True, check=False)
    if listing.returncode:
        print(listing.stdout)
        return {f"the list of {suite} tests": "fail"}
    outcome = dict.fromkeys(listing.stdout.split(), "never reported")
    if not outcome:
        return outcome
    runs = _repository().count()
    command = [*STESTR, "run", *where,
               *(["--serial"] if suite in SERIAL else []), *patterns]
    if suite == "guest":
        _run_in_guest([*command, "--subunit"], LIMIT[suite])
    else:
        _finish(subprocess.Popen(
            [*command, "--slowest", *_shown()]), LIMIT[suite])
    if _repository().count() > runs:
        outcome |= _last_run()
    for test, status in sorted(outcome.items()):
        if status not in PASSED + SHOWN_BY_STESTR:
            print(f"{test}: {status}, which counts as a failure")
    return outcome


def _shown() -> list[str]:
    return ["--suppress-attachments", *(["--color"] if os.isatty(1) else [])]


def _run_in_guest(command: list[str], limit: int) -> None:
    """Run it under another kernel, and record here what it reports.

    What is written there is lost, but for the stream of results that it
    prints.  A guest that does not come up, or dies, leaves tests that never
    reported.
    """
    with subprocess.Popen([IN_GUEST, "-t", str(limit), *command],
                          stdout=subprocess.PIPE) as guest:
        subprocess.run([*STESTR, "load", "--subunit-trace", *_shown()],
                       stdin=guest.stdout, check=False)
    if guest.returncode:
        print(f"\nThe guest ended with {guest.returncode}", flush=True)


def _finish(stestr: subprocess.Popen[bytes], limit: int) -> None:
    try:
        stestr.wait(limit)
    except subprocess.TimeoutExpired:
        print(f"\nStopped after {limit} seconds", flush=True)
        # Its workers only: so it records what they did before.
        for worker in psutil.Process(stestr.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()
        stestr.wait()


def _repository() -> repository.AbstractRepository:
    try:
        return util.get_repo_open()
    except repository.RepositoryNotFound:
        return util.get_repo_initialise()


def _last_run() -> dict[str, str]:
    """The status of each test of the run that stestr recorded last."""
    outcome: dict[str, str] = {}

    def keep(test: dict[str, Any]) -> None:
        outcome[test["id"]] = test["status"]

    result = testtools.StreamToDict(keep)
    result.startTestRun()
    try:
        stream = _repository().get_latest_run().get_subunit_stream()
        subunit.ByteStreamToStreamResult(stream).run(result)
    finally:
        result.stopTestRun()
    return outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
