"""What all figures share: sheet, font, colours and shapes that also tell apart in grey, labels in pixels, files."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from reports.labels import Box, place

__all__ = [
    "COLOURS",
    "DASHES",
    "FONT",
    "LOG_RANGE",
    "MARKERS",
    "between",
    "label_points",
    "lay_out",
    "legible",
    "logarithmic",
    "pixel",
    "plain_axes",
    "save",
    "sheet",
]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9", "#7F6000")
MARKERS = "osD^vPX<>phd"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2, 2, 2)))
FONT = 7
LOG_RANGE = 10.0
"""an axis that spans more than this factor is logarithmic"""
_FAMILY = "DejaVu Sans"
logging.getLogger("matplotlib.font_manager").setLevel(
    logging.ERROR
)  # a font that is missing is replaced, and that's it


@contextmanager
def sheet() -> Iterator[None]:
    """Sizes and font of every figure, whatever the user's own settings are."""
    own: Any = {"font.size": 9, "axes.linewidth": 0.8, "font.family": _family()}
    with style.context("default"), matplotlib.rc_context(own):
        yield


@lru_cache(maxsize=1)
def _family() -> str:
    """DejaVu Sans, or where it is missing a sans-serif font that is there."""
    names = sorted(
        {font.name for font in font_manager.fontManager.ttflist if font.weight in (400, "normal", "regular")}
    )
    sans = [name for name in names if "Sans" in name and "Display" not in name]
    return _FAMILY if _FAMILY in names or not names else (sans or names)[0]


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    path = font_manager.findfont(font_manager.FontProperties(family=_family()))
    return frozenset(font_manager.get_font(path).get_charmap())


def legible(text: str) -> str:
    """Text as it is: a dollar starts no formula, a leading underscore hides no legend entry, and a character that the
    font lacks is its code point."""
    shown = "".join(c if ord(c) in _glyphs() else f"(U+{ord(c):04X})" for c in text)
    return (f" {shown}" if shown.startswith("_") else shown).replace("$", r"\$")


def plain_axes(axes: Axes) -> None:
    """A light grid behind the data, two spines."""
    axes.grid(True, color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """Logarithmic in x where the values ask for it, with ticks at 1, 2 and 5."""
    if min(values) <= 0 or max(values) / min(values) <= LOG_RANGE:
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


# -- labels --------------------------------------------------------------------------------------------------------


def label_points(
    axes: Axes,
    places: Sequence[tuple[float, float]],
    texts: Sequence[str],
    *,
    hard: Sequence[tuple[float, float]],
    soft: Sequence[Box],
) -> int:
    """Write `texts` beside `places` (data), in order of priority: over no other label, no point of `hard` (data), and
    where it can be over no `soft` box (pixels). A hair line leads to those that stand further away.

    The figure must be laid out: nothing may move afterwards. Returns how many found no room and are left out.
    """
    written = [
        axes.annotate(text, (0, 0), xycoords="figure fraction", fontsize=FONT, zorder=4, annotation_clip=False)
        for text in texts
    ]
    anchors, extents = [pixel(axes, *at) for at in places], [text.get_window_extent() for text in written]
    taken = axes.transData.transform(np.array(hard, dtype=float).reshape(-1, 2))
    markers = [Box(x - 5, y - 5, x + 5, y + 5) for x, y in taken.tolist()]
    room = axes.get_window_extent()
    boxes = place(
        anchors,
        [(e.width, e.height) for e in extents],
        hard=markers,
        soft=soft,
        bounds=Box(room.x0 + 2, room.y0 + 2, room.x1, room.y1 - 2),
    )
    for text, anchor, extent, box in zip(written, anchors, extents, boxes, strict=True):
        if box is None:
            text.remove()
            continue
        text.set_position(_fraction(axes, (box.left - extent.x0, box.bottom - extent.y0)))
        _lead(axes, anchor, box)
    return sum(box is None for box in boxes)


def pixel(axes: Axes, x: float, y: float) -> tuple[float, float]:
    """Where a point of the data stands."""
    across, up = axes.transData.transform((x, y))
    return float(across), float(up)


def between(a: Sequence[float], b: Sequence[float]) -> Box:
    """The box around two pixels."""
    return Box(min(a[0], b[0]) - 1.5, min(a[1], b[1]) - 1.5, max(a[0], b[0]) + 1.5, max(a[1], b[1]) + 1.5)


def _fraction(axes: Axes, at: tuple[float, float]) -> tuple[float, float]:
    """Of the figure: the same place at any resolution."""
    assert axes.figure is not None
    across, up = axes.figure.transFigure.inverted().transform(at)
    return float(across), float(up)


def _lead(axes: Axes, anchor: tuple[float, float], box: Box) -> None:
    """A hair line from a point to its label, where the label is not beside it."""
    end = (min(max(anchor[0], box.left), box.right), min(max(anchor[1], box.bottom), box.top))
    if np.hypot(end[0] - anchor[0], end[1] - anchor[1]) > 14:
        hair = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.5, "shrinkA": 0, "shrinkB": 4}
        ends: dict[str, Any] = {"xycoords": "figure fraction", "textcoords": "figure fraction"}
        axes.annotate("", _fraction(axes, anchor), _fraction(axes, end), **ends, arrowprops=hair, zorder=1)


# -- files ---------------------------------------------------------------------------------------------------------


def lay_out(figure: Figure) -> None:
    """Find the places of its parts once and leave them there."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)


def save(figure: Figure) -> dict[str, bytes]:
    """The figure as `png`, `svg` and `pdf`; the same figure gives the same bytes. It stays laid out."""
    pdf = {"CreationDate": None, "Creator": None, "Producer": None}
    without: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": pdf}
    files = {}
    with sheet(), matplotlib.rc_context({"svg.hashsalt": "paretopose", "pdf.fonttype": 42}):
        lay_out(figure)  # with an engine each format would be drawn twice
        for kind, metadata in without.items():
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=metadata)
            files[kind] = stream.getvalue()
    return files
