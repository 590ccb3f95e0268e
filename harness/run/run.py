"""A suite -> records and the manifest of its table: what is missing is measured, stage by stage."""

from __future__ import annotations

import time
from typing import Any

from harness import provenance
from harness.errors import HarnessError
from harness.records.store import SCHEMA, Record, Store
from harness.run.ablation import compared, effects_record, lines
from harness.run.executors import HERE, Executor
from harness.run.rows import Options, Progress
from harness.run.session import Session
from harness.run.systems import system_record
from harness.suite.cells import expand
from harness.suite.schema import AccuracySpec, Suite
from harness.suite.sources import Sources

__all__ = ["run_suite"]


def run_suite(
    suite: Suite,
    store: Store,
    sources: Sources,
    options: Options,
    progress: Progress,
    marked: Any = None,
    executor: Executor = HERE,
) -> dict[str, Any]:
    """Measure what is missing and return the manifest of the table; records are written as they come."""
    cells = expand(suite, marked)
    sources.check(cells)
    store.check_writable()
    session = Session(suite, cells, store, sources, options, progress)
    effects = system = None
    try:
        with executor as measure:
            measure(session, "cost", "training", "accuracy")
            if suite.measure.accuracy:
                effects = _effects(session, suite.measure.accuracy)
            measure(session, "latency")
        system = system_record(suite, session.rows, store, _persons_per_image(session))
    finally:
        manifest = _manifest(session, effects, system)
        store.write_run(suite.name, manifest)
    return manifest


def _effects(session: Session, spec: AccuracySpec) -> Record | None:
    """The record of what each swept knob does to AP and of which row is the best, from the matches that are stored."""
    cells = sum("accuracy" in row.records for own in lines(session.rows).values() for row in own)
    cells += len(compared(session.rows))
    if not cells:
        return None
    with session.progress.task("paired differences", cells) as advance:
        return effects_record(session.rows, session.store, spec, lambda: advance(1))


def _persons_per_image(session: Session) -> float | None:
    """Annotated persons of an image of the first row's data, crowds not counted; None without data."""
    try:
        dataset = session.dataset(session.rows[0])
    except HarnessError:  # told in the rows
        return None
    return sum(not person.iscrowd for person in dataset.persons) / len(dataset.images) if dataset else None


def _manifest(session: Session, effects: Record | None, system: Record | None) -> dict[str, Any]:
    """What the table of this suite consists of."""
    return {
        "schema_version": SCHEMA,
        "suite": session.suite.model_dump(mode="json"),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": provenance.command(),
        "rows": [row.to_json() for row in session.rows],
        "effects": effects.id if effects else None,
        "system": system.id if system else None,
    }
