"""What a trade-off figure draws: axes, points, curves of a swept number, the Pareto front."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.errors import UserError, unknown_name
from harness.words import counted
from reports import quantities as q
from reports.model import Value
from reports.published import PublishedAp
from reports.rows import RowData, plain_text
from reports.tables import latency_names

__all__ = [
    "AXES",
    "Axis",
    "Point",
    "axis_of",
    "curves",
    "figure_axes",
    "order_of",
    "pareto",
    "points",
    "published_points",
]

_WORDS = {"never": -np.inf, "always": np.inf}
_LONGEST_LABEL, _LONGEST_NOTE = 50, 20


@dataclass(frozen=True)
class Axis:
    """A quantity of a row; `title` with its unit, `spread`: what the bars along it are."""

    name: str
    value: Callable[[RowData], Value]
    title: str
    spread: str = ""


_PERCENTILES = "bars: 5th to 95th percentile over persons"
_OVER_IMAGES = "bars: 5th to 95th percentile over images"
_GFLOPS = "gflops per person, one forward (2 x multiply-accumulates, 1e9)"
_PER_IMAGE = "gmacs per image, all its persons (multiply-accumulates, 1e9)"
_INTERVAL = "bars: 95 % interval"


def _stat(name: str) -> Axis:
    return Axis(name.lower(), lambda row: q.stat(row, name), f"{name} (OKS, 0 to 100)", _INTERVAL)


AXES: dict[str, Axis] = {
    "gmacs": Axis("gmacs", q.gmacs, "gmacs per person, one forward (multiply-accumulates, 1e9)", _PERCENTILES),
    "gflops": Axis("gflops", lambda row: q.gmacs(row, scale=2), _GFLOPS, _PERCENTILES),
    "gmacs_per_image": Axis(
        "gmacs_per_image", q.gmacs_per_image, f"{_PER_IMAGE}; top-down: without its detector", _OVER_IMAGES
    ),
    "params": Axis("params", q.params, "parameters of the forward (millions)"),
    **{name.lower(): _stat(name) for name in ("AP", "AP50", "AP75", "AR")},
    "pckh": Axis("pckh", lambda row: q.stat(row, q.PCKH), "PCKh@0.5 (0 to 100)", _INTERVAL),
}


def axis_of(name: str, rows: Sequence[RowData]) -> Axis:
    """The axis of that name; `latency` is that of the smallest batch. Raises UserError for an unknown one."""
    if name == "latency":
        name = next(iter(latency_names(rows)), name)
    one_stage = any(row.paradigm == "one-stage" for row in rows)
    if name in latency_names(rows):
        batch = int(name.removeprefix("latency_b"))
        call = counted(batch, "person") + (f"; one-stage: {counted(batch, 'image')}" if one_stage else "")
        if any(q.times_images(row.result(name)) for row in rows):
            call = "one image, all its persons"
        title = f"latency (ms, median of one call of {call})"
        return Axis(name, lambda row: q.from_latency(row, name, "median"), title, _INTERVAL)
    if name in AXES:
        mixed = one_stage and "per person" in AXES[name].title
        return replace(AXES[name], title=f"{AXES[name].title}; one-stage: per image") if mixed else AXES[name]
    what, hint = unknown_name("axis", name, [*AXES, "latency"])
    raise UserError(what, where="report.axes", hint=hint)


def figure_axes(rows: Sequence[RowData], axes: Sequence[str]) -> list[tuple[str, str, str]]:
    """(file stem, x, y) of the figures of a report: AP (on MPII PCKh@0.5) against gmacs, what the suite asks for, each
    batch's latency."""
    main = "pckh" if any(q.main_stat(row) == q.PCKH for row in rows) else "ap"
    x, y = axes
    y = main if y == "ap" else y
    mixed = len({row.paradigm for row in rows}) > 1
    first = "gmacs_per_image" if mixed else "gmacs"  # a person's cost and an image's do not compare
    wanted = {f"{main}_vs_{first}": (first, main)}
    if (x, y) not in (("gmacs", main), (first, main)) and x != "latency":
        wanted[f"{axis_of(y, rows).name}_vs_{axis_of(x, rows).name}"] = (x, y)
    names = latency_names(rows)
    wanted |= {f"{main}_vs_latency{n.removeprefix('latency') if i else ''}": (n, main) for i, n in enumerate(names)}
    return [(stem, *pair) for stem, pair in wanted.items()]


