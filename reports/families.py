"""Families of curves: accuracy over a swept number (threshold, alpha, input size), one curve for each other setting."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports import quantities as q
from reports.canvas import (
    DASHES,
    FONT,
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
from reports.figures import errors, titled
from reports.model import Value
from reports.points import AXES, order_of
from reports.rows import RowData, plain_text

__all__ = ["Curve", "curves_over", "families", "family"]

_MOST_CURVES, _MOST_LABELS = 20, 40
_WIDTH = 9.6  # inches


@dataclass(frozen=True)
class Curve:
    """The rows of one network and setting, by the value of the swept knob: (value, gmacs, AP)."""

    name: str
    points: tuple[tuple[Any, Value, Value], ...]


def families(rows: Sequence[RowData]) -> dict[str, Figure]:
    """By file stem, one figure for each swept knob whose values have an order and that gives a curve."""
    found = {knob: curves_over(rows, knob) for knob in dict.fromkeys(name for row in rows for name in row.swept)}
    return {f"curves_{_file_name(knob)}": family(knob, curves) for knob, curves in found.items() if curves}


def curves_over(rows: Sequence[RowData], knob: str) -> list[Curve]:
    """The curves of AP over `knob`: rows of one variant and seed that are alike in every other swept knob."""
    groups: dict[tuple[str, ...], list[tuple[Any, Value, Value]]] = {}
    seeds = len({row.seed for row in rows}) > 1
    for row in rows:
        ap, gmacs, value = q.stat(row, "AP"), q.gmacs(row), row.swept.get(knob)
        if ap.value is None or gmacs.value is None or order_of(value) is None:
            continue
        rest = [f"{_short(n)}={plain_text(v)}" for n, v in row.swept.items() if n != knob]
        seed = [f"seed {row.seed}"] if seeds else []
        groups.setdefault((row.variant, *rest, *seed), []).append((value, gmacs, ap))
    return [
        Curve(" ".join(name), tuple(sorted(points, key=lambda p: order_of(p[0]) or 0.0)))
        for name, points in groups.items()
        if len({plain_text(p[0]) for p in points}) > 1
    ]


def family(knob: str, curves: Sequence[Curve]) -> Figure:
    """AP over the knob, and over the multiply-accumulates that it costs, one line style, marker and shade a curve.

    More than 20 curves: the first 20, and how many were left out.
    """
    shown = curves[:_MOST_CURVES]
    with sheet():
        figure = Figure(figsize=(_WIDTH, 4.6), dpi=150, layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        ticks = _ticks(shown)
        for style, curve in zip(_styles(len(shown)), shown, strict=True):
            places = [ticks[plain_text(value)] for value, _, _ in curve.points]
            _draw(left, places, [Value(p) for p in places], curve, style)
            _draw(right, [g.value or 0.0 for _, g, _ in curve.points], [g for _, g, _ in curve.points], curve, style)
        _describe(left, right, knob, ticks, shown)
        more = len(curves) - len(shown)
        title = f"{more} more curves are in the table" if more else None
        handles, names = left.get_legend_handles_labels()
        columns = max(1, int(_WIDTH / (0.55 + 0.062 * max(map(len, names)))))
        figure.legend(
            handles, names, title=title, loc="outside lower center", ncols=min(columns, len(names)), frameon=False,
            fontsize=FONT + 0.5, title_fontsize=FONT, handlelength=3.2,
        )  # fmt: skip
        lay_out(figure)
        _label(right, shown)
    return figure


def _styles(count: int) -> list[dict[str, Any]]:
    """Shades from dark to light that keep their order in grey; dashes and markers tell neighbours apart."""
    shades = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.82, max(count, 2)))[:count]
    return [
        {"color": tuple(shade), "linestyle": DASHES[i % len(DASHES)], "marker": MARKERS[i % len(MARKERS)]}
        for i, shade in enumerate(shades)
    ]


def _ticks(curves: Sequence[Curve]) -> dict[str, float]:
    """Where each value stands on the knob's axis: at itself where all are numbers, else in equal steps by order."""
    values = {plain_text(value): value for curve in curves for value, _, _ in curve.points}
    if all(isinstance(v, int | float) for v in values.values()):
        return {text: float(value) for text, value in values.items()}
    ordered = sorted(values, key=lambda text: order_of(values[text]) or 0.0)
    return {text: float(i) for i, text in enumerate(ordered)}


def _draw(axes: Axes, places: Sequence[float], across: Sequence[Value], curve: Curve, style: dict[str, Any]) -> None:
    aps = [ap for _, _, ap in curve.points]
    bars: dict[str, Any] = {"xerr": errors(across), "yerr": errors(aps)}
    heights = [ap.value or 0.0 for ap in aps]
    axes.errorbar(places, heights, **bars, fmt="none", ecolor=style["color"], elinewidth=0.6, alpha=0.6, zorder=2)
    axes.plot(places, heights, **style, linewidth=1.2, markersize=5, label=legible(curve.name), zorder=3)


def _describe(left: Axes, right: Axes, knob: str, ticks: dict[str, float], curves: Sequence[Curve]) -> None:
    for axes in (left, right):
        plain_axes(axes)
        axes.margins(0.08)
    left.set_ylabel(titled(AXES["ap"], [ap for curve in curves for _, _, ap in curve.points]))
    left.set_xlabel(legible(_short(knob).replace("_", " ")))
    crowded = len(ticks) > 1 and sum(map(len, ticks)) > 60
    left.set_xticks(list(ticks.values()), [legible(t) for t in ticks], rotation=45 if crowded else 0, fontsize=FONT)
    costs = [gmacs for curve in curves for _, gmacs, _ in curve.points]
    logarithmic(right, [gmacs.value or 0.0 for gmacs in costs])
    right.set_xlabel(titled(AXES["gmacs"], costs))


def _label(axes: Axes, curves: Sequence[Curve]) -> None:
    """The knob's value beside each point."""
    every = list(dict.fromkeys(((g.value or 0, ap.value or 0), plain_text(v)) for c in curves for v, g, ap in c.points))
    soft = []
    for curve in curves:
        for a, b in pairwise(pixel(axes, g.value or 0.0, ap.value or 0.0) for _, g, ap in curve.points):
            soft += [between(c, d) for c, d in pairwise(np.linspace(a, b, 7).tolist())]
    places = [place for place, _ in every]
    texts = [legible(text) for _, text in every][:_MOST_LABELS]
    label_points(axes, places[:_MOST_LABELS], texts, hard=places, soft=soft)


def _file_name(knob: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", _short(knob))


def _short(knob: str) -> str:
    return plain_text(knob).removeprefix("protocol.")
