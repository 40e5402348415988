# SPDX-License-Identifier: Apache-2.0
"""Run things in turn; show what they took as tables, keep it as JSON.

Runs inside nova's virtualenv too: standard library only.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import resource
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

MiB = 1024 * 1024

RECORDS = pathlib.Path(__file__).parents[1] / "doc/source/measurements"
RATIOS = ("ratio", "ratio 25%", "ratio 75%")

READING = """\
Each line of a table is run once a round, in turn.  ratio: of the medians, to
the first line; its 25% and 75% enclose the middle half of the ratios that were
found within one round.  No table here is a test."""

_STARTS = {"os.fork", "os.forkpty", "os.posix_spawn", "os.spawn",
           "os.startfile", "os.system", "subprocess.Popen"}
_started: list[str] = []


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run took."""

    seconds: float
    started: Sequence[str] = ()    # command lines of its processes
    cpu: float = 0.0               # seconds, with those of its processes
    written: float = 0.0           # MiB, likewise; into the page cache
    # Further measures of a benchmark; a name ends in its unit.
    measured: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def having(self, **measured: float) -> Run:
        """Return this run with more measured: ``host_MiB`` is "host MiB"."""
        return dataclasses.replace(self, measured={**self.measured, **{
            name.replace("_", " "): each for name, each in measured.items()}})


@dataclasses.dataclass(frozen=True)
class Subject:
    """One of the things that are compared."""

    name: str
    meaning: str             # one line: what is done
    run: Callable[[], Run]


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured thing.  A value's name ends in its unit."""

    name: str
    meaning: str
    values: Mapping[str, float]
    samples: Sequence[float] = ()       # seconds, in order
    processes: Sequence[str] = ()       # command lines, of the last run
    # Of what was measured in each round, the least and the most.
    spread: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict)

    def only(self, *columns: str, **more: float) -> Row:
        """Return this row with these values of it, and with more."""
        return dataclasses.replace(self, values={
            **{name: self.values[name] for name in columns},
            **{name.replace("_", " "): each for name, each in more.items()}})


@dataclasses.dataclass(frozen=True)
class Bar:
    """A promise with a number in it, and the number that was measured."""

    promise: str
    measured: float
    limit: float            # the most that keeps the promise


@dataclasses.dataclass(frozen=True)
class Chart:
    """How to draw a table: a group of bars a row, a bar a column."""

    name: str                   # of the file, without a suffix
    axis: str                   # what is measured, and its unit
    bars: Mapping[str, str]     # of a column, what the legend calls it
    stacked: bool = False       # the columns are parts of a whole
    logarithmic: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """A table: rows of the same columns, and the promises they decide.

    A result with a chart is shown by the manual: it is kept there.
    """

    title: str
    rows: Sequence[Row]
    bars: Sequence[Bar] = ()
    notes: Sequence[str] = ()
    chart: Chart | None = None


def measure(action: Callable[[], object]) -> Run:
    """Do something once, by the clock."""
    _listen()
    _started.clear()
    before = _used()
    action()
    seconds, cpu, written = (
        now - then for now, then in zip(_used(), before, strict=True))
    return Run(seconds, tuple(_started), cpu, written)


@functools.cache    # an audit hook cannot be removed
def _listen() -> None:
    """Let the interpreter report each process that this one starts."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _STARTS:
        words = arguments[1] if event == "subprocess.Popen" else [event]
        _started.append(words if isinstance(words, str)
                        else " ".join(map(str, words)))


def _used() -> tuple[float, float, float]:
    """Return the time, the processor time and the MiB written so far."""
    blocks = sum(resource.getrusage(each).ru_oublock for each in (
        resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.perf_counter(), sum(os.times()[:4]), blocks * 512 / MiB


def race(subjects: Sequence[Subject], rounds: int,
         practice: int = 0) -> list[list[Run]]:
    """Run each subject once a round; return the runs of each.

    The order moves on by one each round.  Dirty pages are written before each
    run: otherwise its fsync would pay for the run before.

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


def compare(subjects: Sequence[Subject], rounds: int, columns: Sequence[str],
            unit: str = "s", practice: int = 0) -> list[Row]:
    """Run the subjects in turn; return a row with these columns for each."""
    return [row.only(*columns) for row in rows(
        subjects, race(subjects, rounds, practice), unit)]


