"""Counting conventions, by name. Published figures use different ones under the same word 'FLOPs'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.cost.macs import Ledger

__all__ = [
    "CONVENTIONS",
    "SCALED",
    "Convention",
    "Reproduction",
    "figures",
    "reproduce",
    "reproducing",
    "scaled",
    "totals",
    "unit",
]

SCALED = "hrnet-readme scaled"
"""what some tables print at a larger input: the printed figure of the smaller one times the ratio of the areas"""


@dataclass(frozen=True)
class Convention:
    """`total(ledger)` in the convention's own unit; its printed figure is that divided by `giga`."""

    name: str
    help: str
    total: Callable[[Ledger], int]
    giga: int = 10**9


def _mmcv(ledger: Ledger) -> int:
    facts = ledger.facts
    extra = ("convolution bias", "activation elements", "pooling elements")
    layers = ledger.operator("convolution") + ledger.operator("linear")
    return layers + 2 * facts.get("batch_norm elements", 0) + sum(facts.get(name, 0) for name in extra)


CONVENTIONS: dict[str, Convention] = {
    c.name: c
    for c in (
        Convention("macs", "convolution, linear and matrix products of our forward", lambda ledger: ledger.macs),
        Convention(
            "fvcore",
            "macs, plus 2 per element of batch norm, 5 of other norms, 4 per output of bilinear resizing, 1 of nearest",
            lambda ledger: sum(row.fvcore for row in ledger.operators),
        ),
        Convention(
            "torch",
            "2 x macs: torch.utils.flop_counter",
            lambda ledger: 2 * sum(seen for _, seen in ledger.groups.values()),
        ),
        Convention(
            "mmcv",
            "convolution with bias and linear, 2 per element of batch norm, 1 per element of ReLU and pooling; "
            "no attention products (mmpose 0.x tables)",
            _mmcv,
        ),
        Convention(
            "hrnet-readme",
            "convolution and linear in units of 2^30, transposed convolution charged at output size: 4 x too much "
            "at stride 2 (HRNet and SimpleBaseline tables)",
            lambda ledger: ledger.facts.get("convolution at output size", 0) + ledger.operator("linear"),
            giga=2**30,
        ),
    )
}  # fmt: skip


def totals(ledger: Ledger) -> dict[str, int]:
    """Every convention's count, in its own unit (macs; flops for torch)."""
    return {name: convention.total(ledger) for name, convention in CONVENTIONS.items()}


def figures(counts: Mapping[str, int]) -> dict[str, float]:
    """`totals` as tables print them: in 1e9, or 2^30 where the convention does."""
    return {name: counts[name] / CONVENTIONS[name].giga for name in counts}


def unit(printed: str) -> float:
    """One unit of the last digit of a printed number: 0.1 of '7.1', 0.01 of '7.70'."""
    return 10.0 ** -len(printed.partition(".")[2])


@dataclass(frozen=True)
class Reproduction:
    """A printed figure against `figure`, ours under `convention`: `reproduced` within one unit of its last digit.

    Where nothing reproduces it, the convention is the nearest one.
    """

    convention: str
    figure: float
    reproduced: bool


def reproduce(printed: str, giga: Mapping[str, float], convention: str = "") -> Reproduction:
    """A `printed` figure ('7.1') under the `convention` its source used, one of `giga` (figures of ours by name).

    Without one of these names, or where that one does not give the figure, under the nearest; a figure is reproduced
    by the convention of its source only, where that is known.
    """
    gaps = {name: abs(figure - float(printed)) for name, figure in giga.items()}
    hits = {name for name, gap in gaps.items() if gap <= unit(printed) * (1 + 1e-9)}
    if convention in hits:
        return Reproduction(convention, giga[convention], True)
    nearest = min(gaps, key=gaps.__getitem__)
    return Reproduction(nearest, giga[nearest], nearest in hits and convention not in giga)


def reproducing(printed: str, counts: Mapping[str, int]) -> list[str]:
    """Conventions whose figure is within one unit of the last digit of a `printed` one ('7.1'), nearest first."""
    gaps = {name: abs(figure - float(printed)) for name, figure in figures(counts).items()}
    near = (name for name, gap in gaps.items() if gap <= unit(printed) * (1 + 1e-9))
    return sorted(near, key=gaps.__getitem__)


def scaled(printed: str, size: tuple[int, int], larger: tuple[int, int]) -> float:
    """What some tables print at a `larger` input: the rounded figure of `size` times the ratio of the areas.

    SimpleBaseline's 384x288 rows are 2.25 x the printed 256x192 ones (8.9 -> 20.0, where 20.23 would be counted).
    """
    return float(printed) * (larger[0] * larger[1]) / (size[0] * size[1])
