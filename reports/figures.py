"""Figures: accuracy against cost with uncertainty, front and labels that do not collide; samples of latencies."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports import quantities as q
from reports.labels import Box, place
from reports.model import Value
from reports.points import Axis, Point, axis_of, curves, pareto, points
from reports.rows import RowData, plain_text
from reports.tables import latency_names

__all__ = ["latency_distributions", "save", "tradeoff"]

_LOG_RANGE = 10.0
_MOST_LABELS = 40  # beyond, the front and then the first rows; the table has them all
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7F6000")
_MARKERS = "osD^vP*X<>ph"
_FONT = 7


def tradeoff(rows: Sequence[RowData], x: str = "gmacs", y: str = "ap") -> Figure | None:
    """`y` against `x` of the rows that have both; None when there is none.

    Bars are the uncertainty of each, the step line is the Pareto front of the values, a thin line joins the points
    of one variant over a swept number. Logarithmic in x when it spans more than a factor of ten.
    Raises UserError for an unknown axis.
    """
    found = points(rows, x, y)
    if not found:
        return None
    with matplotlib.rc_context({"font.size": 9, "axes.linewidth": 0.8, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(7.2, 4.8), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _describe(axes, found, axis_of(x, rows), axis_of(y, rows))
        _draw_points(axes, found)
        _draw_lines(axes, found)
        _draw_legend(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # labels are placed in pixels; nothing may move after that
        _draw_labels(axes, found)
    return figure


def _describe(axes: Axes, found: Sequence[Point], across: Axis, up: Axis) -> None:
    axes.set_xlabel(_titled(across, [p.x for p in found]))
    axes.set_ylabel(_titled(up, [p.y for p in found]))
    xs = [p.at[0] for p in found]
    if min(xs) > 0 and max(xs) / min(xs) > _LOG_RANGE:
        _logarithmic(axes)
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.spines[["top", "right"]].set_visible(False)


def _logarithmic(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _titled(axis: Axis, values: Sequence[Value]) -> str:
    return f"{axis.title}\n{axis.spread}" if axis.spread and any(v.low is not None for v in values) else axis.title


def _draw_points(axes: Axes, found: Sequence[Point]) -> None:
    """Markers and bars by method: shape and colour both tell them apart."""
    for i, method in enumerate(dict.fromkeys(p.row.method for p in found)):
        own = [p for p in found if p.row.method == method]
        xs, ys = zip(*(p.at for p in own), strict=True)
        colour, marker = _COLOURS[i % len(_COLOURS)], _MARKERS[i % len(_MARKERS)]
        bars: dict[str, Any] = {"xerr": _errors([p.x for p in own]), "yerr": _errors([p.y for p in own])}
        axes.errorbar(xs, ys, **bars, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2, zorder=3)
        style: dict[str, Any] = {
            "marker": marker,
            "color": colour,
            "markersize": 6.5,
            "markeredgecolor": "white",
            "linestyle": "",
        }
        axes.plot(xs, ys, **style, markeredgewidth=0.6, label=_legible(method), zorder=3.5)


def _errors(values: Sequence[Value]) -> np.ndarray:
    """(2, N) lengths of the bars below and above; 0 where a value has no bounds."""
    pairs = [(v.value or 0.0, v.low, v.high) for v in values]
    lengths = [(0.0, 0.0) if low is None or high is None else (at - low, high - at) for at, low, high in pairs]
    return np.maximum(np.array(lengths).T, 0.0)


def _draw_lines(axes: Axes, found: Sequence[Point]) -> None:
    """Curves of swept numbers, and the Pareto front as a step line to the right edge."""
    methods = list(dict.fromkeys(p.row.method for p in found))
    for curve in curves(found):
        colour = _COLOURS[methods.index(curve[0].row.method) % len(_COLOURS)]
        axes.plot(*zip(*(p.at for p in curve), strict=True), color=colour, linewidth=0.9, zorder=2)
    if len(found) > 1:
        front = [found[i].at for i in pareto([p.at for p in found])]
        limits = axes.get_xlim()
        across, up = zip(*front, (limits[1], front[-1][1]), strict=True)
        style: dict[str, Any] = {"color": "0.35", "linestyle": (0, (4, 2)), "linewidth": 1.1, "zorder": 1}
        axes.step(across, up, where="post", label="Pareto front", **style)
        axes.set_xlim(limits)


def _draw_legend(figure: Figure) -> None:
    axes = figure.axes[0]
    handles, names = axes.get_legend_handles_labels()
    columns = min(4, len(names))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False, handlelength=2.4)


def _draw_labels(axes: Axes, found: Sequence[Point]) -> None:
    """A label beside each point, on the front first; a hair line leads to those that stand further away."""
    order = _priority(found)
    texts = [
        axes.annotate(_legible(found[i].label), (0, 0), xycoords="figure fraction", fontsize=_FONT, zorder=4)
        for i in order
    ]
    anchors = [_pixel(axes, *found[i].at) for i in order]
    extents = [t.get_window_extent() for t in texts]
    markers = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in (_pixel(axes, *p.at) for p in found)]
    room = axes.get_window_extent()
    boxes = place(
        anchors,
        [(e.width, e.height) for e in extents],
        hard=markers,
        soft=[*_bars(axes, found), *_segments(axes, found)],
        bounds=Box(room.x0 + 2, room.y0 + 2, room.x1, room.y1 - 2),
    )
    for text, anchor, extent, box in zip(texts, anchors, extents, boxes, strict=True):
        if box is None:
            text.remove()
            continue
        text.set_position(_fraction(axes, (box.left - extent.x0, box.bottom - extent.y0)))
        _lead(axes, anchor, box)


def _priority(found: Sequence[Point]) -> list[int]:
    """The points that get a label: what starts a curve, the front, then the others in their order."""
    front = pareto([p.at for p in found])
    starts = {id(curve[0].row) for curve in curves(found)}
    first = [i for i, p in enumerate(found) if id(p.row) in starts]
    return list(dict.fromkeys([*first, *front, *range(len(found))]))[:_MOST_LABELS]


def _pixel(axes: Axes, x: float, y: float) -> tuple[float, float]:
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def _fraction(axes: Axes, pixel: tuple[float, float]) -> tuple[float, float]:
    """Of the figure: the same place at any resolution."""
    assert axes.figure is not None
    across, up = axes.figure.transFigure.inverted().transform(pixel)
    return float(across), float(up)


def _bars(axes: Axes, found: Sequence[Point]) -> list[Box]:
    boxes = []
    for p in found:
        x, y = p.at
        if p.y.low is not None and p.y.high is not None:
            boxes.append(_between(_pixel(axes, x, p.y.low), _pixel(axes, x, p.y.high)))
        if p.x.low is not None and p.x.high is not None:
            boxes.append(_between(_pixel(axes, p.x.low, y), _pixel(axes, p.x.high, y)))
    return boxes


def _segments(axes: Axes, found: Sequence[Point]) -> list[Box]:
    """The front's steps, and the curves cut into short pieces."""
    corners = [_pixel(axes, *found[i].at) for i in pareto([p.at for p in found])]
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        boxes += [_between((x0, y0), (x1, y0)), _between((x1, y0), (x1, y1))]
    for curve in curves(found):
        for a, b in pairwise(_pixel(axes, *p.at) for p in curve):
            cuts = np.linspace(a, b, 9).tolist()
            boxes += [_between(c, d) for c, d in pairwise(cuts)]
    return boxes


