"""The stages of a run: each fills the rows of a session with what it measures, as far as the suite asks for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from harness.run.costing import measure_cost
from harness.run.rows import Row
from harness.run.scoring import measure_accuracy
from harness.run.session import Session
from harness.run.timing import measure_latency

__all__ = ["STAGES", "Stage", "asked", "measure_here"]

Stage = Literal["cost", "training", "accuracy", "latency"]


def asked(session: Session, stage: Stage) -> bool:
    """The suite asks for this stage."""
    measure = session.suite.measure
    if stage == "training":
        return measure.accuracy is not None and bool(session.trainings)
    return bool(getattr(measure, stage))


def measure_here(session: Session, *stages: Stage) -> None:
    """Run `stages` in this process, one after the other."""
    for stage in stages:
        if asked(session, stage):
            STAGES[stage](session)


def _train(session: Session) -> None:
    """Weights for the rows of a suite that trains; rows with the same network and seed share a training."""
    groups: dict[str, list[Row]] = {}
    for row, training in session.trainings.items():
        if row.weights is None:
            groups.setdefault(training.id, []).append(row)
    for rows in groups.values():
        with session.guard(rows, "training"):
            session.progress.say(f"{rows[0].cell.label}, seed {rows[0].cell.seed}: training")
            weights = session.trainings[rows[0]].run(session.options.device, session.options.workers)
            for row in rows:
                row.weights = weights
        for row in rows:
            row.lacking = row.reasons.pop("training", row.lacking)


def _accuracy(session: Session) -> None:
    assert session.suite.measure.accuracy is not None
    measure_accuracy(session, session.suite.measure.accuracy)


def _latency(session: Session) -> None:
    assert session.suite.measure.latency is not None
    measure_latency(session, session.suite.measure.latency)


STAGES: dict[Stage, Callable[[Session], None]] = {
    "cost": measure_cost,
    "training": _train,
    "accuracy": _accuracy,
    "latency": _latency,
}
"""In the order in which one may need what another has measured."""
