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
        drawing = figure.Figure(
            figsize=(_WIDTH, _LINE * (lanes + _GAP) * len(rows) + 1.0),
            layout="constrained")
        axes = drawing.add_subplot()
        _bars(axes, chart, rows, [n * (lanes + _GAP)
                                  for n in range(len(rows))])
        _dress(axes, chart, rows, lanes)
        if len(chart["bars"]) > 1:
            drawing.legend(loc="outside lower center", ncols=2)
        drawing.savefig(path, format="svg", transparent=True, metadata={
            "Date": None, "Creator": None,
            "Description": harness.stamp(result)})


def _bars(axes: Any, chart: Result, rows: Sequence[Result],
          tops: Sequence[float]) -> None:
    stacked = chart["stacked"]
    ends = [0.0] * len(rows)    # of the bars so far
    for lane, (column, label) in enumerate(chart["bars"].items()):
        where = [top + (0 if stacked else lane) for top in tops]
        values = [row["values"][column] for row in rows]
        starts = ends if stacked else [0.0] * len(rows)
        ends = [x + value for x, value in zip(starts, values, strict=True)]
        axes.barh(where, values, left=starts, height=1.1 if stacked else 0.86,
                  label=label, color=_COLOURS[lane])
        if not stacked:
            spreads = [row["spread"].get(column, (value, value))
                       for row, value in zip(rows, values, strict=True)]
            axes.hlines(where, *zip(*spreads, strict=True), color=_INK,
                        linewidth=1)
            _label(axes, [max(value, most) for value, (_, most)
                          in zip(values, spreads, strict=True)], where, values)
    if stacked:
        _label(axes, ends, tops, ends)


def _label(axes: Any, xs: Sequence[float], ys: Sequence[float],
           values: Sequence[float]) -> None:
    for x, y, value in zip(xs, ys, values, strict=True):
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
