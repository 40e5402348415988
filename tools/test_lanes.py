# SPDX-License-Identifier: Apache-2.0
"""Run jobs in several processes at once, and lose no result if one dies.

A job is the tests of one class, so that what the class sets up is set up
once.  A lane runs one job after another, in a process.  If the process dies,
or reports nothing for too long, the test that it was at has failed, and
another process goes on with the tests that are left.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import selectors
import signal
import sys
import time
import unittest
from collections import deque
from collections.abc import Callable
from typing import Any

import test_worker

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass
class Outcome:
    """How a test ended; "never reported" until it has."""

    status: str = "never reported"
    reason: str = ""
    seconds: float = 0.0
    cpu: float = 0.0      # seconds of processor time, with its programs
    ended: float = 0.0    # by time.time()


@dataclasses.dataclass
class Job:
    """The tests of one class.

    :ivar outcomes: of each test, and of the set-up of the class if it failed
    :ivar seconds: how long the job took
    """

    suite: str
    name: str
    outcomes: dict[str, Outcome]
    seconds: float = 0.0

    def left(self) -> list[str]:
        return [test for test, outcome in self.outcomes.items()
                if outcome.status == Outcome.status]

    def end(self, test: str, **facts: Any) -> None:
        self.outcomes[test] = Outcome(ended=time.time(), **facts)


class Lane:
    """Runs the jobs of a queue, which several lanes may share.

    :param tests: all tests, by id
    :param directory: for the output of the tests
    :param limit: seconds that a test may take
    """

    def __init__(self, queue: deque[Job],
                 tests: dict[str, unittest.TestCase],
                 directory: pathlib.Path, limit: float) -> None:
        self.queue = queue
        self.tests = tests
        self.log = directory / f"{id(self)}.log"
        self.limit = limit
        self.jobs: deque[Job] = deque()    # which the process has
        self.cpu: dict[str, float] = {}    # seconds, of each suite
        self.stream = self.process = self._feed = -1
        self._pid = 0

    def start(self) -> bool:
        """Start a process if there is anything to do; return whether."""
        if not self._take():
            return False
        self._suite = self.jobs[0].suite
        self._test = ""
        self._buffer = b""
        self._began = self._heard = time.monotonic()
        self.stream, theirs = os.pipe()
        fed, self._feed = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self._pid = os.fork()
        if not self._pid:
            self._become(fed, theirs)
        os.set_blocking(self.stream, False)
        self.process = os.pidfd_open(self._pid)
        os.close(theirs)
        os.close(fed)
        self._tell()
        return True

    def _become(self, fed: int, stream: int) -> None:
        """Be the process of the lane."""
        try:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.setpgid(0, 0)    # so that its programs can be ended with it
            os.close(self._feed)
            os.close(self.stream)
            with open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), 0)
            self._act(fed, stream)
            os._exit(0)
        finally:
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
            os._exit(1)

    def _act(self, fed: int, stream: int) -> None:
        with open(fed) as lines:
            test_worker.work(self.tests, map(json.loads, lines), stream,
                             test_worker.Output(str(self.log)), self.limit)

    def _take(self) -> bool:
        """Have a job if there is one; return whether."""
        if not self.jobs and self.queue:
            self.jobs.append(self.queue.popleft())
        return bool(self.jobs)

    def _tell(self) -> None:
        """Let the process know its next job, or that there is none."""
        if self.jobs:
            line = json.dumps(self.jobs[0].left()) + "\n"
            # A process that has died is dealt with when that is noticed.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._feed, line.encode())
        elif self._feed >= 0:
            os.close(self._feed)
            self._feed = -1

    def hear(self, ended: Callable[[Job], None]) -> None:
        """Take in what the process has reported.

        :param ended: is called with each job that has ended
        """
        while more := self._read():
            self._heard = time.monotonic()
            *lines, self._buffer = (self._buffer + more).split(b"\n")
            for line in lines:
                facts = json.loads(line)
                if "done" in facts:
                    ended(self._finished())
                elif "started" in facts:
                    self._test = facts["started"]
                else:
                    self._test = ""
                    self.jobs[0].end(facts.pop("test"), **facts)

    def _read(self) -> bytes:
        try:
            return os.read(self.stream, 1 << 20)
        except BlockingIOError:
            return b""

    def _finished(self) -> Job:
        job = self.jobs.popleft()
        now = time.monotonic()
        job.seconds += now - self._began
        self._began = now
        if not self.jobs:
            self._take_next(job.suite)
        self._tell()
        return job

    def _take_next(self, suite: str) -> None:
        """Take another job of the same suite; others need other processes."""
        if self.queue and self.queue[0].suite == suite:
            self._take()

    def is_silent(self) -> bool:
        """Whether not even the limit of the process has ended a test."""
        return time.monotonic() - self._heard > 1.5 * self.limit

    def kill(self) -> None:
        """End the process, and the programs that it left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)

    def finish(self, ended: Callable[[Job], None]) -> None:
        """Take in that the process has ended."""
        self.hear(ended)
        _, status, usage = os.wait4(self._pid, 0)
        self.kill()
        for fd in (self._feed, self.stream, self.process):
            if fd >= 0:
                os.close(fd)
        self.stream = self.process = -1
        self.cpu[self._suite] = self.cpu.get(self._suite, 0.0) \
            + usage.ru_utime + usage.ru_stime
        if self.jobs:
            self._blame(os.waitstatus_to_exitcode(status))
            if not self.jobs[0].left():
                ended(self.jobs.popleft())

    def _blame(self, code: int) -> None:
        """Let the test that ran have failed, or all of a class's set-up."""
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        self.log.unlink(missing_ok=True)
        job = self.jobs[0]
        reason = (f"Its process ended with {code}.  The limit of a test is"
                  f" {self.limit:.0f} seconds.\n{log[-test_worker.MOST:]}")
        for test in [self._test] if self._test else job.left():
            job.end(test, status="fail", reason=reason)
        job.seconds += time.monotonic() - self._began