def _between(a: Sequence[float], b: Sequence[float]) -> Box:
    return Box(min(a[0], b[0]) - 1.5, min(a[1], b[1]) - 1.5, max(a[0], b[0]) + 1.5, max(a[1], b[1]) + 1.5)


def _lead(axes: Axes, anchor: tuple[float, float], box: Box) -> None:
    """A hair line from a point to its label, where the label is not beside it."""
    end = (min(max(anchor[0], box.left), box.right), min(max(anchor[1], box.bottom), box.top))
    if np.hypot(end[0] - anchor[0], end[1] - anchor[1]) > 14:
        style = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        places: dict[str, Any] = {"xycoords": "figure fraction", "textcoords": "figure fraction"}
        axes.annotate("", _fraction(axes, anchor), _fraction(axes, end), **places, arrowprops=style, zorder=1)


def _legible(text: str) -> str:
    """Text as it is: a dollar starts no formula, a leading underscore hides no legend entry."""
    return (f" {text}" if text.startswith("_") else text).replace("$", r"\$")


# -- latencies -----------------------------------------------------------------------------------------------------


def latency_distributions(rows: Sequence[RowData]) -> Figure | None:
    """Every timed sample in milliseconds: one panel for each batch size, one strip for each row; None without samples.

    Hollow: samples that were starved of the processor and carry no statistic. The bar is the median with its 95 %
    interval. Logarithmic when a panel spans more than a factor of ten.
    """
    panels = {n: [(r, r.result(n)) for r in rows if r.result(n).get("samples")] for n in latency_names(rows)}
    panels = {name: found for name, found in panels.items() if found}
    if not panels:
        return None
    heights = [0.34 * len(found) + 0.9 for found in panels.values()]
    with matplotlib.rc_context({"font.size": 9, "axes.linewidth": 0.8, "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(7.2, sum(heights) + 0.5), dpi=150, layout="constrained")
        grid = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, found) in zip(grid, panels.items(), strict=True):
            _draw_strips(axes, name, found)
        handles, names = grid[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside upper left", ncols=3, frameon=False)
    return figure


def _draw_strips(axes: Axes, name: str, found: Sequence[tuple[RowData, Mapping[str, Any]]]) -> None:
    jitter = np.random.default_rng(0)
    methods = list(dict.fromkeys(row.method for row, _ in found))
    for at, (row, result) in enumerate(found):
        colour = _COLOURS[methods.index(row.method) % len(_COLOURS)]
        times = np.array([s["wall_ms"] for s in result["samples"]], dtype=np.float64)
        starved = np.array([bool(s.get("starved")) for s in result["samples"]])
        places = at + jitter.uniform(-0.22, 0.22, len(times))
        style: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3.5, "color": colour}
        axes.plot(times[~starved], places[~starved], **style, markeredgewidth=0, alpha=0.55, zorder=2)
        axes.plot(times[starved], places[starved], **style, markerfacecolor="none", markeredgewidth=0.7, zorder=2)
        _draw_median(axes, at, q.from_latency(row, name, "median"))
    # the legend is of shapes: neutral, whatever the first row's colour and samples
    legend: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 3.5, "color": "0.3"}
    axes.plot([], [], **legend, markeredgewidth=0, label="timed call")
    axes.plot([], [], **legend, markerfacecolor="none", label="rejected: starved of the processor")
    axes.plot([], [], color="black", linewidth=1.2, label="median, 95 % interval")
    _describe_strips(axes, name, found)


