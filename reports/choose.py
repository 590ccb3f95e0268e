"""Which configuration for a budget: the Pareto front of accuracy and work, or of accuracy and time, that fits.

Only what was scored on the same persons and boxes, and timed on the same machine in the same way, is compared; each
such ground has its own answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.records.store import Record
from reports import quantities as q
from reports.grounds import persons_of, timing_of, worded
from reports.model import Column, Table, Value
from reports.points import pareto
from reports.rows import RowData, plain_text

__all__ = ["Budget", "Candidate", "Choice", "choice_table", "choose"]


@dataclass(frozen=True)
class Budget:
    """At most so many gmacs in the mean forward, or milliseconds of one call of `batch` persons on `device`."""

    gmacs: float | None = None
    ms: float | None = None
    device: str = "cpu"
    batch: int = 1

    @property
    def words(self) -> str:
        parts = [f"{self.gmacs:g} gmacs"] if self.gmacs is not None else []
        parts += [f"{self.ms:g} ms ({self.device}, batch {self.batch})"] if self.ms is not None else []
        return " and ".join(parts)


@dataclass(frozen=True)
class Candidate:
    """A configuration with what the budget asks about. `ms` is missing where time was not asked for."""

    row: RowData
    ap: Value
    gmacs: Value
    ms: Value
    timed: Record | None = None

    @property
    def knobs(self) -> dict[str, Any]:
        """The knobs that have a value, common ones at their default left out."""
        usual = {"dtype": "float32", "runtime": "eager"}
        return {n: v for n, v in self.row.knobs.items() if v is not None and usual.get(n) != v}

    @property
    def threshold(self) -> Any:
        """The quality threshold that was applied, None for a method with one exit."""
        return self.row.result("accuracy").get("quality_threshold")


@dataclass(frozen=True)
class Choice:
    """The answer on one ground: the front within the budget, the best AP first.

    `over`: how many were left out as too expensive; `cheapest` of those when nothing fits.
    """

    ground: str
    best: tuple[Candidate, ...]
    fitting: int
    over: int
    cheapest: Candidate | None


def choose(rows: Sequence[RowData], budget: Budget) -> list[Choice]:
    """The choice on every ground, the one with most configurations first; none where nothing has both numbers."""
    grounds: dict[tuple[str, ...], list[Candidate]] = {}
    for row in rows:
        for ground, candidate in _candidates(row, budget):
            grounds.setdefault(ground, []).append(candidate)
    ranked = sorted(grounds.items(), key=lambda item: (-len(item[1]), item[0]))
    names = worded([ground for ground, _ in ranked])
    return [_choice(name, found, budget) for name, (_, found) in zip(names, ranked)]


def _candidates(row: RowData, budget: Budget) -> Iterator[tuple[tuple[str, ...], Candidate]]:
    """The row on the ground of its persons, once for each way in which it was timed where time is asked for."""
    ap, gmacs = q.stat(row, "AP"), q.gmacs(row)
    if ap.value is None or (budget.gmacs is not None and gmacs.value is None):
        return
    persons = persons_of(row)
    if row.paradigm == "one-stage":
        persons = (*persons, "work and time of a whole image with all its persons", "")
    if budget.ms is None:
        yield persons, Candidate(row, ap, gmacs, Value.missing("time was not asked for", ""))
        return
    for measurement, record in row.records.items():
        execution = record.result.get("execution") or {}
        if record.kind != "latency" or execution.get("batch") != budget.batch:
            continue
        ms = q.from_latency(row, measurement, "median")
        if plain_text(execution.get("device")) == budget.device and ms.value is not None:
            yield (*persons, *timing_of(record)), Candidate(row, ap, gmacs, ms, record)


def _choice(ground: str, found: Sequence[Candidate], budget: Budget) -> Choice:
    fitting = [c for c in found if _fits(c, budget)]
    front = [fitting[i] for i in pareto([(_spent(c, budget), c.ap.value or 0.0) for c in fitting])]
    over = [c for c in found if not _fits(c, budget)]
    cheapest = min(over, key=lambda c: _spent(c, budget), default=None)
    return Choice(ground, tuple(reversed(front)), len(fitting), len(over), cheapest)


def _spent(candidate: Candidate, budget: Budget) -> float:
    """What the front is drawn over: milliseconds where they are asked for, else gmacs."""
    value = candidate.gmacs.value if budget.ms is None else candidate.ms.value
    assert value is not None
    return value


def _fits(candidate: Candidate, budget: Budget) -> bool:
    limits = ((budget.gmacs, candidate.gmacs.value), (budget.ms, candidate.ms.value))
    return all(limit is None or (value is not None and value <= limit) for limit, value in limits)


def choice_table(choice: Choice, budget: Budget) -> Table:
    """The front as a table: configuration, threshold, AP with its interval, work, time, the record of the AP."""
    columns = [Column("configuration", "configuration", "text"), Column("input", "input", "text")]
    columns += [Column("knobs", "knobs", "text")] if any(c.knobs for c in choice.best) else []
    thresholds = any(c.threshold is not None for c in choice.best)
    columns += [Column("threshold", "threshold", "text")] if thresholds else []
    columns += [Column("ap", "AP", "interval"), Column("gmacs", "gmacs", "spread", 3)]
    columns += [Column("params_m", "params (M)", digits=2)]
    columns += [Column("ms", "ms", "interval", 2)] if budget.ms is not None else []
    columns += [Column("record", "record of the AP", "text")]
    entries = [{c.key: _entry(candidate, c.key) for c in columns} for candidate in choice.best]
    return Table(
        tuple(columns),
        tuple(tuple(entry[c.key] for c in columns) for entry in entries),
        tuple(tuple(f"{r.kind}-{r.id}" for r in candidate.row.records.values()) for candidate in choice.best),
        title=f"At most {budget.words}, on {choice.ground}",
    )


def _entry(candidate: Candidate, key: str) -> Value:
    row = candidate.row
    numbers = {"ap": candidate.ap, "gmacs": candidate.gmacs, "ms": candidate.ms}
    if key in numbers:
        return numbers[key]
    if key == "params_m":
        return q.params(row)
    if key == "threshold":
        return Value(text="" if candidate.threshold is None else plain_text(candidate.threshold))
    texts = {
        "configuration": row.label,
        "input": plain_text(row.input_size),
        "knobs": ", ".join(f"{plain_text(n)}={plain_text(v)}" for n, v in candidate.knobs.items()),
        "record": row.records["accuracy"].id,
    }
    return Value(text=texts[key])
