"""Ours against a published figure: one judgement for each quantity, with its reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from harness.cost.conventions import unit
from harness.published import reproduction
from reports import quantities as q
from reports.model import NOT_HERE, Value
from reports.published import Published, incomparable
from reports.rows import RowData

__all__ = [
    "DIFFERS",
    "NOT_COMPARED",
    "NOT_IN_PROJECT",
    "NOT_MEASURED",
    "NOT_PUBLISHED",
    "REPRODUCED",
    "Judgement",
    "giga",
    "judge",
]

REPRODUCED, DIFFERS, NOT_PUBLISHED, NOT_IN_PROJECT = "reproduced", "differs", "not published", "not in project"
NOT_COMPARED, NOT_MEASURED = "not compared", "not measured"
_STATS = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "apm": "APm", "apl": "APl", "ar": "AR"}
_DIGITS = {"gflops": 3, "params_m": 2}
"""decimals of what nobody printed"""
_AP_UNIT = 0.1  # tables of AP print one decimal; a CSV may have lost its zero
_NOTHING = Value(text=NOT_HERE)


@dataclass(frozen=True)
class Judgement:
    """`ours`, the `published` figure and their `difference` in the units of the table; `verdict`, and `how` it came:
    the counting convention, or why there is no comparison."""

    ours: Value
    published: Value
    difference: Value
    verdict: str
    how: str = ""

    @classmethod
    def without(cls, verdict: str, how: str = "", ours: Value = _NOTHING, published: Value = _NOTHING) -> Judgement:
        """No difference can be taken."""
        return cls(ours, published, _NOTHING, verdict, how)


def judge(quantity: str, row: RowData | None, published: Published | None) -> Judgement:
    """One quantity (`gflops`, `params_m`, `ap`, ..., `latency_ms`) of our `row` against a row of results/published.

    Either may be missing: a network that is not in the project, a row of ours that nobody published.
    """
    printed = _printed(quantity, published)
    if printed.value is None:
        if row is None:
            return Judgement.without(NOT_IN_PROJECT if _foreign(published) else NOT_PUBLISHED)
        how = "macs" if quantity == "gflops" else ""
        return Judgement.without(NOT_PUBLISHED, how, replace(ours(quantity, row), digits=_DIGITS.get(quantity, 1)))
    assert published is not None
    if _foreign(published):
        return Judgement.without(NOT_IN_PROJECT, "", published=printed)
    if row is None:
        what = f"the suite has no such row of {published['our_variant']}"
        return Judgement.without(NOT_MEASURED, what, published=printed)
    if quantity == "gflops":
        return _gflops(row, published, printed)
    if quantity == "latency_ms":
        how = f"another machine: {published['speed_device'] or 'not stated'}"
        return Judgement.without(NOT_COMPARED, how, ours(quantity, row), printed)
    return _number(quantity, row, published, printed)


def _foreign(published: Published | None) -> bool:
    return published is not None and not published["our_variant"]


def ours(quantity: str, row: RowData) -> Value:
    """What the row measured of a quantity; gflops as multiply-accumulates, the convention `macs`."""
    if quantity == "params_m":
        return q.params(row)
    if quantity == "gflops":
        return q.gmacs(row)
    if quantity == "latency_ms":
        name = next((n for n in row.records if n.startswith("latency")), "latency_b1")
        return q.from_latency(row, name, "median")
    return q.stat(row, _STATS[quantity])


def giga(row: RowData) -> dict[str, float]:
    """The figure of a row's network under each counting convention; empty when its cost was not counted."""
    conventions: Mapping[str, Any] = row.result("cost").get("conventions") or {}
    return {name: float(entry["giga"]) for name, entry in conventions.items()}


def _printed(quantity: str, published: Published | None) -> Value:
    number = published[quantity] if published else float("nan")
    if number != number:  # nan: the source prints none
        return Value(text=NOT_HERE)
    return Value(float(number), digits=max(_decimals(quantity, published or {}), 0))


def _decimals(quantity: str, published: Published) -> int:
    if f"{quantity}_text" in published:
        return len(str(published[f"{quantity}_text"]).partition(".")[2])
    return 0 if quantity == "latency_ms" else 1


def _gflops(row: RowData, published: Published, printed: Value) -> Judgement:
    counted = giga(row)
    if not counted:
        own = ours("gflops", row)
        return Judgement.without(own.text or NOT_MEASURED, own.reason, own, printed)
    found = reproduction(published, counted)
    assert printed.value is not None and printed.digits is not None
    digits = max(printed.digits + 1, 2)
    own, gap = Value(found.figure, digits=digits), Value(found.figure - printed.value, digits=digits)
    why = "no convention gives it" if published["convention"] == "none" else "not reproduced"
    how = found.convention if found.reproduced else f"{why}; nearest: {found.convention}"
    return Judgement(own, printed, gap, REPRODUCED if found.reproduced else DIFFERS, how)


def _number(quantity: str, row: RowData, published: Published, printed: Value) -> Judgement:
    own = ours(quantity, row)
    if own.value is None:
        return Judgement.without(own.text or NOT_MEASURED, own.reason, own, printed)
    is_ap = quantity in _STATS
    apart = incomparable(row, published) if is_ap else None
    if apart is not None:
        return Judgement.without(NOT_COMPARED, apart.reason, own, printed)
    assert printed.value is not None
    slack = _AP_UNIT / 2 if is_ap else unit(str(published[f"{quantity}_text"]))
    low, high = (own.value if end is None else end for end in (own.low, own.high))
    inside = low - slack <= printed.value + 1e-9 and printed.value - 1e-9 <= high + slack
    digits = 1 if is_ap else (printed.digits or 0) + 1
    shown = Value(own.value, own.low, own.high, digits=digits, reason=own.reason, note=own.note)
    gap = Value(own.value - printed.value, digits=digits)
    return Judgement(shown, printed, gap, REPRODUCED if inside else DIFFERS)
