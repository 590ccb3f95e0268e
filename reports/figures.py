"""Trade-off figures: accuracy against cost with their uncertainty, the Pareto front, labels that do not collide."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from harness.errors import UserError, unknown_name
from reports import quantities as q
from reports.labels import Box, place
from reports.model import Value
from reports.rows import RowData, plain_text
from reports.tables import latency_names

__all__ = ["AXES", "Point", "figure_axes", "pareto", "points", "save", "tradeoff"]

_LOG_RANGE = 10.0
_MOST_LABELS = 40  # beyond, the front and then the first rows; the table has them all
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7F6000")
_MARKERS = "osD^vP*X<>ph"
_FONT = 8


@dataclass(frozen=True)
class _Axis:
    name: str
    value: Callable[[RowData], Value]
    title: str
    spread: str = ""
    """what the bars along this axis are"""


_PERCENTILES = "bars: 5th to 95th percentile over persons"
AXES: dict[str, _Axis] = {
    "gmacs": _Axis("gmacs", q.gmacs, "gmacs per person, one forward (multiply-accumulates, 1e9)", _PERCENTILES),
    "gflops": _Axis(
        "gflops", lambda row: q.gmacs(row, scale=2), "gflops per person, one forward (2 x multiply-accumulates, 1e9)", _PERCENTILES
    ),
    "params": _Axis("params", q.params, "parameters of the forward (millions)"),
    **{
        name.lower(): _Axis(name, lambda row, n=name: q.stat(row, n), f"{name} (OKS, 0 to 100)", "bars: 95 % interval")  # type: ignore[misc]
        for name in ("AP", "AP50", "AP75", "AR")
    },
}  # fmt: skip


def _axis(name: str, rows: Sequence[RowData]) -> _Axis:
    if name == "latency":
        name = next(iter(latency_names(rows)), name)
    if name in latency_names(rows):
        batch = name.removeprefix("latency_b")
        title = f"latency (ms, median of one call of {batch} person{'s' if batch != '1' else ''})"
        return _Axis(name, lambda row: q.from_latency(row, name, "median"), title, "bars: 95 % interval")
    if name in AXES:
        return AXES[name]
    what, hint = unknown_name("axis", name, [*AXES, "latency"])
    raise UserError(what, where="report.axes", hint=hint)


def figure_axes(rows: Sequence[RowData], axes: Sequence[str]) -> list[tuple[str, str, str]]:
    """(file stem, x, y) of the figures of a report: AP against gmacs, what the suite asks for, each batch's latency."""
    x, y = axes
    wanted = {"ap_vs_gmacs": ("gmacs", "ap")}
    if (x, y) != ("gmacs", "ap") and x != "latency":
        wanted[f"{_axis(y, rows).name.lower()}_vs_{_axis(x, rows).name}"] = (x, y)
    names = latency_names(rows)
    wanted |= {f"ap_vs_latency{n.removeprefix('latency') if i else ''}": (n, "ap") for i, n in enumerate(names)}
    return [(stem, *pair) for stem, pair in wanted.items()]


# -- what is drawn -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A row that has both quantities."""

    row: RowData
    x: Value
    y: Value
    label: str


def points(rows: Sequence[RowData], x: str = "gmacs", y: str = "ap") -> list[Point]:
    """The rows that have both quantities, in their order."""
    across, up = _axis(x, rows), _axis(y, rows)
    found = [(row, across.value(row), up.value(row)) for row in rows]
    return [Point(row, a, b, _label(row)) for row, a, b in found if a.value is not None and b.value is not None]


def _label(row: RowData) -> str:
    short = f"{row.label[:47]}..." if len(row.label) > 50 else row.label
    return f"{short} ({row.note})" if row.note and len(row.note) <= 20 else short


def pareto(x: Sequence[float], y: Sequence[float]) -> list[int]:
    """Indices of the points that no other one beats (less or equal x and more or equal y, one of them strictly), by x."""
    best, front = -np.inf, []
    for i in sorted(range(len(x)), key=lambda i: (x[i], -y[i])):
        if y[i] > best:
            best = y[i]
            front.append(i)
    return front


