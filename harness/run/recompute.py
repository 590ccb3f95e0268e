"""Every derived number of a record once more, from what is stored beside it: matches, macs, raw samples. Torch-free.

What cannot be recomputed (nothing is stored) is told as such, not passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from harness.accuracy.bootstrap import intervals
from harness.accuracy.scored import Scored, from_arrays, summarise
from harness.cost.statistics import kept_median, quantile
from harness.passes.score import cost_summary
from harness.passes.score_images import BOX, image_work
from harness.records.store import Record, Store
from harness.run.effects import Draws, Outcome, ablation, lead
from harness.run.systems import system_again

__all__ = ["Check", "recompute"]

_GIGA = {"hrnet-readme": 2**30}  # units of the counting conventions that are not 1e9
_TOLERANCE = 1e-9
Progress = Callable[[], None]


@dataclass(frozen=True)
class Check:
    """One field of a record: what is written, what comes out now, or why nothing could come out."""

    record: str
    field: str
    written: Any
    recomputed: Any = None
    reason: str = ""

    @property
    def verdict(self) -> Literal["matches", "differs", "not stored"]:
        """`matches`: the two are the same, up to the rounding of a sum in another order."""
        if self.reason:
            return "not stored"
        return "matches" if _same(self.written, self.recomputed) else "differs"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[name], b[name]) for name in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=1e-12)
    return bool(a == b)


def recompute(record: Record, store: Store, others: Sequence[Record] = ()) -> Iterator[Check]:
    """All derived numbers of a record. `others`: records among which the reference of a latency ratio may be."""
    name = f"{record.kind}-{record.id}"
    kinds = {"accuracy": _accuracy, "cost": _cost, "latency": _latency, "effects": _effects, "system": _system}
    if record.kind not in kinds:
        yield Check(name, "result", None, reason=f"kind {record.kind} is not known here")
        return
    for field, written, found in kinds[record.kind](record, store, others):
        if isinstance(found, _Missing):
            yield Check(name, field, written, reason=found.reason)
        else:
            yield Check(name, field, written, found)


@dataclass(frozen=True)
class _Missing:
    reason: str


_Triple = tuple[str, Any, Any]


# -- accuracy ------------------------------------------------------------------------------------------------------


def _accuracy(record: Record, store: Store, others: Sequence[Record]) -> Iterator[_Triple]:
    result, arrays = record.result, store.arrays(record.id)
    if arrays is None:
        yield "stats", None, _Missing("its matches are not stored here, or the file is damaged")
        return
    matches = from_arrays(arrays)
    yield "images", result.get("images"), matches.num_images
    yield from _stats("", result, matches, result.get("bootstrap") or {})
    if result.get("box_ap"):
        of_boxes = {n.removeprefix(BOX): array for n, array in arrays.items() if n.startswith(BOX)}
        if of_boxes:
            boxes = from_arrays(of_boxes)
            yield from _stats("box_ap.", result["box_ap"], boxes, result.get("bootstrap") or {})
        else:
            yield "box_ap", None, _Missing("the matches of its boxes are not stored")
    yield from _work(result, arrays)


def _stats(prefix: str, result: Mapping[str, Any], matches: Scored, bootstrap: Mapping[str, Any]) -> Iterator[_Triple]:
    """Every statistic that is written, with its interval."""
    stats, resamples = summarise(matches), int(bootstrap.get("resamples") or 0)
    bounds = intervals(matches, resamples, int(bootstrap.get("seed") or 0)) if resamples else {}
    for name, written in (result.get("stats") or {}).items():
        value, found = stats.get(name, math.nan), bounds.get(name)
        yield f"{prefix}stats.{name}.value", written.get("value"), None if math.isnan(value) else value
        yield f"{prefix}stats.{name}.interval", written.get("interval"), found.to_dict() if found else None


def _work(result: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Iterator[_Triple]:
    """Gmacs per forward, prediction and image from the macs of each forward, and the share that refined."""
    if not result.get("cost"):
        return
    if "work_macs" not in arrays:
        yield "cost", result["cost"], _Missing("the macs of each forward are not stored beside it")
        return
    if "work_fixed" in arrays:
        for name, found in image_work(arrays).items():
            yield name, result[name], found
        return
    yield "cost", result["cost"], cost_summary(arrays["work_macs"], arrays["work_image"], int(result["images"]))
    if result.get("refined_share") is not None:
        yield "refined_share", result["refined_share"], float(np.mean(arrays["work_exits"] > 0))


# -- cost ----------------------------------------------------------------------------------------------------------


def _cost(record: Record, store: Store, others: Sequence[Record]) -> Iterator[_Triple]:
    result = record.result
    macs = result.get("macs")
    if macs is None:
        yield "gmacs", result.get("gmacs"), _Missing("it has no count of multiply-accumulates")
        return
    if operators := (result.get("ledger") or {}).get("operators"):
        yield "macs", macs, sum(row["macs"] for row in operators)
    yield "gmacs", result.get("gmacs"), macs / 1e9
    yield "gflops", result.get("gflops"), 2 * macs / 1e9
    if result.get("closed_form") is not None:
        yield "closed_form", result["closed_form"], macs
    for name, found in (result.get("conventions") or {}).items():
        yield f"conventions.{name}.giga", found.get("giga"), found["count"] / _GIGA.get(name, 10**9)


# -- latency -------------------------------------------------------------------------------------------------------


def _latency(record: Record, store: Store, others: Sequence[Record]) -> Iterator[_Triple]:
    result = record.result
    samples = result.get("samples")
    if not samples:
        yield "median", result.get("median"), _Missing("it has no samples")
        return
    kept = [s["wall_ms"] for s in samples if not s["starved"]]
    every = [s["wall_ms"] for s in samples]
    median = kept_median(kept, every)
    yield "median", result.get("median"), asdict(median)
    yield "median_ms", result.get("median_ms"), median.value
    for name, q in (("p90", 0.9), ("p99", 0.99)):
        yield name, result.get(name), asdict(quantile(kept, q))
    yield "rejected", result.get("rejected"), len(every) - len(kept)
    yield "cpu_ratio", result.get("cpu_ratio"), float(np.median([_cpu_ratio(s) for s in samples]))
    if result.get("ratio") is not None:
        yield "ratio", result["ratio"], _ratio(record, others)
    if result.get("persons_per_call") and result.get("ms_per_person") is not None:
        yield "ms_per_person", result["ms_per_person"], _per_person(result)


def _cpu_ratio(sample: Mapping[str, Any]) -> float:
    return sample["cpu_ms"] / sample["wall_ms"] if sample["wall_ms"] > 0 else 0.0


def _per_person(result: Mapping[str, Any]) -> dict[str, Any]:
    pairs = [(s, n) for s, n in zip(result["samples"], result["persons_per_call"]) if n]  # an image may hold nobody
    kept = [s["wall_ms"] / n for s, n in pairs if not s["starved"]]
    return asdict(kept_median(kept, [s["wall_ms"] / n for s, n in pairs]))


def _ratio(record: Record, others: Sequence[Record]) -> dict[str, Any] | _Missing:
    """The ratio to the record that was timed in the same rounds: same machine state before and after, no ratio."""
    result = record.result
    for other in others:
        reference = other.result
        together = reference.get("passing") == result.get("passing") and result.get("passing") is not None
        if other.kind != "latency" or other.id == record.id or reference.get("ratio") is not None or not together:
            continue
        pairs = list(zip(result["samples"], reference["samples"]))
        fed = [(a, b) for a, b in pairs if not (a["starved"] or b["starved"])]
        parts = ([a["wall_ms"] / b["wall_ms"] for a, b in some] for some in (fed, pairs))
        return asdict(kept_median(*parts))
    return _Missing(f"the samples of its reference ({result.get('reference', 'unknown')}) are of other rounds")


# -- systems -------------------------------------------------------------------------------------------------------


def _system(record: Record, store: Store, others: Sequence[Record]) -> Iterator[_Triple]:
    """Lines and crossings from the records of the rows. Why a number is missing is not stored in them."""
    again = system_again(record, store)
    if again is None:
        yield "rows", None, _Missing("a record that it is made of is not stored here")
        return
    for part in ("rows", "crossings"):
        for written, found in zip(record.result[part], again[part], strict=True):
            name = written.get("label") or f"{written['one_stage']} / {written['top_down']}"
            for what in ("gmacs", "ms"):
                if "reason" not in written[what]:
                    yield f"{part}.{name}.{what}", written[what], found[what]


# -- effects -------------------------------------------------------------------------------------------------------


def _effects(record: Record, store: Store, others: Sequence[Record]) -> Iterator[_Triple]:
    """The ablations of a run, and its best row, from the matches of its cells."""
    key, draws = record.key, Draws(record.key["resamples"], record.key["seed"])
    rivals = key["rows"] if record.result.get("lead") else []
    named = {cell["accuracy"] for line in key["lines"] for cell in line["cells"]} | set(rivals)
    matches = {i: from_arrays(arrays) for i in named if (arrays := store.arrays(i)) is not None}
    for line, written in zip(key["lines"], record.result["lines"]):
        field, cells = f"lines.{line['line']}.ablation", line["cells"]
        if not {cell["accuracy"] for cell in cells} <= matches.keys():
            yield field, None, _Missing("the matches of a cell are not stored here")
            continue
        outcomes = [Outcome(cell["levels"], cell["seed"], matches[cell["accuracy"]]) for cell in cells]
        again = ablation(outcomes, line["base"], draws)
        yield field, written["ablation"], again.to_dict() if again else None
    if not set(rivals) <= matches.keys():
        yield "lead", None, _Missing("the matches of a row are not stored here")
    elif rivals:
        first = lead([matches[i] for i in rivals], draws)
        yield "lead", record.result["lead"], first.to_dict() if first else None
