# SPDX-License-Identifier: Apache-2.0
"""Run classes of tests, and report each test as one line of JSON.

    test_worker.py SUITE JOBS LOG LIMIT

JOBS is a file with one job per line, and a job is a list of test ids.  LOG is
the file that takes what the tests print.  LIMIT is in seconds, see `Report`.
tools/run_tests.py also calls `work` in processes of its own.

The lines are objects.  ``{"started": ID}`` is a test that begins.
``{"test": ID, "status": STATUS, "seconds": S, "cpu": S, "reason": TEXT}`` is a
test, or the set-up of a class, that has ended.  ``{"done": true}`` is a job
that has ended.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pathlib
import resource
import sys
import time
import traceback
import unittest
from collections.abc import Iterable, Iterator
from typing import Any

TOP = pathlib.Path(__file__).resolve().parents[1]
MOST = 20_000    # characters of output that are reported with a failure


class Output:
    """What the tests of this process print: a file, not the terminal.

    It is emptied after each test, so it holds what belongs to the test that
    runs, and to the set-up of its class.
    """

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def capture(self) -> None:
        """Send the standard streams there, of programs as well."""
        for fd in (1, 2):
            os.dup2(self._fd, fd)
        faulthandler.enable()

    def take(self) -> str:
        """Return what was printed, and empty the file."""
        sys.stdout.flush()
        sys.stderr.flush()
        size = os.fstat(self._fd).st_size
        found = os.pread(self._fd, MOST, max(0, size - MOST))
        os.ftruncate(self._fd, 0)
        return found.decode(errors="replace")

    def dump_stacks_after(self, seconds: float) -> None:
        """End this process, its stacks in the output, unless called again.

        It works as well where the test waits in C and no signal handler of
        Python would run.
        """
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._fd)


class Report(unittest.TestResult):
    """Reports tests as they end.

    :param stream: a file descriptor
    :param limit: seconds that a test, or the set-up of a class, may take
    """

    def __init__(self, stream: int, output: Output, limit: float) -> None:
        super().__init__()
        self._stream = stream
        self._output = output
        self._limit = limit
        self._owner = os.getpid()
        self._failure: tuple[str, str] | None = None
        self._began = self._cpu = 0.0
        self._running = False

    def tell(self, **facts: Any) -> None:
        if os.getpid() != self._owner:
            os._exit(1)    # a child of a test, which must not run the others
        line = json.dumps(facts).encode() + b"\n"
        while line:
            line = line[os.write(self._stream, line):]
        self._output.dump_stacks_after(self._limit)

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._failure, self._running = None, True
        self._began, self._cpu = time.monotonic(), cpu_time()
        self.tell(started=test.id())

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._running = False
        status, reason = self._failure or ("success", "")
        printed = self._output.take()
        if status == "fail" and printed:
            reason += f"\nIt printed:\n{printed}"
        self.tell(test=test.id(), status=status, reason=reason,
                  seconds=time.monotonic() - self._began,
                  cpu=cpu_time() - self._cpu)

    def addError(self, test: unittest.TestCase, error: Any) -> None:
        self._fail(test, error)

    def addFailure(self, test: unittest.TestCase, error: Any) -> None:
        self._fail(test, error)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase,
                   error: Any) -> None:
        if error is not None:
            self._fail(test, error, f"{subtest.id()}:\n")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._end(test, "skip", reason)

    def addExpectedFailure(self, test: unittest.TestCase, error: Any) -> None:
        self._end(test, "xfail", "")

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._end(test, "uxsuccess", "it should have failed")

    def _fail(self, test: unittest.TestCase, error: Any,
              which: str = "") -> None:
        text = "".join(traceback.format_exception(*error))
        before = f"{self._failure[1]}\n" if self._failure else ""
        self._end(test, "fail", f"{before}{which}{text}")

    def _end(self, test: unittest.TestCase, status: str, reason: str) -> None:
        if self._running:
            self._failure = (status, reason)
        else:    # the set-up or the end of a class
            self.tell(test=test.id(), status=status,
                      reason=f"{reason}\n{self._output.take()}")


def cpu_time() -> float:
    """Return the processor seconds of this process and its programs."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(
        resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def load(suite: str) -> tuple[dict[str, unittest.TestCase], list[str]]:
    """Import a suite; return its tests by id, and the errors of the import."""
    loader = unittest.TestLoader()
    found = loader.discover(f"imagecache/tests/{suite}", top_level_dir=".")
    errors = [str(error) for error in loader.errors]
    return {test.id(): test for test in _flat(found)}, errors


def _flat(suite: Iterable[Any]) -> Iterator[unittest.TestCase]:
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from _flat(each)
        else:
            yield each


def work(tests: dict[str, unittest.TestCase], jobs: Iterable[list[str]],
         stream: int, output: Output, limit: float) -> None:
    """Run jobs, in this process."""
    output.capture()
    report = Report(stream, output, limit)
    for job in jobs:
        output.dump_stacks_after(limit)
        # A test object that has run may hold megabytes.
        unittest.TestSuite([tests.pop(each) for each in job]).run(report)
        report.tell(done=True)
        faulthandler.cancel_dump_traceback_later()


def main(suite: str, jobs: str, log: str, limit: str) -> None:
    sys.path[0] = str(TOP)
    stream = os.dup(1)
    output = Output(log)
    tests, _ = load(suite)
    with open(jobs) as lines:
        work(tests, map(json.loads, lines), stream, output, float(limit))


if __name__ == "__main__":
    main(*sys.argv[1:])