def _curves(found: Sequence[Point]) -> list[list[Point]]:
    """Points of one variant that differ in one swept number only, by its value: what is drawn as a curve."""
    curves: dict[tuple[Any, ...], list[Point]] = {}
    for point in found:
        knob = _curve_knob(point.row.swept)
        if knob is not None:
            rest = tuple(f"{n}={plain_text(v)}" for n, v in point.row.swept.items() if n != knob)
            curves.setdefault((point.row.variant, point.row.seed, knob, *rest), []).append(point)
    return [sorted(c, key=lambda p: _order(p.row.swept)) for c in curves.values() if len(c) > 1]


_WORDS = {"never": -np.inf, "always": np.inf}


def _curve_knob(swept: Mapping[str, Any]) -> str | None:
    """The last swept knob that has an order."""
    ordered = [n for n, v in swept.items() if v in _WORDS or (isinstance(v, int | float) and not isinstance(v, bool))]
    return ordered[-1] if ordered else None


def _order(swept: Mapping[str, Any]) -> float:
    value = swept[_curve_knob(swept) or ""]
    return _WORDS.get(value, value)


# -- drawing -------------------------------------------------------------------------------------------------------


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
        _describe(axes, found, _axis(x, rows), _axis(y, rows))
        _draw_points(axes, found)
        _draw_lines(axes, found)
        _draw_legend(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # labels are placed in pixels; nothing may move after that
        _draw_labels(axes, found)
    return figure


def _describe(axes: Axes, found: Sequence[Point], across: _Axis, up: _Axis) -> None:
    axes.set_xlabel(_titled(across, [p.x for p in found]))
    axes.set_ylabel(_titled(up, [p.y for p in found]))
    xs = [p.x.value or 0.0 for p in found]
    if min(xs) > 0 and max(xs) / min(xs) > _LOG_RANGE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.margins(0.12)
    axes.spines[["top", "right"]].set_visible(False)


def _titled(axis: _Axis, values: Sequence[Value]) -> str:
    return f"{axis.title}\n{axis.spread}" if axis.spread and any(v.low is not None for v in values) else axis.title


def _draw_points(axes: Axes, found: Sequence[Point]) -> None:
    """Markers and bars by method: shape and colour both tell them apart."""
    for i, method in enumerate(dict.fromkeys(p.row.method for p in found)):
        own = [p for p in found if p.row.method == method]
        axes.errorbar(
            [p.x.value or 0.0 for p in own],
            [p.y.value or 0.0 for p in own],
            xerr=_errors([p.x for p in own]),
            yerr=_errors([p.y for p in own]),
            fmt=_MARKERS[i % len(_MARKERS)],
            color=_COLOURS[i % len(_COLOURS)],
            markersize=6,
            markeredgecolor="white",
            markeredgewidth=0.6,
            elinewidth=0.9,
            capsize=2,
            label=_legible(method),
            zorder=3,
        )


def _errors(values: Sequence[Value]) -> np.ndarray:
    """(2, N) lengths of the bars below and above; 0 where a value has no bounds."""
    pairs = [(v.value or 0.0, v.low, v.high) for v in values]
    lengths = [(0.0, 0.0) if low is None or high is None else (at - low, high - at) for at, low, high in pairs]
    return np.maximum(np.array(lengths).T, 0.0)


def _draw_lines(axes: Axes, found: Sequence[Point]) -> None:
    """Curves of swept numbers, and the Pareto front as a step line to the right edge."""
    methods = list(dict.fromkeys(p.row.method for p in found))
    for curve in _curves(found):
        colour = _COLOURS[methods.index(curve[0].row.method) % len(_COLOURS)]
        axes.plot([p.x.value for p in curve], [p.y.value for p in curve], color=colour, linewidth=0.9, zorder=2)
    xs, ys = [p.x.value or 0.0 for p in found], [p.y.value or 0.0 for p in found]
    front = pareto(xs, ys)
    if len(found) > 1:
        right = axes.get_xlim()[1]
        across, up = [xs[i] for i in front] + [right], [ys[i] for i in front] + [ys[front[-1]]]
        axes.set_xlim(axes.get_xlim())
        axes.step(across, up, where="post", color="0.35", linestyle=(0, (4, 2)), linewidth=1.1, label="Pareto front", zorder=1)


def _draw_legend(figure: Figure) -> None:
    axes = figure.axes[0]
    handles, names = axes.get_legend_handles_labels()
    columns = min(4, len(names))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False, handlelength=2.4)


