"""Latency of a suite's cells: the same real persons for all of them, in interleaved rounds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
import torch

from harness import provenance
from harness.cost.latency import Execution, LatencyResult, measure
from harness.cost.machine import machine, machine_id, passing
from harness.cost.statistics import kept_median
from harness.cost.utilisation import utilisation
from harness.data.boxes import from_ground_truth
from harness.errors import MeasurementError
from harness.passes.predict import TopDownRunner
from harness.records.store import Record
from harness.run.rows import Row, code_of, run_kind, settings_of
from harness.run.session import Session
from harness.run.timed_calls import TimedCall, Turn, inside_timer, turns
from harness.run.timed_image_poses import image_pose_difference
from harness.run.timed_images import TimedImages, image_turns, inside_image_timer
from harness.run.timed_poses import pose_difference
from harness.suite.schema import LatencySpec

__all__ = ["attach_known", "measure_latency"]

Timed = TimedCall | TimedImages

_DEPENDS = "its cost depends on the person, and no person was scored"


def measure_latency(session: Session, spec: LatencySpec) -> None:
    """Latency records: all cells of one batch size in the same interleaved rounds."""
    rows = [row for row in session.rows if row.weights is not None or row.variant.open_file is None]
    for batch in spec.batch:
        for row in session.rows:
            if row not in rows:
                row.reasons[f"latency_b{batch}"] = row.lacking
        with session.guard(rows, f"latency_b{batch}"):
            _measure_rows(session, rows, spec, batch)


def _measure_rows(session: Session, rows: Sequence[Row], spec: LatencySpec, batch: int) -> None:
    """Latency records of `rows` under `latency_bB`; rows whose call is the same share one record.

    What is missing is measured together with the first row, which is the reference of the ratios; a row that cannot
    run gets its reason and leaves the round.
    """
    facts, name = machine(), f"latency_b{batch}"
    keys = attach_known(session, rows, spec, batch)
    calls: dict[str, list[Row]] = {}
    for row, key in keys.items():
        calls.setdefault(provenance.content_id(key), []).append(row)
    wanted = {n: own for n, own in calls.items() if rows[0] in own or any(name not in r.records for r in own)}
    if all(name in row.records for row in keys):
        return
    callables = _callables(session, {n: (own, keys[own[0]]) for n, own in wanted.items()}, spec, batch)
    if not callables:
        return
    session.progress.say(f"timing {len(callables)} networks at batch {batch}, at most {spec.seconds:g} s")

    def restart() -> None:
        for call in callables.values():
            call.restart()

    before = passing()
    with _image_threads(spec.threads):
        results = measure(callables, _execution(session, spec, batch), before_rounds=restart)
    about = {
        "reference": calls[next(iter(callables))][0].cell.label,
        "machine": facts,
        "passing": {"before": before, "after": passing()},
    }
    for identity, measured in results.items():
        own = calls[identity]
        with session.guard(own, name):
            result = {**_result(session, own, callables[identity], measured), **about}
            record = session.store.put(Record.make("latency", keys[own[0]], result))
            for row in own:
                row.records[name] = record


def _result(session: Session, rows: Sequence[Row], call: Timed, measured: LatencyResult) -> dict[str, Any]:
    """The measurement, what stands beside it, and the check that the timed poses are the scored ones."""
    protocol, kind = rows[0].cell.protocol, run_kind(rows[0].cell)
    found = measured.to_dict()
    found["execution"] |= kind
    words = inside_image_timer if isinstance(call, TimedImages) else inside_timer
    found["inside_timer"] = words(call.scope, protocol, call.batch)
    persons = call.persons[: len(measured.samples)]
    each = [(s.wall_ms / n, s.starved) for s, n in zip(measured.samples, persons, strict=True) if n]
    per_person = kept_median([ms for ms, starved in each if not starved], [ms for ms, _ in each])
    found |= {"persons_per_call": persons, "ms_per_person": asdict(per_person), "preparing_ms": call.preparing_ms()}
    if isinstance(call, TimedImages):
        macs = call.macs()[: len(persons)]
        found["images_per_call"] = call.batch if call.scope != "end-to-end" else 1
        found["gmacs_without_persons_per_call"] = [float(one.fixed.sum()) / 1e9 for one in macs]
        found |= image_pose_difference(session, rows, call)
        per_call: float | None = float(np.median([one.whole.sum() for one in macs]))
        reason = ""
    else:
        found |= pose_difference(session, rows, call)
        each_macs, reason = _macs(rows[0], call)
        per_call = None if each_macs is None else each_macs * float(np.median(persons))
    return found | utilisation(call, measured, call.runner.predictor, dtype=kind["dtype"], macs=per_call, reason=reason)


def _macs(row: Row, call: TimedCall) -> tuple[float | None, str]:
    """Multiply-accumulates of one person inside the timer, or why they are not known."""
    cost, scored = row.records.get("cost"), row.records.get("accuracy")
    if cost is None:
        return None, "there is no cost record"
    if not cost.result.get("trace"):
        return float(cost.result["macs"]) * call.forwards, ""
    mean = scored and scored.result.get("cost", {}).get("gmacs_per_forward", {}).get("mean")
    return (1e9 * mean * call.forwards, "") if mean else (None, _DEPENDS)


@contextmanager
def _image_threads(threads: int | None) -> Iterator[None]:
    """OpenCV has a pool of its own, which is to be as large as torch's."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(threads or torch.get_num_threads())
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def attach_known(session: Session, rows: Sequence[Row], spec: LatencySpec, batch: int) -> dict[Row, dict[str, Any]]:
    """Gives `rows` the records that are there already; the key of each row (rows whose data are broken have none)."""
    facts, name = machine(), f"latency_b{batch}"
    keys: dict[Row, dict[str, Any]] = {}
    for row in rows:
        with session.guard([row], name):
            keys[row] = _key(session, row, spec, batch, facts)
            record = session.store.get("latency", keys[row])
            if record is not None:
                row.records[name] = record
    return keys


