"""Measuring for the gate: more timed runs of the candidate, and a second look before a regression is called."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.gate.runs import judge
from harness.gate.snapshot import Row, Snapshot, Speed, take
from harness.gate.verdict import Limits, Verdict
from harness.records.store import Store

if TYPE_CHECKING:
    from harness.run.rows import Options, Progress
    from harness.suite.schema import Suite
    from harness.suite.sources import Sources

__all__ = ["CONFIRMING_RUNS", "Bench", "add_runs", "confirm"]

CONFIRMING_RUNS = 4


@dataclass(frozen=True)
class Bench:
    """The candidate's run manifest, and what is needed to measure it anew, apart from the records that exist."""

    manifest: Mapping[str, Any]
    sources: Sources
    options: Options
    progress: Progress

    def measure(self, metrics: Iterable[str], variants: Iterable[str] = ()) -> Snapshot:
        """A fresh snapshot of these metrics; of these variants and the reference, or of all."""
        from harness.run.run import run_suite

        suite = self._suite(set(metrics), set(variants))
        with tempfile.TemporaryDirectory() as folder:
            store = Store(Path(folder))
            return take(run_suite(suite, store, self.sources, self.options, self.progress), store)

    def _suite(self, metrics: set[str], variants: set[str]) -> Suite:
        from harness.suite.schema import MeasureSpec, Suite

        suite = Suite.model_validate(self.manifest["suite"])
        asked = suite.measure
        measure = MeasureSpec(
            accuracy=asked.accuracy if "ap" in metrics else False,
            cost="cost" in metrics,
            latency=asked.latency if metrics - {"ap", "cost"} else False,
        )
        # the first line stays: times are relative to it
        methods = [m for i, m in enumerate(suite.methods) if i == 0 or not variants or m.variant in variants]
        return suite.model_copy(update={"measure": measure, "methods": tuple(methods)})


def add_runs(snapshot: Snapshot, more: Sequence[Snapshot]) -> Snapshot:
    """The snapshot with the timed runs of others appended to its own, row by row."""
    return snapshot.model_copy(update={"rows": tuple(_with_runs(row, more) for row in snapshot.rows)})


def _with_runs(row: Row, more: Sequence[Snapshot]) -> Row:
    twins = [other for snapshot in more for other in snapshot.rows if other.label == row.label]
    speed = dict(row.speed)
    for twin in twins:
        for metric, found in twin.speed.items():
            speed[metric] = _joined(speed[metric], found) if metric in speed else found
    return row.model_copy(update={"speed": speed})


def _joined(first: Speed, second: Speed) -> Speed:
    runs = first.runs + second.runs
    return first.model_copy(update={"runs": runs, "reason": "" if runs else first.reason})


def confirm(verdicts: Sequence[Verdict], baseline: Snapshot, bench: Bench, limits: Limits) -> list[Verdict]:
    """Each regression is judged once more, on fresh measurements alone; what they do not confirm is no regression."""
    suspects = [v for v in verdicts if v.verdict == "regression"]
    if not suspects:
        return list(verdicts)
    labels = {v.label for v in suspects}
    references = {speed.reference for row in baseline.rows for speed in row.speed.values()}
    # a reference network is judged by all the others, so they are measured with it
    variants = set() if labels & references else {row.variant for row in baseline.rows if row.label in labels}
    exact = {v.metric for v in suspects} & {"ap", "cost"}
    timed = {v.metric for v in suspects} - exact
    looks = [bench.measure(exact | timed, variants)]
    looks += [bench.measure(timed, variants) for _ in range(CONFIRMING_RUNS - 1 if timed else 0)]
    second = {(v.metric, v.label): v for v in judge(baseline, add_runs(looks[0], looks[1:]), limits)}
    lost = "it could not be measured a second time"
    return [
        _settled(v, second.get((v.metric, v.label), replace(v, verdict="unmeasured", note=lost)))
        if v in suspects
        else v
        for v in verdicts
    ]


def _settled(first: Verdict, second: Verdict) -> Verdict:
    if second.verdict == "regression":
        note = "confirmed by a second measurement"
    else:
        note = f"the first measurement showed a regression ({first.difference:+.4g}), a second one did not"
    return replace(second, note="; ".join(n for n in (note, second.note) if n))
