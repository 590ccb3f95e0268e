"""The accuracy of a suite's rows: one pass over the persons for all rows that can share it, then a score for each."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import provenance
from harness.errors import MeasurementError
from harness.passes import replay
from harness.passes.predict import Decoding, PassPlan, run_passes
from harness.passes.score import detections, score
from harness.records.store import Record, write_atomically
from harness.run.joints import check_ground
from harness.run.rows import Row, code_of, file_names, run_kind, settings_of
from harness.run.scoring_images import find_boxes, image_pass_key, image_record_key, score_image_rows
from harness.run.sealing import seal
from harness.run.session import Session
from harness.suite.schema import AccuracySpec

__all__ = ["joint_key", "measure_accuracy", "pass_folders", "scored_pass", "sharing", "state_of_accuracy", "waits"]

_NO_TRUTH = "no ground truth"


def measure_accuracy(session: Session, spec: AccuracySpec) -> None:
    """Accuracy records; cells that differ in select knobs only share a pass, alphas share a coarse stage."""
    whole = [row for row in session.rows if row.variant.paradigm == "one-stage"]
    for rows in sharing(session, whole, spec):  # first, as the other rows may take their boxes from these
        _score_images(session, rows, spec)
    find_boxes(session)
    for rows in sharing(session, [row for row in session.rows if row not in whole], spec):
        waiting = [row for row in rows if waits(session, row)]
        with session.guard(waiting, "accuracy"):
            _joint_pass(session, rows, waiting, spec)


def sharing(session: Session, rows: Sequence[Row], spec: AccuracySpec) -> list[list[Row]]:
    """The rows that can be predicted, in groups that share a pass."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        with session.guard([row], "accuracy"):
            if state_of_accuracy(session, row, spec) in ("cached", "to do", _NO_TRUTH):
                groups.setdefault(joint_key(session, row), []).append(row)
    return list(groups.values())


def _score_images(session: Session, rows: Sequence[Row], spec: AccuracySpec) -> None:
    """The pass of one-stage `rows` where something waits behind it: a record, a result file, another row's boxes."""
    needed = any(waits(session, row) or row.variant.name in session.box_sources() for row in rows)
    with session.guard(rows, "accuracy"):
        found = score_image_rows(session, rows, spec) if needed else {}
        for row, results in found.items():
            _write_results(session, row, results)


def state_of_accuracy(session: Session, row: Row, spec: AccuracySpec) -> str:
    """`cached` (the row has its record now), `to do`, or why there is none. SuiteError or DataError where the row's
    network cannot be scored on its data."""
    dataset = session.dataset(row)
    if row.weights is None:
        row.reasons["accuracy"] = row.lacking
    elif dataset is None:
        row.reasons["accuracy"] = f"no data (--data {row.cell.data.root}=PATH)"
    elif session.lacking_boxes(row):
        row.reasons["accuracy"] = session.lacking_boxes(row)
    elif not dataset.persons:
        row.reasons["accuracy"] = _NO_TRUTH
    else:
        session.joint_map(row)
        check_ground(row, dataset)
        whole = row.variant.paradigm == "one-stage"
        key = image_record_key(session, row, spec) if whole else _key(session, row, spec)
        return "cached" if session.attach(row, key) else "to do"
    return row.reasons["accuracy"]


def waits(session: Session, row: Row) -> bool:
    """There is something to do for this row behind a pass: a record, or a result file."""
    return session.options.results is not None or not ({"accuracy"} & (row.records.keys() | row.reasons.keys()))


def _base_key(session: Session, row: Row) -> dict[str, Any]:
    """What all passes that may run together have in common, as it was when it was first asked for: weights that are
    overwritten during a run are not those that it has loaded."""
    assert row.weights is not None
    inputs = session.inputs(row).key
    name = (row, row.weights, inputs["dataset"], inputs["boxes_digest"])
    if name not in session.base_keys:
        session.base_keys[name] = _new_base_key(session, row, row.weights, inputs)
    return session.base_keys[name]


def _new_base_key(session: Session, row: Row, weights: Path, inputs: dict[str, str]) -> dict[str, Any]:
    crop = {n: getattr(row.cell.protocol, n) for n in ("codec", "box_padding", "colour", "mean", "std")}
    return {
        **session.network_key(row),
        "weights": provenance.file_sha256(weights),
        "data": inputs,
        "crop": crop,
        "missing": row.cell.data.missing,
        "execution": run_kind(row.cell),
        "code": code_of("predict", row.variant),
    }


def joint_key(session: Session, row: Row) -> str:
    """Rows with the same key may share work: one pass over the same crops, or the same images."""
    if row.variant.paradigm == "one-stage":
        return provenance.content_id(image_pass_key(session, row))
    return repr(_base_key(session, row))  # it only tells rows apart: no hash of ten thousand cells


