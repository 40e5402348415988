# SPDX-License-Identifier: Apache-2.0
"""Time things side by side, so that a noisy machine is noisy for all alike.

Runs inside nova's virtualenv too: standard library only.
"""

from __future__ import annotations

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from benchmarks import processes
from benchmarks.report import Row

READING = """\
Each line of a table is run once a round, in turn.  ratio: of the medians, to
the first line; its 25% and 75% enclose the middle half of the ratios that were
found within one round.  No table here is a test."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run took."""

    seconds: float
    started: tuple[str, ...] = ()    # command lines of its processes
    cpu: float = 0.0                 # seconds, with those of its processes
    # What else was measured; a name ends in its unit.
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Subject:
    """One of the things that are timed against each other."""

    name: str
    meaning: str             # one line, for the report
    run: Callable[[], Run]   # what it does beside is not timed

    def __post_init__(self) -> None:
        if len(self.meaning) > 60 or "\n" in self.meaning:
            raise ValueError(f"one line, please: {self.meaning}")


def measure(action: Callable[[], object]) -> Run:
    """Do something once, by the clock."""
    with processes.counted() as started:
        start, used = time.perf_counter(), _cpu()
        action()
        seconds, cpu = time.perf_counter() - start, _cpu() - used
    return Run(seconds, tuple(started), cpu)


def race(subjects: Sequence[Subject], rounds: int,
         practice: int = 1) -> list[list[Run]]:
    """Run each subject once a round; return the runs of each.

    The order moves on by one each round, so that nobody always comes after
    the same other.  What the last one left to be written is written before
    the clock starts again: an fsync would pay for it otherwise.

    :param practice: rounds that do not count, to fill caches
    """
    runs: list[list[Run]] = [[] for _ in subjects]
    for lap in range(-practice, rounds):
        for n in range(len(subjects)):
            lane = (lap + n) % len(subjects)
            os.sync()
            run = subjects[lane].run()
            if lap >= 0:
                runs[lane].append(run)
    return runs


def summary(subject: Subject, runs: Sequence[Run]) -> Row:
    """Return a line with the least of whatever its runs measured.

    What else the machine does can only add to it.
    """
    found = {name: [run.measured[name] for run in runs]
             for name in runs[0].measured}
    return Row(subject.name, subject.meaning,
               {name: min(each) for name, each in found.items()},
               [run.seconds for run in runs], runs[-1].started,
               {name: (min(each), max(each))
                for name, each in found.items()})


def compare(subjects: Sequence[Subject], runs: Sequence[Sequence[Run]],
            unit: str = "ms") -> list[Row]:
    """Return a line for each subject, compared with the first of them.

    Its ratio is that of the medians; the spread is that of the ratios within
    each round, where both met the same machine.

    :param unit: of the times shown, ``ms`` or ``s``
    """
    base = [run.seconds for run in runs[0]]
    return [_row(subject, mine, base, unit)
            for subject, mine in zip(subjects, runs, strict=True)]


def _row(subject: Subject, runs: Sequence[Run], base: Sequence[float],
         unit: str) -> Row:
    times = [run.seconds for run in runs]
    middle = statistics.median(times)
    low, _, high = statistics.quantiles(
        [mine / theirs for mine, theirs in zip(times, base, strict=True)],
        n=4, method="inclusive")
    scale = {"ms": 1000, "s": 1}[unit]
    values = {
        f"min {unit}": min(times) * scale,
        f"median {unit}": middle * scale,
        f"max {unit}": max(times) * scale,
        "ratio": middle / statistics.median(base),
        "ratio 25%": low,
        "ratio 75%": high,
        "processes started": max(len(run.started) for run in runs),
    }
    return Row(subject.name, subject.meaning, values, tuple(times),
               runs[-1].started)


def _cpu() -> float:
    return sum(os.times()[:4])