def _draw_labels(axes: Axes, found: Sequence[Point]) -> None:
    """A label beside each point, on the front first; a hair line leads to those that stand further away."""
    order = _priority(found)
    texts = [
        axes.annotate(_legible(found[i].label), (0, 0), xycoords="figure pixels", fontsize=_FONT - 1, zorder=4)
        for i in order
    ]
    anchors = [_pixel(axes, found[i].x.value, found[i].y.value) for i in order]
    extents = [t.get_window_extent() for t in texts]
    markers = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in (_pixel(axes, p.x.value, p.y.value) for p in found)]
    room = axes.get_window_extent()
    boxes = place(
        anchors,
        [(e.width, e.height) for e in extents],
        hard=markers,
        soft=[*_bars(axes, found), *_segments(axes, found)],
        bounds=Box(room.x0 + 2, room.y0 + 2, room.x1 + 30, room.y1 - 2),
    )
    for text, anchor, extent, box in zip(texts, anchors, extents, boxes, strict=True):
        if box is None:
            text.remove()
            continue
        text.set_position((box.left - extent.x0, box.bottom - extent.y0))
        _lead(axes, anchor, box)


def _priority(found: Sequence[Point]) -> list[int]:
    """The points that get a label: the front first, then the others in their order."""
    front = pareto([p.x.value or 0.0 for p in found], [p.y.value or 0.0 for p in found])
    rest = [i for i in range(len(found)) if i not in set(front)]
    return [*front, *rest][:_MOST_LABELS]


def _pixel(axes: Axes, x: float | None, y: float | None) -> tuple[float, float]:
    across, up = axes.transData.transform((x or 0.0, y or 0.0))
    return float(across), float(up)


def _bars(axes: Axes, found: Sequence[Point]) -> list[Box]:
    boxes = []
    for p in found:
        x, y = p.x.value, p.y.value
        if p.y.low is not None and p.y.high is not None:
            boxes.append(_between(_pixel(axes, x, p.y.low), _pixel(axes, x, p.y.high)))
        if p.x.low is not None and p.x.high is not None:
            boxes.append(_between(_pixel(axes, p.x.low, y), _pixel(axes, p.x.high, y)))
    return boxes


def _segments(axes: Axes, found: Sequence[Point]) -> list[Box]:
    """The front's steps, and the curves cut into short pieces."""
    xs, ys = [p.x.value or 0.0 for p in found], [p.y.value or 0.0 for p in found]
    corners = [_pixel(axes, xs[i], ys[i]) for i in pareto(xs, ys)]
    boxes = []
    for (x0, y0), (x1, y1) in zip(corners, corners[1:]):
        boxes += [_between((x0, y0), (x1, y0)), _between((x1, y0), (x1, y1))]
    for curve in _curves(found):
        ends = [_pixel(axes, p.x.value, p.y.value) for p in curve]
        for a, b in zip(ends, ends[1:]):
            cuts = np.linspace(a, b, 9)
            boxes += [_between(tuple(c), tuple(d)) for c, d in zip(cuts, cuts[1:])]
    return boxes


def _between(a: tuple[float, ...], b: tuple[float, ...]) -> Box:
    return Box(min(a[0], b[0]) - 1.5, min(a[1], b[1]) - 1.5, max(a[0], b[0]) + 1.5, max(a[1], b[1]) + 1.5)


def _lead(axes: Axes, anchor: tuple[float, float], box: Box) -> None:
    """A hair line from a point to its label, where the label is not beside it."""
    end = (min(max(anchor[0], box.left), box.right), min(max(anchor[1], box.bottom), box.top))
    if np.hypot(end[0] - anchor[0], end[1] - anchor[1]) > 14:
        style = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        axes.annotate("", anchor, end, xycoords="figure pixels", textcoords="figure pixels", arrowprops=style, zorder=1)


def _legible(text: str) -> str:
    """Text as it is: a dollar starts no formula, a leading underscore hides no legend entry."""
    return (f" {text}" if text.startswith("_") else text).replace("$", r"\$")


# -- files ---------------------------------------------------------------------------------------------------------


def save(figure: Figure) -> dict[str, bytes]:
    """The figure as `png`, `svg` and `pdf`; the same figure gives the same bytes."""
    without = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None, "Creator": None, "Producer": None}}
    files = {}
    with matplotlib.rc_context({"svg.hashsalt": "paretopose", "svg.fonttype": "none", "pdf.fonttype": 42}):
        for kind, metadata in without.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            files[kind] = stream.getvalue()
    return files
