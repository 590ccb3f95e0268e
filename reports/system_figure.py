"""The figure of a whole image's cost against the persons on it, in gmacs and in milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.records.store import Record
from reports.canvas import COLOURS, MARKERS, legible, plain_axes, sheet
from reports.rows import plain_text

__all__ = ["system_figure"]

_LEAST, _MOST = 10, 60  # persons on the axis
_MOST_LINES = 8  # that can be told apart
_TITLES = {"gmacs": "gmacs of an image", "ms": "ms of an image"}


def system_figure(record: Record) -> Figure | None:
    """One panel for each unit that any row has; None when there is none.

    Full lines are one-stage rows, broken ones top-down rows; each has a marker of its own, which grey keeps. A ring
    marks where a one-stage row becomes the cheaper one, with the interval of the measured crossing; the dotted line is
    the data's average number of persons. Of many rows only the first of each network is drawn.
    """
    result = _readable(record.result)
    rows = result["rows"]
    units = [unit for unit in _TITLES if any("each" in row[unit] for row in rows)]
    if not units:
        return None
    with sheet():
        columns = 2 if len(units) > 1 else 1
        lines = -(-(len(rows) + 1) // columns)
        figure = Figure(figsize=(3.6 * len(units) + 0.6, 3.2 + 0.2 * lines), dpi=150, layout="constrained")
        grid = figure.subplots(1, len(units), squeeze=False)[0]
        for axes, unit in zip(grid, units, strict=True):
            _draw(axes, result, unit)
            if len(rows) < len(record.result["rows"]):
                axes.set_xlabel("persons on the image\n(the first row of each network)")
        shown = {n: h for axes in grid for h, n in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(list(shown.values()), list(shown), loc="outside upper left", ncols=columns, frameon=False)
    return figure


def _readable(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The whole result, or with the first row of each network where there are too many to tell apart."""
    if len(result["rows"]) <= _MOST_LINES:
        return result
    first: dict[str, Any] = {}
    for row in result["rows"]:
        first.setdefault(row["label"].split(" ")[0], row)
    rows = list(first.values())[:_MOST_LINES]
    labels = {row["label"] for row in rows}
    crossings = [pair for pair in result["crossings"] if {pair["one_stage"], pair["top_down"]} <= labels]
    return {**result, "rows": rows, "crossings": crossings}


def _draw(axes: Axes, result: Mapping[str, Any], unit: str) -> None:
    last = _range(result["crossings"], unit)
    across = np.linspace(0.0, last, 6)
    for at, row in enumerate(result["rows"]):
        if "each" in row[unit]:
            line = row[unit]["fixed"] + row[unit]["each"] * across
            dashes: Any = "-" if row["paradigm"] == "one-stage" else (0, (4, 2))
            style: dict[str, Any] = {"color": COLOURS[at % len(COLOURS)], "linestyle": dashes, "linewidth": 1.4}
            style |= {"marker": MARKERS[at % len(MARKERS)], "markersize": 4, "markevery": slice(1, None)}
            axes.plot(across, line, **style, label=legible(plain_text(row["label"])))
    for pair in result["crossings"]:
        _mark(axes, result["rows"], pair, unit, last)
    if result["persons_per_image"] is not None:
        dotted: dict[str, Any] = {"color": "0.6", "linestyle": ":", "linewidth": 1.0, "zorder": 1}
        axes.axvline(result["persons_per_image"], **dotted, label="persons on an average image")
    axes.set_xlim(0, last)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("persons on the image")
    axes.set_ylabel(_TITLES[unit])
    plain_axes(axes)


def _range(crossings: Sequence[Mapping[str, Any]], unit: str) -> float:
    """The end of the axis: beyond the crossings, but not where nobody stands."""
    places = [pair[unit].get("persons") for pair in crossings]
    known = [1.3 * place for place in places if place is not None and 1.3 * place <= _MOST]
    return max([_LEAST, *known])


def _mark(axes: Axes, rows: Sequence[Mapping[str, Any]], pair: Mapping[str, Any], unit: str, last: float) -> None:
    found = pair[unit]
    if found.get("verdict") != "from" or found["persons"] > last:
        return
    line = next(row[unit] for row in rows if row["label"] == pair["one_stage"])
    height = line["fixed"] + line["each"] * found["persons"]
    style: dict[str, Any] = {"color": "black", "markerfacecolor": "none", "zorder": 4}
    axes.plot([found["persons"]], [height], marker="o", markersize=6, linestyle="", **style)
    if found.get("low") is not None:
        high = last if found.get("high") is None else min(found["high"], last)
        axes.plot([found["low"], high], [height, height], color="black", linewidth=1.0, zorder=4)
