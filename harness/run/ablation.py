"""The effects record of a run: which cells make an ablation, which row leads, and what their stored matches say.

Torch-free.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from harness import provenance
from harness.accuracy import scored
from harness.errors import MeasurementError
from harness.records.store import Record, Store
from harness.run.effects import Draws, Outcome, ablation, lead
from harness.suite.schema import AccuracySpec, Cell

__all__ = ["KIND", "MOST_ROWS", "Scored", "compared", "effects_record", "lines"]

KIND = "effects"
MOST_ROWS = 30  # among which the best is looked for; a table of more is a sweep, and each row costs its resamples


class Scored(Protocol):
    """A row of a run: its cell and its records."""

    cell: Cell
    records: dict[str, Record]


def lines(rows: Sequence[Scored]) -> dict[int, list[Scored]]:
    """The rows of each method line that sweeps something, by line: each is an ablation of one method."""
    found: dict[int, list[Scored]] = {}
    for row in rows:
        found.setdefault(row.cell.line, []).append(row)
    return {line: own for line, own in found.items() if len({_text(r.cell.swept) for r in own}) > 1}


def compared(rows: Sequence[Scored]) -> list[Scored]:
    """The scored rows, among which the best is looked for; none where they are too few or too many, or where different
    joints of the persons were evaluated."""
    found = [row for row in rows if "accuracy" in row.records]
    joints = {_text(row.records["accuracy"].result.get("joints", {}).get("evaluated", {})) for row in found}
    return found if 2 <= len(found) <= MOST_ROWS and len(joints) == 1 else []


def effects_record(
    rows: Sequence[Scored], store: Store, spec: AccuracySpec, progress: Callable[[], None] | None = None
) -> Record | None:
    """The record of the effects of all ablations among `rows`, and of which row has the best AP, from the store or
    new; None when there is nothing to compare.

    Its key names the accuracy records, so a cell that changes gives another record.
    """
    found = {line: own for line, own in lines(rows).items() if any("accuracy" in row.records for row in own)}
    rivals = compared(rows)
    if not found and not rivals:
        return None
    key = {**_record_key(found, spec), "rows": [row.records["accuracy"].id for row in rivals]}
    known = store.get(KIND, key)
    return known or store.put(Record.make(KIND, key, _result(found, rivals, store, spec, progress)))


def _record_key(found: Mapping[int, Sequence[Scored]], spec: AccuracySpec) -> dict[str, Any]:
    cells = [
        {
            "line": line,
            "base": own[0].cell.swept,
            "cells": [
                {"levels": r.cell.swept, "seed": r.cell.seed, "accuracy": r.records["accuracy"].id}
                for r in own
                if "accuracy" in r.records
            ],
        }
        for line, own in found.items()
    ]
    return {"lines": cells, "resamples": spec.bootstrap, "seed": spec.seed, "code": provenance.code("effects")}


def _result(
    found: Mapping[int, Sequence[Scored]],
    rivals: Sequence[Scored],
    store: Store,
    spec: AccuracySpec,
    progress: Callable[[], None] | None,
) -> dict[str, Any]:
    draws = Draws(spec.bootstrap, spec.seed, progress)  # a row of an ablation is also a rival of all others
    scored = {row.records["accuracy"].id: row.records["accuracy"] for own in (*found.values(), rivals) for row in own
              if "accuracy" in row.records}  # fmt: skip
    matches = {identity: _matches(store, record) for identity, record in scored.items()}
    results = []
    for line, own in found.items():
        outcomes = [
            Outcome(row.cell.swept, row.cell.seed, matches[row.records["accuracy"].id])
            for row in own
            if "accuracy" in row.records
        ]
        effects = ablation(outcomes, own[0].cell.swept, draws)
        results.append({"line": line, "ablation": effects.to_dict() if effects else None})
    first = lead([matches[row.records["accuracy"].id] for row in rivals], draws) if rivals else None
    return {
        "lines": results,
        "lead": first.to_dict() if first else None,
        "resamples": spec.bootstrap,
        "seed": spec.seed,
        "level": 0.95,
        "interval": "percentile",
        "p": "bootstrap, two-sided, Holm within each list",
        "unit": "image, and seed where there are several",
    }


def _matches(store: Store, record: Record) -> scored.Scored:
    arrays = store.arrays(record.id)
    if arrays is None:
        raise MeasurementError("the matches of a record are gone", where=record.id, hint="run the suite again")
    return scored.from_arrays(arrays)


def _text(swept: Any) -> str:
    return json.dumps(swept, sort_keys=True)
