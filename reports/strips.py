"""Latency distributions: every timed call as a point, one strip for each row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reports import quantities as q
from reports.canvas import COLOURS, FONT, legible, logarithmic, plain_axes, sheet
from reports.model import Value
from reports.rows import RowData, plain_text
from reports.tables import latency_names

__all__ = ["latency_distributions"]

_Strip = tuple[RowData, Mapping[str, Any]]
_MOST = 60
"""strips in a panel: a page has no room for more; the table has them all"""


def latency_distributions(rows: Sequence[RowData]) -> Figure | None:
    """Every timed sample in milliseconds: one panel for each batch size, one strip for each row; None without samples.

    Hollow: samples that were starved of the processor and carry no statistic. The bar is the median with its 95 %
    interval. Logarithmic when a panel spans more than a factor of ten.
    """
    panels = {n: [(r, r.result(n)) for r in rows if r.result(n).get("samples")][:_MOST] for n in latency_names(rows)}
    panels = {name: found for name, found in panels.items() if found}
    if not panels:
        return None
    heights = [0.34 * len(found) + 0.9 for found in panels.values()]
    with sheet():
        figure = Figure(figsize=(7.2, sum(heights) + 0.5), dpi=150, layout="constrained")
        grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, found) in zip(grid, panels.items(), strict=True):
            _draw_strips(axes, name, found)
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False)
    return figure


def _draw_strips(axes: Axes, name: str, found: Sequence[_Strip]) -> None:
    jitter = np.random.default_rng(0)
    methods = list(dict.fromkeys(row.method for row, _ in found))
    times = [np.array([s["wall_ms"] for s in result["samples"]], dtype=np.float64) for _, result in found]
    starved = [np.array([bool(s.get("starved")) for s in result["samples"]]) for _, result in found]
    heights = [at + jitter.uniform(-0.22, 0.22, len(samples)) for at, samples in enumerate(times)]
    for i, method in enumerate(methods):
        own = [at for at, (row, _) in enumerate(found) if row.method == method]
        xs, ys, hollow = (np.concatenate([values[at] for at in own]) for values in (times, heights, starved))
        style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3.5, "color": COLOURS[i % len(COLOURS)]}
        axes.plot(xs[~hollow], ys[~hollow], **style, markeredgewidth=0, alpha=0.55, zorder=2)
        axes.plot(xs[hollow], ys[hollow], **style, markerfacecolor="none", markeredgewidth=0.7, zorder=2)
    medians = [line for at, (row, _) in enumerate(found) for line in _median(at, q.from_latency(row, name, "median"))]
    axes.add_collection(LineCollection(medians, colors="black", linewidths=1.2, zorder=3))
    # the legend is of shapes: neutral, whatever the first row's colour and samples
    legend: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3.5, "color": "0.3"}
    axes.plot([], [], **legend, markeredgewidth=0, label="timed call")
    axes.plot([], [], **legend, markerfacecolor="none", label="rejected: starved of the processor")
    axes.plot([], [], color="black", linewidth=1.2, label="median, 95 % interval")
    _describe_strips(axes, name, found)


def _median(at: int, median: Value) -> list[list[tuple[float, float]]]:
    """The lines of one strip: the median across it, its interval along it."""
    if median.value is None:
        return []
    across = [(median.value, at - 0.32), (median.value, at + 0.32)]
    if median.low is None or median.high is None:
        return [across]
    return [across, [(median.low, float(at)), (median.high, float(at))]]


def _describe_strips(axes: Axes, name: str, found: Sequence[_Strip]) -> None:
    execution = found[0][1].get("execution") or {}
    axes.set_yticks(range(len(found)), [legible(row.label) for row, _ in found], fontsize=FONT)
    axes.set_ylim(len(found) - 0.4, -0.6)
    logarithmic(axes, [s["wall_ms"] for _, result in found for s in result["samples"]])
    what = plain_text(execution.get("scope", "one call"))
    axes.set_xlabel(f"ms, {what}, batch {name.removeprefix('latency_b')}, {plain_text(execution.get('device', '?'))}")
    plain_axes(axes)
    axes.grid(False, axis="y")
