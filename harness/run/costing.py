"""The cost of a suite's rows: operators counted once for each network and run setting."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness import provenance
from harness.cost.account import account
from harness.cost.per_image import image_macs
from harness.records.store import Record
from harness.run.rows import Row, code_of, settings_of
from harness.run.session import Session

__all__ = ["cost_key", "measure_cost", "state_of_cost"]


def measure_cost(session: Session) -> None:
    """A cost record for each network and run setting; no weights, no machine in its id."""
    for row in session.rows:
        with session.guard([row], "cost"):
            if state_of_cost(session, row) == "to do":
                row.records["cost"] = _count(session, row)


def state_of_cost(session: Session, row: Row) -> str:
    """`cached` (the row has its record now), `to do`, or why there is none."""
    if row.variant.open_file is not None and row.weights is None:
        row.reasons["cost"] = row.lacking
        return row.lacking
    record = session.store.get("cost", cost_key(session, row))
    if record is None:
        return "to do"
    row.records["cost"] = record
    return "cached"


def cost_key(session: Session, row: Row) -> dict[str, Any]:
    """What determines the cost of a row; rows with the same key share one record."""
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
    return session.store.put(Record.make("cost", cost_key(session, row), result))
