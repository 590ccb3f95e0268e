"""What a run would do: which records are there, which are missing and why, which cells share a pass. Runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.table import Table

from harness.run import Options, Progress, Run
from harness.sources import Sources
from harness.store import Store
from harness.suite import AccuracySpec, Suite, expand
from harness.suite_file import Marked

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
    """The cells of a suite, the passes still to run, and rough figures of time and disk."""

    cells: tuple[PlannedCell, ...]
    passes: int
    persons: int
    minutes: float | None
    megabytes: float

    def to_json(self) -> dict[str, Any]:
        return {
            "cells": [vars(c) for c in self.cells],
            "passes": self.passes,
            "persons": self.persons,
            "minutes": self.minutes,
            "megabytes": self.megabytes,
        }

    def to_rich(self) -> Table:
        """The plan as a table for the terminal."""
        minutes = "unknown (no cost records yet)" if self.minutes is None else f"about {self.minutes:.1f}"
        caption = f"{self.passes} passes over {self.persons} persons to run; minutes: {minutes}; disk: {self.megabytes:.0f} MB"
        table = Table(caption=caption)
        for head in ("cell", "pass", "cost", "accuracy", "latency"):
            table.add_column(head)
        for cell in self.cells:
            shared = "" if cell.shared_pass is None else str(cell.shared_pass)
            table.add_row(
                cell.label, shared, *(cell.state.get(k, "-") for k in ("cost", "accuracy", "latency"))
            )
        return table


def plan_suite(suite: Suite, store: Store, sources: Sources, marked: Marked | None = None) -> Plan:
    """The plan of a suite. Raises what `run_suite` would raise about the suite, data roots and weights."""
    cells = expand(suite, marked)
    sources.check(cells)
    run = Run(suite, cells, store, sources, Options(), Progress())
    accuracy = suite.measure.accuracy
    spec = accuracy if isinstance(accuracy, AccuracySpec) else AccuracySpec()
    shared: dict[str, int] = {}
    planned: list[PlannedCell] = []
    gmacs, persons, known = 0.0, 0, True
    for row in run.rows:
        state: dict[str, str] = {}
        if suite.measure.cost:
            state["cost"] = run.state_of_cost(row)
        if suite.measure.accuracy:
            state["accuracy"] = run.state_of_accuracy(row, spec)
        if suite.measure.latency:
            state["latency"] = "to do"
        number = None
        if state.get("accuracy") in ("to do", "cached"):
            number = shared.setdefault(run.joint_key(row), len(shared) + 1)
        if state.get("accuracy") == "to do" and number not in {
            c.shared_pass for c in planned if "to do" in c.state.values()
        }:
            count = len(run.inputs(row)[1].scores)
            persons += count
            cost = row.records.get("cost")
            known = known and cost is not None
            gmacs += count * (2 if row.cell.protocol.flip else 1) * (cost.result["macs"] / 1e9 if cost else 0)
        planned.append(PlannedCell(row.cell.label, number, state))
    todo = {c.shared_pass for c in planned if c.state.get("accuracy") == "to do"}
    minutes = gmacs / _GMACS_PER_SECOND / 60 if known else None
    return Plan(tuple(planned), len(todo), persons, minutes, persons * _BYTES_PER_POSE * 2 / 1e6)
