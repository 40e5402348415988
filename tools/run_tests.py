# SPDX-License-Identifier: Apache-2.0
"""Run suites of tests under stestr, and count what it recorded.

    run_tests.py SUITE... [-- REGEX...]

The last line is ``N passed, N failed``.  What did not pass failed: a test
that was skipped, or that is listed and never reported, is a failure too,
because nobody checked its promise.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
from typing import Any

import subunit
import testtools
from stestr.repository import abstract as repository
from stestr.repository import util

PASSED = ("success", "xfail")
SHOWN_BY_STESTR = ("fail", "uxsuccess")

# Guests, servers and mounts would compete for the machine.
SERIAL = ("functional",)


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
    listing = _stestr("list", *where, *patterns, stdout=subprocess.PIPE)
    if listing.returncode:
        print(listing.stdout)
        return {f"the list of {suite} tests": "fail"}
    outcome = dict.fromkeys(listing.stdout.split(), "never reported")
    if not outcome:
        return outcome
    runs = _repository().count()
    _stestr("run", "--slowest", "--suppress-attachments", *where,
            *(["--serial"] if suite in SERIAL else []),
            *(["--color"] if os.isatty(1) else []), *patterns)
    if _repository().count() > runs:
        outcome |= _last_run()
    for test, status in sorted(outcome.items()):
        if status not in PASSED + SHOWN_BY_STESTR:
            print(f"{test}: {status}, which counts as a failure")
    return outcome


def _stestr(*arguments: str, stdout: int | None = None
            ) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "stestr", *arguments],
                          stdout=stdout, text=True, check=False)


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