def _execution(session: Session, spec: LatencySpec, batch: int) -> Execution:
    return Execution(
        device=session.options.device,
        batch=batch,
        threads=spec.threads,
        rounds=spec.rounds,
        scope=spec.scope,
        seconds=spec.seconds,
    )


def _callables(
    session: Session, calls: Mapping[str, tuple[list[Row], dict[str, Any]]], spec: LatencySpec, batch: int
) -> dict[str, Timed]:
    """What is timed, by call; each has run once, so that what cannot run is not among them."""
    runners: dict[str, TopDownRunner] = {}
    found: dict[str, Timed] = {}
    work: dict[str, list[Turn]] = {}
    with session.progress.task(f"each call once at batch {batch}", len(calls)) as advance:
        for identity, (rows, key) in calls.items():
            with session.guard(rows, f"latency_b{batch}"):
                call: Timed
                if rows[0].variant.paradigm == "one-stage":
                    call = _timed_images(session, rows[0], spec, batch)
                else:
                    call = _timed_call(session, rows[0], key["settings"], spec, batch, (runners, work))
                call.try_all()
                found[identity] = call
            advance(1)
    return found


def _timed_call(
    session: Session,
    row: Row,
    settings: dict[str, Any],
    spec: LatencySpec,
    batch: int,
    known: tuple[dict[str, TopDownRunner], dict[str, list[Turn]]],
) -> TimedCall:
    """The call of a top-down row; `known`: networks and persons of other rows, which it may share."""
    runners, work = known
    own = [session.network_key(row), row.cell.run, str(row.weights), row.cell.protocol.model_dump(mode="json")]
    network = provenance.content_id(own)
    if network not in runners:
        runners[network] = session.runner(row, session.build(row, row.weights))
    return TimedCall(runners[network], spec.scope, settings, _work(session, row, spec, batch, work), batch)


def _timed_images(session: Session, row: Row, spec: LatencySpec, batch: int) -> TimedImages:
    """The call of a one-stage row, over the row's own images or those of the built-in people."""
    data = row.cell.data
    found = image_turns(session.sources.dataset_or_synthetic(data), batch, spec.scope)
    if not found:
        raise MeasurementError("there is no image to time with", where=data.name, expected="image files")
    runner = session.image_runner(row, session.build(row, row.weights))
    return TimedImages(runner, spec.scope, settings_of(row.cell), found, batch)


def _work(session: Session, row: Row, spec: LatencySpec, batch: int, known: dict[str, list[Turn]]) -> list[Turn]:
    """The persons that are timed: those of the row's own boxes, or the built-in people where its data are not here."""
    data, protocol = row.cell.data, row.cell.protocol
    name = f"{data.model_dump_json()} {protocol.box_cleaning} {protocol.box_score_threshold}"
    if name not in known:
        if session.dataset(row) is not None and not session.lacking_boxes(row):
            dataset, boxes, _ = session.inputs(row)
        else:
            dataset = session.sources.dataset_or_synthetic(data)
            boxes = from_ground_truth(dataset)
        known[name] = turns(dataset, boxes, batch, spec.scope)
    if not known[name]:
        raise MeasurementError("there is no person to time with", where=data.name, expected="images with person boxes")
    return known[name]


def _key(session: Session, row: Row, spec: LatencySpec, batch: int, facts: dict[str, Any]) -> dict[str, Any]:
    """What determines a latency: network, settings, execution, machine; weights where the cost depends on them."""
    settings = session.settings(row)
    key = {
        **session.network_key(row),
        "settings": settings,
        "run": run_kind(row.cell),
        "execution": {**spec.model_dump(mode="json"), "batch": batch, "device": session.options.device},
        "machine": machine_id(facts),
        "code": code_of("latency", row.variant),
    }
    whole = row.variant.paradigm == "one-stage"
    if spec.scope != "network" or whole:
        key["protocol"] = row.cell.protocol.applying(row.variant.paradigm)
    decides = settings.get("quality_threshold", "always") not in ("always", "never") or whole
    if row.weights is not None and (decides or row.variant.open_file):
        key["weights"] = provenance.file_sha256(row.weights)
    return key
