"""Two snapshots -> all verdicts and the exit code. Pure and torch-free; the rules: harness.gate.verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import DataError
from harness.gate.snapshot import Accuracy, Row, Snapshot, Speed, unpack
from harness.gate.verdict import Limits, Verdict, judge_ap, judge_cost, judge_speed

__all__ = ["exit_code", "judge", "other_machine"]

_SAME_MACHINE = ("cpu", "cores", "affinity", "gpus", "instructions", "torch", "cuda")


def judge(baseline: Snapshot, candidate: Snapshot, limits: Limits) -> list[Verdict]:
    """All verdicts, in the order of the baseline's rows. DataError, all differing fields listed, on other data."""
    theirs = {row.label: row for row in candidate.rows}
    known = {row.label for row in baseline.rows}
    _check_contexts([(row, theirs[row.label]) for row in baseline.rows if row.label in theirs])
    found = [v for row in baseline.rows for v in _judge_row(row, theirs.get(row.label), limits)]
    found += _judge_references(baseline, candidate, limits)
    fresh = [row for row in candidate.rows if row.label not in known]
    return found + [Verdict(m, row.label, "new", note="no baseline") for row in fresh for m in _judged_metrics(row)]


def exit_code(verdicts: Sequence[Verdict], *, strict: bool = False) -> int:
    """0 pass, 1 regression, 2 something could not be measured, 4 inconclusive or nothing to judge by, under strict.

    Nothing judged at all is 2: never a pass.
    """
    seen = {v.verdict for v in verdicts}
    if "regression" in seen:
        return 1
    if "unmeasured" in seen or not seen & {"pass", "inconclusive"}:
        return 2
    return 4 if strict and seen & {"inconclusive", "new"} else 0


def _judge_row(row: Row, other: Row | None, limits: Limits) -> Iterator[Verdict]:
    if other is None:
        yield from (Verdict(m, row.label, "unmeasured", note="not in the candidate") for m in _judged_metrics(row))
        return
    if row.accuracy is not None:
        yield _judge_accuracy(row.label, row.accuracy, other, limits)
    if row.cost is not None:
        reason = other.reasons.get("cost", "no cost was counted")
        yield judge_cost(row.label, row.cost, other.cost) if other.cost else _unmeasured("cost", row.label, reason)
    for metric, speed in row.speed.items():
        if speed.reference == row.label and metric in other.speed:
            continue  # judged by all the others, below
        if metric in other.speed:
            yield _judge_latency(metric, row.label, speed, other.speed[metric], limits)
        else:
            yield _unmeasured(metric, row.label, other.reasons.get(metric, "no time was taken"))
    new = set(_judged_metrics(other)) - set(_judged_metrics(row))
    yield from (Verdict(m, row.label, "new", note="no baseline") for m in sorted(new - row.speed.keys()))


def _judge_accuracy(label: str, baseline: Accuracy, other: Row, limits: Limits) -> Verdict:
    candidate = other.accuracy
    if candidate is None:
        return _unmeasured("ap", label, other.reasons.get("accuracy", "no AP was measured"), baseline.value)
    for name, side in (("baseline", baseline), ("candidate", candidate)):
        if side.value is None or side.matches is None:
            return _unmeasured("ap", label, f"{name}: {side.reason or 'AP is missing'}", baseline.value)
    assert baseline.matches is not None and candidate.matches is not None
    return judge_ap(label, unpack(baseline.matches, label), unpack(candidate.matches, label), limits)


def _judge_latency(metric: str, label: str, baseline: Speed, candidate: Speed, limits: Limits) -> Verdict:
    for name, side in (("baseline", baseline), ("candidate", candidate)):
        if not side.runs:
            return _unmeasured(metric, label, f"{name}: {side.reason or 'no round was measured'}")
    other = other_machine(baseline.machine, candidate.machine)
    return judge_speed(label, baseline.runs, candidate.runs, limits, metric=metric, other_machine=other)


def _judge_references(baseline: Snapshot, candidate: Snapshot, limits: Limits) -> Iterator[Verdict]:
    """The time of each reference network, by the inverse ratios: it is slower when all others are faster than before.

    With a single other network that cannot be told from this one having become faster, and is inconclusive.
    """
    theirs = {row.label: row.speed for row in candidate.rows}
    inverse: dict[tuple[str, str], list[Verdict]] = {}
    for row in baseline.rows:
        for metric, speed in row.speed.items():
            found = theirs.get(row.label, {}).get(metric)
            if found is not None and speed.runs and found.runs:
                before, after = (s.model_copy(update={"runs": _inverse(s.runs)}) for s in (speed, found))
                verdict = _judge_latency(metric, speed.reference, before, after, limits)
                inverse.setdefault((speed.reference, metric), []).append(verdict)
    for seen in inverse.values():
        yield _reference_verdict(seen)


def _inverse(runs: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(1 / ratio for ratio in run) for run in runs)


def _reference_verdict(seen: Sequence[Verdict]) -> Verdict:
    """The mildest of the verdicts against each other network; shown are the figures of that one."""
    mildest = min(seen, key=lambda v: ("pass", "inconclusive", "regression", "unmeasured").index(v.verdict))
    note = "relative to the other networks"
    if mildest.verdict == "regression" and len(seen) == 1:
        return replace(mildest, verdict="inconclusive", note="it became slower, or the only other network faster")
    return replace(mildest, note="; ".join(n for n in (note, mildest.note) if n))


def other_machine(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    """What differs between the two machines, empty when they are of one class. Names of kernels do not count."""
    return ", ".join(f"{name} {a.get(name)} -> {b.get(name)}" for name in _SAME_MACHINE if a.get(name) != b.get(name))


def _unmeasured(metric: str, label: str, reason: str, baseline: float | None = None) -> Verdict:
    return Verdict(metric, label, "unmeasured", baseline, note=reason)


def _judged_metrics(row: Row) -> list[str]:
    """What the gate judges of a row by itself: not the time of the reference network."""
    measured = {"ap": row.accuracy, "cost": row.cost}
    timed = [metric for metric, speed in row.speed.items() if speed.reference != row.label]
    return [metric for metric, found in measured.items() if found is not None] + timed


def _check_contexts(pairs: Sequence[tuple[Row, Row]]) -> None:
    """DataError that lists every field in which baseline and candidate were measured differently."""
    found: list[str] = []
    for ours, theirs in pairs:
        both = [("ap", ours.accuracy, theirs.accuracy), ("cost", ours.cost, theirs.cost)]
        both += [(m, s, theirs.speed.get(m)) for m, s in ours.speed.items()]  # type: ignore[misc]
        for metric, a, b in both:
            if a is not None and b is not None:
                found += [f"{ours.label}: {metric}: {line}" for line in _differing(a.context, b.context)]
            if isinstance(a, Speed) and isinstance(b, Speed) and a.reference != b.reference:
                found.append(f"{ours.label}: {metric}: reference: {a.reference} -> {b.reference}")
    if found:
        raise DataError(
            "baseline and candidate were measured differently:\n    " + "\n    ".join(found),
            expected="the same data, protocol and execution",
            hint="run the candidate as the baseline was, or record a new baseline with --record",
        )


def _differing(a: Any, b: Any, path: str = "") -> Iterator[str]:
    """`path: a -> b` for each leaf that differs."""
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted({*a, *b}):
            yield from _differing(a.get(name), b.get(name), f"{path}.{name}" if path else name)
    elif a != b:
        yield f"{path}: {a} -> {b}"
