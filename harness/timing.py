"""Latency of a suite's cells: the same real crops for all of them, in interleaved rounds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import provenance
from harness.cost.latency import Execution, measure
from harness.cost.machine import machine, machine_id
from harness.data.boxes import from_ground_truth
from harness.data.coco import Dataset
from harness.data.crops import batches, iter_crops
from harness.predict import Decoding, PassPlan, TopDownRunner
from harness.store import Record
from harness.suite import LatencySpec

if TYPE_CHECKING:
    from harness.run import Row, Run

__all__ = ["measure_rows", "sample_crops", "timed_call"]

_PERSONS = 64  # crops that a timed network cycles through, so that a data-dependent cost is met in its variety
Crops = tuple[np.ndarray, np.ndarray, np.ndarray]  # pixels (B, H, W, 3) uint8, centers (B, 2), scales (B, 2)


def sample_crops(runner: TopDownRunner, dataset: Dataset, batch: int) -> list[Crops]:
    """Full batches of the first persons of a data set, repeated where it has fewer persons than one batch."""
    stream = iter_crops(
        dataset,
        from_ground_truth(dataset),
        input_size=runner.predictor.input_size,
        udp=runner.codec.udp,
        padding=runner.protocol.box_padding,
        workers=0,
        missing="skip",
    )
    most = max(1, _PERSONS // batch)
    found: list[Crops] = [(b[1], b[2], b[3]) for b in itertools.islice(batches(stream, batch), most)]
    full = [f for f in found if len(f[0]) == batch]
    if full or not found:
        return full
    pixels, centers, scales = (np.resize(a, (batch, *a.shape[1:])) for a in found[0])
    return [(pixels, centers, scales)]


def timed_call(
    runner: TopDownRunner, scope: str, settings: Mapping[str, Any], crops: Sequence[Crops]
) -> Callable[[], object]:
    """The call whose time is taken: the next batch of crops through what `scope` names."""
    if scope == "network":
        ready = itertools.cycle([runner.normalise(pixels) for pixels, _, _ in crops])
        return lambda: runner.forward_many(next(ready), [settings])[0].exits[-1]
    plan = PassPlan(settings, (Decoding.of(runner.protocol),), flip=runner.protocol.flip, all_exits=False)
    turn = itertools.cycle(crops)
    return lambda: runner.process(*next(turn), [plan])


def measure_rows(run: Run, rows: Sequence[Row], spec: LatencySpec, batch: int) -> None:
    """Latency records of `rows` under `latency_bB`; rows whose call is the same share one record.

    What is missing is measured together with the first row, which is the reference of the ratios.
    """
    facts = machine()
    keys = {row.cell.label: _key(run, row, spec, batch, facts) for row in rows}
    name = f"latency_b{batch}"
    calls: dict[str, tuple[Row, dict[str, Any]]] = {}
    for row in rows:
        record = run.store.get("latency", keys[row.cell.label])
        if record is not None:
            row.records[name] = record
        else:
            calls.setdefault(provenance.content_id(keys[row.cell.label]), (row, keys[row.cell.label]))
    if not calls:
        return
    reference = provenance.content_id(keys[rows[0].cell.label])
    calls = {reference: (rows[0], keys[rows[0].cell.label]), **calls}
    run.progress.say(f"timing {len(calls)} networks at batch {batch}, at most {spec.seconds:g} s")
    results = measure(_callables(run, calls, spec, batch), _execution(run, spec, batch))
    for identity, (_, key) in calls.items():
        result = {**results[identity].to_dict(), "reference": rows[0].cell.label, "machine": facts}
        record = run.store.put(Record.make("latency", key, result))
        for row in rows:
            if keys[row.cell.label] == key:
                row.records[name] = record


def _execution(run: Run, spec: LatencySpec, batch: int) -> Execution:
    return Execution(
        device=run.options.device,
        batch=batch,
        threads=spec.threads,
        rounds=spec.rounds,
        scope=spec.scope,
        seconds=spec.seconds,
    )


def _callables(
    run: Run, calls: Mapping[str, tuple[Row, dict[str, Any]]], spec: LatencySpec, batch: int
) -> dict[str, Callable[[], object]]:
    runners: dict[str, TopDownRunner] = {}
    crops: dict[str, list[Crops]] = {}
    found: dict[str, Callable[[], object]] = {}
    for identity, (row, key) in calls.items():
        network = provenance.content_id([row.cell.network_key(), row.cell.run, str(row.weights), str(row.cell.protocol)])
        if network not in runners:
            runners[network] = run.runner(row, run.build(row))
        runner = runners[network]
        view = f"{runner.predictor.input_size} {runner.codec.udp} {runner.protocol.box_padding}"
        if view not in crops:
            crops[view] = sample_crops(runner, run.sources.dataset_or_synthetic(row.cell.data), batch)
        found[identity] = timed_call(runner, spec.scope, key["settings"], crops[view])
    return found


def _key(run: Run, row: Row, spec: LatencySpec, batch: int, facts: dict[str, Any]) -> dict[str, Any]:
    """What determines a latency: network, settings, execution, machine; weights where the cost depends on them."""
    settings = run.settings(row)
    key = {
        **row.cell.network_key(),
        "settings": settings,
        "run": {n: row.cell.run[n] for n in ("dtype", "runtime")},
        "execution": {**spec.model_dump(mode="json"), "batch": batch, "device": run.options.device},
        "machine": machine_id(facts),
        "code": run.code("latency", row),
    }
    if spec.scope != "network":
        key["protocol"] = row.cell.protocol.model_dump(mode="json")
    if row.weights is not None and (settings.get("quality_threshold") is not None or row.variant.open_file):
        key["weights"] = provenance.file_sha256(row.weights)
    return key