@dataclass(frozen=True)
class Point:
    """A row that has both quantities."""

    row: RowData
    x: Value
    y: Value
    label: str

    @property
    def at(self) -> tuple[float, float]:
        """Where it stands, in the units of the axes."""
        assert self.x.value is not None and self.y.value is not None
        return self.x.value, self.y.value


def points(rows: Sequence[RowData], x: str = "gmacs", y: str = "ap") -> list[Point]:
    """The rows that have both quantities, in their order."""
    across, up = axis_of(x, rows), axis_of(y, rows)
    found = [(row, across.value(row), up.value(row)) for row in rows]
    both = [Point(row, a, b, _label(row)) for row, a, b in found if a.value is not None and b.value is not None]
    short = {id(p.row): plain_text(p.row.swept[_knob(p.row) or ""]) for curve in curves(both) for p in curve[1:]}
    return [replace(p, label=short.get(id(p.row), p.label)) for p in both]


def published_points(rows: Sequence[RowData], x: str, ap_of: PublishedAp) -> list[Point]:
    """The published AP of the rows' networks, as `ap_of` finds it, at our own x."""
    across = axis_of(x, rows)
    found = ((row, across.value(row), ap_of(row)) for row in rows)
    return [
        Point(row, Value(a.value), ap, _label(row)) for row, a, ap in found if a.value is not None and ap is not None
    ]


def _label(row: RowData) -> str:
    """What a point is called, cut where it is very long; on a curve only its first point is called so."""
    short = row.label if len(row.label) <= _LONGEST_LABEL else f"{row.label[: _LONGEST_LABEL - 3]}..."
    return (
        f"{short} ({row.note})" if row.note and row.note not in row.label and len(row.note) <= _LONGEST_NOTE else short
    )


def pareto(found: Sequence[tuple[float, float]]) -> list[int]:
    """Indices, by x, of the points (x, y) that no other beats: none has less or equal x and more y, or less x and
    equal y. Of equal points the first."""
    best, front = -np.inf, []
    for i in sorted(range(len(found)), key=lambda i: (found[i][0], -found[i][1])):
        if found[i][1] > best:
            best = found[i][1]
            front.append(i)
    return front


def curves(found: Sequence[Point]) -> list[list[Point]]:
    """Points of one variant that differ in one swept quantity only, by its value: what is drawn as a curve."""
    groups: dict[tuple[Any, ...], list[Point]] = {}
    for point in found:
        knob = _knob(point.row)
        if knob is not None:
            rest = tuple(f"{n}={plain_text(v)}" for n, v in point.row.swept.items() if n != knob)
            groups.setdefault((point.row.variant, point.row.seed, knob, *rest), []).append(point)
    return [sorted(group, key=lambda p: _order(p.row) or 0.0) for group in groups.values() if len(group) > 1]


def _knob(row: RowData) -> str | None:
    """The last swept knob that has an order."""
    return next((n for n, v in reversed(list(row.swept.items())) if order_of(v) is not None), None)


def _order(row: RowData) -> float | None:
    return order_of(row.swept[_knob(row) or ""])


def order_of(value: Any) -> float | None:
    """Numbers by value, `never` and `always` at the ends, image sizes by area; others have no order."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = plain_text(value)
    if text in _WORDS:
        return _WORDS[text]
    size = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    return float(size[1]) * float(size[2]) if size else None
