"""The cost of a suite's rows: operators counted once for each network and run setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness import provenance
from harness.cost.account import account
from harness.cost.per_image import image_macs
from harness.records.store import Record
from harness.run.rows import Row, code_of, settings_of
from harness.run.session import Session

__all__ = ["alike", "measure_cost", "state_of_cost"]


def measure_cost(session: Session) -> None:
    """A cost record for each network and run setting; no weights, no machine in its id."""
    for rows in alike(session, session.rows):
        with session.guard(rows, "cost"):
            if state_of_cost(session, rows) == "to do":
                _give(rows, _count(session, rows[0]))


def alike(session: Session, rows: Sequence[Row]) -> list[list[Row]]:
    """The rows in groups that share a cost record."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        with session.guard([row], "cost"):
            groups.setdefault(repr(_key(session, row)), []).append(row)
    return list(groups.values())


def state_of_cost(session: Session, rows: Sequence[Row]) -> str:
    """Of `alike` rows: `cached` (they have their record now), `to do`, or why there is none."""
    first = rows[0]
    if first.variant.open_file is not None and first.weights is None:
        for row in rows:
            row.reasons["cost"] = first.lacking
        return first.lacking
    record = session.store.get("cost", _key(session, first))
    if record is None:
        return "to do"
    _give(rows, record)
    return "cached"


def _give(rows: Sequence[Row], record: Record) -> None:
    for row in rows:
        row.records["cost"] = record


def _key(session: Session, row: Row) -> dict[str, Any]:
    key = {**session.network_key(row), "settings": settings_of(row.cell), "code": code_of("cost", row.variant)}
    if row.variant.open_file is not None and row.weights is not None:
        key["weights"] = provenance.file_sha256(row.weights)  # the file is the network
    return key


def _count(session: Session, row: Row) -> Record:
    session.progress.say(f"{row.cell.label}: counting operators")
    network = session.build(row, row.weights if row.variant.open_file is not None else None)
    result = account(network, settings_of(row.cell), paradigm=row.variant.paradigm)
    if row.variant.paradigm == "one-stage":
        macs = image_macs(network, {name: np.array(values) for name, values in result["trace"].items()})
        result |= {"macs_without_persons": int(macs.fixed[0]), "macs_per_person": int(macs.each[0])}
    return session.store.put(Record.make("cost", _key(session, row), result))
