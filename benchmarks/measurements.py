# SPDX-License-Identifier: Apache-2.0
"""What the manual shows: a benchmark's tables, its record, its drawings.

    <name>.json   everything, from which the rest can be made again
    <name>.txt    the tables, with the machine
    <chart>.svg   a table's drawing
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence

from benchmarks import report
from benchmarks.report import Result

DIRECTORY = pathlib.Path(__file__).resolve().parent.parent \
    / "doc" / "source" / "measurements"


def keep(directory: pathlib.Path, name: str, machine: Mapping[str, str],
         results: Sequence[Result]) -> None:
    """Write down what a benchmark found, and draw it if that can be done."""
    directory.mkdir(exist_ok=True)
    kept = [_kept(result) for result in results]
    path = directory / f"{name}.json"
    path.write_text(json.dumps({
        "machine": dict(machine),
        "results": [result.as_json() for result in kept]}, indent=1) + "\n")
    path.with_suffix(".txt").write_text(text(machine, kept))
    try:
        from benchmarks import plot
    except ImportError as e:
        print(f"\n{e}: pip install -r benchmarks/requirements.txt, and then"
              f" python -m benchmarks.plot {path}", file=sys.stderr)
        return
    plot.draw_all(json.loads(path.read_text())["results"], directory)


def _kept(result: Result) -> Result:
    """Leave out what nobody reads there: command lines, and most digits."""
    return dataclasses.replace(result, rows=[
        dataclasses.replace(
            row, processes=(), samples=[_short(each) for each in row.samples],
            values={name: _short(each) for name, each in row.values.items()},
            spread={name: (_short(least), _short(most))
                    for name, (least, most) in row.spread.items()})
        for row in result.rows])


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def text(machine: Mapping[str, str], results: Sequence[Result]) -> str:
    head = "\n".join(f"{name:12}{value}" for name, value in machine.items())
    tables = "\n\n\n".join(report.table(result) for result in results)
    return f"{head}\n\n\n{tables}\n"
