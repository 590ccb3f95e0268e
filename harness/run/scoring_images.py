"""The accuracy of one-stage rows: a pass over whole images, and the boxes that top-down rows may take from it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness import provenance
from harness.errors import MeasurementError
from harness.passes import replay
from harness.passes.predict_images import run_image_pass
from harness.passes.score import on_evaluated
from harness.passes.score_images import boxes_of, person_results, score_images
from harness.records.store import Record
from harness.run.rows import Row, code_of, run_kind, settings_of
from harness.run.sealing import seal
from harness.run.session import Session
from harness.suite.schema import AccuracySpec

__all__ = ["find_boxes", "image_pass", "image_pass_key", "image_record_key", "score_image_rows"]

_IMAGE = ("shortest_edge", "longest_edge", "resizing", "colour", "mean", "std")


def image_pass_key(session: Session, row: Row) -> dict[str, Any]:
    """What determines the pass of a one-stage row; rows with the same key share it."""
    assert row.weights is not None
    protocol = row.cell.protocol.applying("one-stage")
    return {
        **session.network_key(row),
        "weights": provenance.file_sha256(row.weights),
        "data": session.image_key(row),
        "image": {name: protocol[name] for name in _IMAGE},
        "missing": row.cell.data.missing,
        "execution": run_kind(row.cell),
        "settings": settings_of(row.cell),
        "code": code_of("predict_images", row.variant),
    }


def image_record_key(session: Session, row: Row, spec: AccuracySpec) -> dict[str, Any]:
    """What determines the accuracy record of a one-stage row."""
    return {
        **image_pass_key(session, row),
        "select": row.cell.select,
        "protocol": row.cell.protocol.applying("one-stage"),
        "spec": spec.model_dump(mode="json"),
        "score_code": provenance.code("score_images"),
        **session.joints_key(row),
    }


def image_pass(session: Session, row: Row) -> replay.Pass | None:
    """The stored pass of a one-stage row, None where there is none (no weights, no data, not predicted)."""
    if row.weights is None or session.dataset(row) is None:
        return None
    return replay.load_pass(_folder(session, row))


def _folder(session: Session, row: Row) -> Path:
    return session.store.pass_folder(provenance.content_id(image_pass_key(session, row)))


def find_boxes(session: Session) -> None:
    """Gives the session the boxes that other rows take, where their pass is there: those of the variant's first row."""
    for name in session.box_sources():
        row = next(row for row in session.rows if row.variant.name == name)
        with session.guard([row], "boxes"):
            found, dataset = image_pass(session, row), session.dataset(row)
            if found is not None and dataset is not None:
                source = f"{row.cell.label}, pass {_folder(session, row).name}"
                session.detected[name] = boxes_of(found, row.cell.protocol, dataset, source)


def score_image_rows(session: Session, rows: Sequence[Row], spec: AccuracySpec) -> dict[Row, list[dict[str, Any]]]:
    """COCO results of `rows`, which share a pass; those that have ground truth get their record. Predicts what is
    missing."""
    found = image_pass(session, rows[0]) or _predict(session, rows[0])
    results: dict[Row, list[dict[str, Any]]] = {}
    for row in rows:
        with session.guard([row], "accuracy"):
            dataset = session.dataset(row)
            assert dataset is not None
            everybody = person_results(found, row.cell.protocol, [image.id for image in dataset.images])
            results[row] = on_evaluated(everybody, dataset)
            if "accuracy" not in row.records and dataset.persons:
                result, arrays = score_images(found, results[row], row.cell.protocol, dataset, spec)
                folder = _folder(session, row)
                result["notes"] = [*result["notes"], *replay.notes_of(folder)]
                record = Record.make("accuracy", image_record_key(session, row, spec), result, predictions=folder.name)
                row.records["accuracy"] = session.store.put(record, arrays)
    return results


def _predict(session: Session, row: Row) -> replay.Pass:
    dataset, options = session.dataset(row), session.options
    assert dataset is not None
    session.store.check_pass(_folder(session, row).name)
    runner = session.image_runner(row, session.predictor(row))
    began = time.perf_counter()
    with session.progress.task(f"{row.variant.name}: {len(dataset.images)} images", len(dataset.images)) as advance:
        blocks = run_image_pass(
            runner, settings_of(row.cell), _folder(session, row), dataset, batch=options.batch,
            workers=options.workers, missing=row.cell.data.missing, advance=advance,
        )  # fmt: skip
    about = {"seconds": time.perf_counter() - began, "device": options.device}
    images = np.array([image.id for image in dataset.images])
    seal(session, row, lambda: [_folder(session, row)], [blocks], images, about)
    found = replay.load_pass(_folder(session, row))
    if found is None:
        raise MeasurementError("a pass that was just written cannot be read", where=str(_folder(session, row)))
    return found
