# SPDX-License-Identifier: Apache-2.0
"""Draw what a benchmark found, in one style, for light and dark pages.

    python -m benchmarks.plot [FILE.json...]

draws the tables of these records, by default of all that the manual shows.
A drawing is made of its table alone: the same table, the same file.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib import figure

from benchmarks import harness

# Of middling lightness: they can be read on white and on black.
_INK = "#7b818a"
_COLOURS = ("#3b82c4", "#d9822b", "#3f9f78", "#a56cc1", "#c2556a")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",          # letters stay letters
    "svg.hashsalt": "imagecache",    # names in the file are the same each time
    "font.family": "sans-serif", "font.size": 10,
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False,
    "axes.spines.left": False, "hatch.linewidth": 0.5,
}
_WIDTH = 7.5       # inches; a page of the manual has so much
_LINE = 0.21       # the same, of a bar
_GAP = 0.8         # between two groups, in bars

Result = Mapping[str, Any]    # as harness.write() writes it


def draw(result: Result, path: pathlib.Path) -> None:
    """Draw a result that has a chart into an SVG file."""
    with matplotlib.rc_context(_STYLE):
        chart, rows = result["chart"], result["rows"]
        lanes = 1 if chart["stacked"] else len(chart["bars"])
        height = _LINE * (lanes + _GAP) * len(rows)
        drawing = figure.Figure(figsize=(_WIDTH, height + 1.0),
                                layout="constrained")
        axes = drawing.add_subplot()
        if chart["stacked"]:
            _stacks(axes, chart, rows)
        else:
            _groups(axes, chart, rows)
        _dress(axes, chart, rows, lanes)
        if len(chart["bars"]) > 1:
            drawing.legend(loc="outside lower center", ncols=2)
        drawing.savefig(path, format="svg", transparent=True, metadata={
            "Date": None, "Creator": None,
            "Description": harness.stamp(result)})


def _groups(axes: Any, chart: Result, rows: Sequence[Result]) -> None:
    lanes = len(chart["bars"])
    for lane, (column, label) in enumerate(chart["bars"].items()):
        where = [n * (lanes + _GAP) + lane for n in range(len(rows))]
        values = [row["values"][column] for row in rows]
        ends = [row["spread"].get(column, (value, value))
                for row, value in zip(rows, values, strict=True)]
        axes.barh(where, values, height=0.86, label=label,
                  color=_COLOURS[lane])
        axes.hlines(where, *zip(*ends, strict=True), color=_INK, linewidth=1)
        for y, value, (_, most) in zip(where, values, ends, strict=True):
            _say(axes, max(value, most), y, value)


def _stacks(axes: Any, chart: Result, rows: Sequence[Result]) -> None:
    left = [0.0] * len(rows)
    where = [n * (1 + _GAP) for n in range(len(rows))]
    for colour, (column, label) in zip(_COLOURS, chart["bars"].items(),
                                       strict=False):
        values = [row["values"][column] for row in rows]
        axes.barh(where, values, left=left, height=1.1, label=label,
                  color=colour)
        left = [x + value for x, value in zip(left, values, strict=True)]
    for y, value in zip(where, left, strict=True):
        _say(axes, value, y, value)


def _say(axes: Any, x: float, y: float, value: float) -> None:
    axes.annotate(harness.number(value), (x, y), (4, 0), color=_INK,
                  textcoords="offset points", va="center", fontsize=8)


def _dress(axes: Any, chart: Result, rows: Sequence[Result],
           lanes: int) -> None:
    step = lanes + _GAP
    axes.set_yticks([n * step + (lanes - 1) / 2 for n in range(len(rows))],
                    [row["name"] for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim((len(rows) - 1) * step + lanes - 0.2, -0.8)
    axes.set_xlabel(chart["axis"])
    if chart["logarithmic"]:
        axes.set_xscale("log")
    axes.margins(x=0.1)
    axes.grid(axis="x", color=_INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def main() -> None:
    for record in ([pathlib.Path(name) for name in sys.argv[1:]]
                   or harness.RECORDS.glob("*.json")):
        for result in json.loads(record.read_text())["results"]:
            if result["chart"]:
                draw(result, record.with_name(
                    f"{result['chart']['name']}.svg"))


if __name__ == "__main__":
    main()
