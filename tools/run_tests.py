# SPDX-License-Identifier: Apache-2.0
"""Run suites of tests under stestr, and count what it recorded.

    run_tests.py SUITE... [-- REGEX...]

The last line is ``N passed, N failed``, and above it stands why, of each that
failed.  What did not pass failed: a test that was skipped, or that is listed
and never reported, is a failure too, because nobody checked its promise.  The
suite named guest runs under another
kernel, by tools/in-guest: one start of that for all of it, beside the others,
as each of them keeps one processor busy.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import psutil
import subunit
import testtools
from stestr.repository import abstract as repository
from stestr.repository import util

STESTR = (sys.executable, "-m", "stestr")

PASSED = ("success", "xfail")

# Guests, servers and mounts would compete for the machine.
SERIAL = ("functional", "guest")
IN_GUEST = pathlib.Path(__file__).with_name("in-guest")

# Seconds for a whole suite: far more than it takes, so that a test that hangs
# fails the run and does not become it.
LIMIT = {"unit": 10 * 60, "functional": 60 * 60, "guest": 75 * 60}

InGuest = tuple[subprocess.Popen[bytes], IO[bytes]]    # and what it prints


class Outcome(NamedTuple):
    """How a test ended, and why."""

    status: str
    reason: str = ""


def main(arguments: list[str]) -> int:
    split = arguments.index("--")
    _repository()    # stestr does not even list tests without one
    suites, patterns = arguments[:split], arguments[split + 1:]
    outcomes: dict[str, Outcome] = {}
    with contextlib.ExitStack() as stack:
        in_guest = stack.enter_context(_started_in_guest(patterns)) \
            if "guest" in suites else None
        for suite in suites:
            print(f"\n{suite} tests\n{'=' * len(suite)}======", flush=True)
            outcomes |= _run(suite, patterns, in_guest)
    failed = {test: outcome for test, outcome in sorted(outcomes.items())
              if outcome.status not in PASSED}
    for test, outcome in failed.items():
        print(f"\n{test}: {outcome.status}, which counts as a failure\n"
              f"{outcome.reason}")
    passed = len(outcomes) - len(failed)
    print(f"\n{passed} passed, {len(failed)} failed", flush=True)
    return int(bool(failed) or passed == 0)


def _run(suite: str, patterns: list[str],
         in_guest: InGuest | None) -> dict[str, Outcome]:
    """Run one suite; return how each of its tests ended, by name."""
    listing = subprocess.run([*STESTR, "list", *_where(suite), *patterns],
                             stdout=subprocess.PIPE, text=True, check=False)
    if listing.returncode:
        return {f"the list of {suite} tests": Outcome("fail", listing.stdout)}
    outcome = dict.fromkeys(listing.stdout.split(), Outcome("never reported"))
    if not outcome:
        return outcome
    runs = _repository().count()
    if suite == "guest" and in_guest:
        _load(*in_guest)
    else:
        _finish(subprocess.Popen([*_command(suite, patterns), "--slowest",
                                  *_shown()]), LIMIT[suite])
    if _repository().count() > runs:
        outcome |= _last_run()
    return outcome


def _where(suite: str) -> list[str]:
    return ["--test-path", f"imagecache/tests/{suite}", "--top-dir", "."]


def _command(suite: str, patterns: list[str]) -> list[str]:
    return [*STESTR, "run", *_where(suite),
            *(["--serial"] if suite in SERIAL else []), *patterns]


def _shown() -> list[str]:
    return ["--suppress-attachments", *(["--color"] if os.isatty(1) else [])]


@contextlib.contextmanager
def _started_in_guest(patterns: list[str]) -> Iterator[InGuest]:
    """Start the suite that runs under another kernel.

    What is written there is lost, but for the stream of results that it
    prints.  A guest that does not come up, or dies, leaves tests that never
    reported.
    """
    # It has no network to fetch with what its tests boot.
    from imagecache.tests.functional import boot

    boot.BootImage().setUp()
    with tempfile.TemporaryFile() as results, subprocess.Popen(
            [IN_GUEST, "-t", str(LIMIT["guest"]),
             *_command("guest", patterns), "--subunit"],
            stdout=results) as guest:
        try:
            yield guest, results
        finally:
            guest.terminate()


def _load(guest: subprocess.Popen[bytes], results: IO[bytes]) -> None:
    """Record here what a guest reports."""
    guest.wait()
    results.seek(0)
    subprocess.run([*STESTR, "load", "--subunit-trace", *_shown()],
                   stdin=results, check=False)
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


def _last_run() -> dict[str, Outcome]:
    """How each test of the run that stestr recorded last ended."""
    outcome: dict[str, Outcome] = {}

    def keep(test: dict[str, Any]) -> None:
        outcome[test["id"]] = Outcome(test["status"], "\n".join(
            detail.as_text() for name, detail in sorted(
                test["details"].items())
            if name.startswith(("traceback", "reason"))))

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