def rows(subjects: Sequence[Subject], runs: Sequence[Sequence[Run]],
         unit: str = "s") -> list[Row]:
    """Return a row for each subject, compared with the first of them.

    The ratio is that of the medians.  Its spread is that of the ratios within
    each round, where both met the same machine.  Of processor time and of
    the further measures the least is shown: other work on the machine can
    only add to it.

    :param unit: of the times shown, ``ms`` or ``s``
    """
    first = [run.seconds for run in runs[0]]
    return [_row(subject, mine, first, unit)
            for subject, mine in zip(subjects, runs, strict=True)]


def _row(subject: Subject, runs: Sequence[Run], first: Sequence[float],
         unit: str) -> Row:
    times = [run.seconds for run in runs]
    scale = {"ms": 1000, "s": 1}[unit]
    least, middle, most = (each(times) * scale
                           for each in (min, statistics.median, max))
    ratios = [mine / one for mine, one in zip(times, first, strict=True)]
    low, _, high = (statistics.quantiles(ratios, n=4, method="inclusive")
                    if len(ratios) > 1 else [1.0] * 3)
    measured = {name: [run.measured[name] for run in runs]
                for name in runs[0].measured}
    return Row(
        subject.name, subject.meaning, {
            f"min {unit}": least, f"median {unit}": middle,
            f"max {unit}": most,
            "ratio": statistics.median(times) / statistics.median(first),
            "ratio 25%": low, "ratio 75%": high,
            "ratio min": min(times) / min(first),
            "processes started": max(len(run.started) for run in runs),
            "CPU s": min(run.cpu for run in runs),
            **{name: min(each) for name, each in measured.items()}},
        times, runs[-1].started,
        {f"median {unit}": (least, most), "ratio": (low, high),
         **{name: (min(each), max(each)) for name, each in measured.items()}})


def table(result: Result) -> str:
    """Return a result as text, with a line on each thing measured."""
    label = max(len(row.name) for row in result.rows)
    return "\n".join([
        result.title, "-" * len(result.title), *_columns(result.rows), "",
        *(f"{row.name.ljust(label)}  {row.meaning}" for row in result.rows),
        *(line for note in result.notes
          for line in ("", *textwrap.wrap(note, 79)))])


def _columns(rows: Sequence[Row]) -> Iterator[str]:
    names = [name.partition(" ") for name in rows[0].values]
    lines = [("", *(name for name, _, _ in names)),
             ("", *(unit for _, _, unit in names)),
             *((row.name, *map(number, row.values.values())) for row in rows)]
    first, *widths = (max(map(len, column))
                      for column in zip(*lines, strict=True))
    for label, *cells in lines:
        yield "  ".join([label.ljust(first), *map(
            str.rjust, cells, widths)]).rstrip()


def number(value: float) -> str:
    """Return three digits of a measure, and all digits of a count."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def verdicts(results: Sequence[Result]) -> str:
    """Say of every promise whether it holds."""
    return "\n".join(
        f"{'holds ' if bar.measured <= bar.limit else 'MISSED'}"
        f"  {bar.promise}: {number(bar.measured)}"
        f" (at most {number(bar.limit)})"
        for result in results for bar in result.bars)


def head(machine: Mapping[str, str]) -> str:
    """Return the lines on the machine."""
    return "\n".join(f"{name:12}{each}" for name, each in machine.items())


def write(path: pathlib.Path, machine: Mapping[str, str],
          results: Sequence[Result]) -> None:
    """Write results to a file, as JSON."""
    path.write_text(json.dumps({
        "machine": dict(machine),
        "results": [dataclasses.asdict(each) for each in results]},
        indent=1) + "\n")


def keep(path: pathlib.Path, machine: Mapping[str, str],
         results: Sequence[Result]) -> None:
    """Write the results that the manual shows, as JSON and as tables.

    :param path: of the JSON; the tables are beside it, in a file ``.txt``
    """
    kept = [dataclasses.replace(result, rows=[
        dataclasses.replace(row, processes=(), **{
            name: _short(getattr(row, name))
            for name in ("values", "samples", "spread")})
        for row in result.rows]) for result in results]
    path.parent.mkdir(exist_ok=True)
    write(path, machine, kept)
    path.with_suffix(".txt").write_text(
        "\n\n\n".join([head(machine), *map(table, kept)]) + "\n")


def _short(value: Any) -> Any:
    """Keep five digits of each number."""
    if isinstance(value, Mapping):
        return {name: _short(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [_short(each) for each in value]
    return value if isinstance(value, int) else float(f"{value:.5g}")


def stamp(result: Mapping[str, Any]) -> str:
    """Return the identity of a result, as JSON has it, for its picture."""
    drawn = json.dumps([result["chart"], result["rows"]], sort_keys=True)
    return "of table " + hashlib.sha256(drawn.encode()).hexdigest()
