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
from harness.rows import Row, code_of, run_kind
from harness.store import Record
from harness.suite import LatencySpec

if TYPE_CHECKING:
    from harness.run import Run

__all__ = ["attach_known", "measure_rows", "sample_crops", "timed_call"]

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

    What is missing is measured together with the first row, which is the reference of the ratios; a row that cannot
    run gets its reason and leaves the round.
    """
    facts, name = machine(), f"latency_b{batch}"
    keys = attach_known(run, rows, spec, batch)
    calls: dict[str, list[Row]] = {}
    for row, key in keys.items():
        calls.setdefault(provenance.content_id(key), []).append(row)
    wanted = {n: own for n, own in calls.items() if rows[0] in own or any(name not in r.records for r in own)}
    if all(name in row.records for row in keys):
        return
    callables = _callables(run, {n: (own, keys[own[0]]) for n, own in wanted.items()}, spec, batch)
    if not callables:
        return
    run.progress.say(f"timing {len(callables)} networks at batch {batch}, at most {spec.seconds:g} s")
    results = measure(callables, _execution(run, spec, batch))
    reference = calls[next(iter(callables))][0].cell.label
    for identity, measured in results.items():
        result = {**measured.to_dict(), "reference": reference, "machine": facts}
        record = run.store.put(Record.make("latency", keys[calls[identity][0]], result))
        for row in calls[identity]:
            row.records[name] = record


def attach_known(run: Run, rows: Sequence[Row], spec: LatencySpec, batch: int) -> dict[Row, dict[str, Any]]:
    """Gives `rows` the records that are there already; the key of each row (rows whose data are broken have none)."""
    facts, name = machine(), f"latency_b{batch}"
    keys: dict[Row, dict[str, Any]] = {}
    for row in rows:
        with run.guard([row], name):
            keys[row] = _key(run, row, spec, batch, facts)
            record = run.store.get("latency", keys[row])
            if record is not None:
                row.records[name] = record
    return keys


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
    run: Run, calls: Mapping[str, tuple[list[Row], dict[str, Any]]], spec: LatencySpec, batch: int
) -> dict[str, Callable[[], object]]:
    """What is timed, by call; each has run once, so that what cannot run is not among them."""
    runners: dict[str, TopDownRunner] = {}
    crops: dict[str, list[Crops]] = {}
    found: dict[str, Callable[[], object]] = {}
    for identity, (rows, key) in calls.items():
        row = rows[0]
        with run.guard(rows, f"latency_b{batch}"):
            own = [run.network_key(row), row.cell.run, str(row.weights), row.cell.protocol.model_dump(mode="json")]
            network = provenance.content_id(own)
            if network not in runners:
                runners[network] = run.runner(row, run.build(row, row.weights))
            runner = runners[network]
            view = f"{runner.predictor.input_size} {runner.codec.udp} {runner.protocol.box_padding}"
            if view not in crops:
                dataset = run.dataset(row) or run.sources.dataset_or_synthetic(row.cell.data)
                crops[view] = sample_crops(runner, dataset, batch)
            call = timed_call(runner, spec.scope, key["settings"], crops[view])
            call()
            found[identity] = call
    return found


def _key(run: Run, row: Row, spec: LatencySpec, batch: int, facts: dict[str, Any]) -> dict[str, Any]:
    """What determines a latency: network, settings, execution, machine; weights where the cost depends on them."""
    settings = run.settings(row)
    key = {
        **run.network_key(row),
        "settings": settings,
        "run": run_kind(row.cell),
        "execution": {**spec.model_dump(mode="json"), "batch": batch, "device": run.options.device},
        "machine": machine_id(facts),
        "code": code_of("latency", row.variant),
    }
    if spec.scope != "network":
        key["protocol"] = row.cell.protocol.model_dump(mode="json")
    if row.weights is not None and (settings.get("quality_threshold") is not None or row.variant.open_file):
        key["weights"] = provenance.file_sha256(row.weights)
    return key
