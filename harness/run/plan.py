"""What a run would do: which records are there, which are missing and why, which cells share a pass. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from harness.records.store import Store
from harness.run.costing import state_of_cost
from harness.run.rows import Options, Progress, Row
from harness.run.scoring import joint_key, state_of_accuracy
from harness.run.scoring_images import find_boxes
from harness.run.session import Session
from harness.run.timing import attach_known
from harness.suite.cells import expand
from harness.suite.file import Marked
from harness.suite.schema import LatencySpec, Suite
from harness.suite.sources import Sources

__all__ = ["Plan", "PlannedCell", "plan_suite"]

_GMACS_PER_SECOND = 40.0  # a modest CPU; only there to tell minutes from days before anything was measured
_BYTES_PER_POSE = 17 * 3 * 4


@dataclass(frozen=True)
class PlannedCell:
    """One cell: `state` by measurement is `cached`, `to do` or the reason why there will be none."""

    label: str
    shared_pass: int | None
    state: dict[str, str]


@dataclass(frozen=True)
class Plan:
    """The cells of a suite, the trainings and passes still to run, and rough figures of time and disk. The passes, the
    persons and the minutes are those of rows that have their weights already."""

    cells: tuple[PlannedCell, ...]
    trainings: int
    passes: int
    persons: int
    minutes: float | None
    megabytes: float

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": [vars(c) for c in self.cells],
            "trainings": self.trainings,
            "passes": self.passes,
            "persons": self.persons,
            "minutes": self.minutes,
            "megabytes": self.megabytes,
        }

    def to_rich(self) -> Table:
        """The plan as a table for the terminal."""
        minutes = "unknown (no cost records yet)" if self.minutes is None else f"about {self.minutes:.1f}"
        work = f"{self.passes} passes over {self.persons} persons to run"
        if self.trainings:
            work = f"{self.trainings} trainings, each followed by its pass; besides {work}"
        caption = f"{work}; minutes: {minutes}; disk: {self.megabytes:.0f} MB"
        table = Table(caption=caption)
        for head in ("cell", "pass", "cost", "accuracy", "latency"):
            table.add_column(head)
        for cell in self.cells:
            shared = "" if cell.shared_pass is None else str(cell.shared_pass)
            table.add_row(cell.label, shared, *(cell.state.get(k, "-") for k in ("cost", "accuracy", "latency")))
        return table


def plan_suite(suite: Suite, store: Store, sources: Sources, marked: Marked | None = None) -> Plan:
    """The plan of a suite. Raises what `run_suite` would raise about the suite, data roots and weights."""
    cells = expand(suite, marked)
    sources.check(cells)
    session = Session(suite, cells, store, sources, Options(), Progress())
    find_boxes(session)
    states = _states(session, suite)
    numbers: dict[str, int] = {}
    planned: list[PlannedCell] = []
    waiting: dict[int, Row] = {}
    for row in session.rows:
        state, number = states[row].get("accuracy"), None
        if state in ("to do", "cached"):
            number = numbers.setdefault(joint_key(session, row), len(numbers) + 1)
        if state == "to do" and number is not None:
            waiting.setdefault(number, row)
        seed = f", seed {row.cell.seed}" if len(suite.seeds) > 1 else ""
        planned.append(PlannedCell(row.cell.label + seed, number, states[row]))
    persons = sum(_work(session, row) for row in waiting.values() if row.variant.paradigm == "top-down")
    gmacs = [_gmacs(session, row) for row in waiting.values()]
    minutes = None if None in gmacs else sum(g for g in gmacs if g is not None) / _GMACS_PER_SECOND / 60
    trainings = {training.id for row, training in session.trainings.items() if row.weights is None}
    return Plan(tuple(planned), len(trainings), len(waiting), persons, minutes, persons * _BYTES_PER_POSE * 2 / 1e6)


def _states(session: Session, suite: Suite) -> dict[Row, dict[str, str]]:
    """By row and measurement: `cached`, `to do`, or why there will be none."""
    accuracy, latency = suite.measure.accuracy, suite.measure.latency
    states: dict[Row, dict[str, str]] = {row: {} for row in session.rows}
    for row, state in states.items():
        if suite.measure.cost:
            with session.guard([row], "cost"):
                state["cost"] = state_of_cost(session, row)
        if accuracy:
            with session.guard([row], "accuracy"):
                state["accuracy"] = state_of_accuracy(session, row, accuracy)
            if row in session.trainings and row.weights is None and "accuracy" not in row.failed:
                state["accuracy"] = "to do, after its training"
        if latency:
            state["latency"] = _state_of_latency(session, row, latency)
        state |= {name: reason for name, reason in row.reasons.items() if name not in state}
    return states


def _state_of_latency(session: Session, row: Row, spec: LatencySpec) -> str:
    if row.weights is None and row.variant.open_file is not None:
        return row.lacking
    for batch in spec.batch:
        attach_known(session, [row], spec, batch)
    return "cached" if all(f"latency_b{batch}" in row.records for batch in spec.batch) else "to do"


def _gmacs(session: Session, row: Row) -> float | None:
    """Work of the pass of a row, None when its cost is not known yet."""
    cost = row.records.get("cost")
    if cost is None:
        return None
    forwards = 2 if row.variant.paradigm == "top-down" and row.cell.protocol.flip else 1
    return _work(session, row) * forwards * cost.result["macs"] / 1e9


def _work(session: Session, row: Row) -> int:
    """Persons of a top-down row, images of a one-stage row."""
    dataset = session.dataset(row)
    assert dataset is not None
    return len(dataset.images) if row.variant.paradigm == "one-stage" else len(session.inputs(row).boxes)
