"""Forest plot: the main effect of every level of every factor with its interval, beside a line at no effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reports.ablation import Ablated
from reports.canvas import legible, sheet
from reports.rows import plain_text

__all__ = ["forest"]

_COLOUR, _FAINT = "#0072B2", "0.55"
_ROW, _MARGIN, _WIDTH = 0.27, 1.05, 6.4  # inches


def forest(ablations: Sequence[Ablated]) -> Figure | None:
    """Effects on AP x 100, one row each, under the name of their ablation; None when there is no effect.

    A filled marker stands for an effect that is significant after Holm's correction (p < 0.05).
    """
    shown = [a for a in ablations if a.effects]
    if not shown:
        return None
    rows = sum(1 + len(a.effects) for a in shown)
    with sheet():
        figure = Figure(figsize=(_WIDTH, _MARGIN + _ROW * rows), dpi=150, layout="constrained")
        axes = figure.add_subplot()
        heights, labels = _draw(axes, shown)
        axes.axvline(0, color="0.35", linewidth=0.9, zorder=1)
        axes.set_yticks(heights, labels)
        axes.set_ylim(heights[-1] + 0.7, -0.7)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("difference in AP (points), 95 % interval\nfilled: p < 0.05 after Holm's correction")
        axes.grid(True, axis="x", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure


def _draw(axes: Axes, shown: Sequence[Ablated]) -> tuple[list[int], list[str]]:
    """Points and bars; height and text of every label."""
    heights, labels, at = [], [], 0
    for ablated in shown:
        title = legible(plain_text(ablated.title).removeprefix("Ablation of "))
        axes.annotate(title, (0, at), xycoords=("axes fraction", "data"), fontweight="bold", va="center", zorder=4,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5})  # fmt: skip
        for effect in ablated.effects:
            at += 1
            _point(axes, effect["estimate"], at)
            heights.append(at)
            labels.append(_label(effect))
        at += 1
    return heights, labels


def _point(axes: Axes, estimate: Mapping[str, Any], at: int) -> None:
    if estimate["low"] is not None:
        axes.plot(
            [100 * estimate["low"], 100 * estimate["high"]],
            [at, at],
            color=_COLOUR,
            linewidth=1.4,
            solid_capstyle="butt",
            zorder=2,
        )
    sure = estimate["p_holm"] is not None and estimate["p_holm"] < 0.05
    axes.plot(
        [100 * estimate["value"]],
        [at],
        "o",
        color=_COLOUR,
        markersize=5.5,
        markerfacecolor=_COLOUR if sure else "white",
        zorder=3,
    )


def _label(effect: Mapping[str, Any]) -> str:
    name = plain_text(effect["factor"]).removeprefix("protocol.")
    return legible(f"{name}: {plain_text(effect['level'])} instead of {plain_text(effect['base'])}")
