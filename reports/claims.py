"""Sentences of a paper that compare two networks in one number: 58 % fewer FLOPs, 1.4 x faster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.cost.conventions import reproduce, unit
from harness.suite.schema import ClaimSpec
from reports.model import NOT_HERE, Value
from reports.rows import RowData
from reports.verdicts import DIFFERS, NOT_COMPARED, NOT_MEASURED, REPRODUCED, Judgement, giga, ours

__all__ = ["Claim", "judge_claim"]

_MEASURES = {"percent_less": "{} (% less)", "times_less": "{} (times less)", "more": "{} (more)"}
_TITLES = {"gflops": "GFLOPs", "params_m": "params", "ap": "AP", "latency_ms": "ms"}
_Pair = tuple[RowData, RowData]


@dataclass(frozen=True)
class Claim:
    """A claim and the rows of ours that it is about; none where the run has no such pair.

    Networks of persons are compared at the same input size, a one-stage network with one of persons at their own.
    """

    spec: ClaimSpec
    pair: _Pair | None

    @classmethod
    def of(cls, spec: ClaimSpec, rows: Sequence[RowData]) -> Claim:
        """The first pair of rows of the two variants."""
        others = [row for row in rows if row.variant == spec.against]
        pairs = (
            (row, other)
            for row in rows
            if row.variant == spec.row
            for other in others
            if row.input_size == other.input_size or row.paradigm != other.paradigm
        )
        return cls(spec, next(pairs, None))

    @property
    def quantity(self) -> str:
        """The quantity and how it is compared, for a table."""
        return _MEASURES[self.spec.measure].format(_TITLES[self.spec.quantity])

    @property
    def size(self) -> str:
        """Input size of the pair, or both."""
        return " and ".join(dict.fromkeys("{}x{}".format(*row.input_size) for row in self.pair or ()))

    @property
    def note(self) -> str:
        """What the variant says of itself ('reconstruction')."""
        return self.pair[0].note if self.pair else ""

    @property
    def records(self) -> tuple[str, ...]:
        """The records that its number is made of."""
        return tuple(f"{r.kind}-{r.id}" for row in self.pair or () for r in row.records.values())


def judge_claim(claim: Claim) -> Judgement:
    """Ours against what the paper says, within one unit of its last digit; gflops under the paper's convention."""
    spec = claim.spec
    printed = Value(float(spec.printed), digits=len(spec.printed.partition(".")[2]))
    if claim.pair is None:
        return Judgement.without(NOT_MEASURED, "the suite has no such pair of rows", published=printed)
    if spec.quantity == "gflops":
        return _by_convention(claim.pair, spec, printed)
    a, b = (ours(spec.quantity, row) for row in claim.pair)
    missing = next((v for v in (a, b) if v.value is None), None)
    if missing is not None:
        if spec.unclear:
            return Judgement.without(NOT_COMPARED, spec.unclear, published=printed)
        return Judgement.without(missing.text or NOT_MEASURED, missing.reason, published=printed)
    assert a.value is not None and b.value is not None and printed.value is not None
    found = _compared(spec.measure, a.value, b.value)
    own = Value(found, digits=(printed.digits or 0) + 1)
    reason = spec.unclear or ("another machine" if spec.quantity == "latency_ms" else "")
    if reason:
        return Judgement.without(NOT_COMPARED, reason, own, printed)
    hit = abs(found - printed.value) <= unit(spec.printed)
    return Judgement(own, printed, Value(found - printed.value, digits=own.digits), REPRODUCED if hit else DIFFERS)


def _by_convention(pair: _Pair, spec: ClaimSpec, printed: Value) -> Judgement:
    a, b = (giga(row) for row in pair)
    found = {name: _compared(spec.measure, a[name], b[name]) for name in a if name in b}
    if not found:
        return Judgement.without(NOT_MEASURED, "their cost was not counted", Value(text=NOT_HERE), printed)
    digits = (printed.digits or 0) + 1
    if spec.unclear:
        return Judgement.without(NOT_COMPARED, f"macs; {spec.unclear}", Value(found["macs"], digits=digits), printed)
    hit = reproduce(spec.printed, found, spec.convention)
    assert printed.value is not None
    how = hit.convention if hit.reproduced else f"not reproduced; nearest: {hit.convention}"
    verdict = REPRODUCED if hit.reproduced else DIFFERS
    gap = Value(hit.figure - printed.value, digits=digits)
    return Judgement(
        Value(hit.figure, digits=digits), printed, gap, verdict, f"{how} ({_others(found, hit.convention)})"
    )


def _others(found: Mapping[str, float], but: str) -> str:
    return ", ".join(f"{name} {value:.1f}" for name, value in found.items() if name != but)


def _compared(measure: str, a: float, b: float) -> float:
    return {"percent_less": 100 * (1 - a / b), "times_less": b / a, "more": a - b}[measure]