def _joint_pass(session: Session, rows: Sequence[Row], waiting: Sequence[Row], spec: AccuracySpec) -> None:
    """A pass for each run setting, planned for all `rows`, so that a later change of one finds its pass."""
    wanted = [group for group in _by_setting(rows) if set(group) & set(waiting)]
    plans = [_plan(group) for group in wanted]
    folders = [_pass_folder(session, group[0], plan) for group, plan in zip(wanted, plans)]
    missing = [(p, f) for p, f in zip(plans, folders) if replay.load_pass(f) is None]
    if missing:
        _predict(session, [p for p, _ in missing], wanted[0][0])
        folders = [_pass_folder(session, group[0], plan) for group, plan in zip(wanted, plans)]
    for group, folder in zip(wanted, folders):
        found = replay.load_pass(folder)
        if found is None:
            raise MeasurementError("a pass that was just written cannot be read", where=str(folder))
        for row in group:
            if row in waiting:
                with session.guard([row], "accuracy"):
                    _score(session, row, found, spec, folder)


def _by_setting(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(provenance.content_id(settings_of(row.cell)), []).append(row)
    return list(groups.values())


def pass_folders(session: Session, rows: Sequence[Row]) -> list[Path]:
    """Where the passes of `rows` are kept, which share a joint key: one for each run setting."""
    if rows[0].variant.paradigm == "one-stage":
        return [session.store.pass_folder(joint_key(session, rows[0]))]
    return [_pass_folder(session, group[0], _plan(group)) for group in _by_setting(rows)]


def _pass_folder(session: Session, row: Row, plan: PassPlan) -> Path:
    settings = {"settings": dict(plan.settings), "flip": plan.flip, "all_exits": plan.all_exits}
    key = [{**_base_key(session, row), **settings}, [d.name for d in plan.decodings]]
    return session.store.pass_folder(provenance.content_id(key))


def scored_pass(session: Session, row: Row) -> replay.Pass | None:
    """The stored pass that a row is scored from, None where there is none (no weights, no data, not predicted)."""
    if row.weights is None or session.dataset(row) is None or session.lacking_boxes(row):
        return None
    key, settings = joint_key(session, row), settings_of(row.cell)
    others = [r for r in session.rows if r.weights is not None and r.cell.data == row.cell.data]
    group = [r for r in others if settings_of(r.cell) == settings and joint_key(session, r) == key]
    return replay.load_pass(_pass_folder(session, row, _plan(group)))


def _predict(session: Session, plans: Sequence[PassPlan], row: Row) -> None:
    dataset, boxes, _ = session.inputs(row)

    def folders() -> list[Path]:
        return [_pass_folder(session, row, plan) for plan in plans]

    for folder in folders():
        session.store.check_pass(folder.name)
    runner = session.runner(row, session.predictor(row))
    began = time.perf_counter()
    text = f"{row.variant.name}: {len(boxes.scores)} persons"
    with session.progress.task(text, len(boxes.scores)) as advance:
        blocks = run_passes(
            runner, plans, folders(), dataset, boxes, batch=session.options.batch, workers=session.options.workers,
            missing=row.cell.data.missing, advance=advance,
        )  # fmt: skip
    about = {"seconds": time.perf_counter() - began, "device": session.options.device}
    seal(session, row, folders, blocks, boxes.image_ids, about)


def _key(session: Session, row: Row, spec: AccuracySpec) -> dict[str, Any]:
    return {
        **_base_key(session, row),
        "settings": settings_of(row.cell),
        "select": row.cell.select,
        "protocol": row.cell.protocol.applying("top-down"),
        "missing": row.cell.data.missing,
        "spec": spec.model_dump(mode="json"),
        "score_code": provenance.code("score"),
        **session.joints_key(row),
    }


def _score(session: Session, row: Row, found: replay.Pass, spec: AccuracySpec, folder: Path) -> None:
    dataset, boxes, _ = session.inputs(row)
    results, chosen = detections(row.cell, found, dataset, boxes)
    _write_results(session, row, results)
    if "accuracy" in row.records or not dataset.persons:
        return
    result, arrays = score(found, results, chosen, dataset, boxes, spec)
    result["notes"] = [*result["notes"], *replay.notes_of(folder)]
    key = _key(session, row, spec)
    row.records["accuracy"] = session.store.put(Record.make("accuracy", key, result, predictions=folder.name), arrays)


def _write_results(session: Session, row: Row, results: Sequence[dict[str, Any]]) -> None:
    if session.options.results is not None:
        file = session.options.results / f"{file_names(session.rows)[row]}.json"
        write_atomically(file, json.dumps(results).encode())


def _plan(rows: Sequence[Row]) -> PassPlan:
    """One pass that can answer all of `rows`: every decoder asked for; with flip, the plain outcomes come along."""
    decodings = sorted({Decoding.of(r.cell.protocol) for r in rows}, key=lambda d: d.name)
    return PassPlan(settings_of(rows[0].cell), tuple(decodings), any(r.cell.protocol.flip for r in rows))
