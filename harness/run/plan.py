"""What a run would do: which records are there, which are missing and why, which cells share a pass. Runs nothing."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.table import Table
from rich.text import Text

from harness.data.synthetic import SYNTHETIC
from harness.records.store import Store
from harness.run.costing import alike, state_of_cost
from harness.run.forecast import Forecast, forecast, people
from harness.run.rows import Options, Progress, Row
from harness.run.scoring import joint_key, state_of_accuracy
from harness.run.scoring_images import find_boxes
from harness.run.session import Session
from harness.run.timing import attach_known
from harness.suite.cells import expand
from harness.suite.file import Marked
from harness.suite.schema import AccuracySpec, BoxesFrom, LatencySpec, Suite
from harness.suite.sources import Sources
from harness.words import counted

__all__ = ["Plan", "PlannedCell", "plan_suite"]

_TO_DO = "to do"


@dataclass(frozen=True)
class PlannedCell:
    """One cell: `state` by measurement is `cached`, `to do ...` or the reason why there will be none."""

    label: str
    shared_pass: int | None
    state: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """The cells of a suite, what is still to be drawn, trained and run, and rough figures of time and disk.

    `pictures` of the built-in people by split. `passes` and `persons` (images of one-stage rows) are those of rows that
    have their weights already.
    """

    cells: tuple[PlannedCell, ...]
    pictures: dict[str, int]
    trainings: int
    passes: int
    persons: int
    forecast: Forecast

    @property
    def minutes(self) -> float:
        """Of all parts together."""
        return sum(self.forecast.minutes.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": [vars(c) for c in self.cells],
            "pictures": self.pictures,
            "trainings": self.trainings,
            "passes": self.passes,
            "persons": self.persons,
            "minutes": self.minutes,
            "minutes_of": self.forecast.minutes,
            "minutes_without": list(self.forecast.uncounted),
            "megabytes": self.forecast.megabytes,
        }

    def to_rich(self) -> Table:
        """The plan as a table for the terminal."""
        table = Table(caption=Text("\n".join(self._lines())), caption_justify="left")
        for head in ("cell", "pass", "cost", "accuracy", "latency"):
            table.add_column(head)
        for cell in self.cells:
            shared = "" if cell.shared_pass is None else str(cell.shared_pass)
            states = (cell.state.get(k, "-") for k in ("cost", "accuracy", "latency"))
            table.add_row(*map(Text, (cell.label, shared, *states)))
        return table

    def _lines(self) -> list[str]:
        """What stands below the table."""
        drawn = [f"{count} pictures of the built-in {split} people to draw" for split, count in self.pictures.items()]
        trained = [f"{counted(self.trainings, 'training')} to run, each with its pass"] if self.trainings else []
        passes = [f"{counted(self.passes, 'pass')} over {self.persons} persons or images"] if self.passes else []
        parts = ", ".join(f"{part} {minutes:.1f}" for part, minutes in self.forecast.minutes.items())
        minutes = f"about {self.minutes:.1f} minutes on two cores" + (f" ({parts})" if parts else "")
        if self.forecast.uncounted:
            names = ", ".join(self.forecast.uncounted)
            minutes += f", without the multiply-accumulates of {names}: known once the cost is counted"
        return [*drawn, *trained, *passes, minutes, f"about {self.forecast.megabytes:.1f} MB of disk"]


def plan_suite(suite: Suite, store: Store, sources: Sources, marked: Marked | None = None) -> Plan:
    """The plan of a suite. Raises what `run_suite` would raise about the suite, data roots and weights."""
    gc.freeze()  # what was imported stays; looking through it while thousands of cells are made takes a quarter of all
    try:
        return _plan(suite, store, sources, marked)
    finally:
        gc.unfreeze()


def _plan(suite: Suite, store: Store, sources: Sources, marked: Marked | None) -> Plan:
    cells = expand(suite, marked)
    sources = replace(sources, draw=False)
    sources.check(cells)
    session = Session(suite, cells, store, sources, Options(), Progress())
    find_boxes(session)
    networks = alike(session, session.rows) if suite.measure.cost else []
    states = _states(session, suite, networks)
    waiting = {what: _waiting(states, what) for what in ("accuracy", "latency")}
    waiting["cost"] = _waiting({rows[0]: states[rows[0]] for rows in networks}, "cost")
    for row in waiting["latency"]:
        sources.dataset_or_synthetic(row.cell.data)  # where its own images are not here, the built-in ones are drawn
    numbers = _passes(session, states)
    groups: dict[int, list[Row]] = {}
    for row in waiting["accuracy"]:
        if row in numbers:
            groups.setdefault(numbers[row], []).append(row)
    passes = list(groups.values())
    ready = [rows for rows in passes if rows[0].weights is not None]
    untrained = {training.id: row for row, training in session.trainings.items() if row.weights is None}
    seeds = len(suite.seeds) > 1
    return Plan(
        tuple(
            PlannedCell(row.cell.label + (f", seed {row.cell.seed}" if seeds else ""), numbers.get(row), states[row])
            for row in session.rows
        ),
        {split: SYNTHETIC[split][0] for split in sorted(sources.undrawn)},
        len(untrained),
        len(ready),
        sum(people(session, rows[0]) for rows in ready),
        forecast(session, waiting, passes, list(untrained.values())),
    )


def _waiting(states: dict[Row, dict[str, str]], what: str) -> list[Row]:
    return [row for row, state in states.items() if state.get(what, "").startswith(_TO_DO)]


def _passes(session: Session, states: dict[Row, dict[str, str]]) -> dict[Row, int]:
    """The number of the pass of each row that has or will have one; rows of the same number share it."""
    numbers: dict[str, int] = {}
    found: dict[Row, int] = {}
    for row in session.rows:
        state = states[row].get("accuracy", "")
        if state == "cached" or state.startswith(_TO_DO):
            found[row] = numbers.setdefault(_pass_key(session, row), len(numbers) + 1)
    return found


def _pass_key(session: Session, row: Row) -> str:
    if row.weights is not None and not session.lacking_boxes(row):
        return joint_key(session, row)
    training = session.trainings.get(row)  # nothing is there yet that could be hashed
    return repr([session.network_key(row), training.id if training else str(row.weights)])


def _states(session: Session, suite: Suite, networks: Sequence[Sequence[Row]]) -> dict[Row, dict[str, str]]:
    """By row and measurement: `cached`, `to do`, or why there will be none. `networks`: the rows of each."""
    accuracy, latency = suite.measure.accuracy, suite.measure.latency
    states: dict[Row, dict[str, str]] = {row: {} for row in session.rows}
    for rows in networks:
        with session.guard(rows, "cost"):
            found = state_of_cost(session, rows)
            for row in rows:
                states[row]["cost"] = found
    for row, state in states.items():
        if accuracy:
            with session.guard([row], "accuracy"):
                state["accuracy"] = _state_of_accuracy(session, row, accuracy, states)
        if latency:
            state["latency"] = _state_of_latency(session, row, latency, state.get("accuracy", ""))
        state |= {name: reason for name, reason in row.reasons.items() if name not in state}
    return states


def _state_of_accuracy(session: Session, row: Row, spec: AccuracySpec, states: dict[Row, dict[str, str]]) -> str:
    """As the run will find it: trainings and other rows' boxes come before."""
    if row in session.trainings and row.weights is None and session.dataset(row) is not None:
        return f"{_TO_DO}, after its training"
    state, boxes = state_of_accuracy(session, row, spec), row.cell.data.boxes
    if session.lacking_boxes(row) and state == session.lacking_boxes(row) and isinstance(boxes, BoxesFrom):
        source = next(r for r in session.rows if r.variant.name == boxes.variant)
        if states[source].get("accuracy", "").startswith(_TO_DO):
            return f"{_TO_DO}, after the boxes of {boxes.variant}"
    return state


def _state_of_latency(session: Session, row: Row, spec: LatencySpec, accuracy: str) -> str:
    if row.weights is None and row.variant.open_file is not None:
        return row.lacking
    for batch in spec.batch:
        attach_known(session, [row], spec, batch)
    reasons = [reason for batch in spec.batch if (reason := row.reasons.pop(f"latency_b{batch}", ""))]
    if reasons and not accuracy.startswith(_TO_DO):  # an exit rate becomes a threshold where persons are scored
        return reasons[0]
    return "cached" if all(f"latency_b{batch}" in row.records for batch in spec.batch) else _TO_DO