def _draw_median(axes: Axes, at: int, median: Value) -> None:
    if median.value is None:
        return
    axes.plot([median.value] * 2, [at - 0.32, at + 0.32], color="black", linewidth=1.2, zorder=3)
    if median.low is not None and median.high is not None:
        axes.plot([median.low, median.high], [at, at], color="black", linewidth=1.2, zorder=3)


def _describe_strips(axes: Axes, name: str, found: Sequence[tuple[RowData, Mapping[str, Any]]]) -> None:
    execution = found[0][1].get("execution") or {}
    axes.set_yticks(range(len(found)), [_legible(row.label) for row, _ in found], fontsize=_FONT)
    axes.set_ylim(len(found) - 0.4, -0.6)
    times = [s["wall_ms"] for _, result in found for s in result["samples"]]
    if min(times) > 0 and max(times) / min(times) > _LOG_RANGE:
        _logarithmic(axes)
    what = plain_text(execution.get("scope", "one call"))
    axes.set_xlabel(f"ms, {what}, batch {name.removeprefix('latency_b')}, {plain_text(execution.get('device', '?'))}")
    axes.grid(True, axis="x", color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


# -- files ---------------------------------------------------------------------------------------------------------


def save(figure: Figure) -> dict[str, bytes]:
    """The figure as `png`, `svg` and `pdf`; the same figure gives the same bytes."""
    pdf = {"CreationDate": None, "Creator": None, "Producer": None}
    without: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": pdf}
    files = {}
    with matplotlib.rc_context({"svg.hashsalt": "paretopose", "pdf.fonttype": 42}):
        for kind, metadata in without.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            files[kind] = stream.getvalue()
    return files