class GuestLane(Lane):
    """Runs its jobs under another kernel, a part of them in each start of it.

    It does not take all at once, so that another lane can help at the end.
    """

    def _take(self) -> bool:
        if not self.jobs and self.queue:
            for _ in range(len(self.queue) // 3 + 1):
                self.jobs.append(self.queue.popleft())
        return bool(self.jobs)

    def _take_next(self, suite: str) -> None:
        """Take none: the guest has a list, and ends."""

    def _act(self, fed: int, stream: int) -> None:
        log = os.open(self.log, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        for fd in (1, 2):
            os.dup2(log, fd)
        # What its tests boot is made here: there is no network there.
        from imagecache.tests.functional import boot

        boot.BootImage().setUp()
        directory = self.log.parent
        jobs = directory / "jobs"
        jobs.write_text("".join(
            json.dumps(job.left()) + "\n" for job in self.jobs))
        os.dup2(stream, 1)
        os.execv(HERE / "in-guest", [
            "in-guest", "-t", "0", "-w", str(directory), sys.executable,
            str(HERE / "test_worker.py"), self._suite, str(jobs),
            str(self.log), str(self.limit)])

    def kill(self) -> None:
        # It ends the guest, and removes what it has on this machine.
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGTERM)


def run(lanes: list[Lane], spare: list[Lane],
        ended: Callable[[Job], None]) -> None:
    """Run all jobs of some lanes.

    :param spare: lanes to start in place of lanes that have no more jobs
    :param ended: is called with each job that has ended
    """
    with selectors.DefaultSelector() as selector:
        running = {lane for lane in lanes if _start(lane, selector)}
        try:
            while running:
                for key, _ in selector.select(10):
                    lane, has_ended = key.data
                    if key.fd not in (lane.stream, lane.process):
                        continue    # of a process that has just ended
                    lane.hear(ended)
                    if has_ended:
                        for fd in (lane.stream, lane.process):
                            selector.unregister(fd)
                        lane.finish(ended)
                        running.remove(lane)
                        running |= _restarted(lane, spare, selector)
                for lane in running:
                    if lane.is_silent():
                        lane.kill()
        finally:
            for lane in running:
                lane.kill()


def _restarted(lane: Lane, spare: list[Lane],
               selector: selectors.BaseSelector) -> set[Lane]:
    """Start a lane again, or a spare lane; return what was started."""
    for each in (lane, *spare):
        if each.process < 0 and _start(each, selector):
            return {each}
    return set()


def _start(lane: Lane, selector: selectors.BaseSelector) -> bool:
    if not lane.start():
        return False
    selector.register(lane.stream, selectors.EVENT_READ, (lane, False))
    selector.register(lane.process, selectors.EVENT_READ, (lane, True))
    return True
