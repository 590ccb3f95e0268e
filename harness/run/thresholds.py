"""Quality thresholds that nobody has run, answered from stored passes: records without a network. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness import provenance
from harness.passes import replay
from harness.passes.score import detections, score
from harness.records.store import Record, Store
from harness.run.stored import Stored, open_row
from harness.suite.schema import AccuracySpec, Cell
from harness.suite.sources import Sources

__all__ = ["Replayed", "replay_thresholds"]

_STEPS = 21  # shares of forwards that leave early: 0, 5, ..., 100 %
Progress = Callable[[str], None]


@dataclass
class Replayed:
    """`rows` of a run manifest, one for each threshold that is worth its work; `reasons`: passes left out, and why."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def replay_thresholds(
    rows: Iterable[Mapping[str, Any]], store: Store, sources: Sources, *, say: Progress = lambda text: None
) -> Replayed:
    """Scores the thresholds between those that were run, for every pass with a quality; keeps their records.

    All thresholds are scored without intervals first; those that no cheaper one equals get the record that a run with
    this threshold would write.
    """
    done, seen = Replayed(), set()
    for row in rows:
        if not _has_quality(row, store):
            continue
        found = open_row(row, store, sources)
        if isinstance(found, str):
            done.reasons[str(row["label"])] = found
            continue
        shared = provenance.content_id([found.record.info["predictions"], found.cell.protocol.model_dump(mode="json")])
        if shared in seen or "quality_rival" in found.predictions:
            continue
        seen.add(shared)
        say(f"{row['label']}: replaying {_STEPS} thresholds")
        done.rows += [dict(new) for new in _rows_of(row, found, store)]
    return done


def _has_quality(row: Mapping[str, Any], store: Store) -> bool:
    identity = (row.get("records") or {}).get("accuracy")
    record = store.by_id("accuracy", str(identity)) if identity else None
    return record is not None and record.result.get("quality_threshold") is not None


def _rows_of(row: Mapping[str, Any], found: Stored, store: Store) -> Iterator[dict[str, Any]]:
    flip, best = found.cell.protocol.flip, -np.inf
    quick = AccuracySpec(bootstrap=0, judge=False)
    tried = [(cell, _score(found, cell, quick)[0]) for cell in _cells(found, flip)]
    for cell, result in sorted(tried, key=lambda pair: pair[1]["cost"]["gmacs_per_forward"]["mean"]):
        ap = result["stats"]["AP"]["value"]
        if ap is None or ap <= best:
            continue
        best = ap
        record = _record(found, cell, store)
        threshold = cell.select["quality_threshold"]
        base = str(row["label"]).partition(" quality_threshold=")[0].partition(" exit_rate=")[0]
        yield {
            **row,
            "label": f"{base} quality_threshold={threshold:.6g}",
            "cell": cell.model_dump(mode="json"),
            "records": {n: i for n, i in row["records"].items() if n == "cost"} | {"accuracy": record.id},
            "reasons": {},
        }


def _cells(found: Stored, flip: bool) -> Iterator[Cell]:
    """The cell at each threshold that lets another share of the forwards leave early."""
    thresholds = []
    for rate in np.linspace(0, 1, _STEPS):
        value = replay.threshold_of(found.predictions, {"exit_rate": float(rate)}, flip=flip)
        if value is not None and np.isfinite(value):
            thresholds.append(value)
    for value in sorted(set(thresholds)):
        select = {**found.cell.select, "quality_threshold": value}
        if "exit_rate" in select:
            select["exit_rate"] = None
        yield found.cell.model_copy(update={"select": select, "swept": {"quality_threshold": value}})


def _score(found: Stored, cell: Cell, spec: AccuracySpec) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    results, chosen = detections(cell, found.predictions, found.dataset, found.boxes)
    return score(found.predictions, results, chosen, found.dataset, found.boxes, spec)


def _record(found: Stored, cell: Cell, store: Store) -> Record:
    """The record that a run with this threshold would write, from the store or new."""
    spec = AccuracySpec.model_validate(found.record.key["spec"])
    key = {**found.record.key, "select": cell.select, "score_code": provenance.code("score")}
    known = store.get("accuracy", key)
    if known is not None and store.has_sound_arrays(known.id):
        return known
    result, arrays = _score(found, cell, spec)
    predictions = found.record.info["predictions"]
    result["notes"] = [*result["notes"], *replay.notes_of(store.pass_folder(predictions))]
    return store.put(Record.make("accuracy", key, result, predictions=predictions, replayed=True), arrays)
