# SPDX-License-Identifier: Apache-2.0
"""What a benchmark found, as tables for people and as JSON for programs.

Runs inside nova's virtualenv too: standard library only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WIDTH = 79


@dataclasses.dataclass(frozen=True)
class Row:
    """One measured thing.  A value's name ends in its unit."""

    name: str
    meaning: str                        # one line: what was done
    values: Mapping[str, float]
    samples: Sequence[float] = ()       # seconds, in order
    processes: Sequence[str] = ()       # command lines, of the last run
    # Of what was measured in each round, the least and the most.
    spread: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Bar:
    """A promise with a number in it, and the number that was measured."""

    promise: str
    measured: float
    limit: float            # the most that keeps the promise

    @property
    def holds(self) -> bool:
        return self.measured <= self.limit


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
    """A table: rows of the same columns, and the promises they settle."""

    title: str
    rows: Sequence[Row]
    bars: Sequence[Bar] = ()
    notes: Sequence[str] = ()
    chart: Chart | None = None

    def as_json(self) -> dict[str, object]:
        return dataclasses.asdict(self) | {
            "bars": [dataclasses.asdict(bar) | {"holds": bar.holds}
                     for bar in self.bars]}


def table(result: Result) -> str:
    """Draw a result, with a line on each thing measured."""
    return "\n".join([result.title, "-" * len(result.title),
                      *_columns(result.rows), "", *_meanings(result.rows),
                      *_notes(result.notes)])


def verdicts(results: Sequence[Result]) -> str:
    """Say of every promise whether it holds."""
    return "\n".join(
        f"{'holds ' if bar.holds else 'MISSED'}  {bar.promise}:"
        f" {number(bar.measured)} (at most {number(bar.limit)})"
        for result in results for bar in result.bars)


def stamp(result: Mapping[str, Any]) -> str:
    """Return what tells a drawing of this table from one of another.

    :param result: as as_json() has it
    """
    drawn = json.dumps([result["chart"], result["rows"]], sort_keys=True)
    return "of table " + hashlib.sha256(drawn.encode()).hexdigest()


def number(value: float) -> str:
    """Three digits that mean something; a count as it is."""
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _columns(rows: Sequence[Row]) -> Iterator[str]:
    names = list(rows[0].values)
    lines = [("", *(name.partition(" ")[0] for name in names)),
             ("", *(name.partition(" ")[2] for name in names)),
             *((row.name, *(number(row.values[name]) for name in names))
               for row in rows)]
    first, *others = (max(map(len, column))
                      for column in zip(*lines, strict=True))
    for label, *cells in lines:
        yield "  ".join([label.ljust(first), *(
            cell.rjust(width)
            for cell, width in zip(cells, others, strict=True))]).rstrip()


def _meanings(rows: Sequence[Row]) -> Iterator[str]:
    label = max(len(row.name) for row in rows)
    for row in rows:
        yield f"{row.name.ljust(label)}  {row.meaning}"


def _notes(notes: Sequence[str]) -> Iterator[str]:
    for note in notes:
        yield ""
        yield from textwrap.wrap(note, _WIDTH)
