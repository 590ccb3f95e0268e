"""Trade-off figures: accuracy against cost with uncertainty, front, published points and labels that do not collide."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from reports.canvas import (
    COLOURS,
    MARKERS,
    between,
    label_points,
    lay_out,
    legible,
    logarithmic,
    pixel,
    plain_axes,
    sheet,
)
from reports.grounds import persons_of
from reports.labels import Box
from reports.model import Value
from reports.points import Axis, Point, axis_of, curves, pareto, points, published_points
from reports.published import PublishedAp
from reports.rows import RowData

__all__ = ["errors", "titled", "tradeoff"]

_CROWDED, _CRAMMED = 16, 500  # points; beyond, the figure is larger; beyond, labels may stand over lines
_MOST_LABELS = 40  # beyond, the front and then the first rows; the table has them all


def tradeoff(
    rows: Sequence[RowData], x: str = "gmacs", y: str = "ap", *, published: PublishedAp | None = None
) -> Figure | None:
    """`y` against `x` of the rows that have both; None when there is none.

    Bars are the uncertainty of each, the step line is the Pareto front of the values, a thin line joins the points
    of one variant over a swept number. `published` finds the published AP of a row's network, which
    stands hollow at our x. Logarithmic in x when it spans more than a factor of ten.

    Raises UserError for an unknown axis.
    """
    found = points(rows, x, y)
    printed = published_points(rows, x, published) if published and y == "ap" else []
    if not found and not printed:
        return None
    with sheet():
        crowded = len(found) + len(printed) > _CROWDED
        figure = Figure(figsize=(10.2, 7.0) if crowded else (7.2, 4.8), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        _describe(axes, [*found, *printed], axis_of(x, rows), axis_of(y, rows))
        styles = _styles([*found, *printed])
        _draw_points(axes, found, styles)
        _draw_published(axes, printed, found, styles)
        _draw_lines(axes, found, styles)
        _draw_legend(figure)
        lay_out(figure)  # labels are placed in pixels; nothing may move after that
        _draw_labels(axes, found, printed)
    return figure


def _crammed(found: Sequence[Point]) -> bool:
    """So many points that each is a speck: bars would hide them, and they are drawn as pixels in every format."""
    return len(found) >= _CRAMMED


def _describe(axes: Axes, found: Sequence[Point], across: Axis, up: Axis) -> None:
    some = " (of the labelled points)" if _crammed(found) else ""
    axes.set_xlabel(titled(across, [p.x for p in found], some))
    axes.set_ylabel(titled(up, [p.y for p in found], some))
    logarithmic(axes, [p.at[0] for p in found])
    plain_axes(axes)
    axes.margins(0.12)


def titled(axis: Axis, values: Sequence[Value], some: str = "") -> str:
    """The label of an axis: its title, and what its bars are where there are any. `some`: which points have them."""
    barred = axis.spread and any(v.low is not None for v in values)
    return f"{axis.title}\n{axis.spread}{some}" if barred else axis.title


def _styles(found: Sequence[Point]) -> dict[str, tuple[str, str]]:
    """(colour, marker) by method: both tell them apart."""
    methods = dict.fromkeys(p.row.method for p in found)
    return {m: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, m in enumerate(methods)}


def _draw_points(axes: Axes, found: Sequence[Point], styles: dict[str, tuple[str, str]]) -> None:
    """Markers, and the bars of those that have a label where there are too many for all."""
    crammed = _crammed(found)
    barred = {id(found[i]) for i in _priority(found)[:_MOST_LABELS]} if crammed else set(map(id, found))
    for method in dict.fromkeys(p.row.method for p in found):
        own = [p for p in found if p.row.method == method]
        colour, marker = styles[method]
        _draw_bars(axes, [p for p in own if id(p) in barred], colour)
        style: dict[str, Any] = {"marker": marker, "color": colour, "markersize": 6.5, "linestyle": ""}
        style |= {"markeredgecolor": "white", "markeredgewidth": 0.6, "rasterized": crammed}
        axes.plot(*zip(*(p.at for p in own), strict=True), **style, label=legible(method), zorder=3.5)


def _draw_bars(axes: Axes, own: Sequence[Point], colour: str) -> None:
    if own:
        xs, ys = zip(*(p.at for p in own), strict=True)
        bars: dict[str, Any] = {"xerr": errors([p.x for p in own]), "yerr": errors([p.y for p in own])}
        axes.errorbar(xs, ys, **bars, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2, zorder=3)


def _draw_published(
    axes: Axes, printed: Sequence[Point], found: Sequence[Point], styles: dict[str, tuple[str, str]]
) -> None:
    """Hollow, with a dotted line to ours."""
    ours = {id(p.row): p for p in found}
    for point in printed:
        colour, marker = styles[point.row.method]
        hollow: dict[str, Any] = {"marker": marker, "markersize": 6.5, "markerfacecolor": "white", "linestyle": ""}
        axes.plot(*point.at, color=colour, **hollow, markeredgewidth=1.1, zorder=3.2)
        if id(point.row) in ours:
            both = zip(point.at, ours[id(point.row)].at, strict=True)
            axes.plot(*both, color=colour, linestyle=":", linewidth=0.9, zorder=2)
    if printed:
        axes.plot([], [], marker="o", color="0.3", markerfacecolor="white", linestyle="", label="hollow: published")


def errors(values: Sequence[Value]) -> np.ndarray:
    """(2, N) lengths of the bars below and above; 0 where a value has no bounds."""
    pairs = [(v.value or 0.0, v.low, v.high) for v in values]
    lengths = [(0.0, 0.0) if low is None or high is None else (at - low, high - at) for at, low, high in pairs]
    return np.maximum(np.array(lengths).T, 0.0)


def _draw_lines(axes: Axes, found: Sequence[Point], styles: dict[str, tuple[str, str]]) -> None:
    """Curves of swept numbers, and the Pareto front of the rows scored on the same persons, to the right edge."""
    swept = curves(found)
    colours = [styles[curve[0].row.method][0] for curve in swept]
    lines = [[p.at for p in curve] for curve in swept]
    axes.add_collection(LineCollection(lines, colors=colours, linewidths=0.9, zorder=2, rasterized=_crammed(found)))
    limits, fronts = axes.get_xlim(), _fronts(found)
    style: dict[str, Any] = {"color": "0.35", "linestyle": (0, (4, 2)), "linewidth": 1.1, "zorder": 1}
    for number, front in enumerate(fronts):
        across, up = zip(*front, (limits[1], front[-1][1]), strict=True)
        name = "Pareto front" if len(fronts) == 1 else "Pareto fronts, each on the same persons"
        axes.step(across, up, where="post", label="" if number else name, **style)
    axes.set_xlim(limits)


def _fronts(found: Sequence[Point]) -> list[list[tuple[float, float]]]:
    """A front for each set of persons on which several were scored: AP on other images or boxes is another AP."""
    grounds: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    for point in found:
        grounds.setdefault(persons_of(point.row), []).append(point.at)
    return [[own[i] for i in pareto(own)] for own in grounds.values() if len(own) > 1]


def _draw_legend(figure: Figure) -> None:
    handles, names = figure.axes[0].get_legend_handles_labels()
    columns = min(4, len(names))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, frameon=False, handlelength=2.4)


def _draw_labels(axes: Axes, found: Sequence[Point], printed: Sequence[Point]) -> None:
    """A label beside each point, on the front first; a published one is named where there is none of ours."""
    measured = {id(p.row) for p in found}
    named = [*(found[i] for i in _priority(found)), *(p for p in printed if id(p.row) not in measured)][:_MOST_LABELS]
    soft = [*_bars(axes, found), *_segments(axes, found)] if not _crammed(found) else []
    taken = [p.at for p in (*found, *printed)]
    label_points(axes, [p.at for p in named], [legible(p.label) for p in named], hard=taken, soft=soft)


def _priority(found: Sequence[Point]) -> list[int]:
    """The order in which points get a label: what starts a curve, the front, then the others. Of points that are alike
    in place and label, as the seeds of an untrained network, one does."""
    front = pareto([p.at for p in found])
    starts = {id(curve[0].row) for curve in curves(found)}
    first = [i for i, p in enumerate(found) if id(p.row) in starts]
    alike: dict[tuple[Any, str], int] = {}
    for i in (*first, *front, *range(len(found))):
        alike.setdefault((found[i].at, found[i].label), i)
    return list(alike.values())


def _bars(axes: Axes, found: Sequence[Point]) -> list[Box]:
    boxes = []
    for p in found:
        x, y = p.at
        if p.y.low is not None and p.y.high is not None:
            boxes.append(between(pixel(axes, x, p.y.low), pixel(axes, x, p.y.high)))
        if p.x.low is not None and p.x.high is not None:
            boxes.append(between(pixel(axes, p.x.low, y), pixel(axes, p.x.high, y)))
    return boxes


def _segments(axes: Axes, found: Sequence[Point]) -> list[Box]:
    """The front's steps, and the curves cut into short pieces."""
    corners = [pixel(axes, *found[i].at) for i in pareto([p.at for p in found])]
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        boxes += [between((x0, y0), (x1, y0)), between((x1, y0), (x1, y1))]
    for curve in curves(found):
        for a, b in pairwise(pixel(axes, *p.at) for p in curve):
            cuts = np.linspace(a, b, 9).tolist()
            boxes += [between(c, d) for c, d in pairwise(cuts)]
    return boxes
