"""A store with a run of one network that may leave early, scored from a pass that was written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data import coco, synthetic
from harness.data.boxes import from_ground_truth
from harness.passes import replay
from harness.passes.score import detections, score
from harness.records.store import Record, Store, save_arrays
from harness.suite.schema import AccuracySpec, Cell, DataSpec
from harness.suite.sources import data_key


def build(folder: Path) -> None:
    """`records/` with the run `two` of one row `two_exits`, and `people/`, its images, below `folder`."""
    synthetic.write(folder / "people", images=12, seed=3)
    data = DataSpec(name="people", root="people", limit=12)
    dataset = coco.load(folder / "people" / data.annotations, folder / "people" / data.images, name="people")
    boxes = from_ground_truth(dataset)
    persons = {person.id: person for person in dataset.persons}
    truth = np.stack([persons[i].keypoints for i in boxes.ids.tolist()])
    rng, n = np.random.default_rng(0), len(boxes)
    reach = np.sqrt(boxes.xywh[:, 2:].prod(axis=1))[:, None, None]
    good = rng.random(n) < 0.5  # persons that the first exit already answers well
    noise = rng.standard_normal((n, truth.shape[1], 2))
    sizes = (np.where(good, 0.01, 0.2), np.full(n, 0.01))
    poses = [truth[..., :2] + size[:, None, None] * reach * noise for size in sizes]
    keypoints = [np.concatenate([p, np.ones((n, truth.shape[1], 1))], axis=2).astype(np.float32) for p in poses]
    arrays = {
        "index": np.arange(n), "keypoints:quarter-hrnet-0:0": keypoints[0], "keypoints:quarter-hrnet-0:1": keypoints[1],
        "quality": np.where(good, 0.9, 0.3).astype(np.float32) + 0.05 * rng.random(n).astype(np.float32),
        "default_threshold": np.full(n, 0.5), "macs": np.tile(np.array([[10**9, 3 * 10**9]]), (n, 1)),
    }  # fmt: skip
    store = Store(folder / "records")
    save_arrays(store.pass_folder("feed") / "block-0000000.npz", arrays)
    replay.seal_pass(store.pass_folder("feed"), {})
    cell = Cell(
        label="two_exits", variant="two_exits", input_size=(64, 48), build={}, run={"dtype": "float32"}, seed=0,
        select={"quality_threshold": "always", "exit_rate": None}, protocol={"flip": False, "nms": "none"}, data=data,
    )  # fmt: skip
    spec = AccuracySpec(bootstrap=20, judge=False)
    results, chosen = detections(cell, arrays, dataset, boxes)
    result, kept = score(arrays, results, chosen, dataset, boxes, spec)
    network = {**cell.network_key(), "joints": 17, "settings": {}}
    key = {
        **network, "select": cell.select, "execution": {"dtype": "float32"}, "weights": "0" * 64, "code": "c",
        "protocol": cell.protocol.model_dump(mode="json"), "data": data_key(data, dataset, boxes), "missing": "error",
        "spec": spec.model_dump(mode="json"), "score_code": "s",
    }  # fmt: skip
    cost = {"macs": 3 * 10**9, "gmacs": 3.0, "gflops": 6.0, "params": 5, "params_inference": 5, "trace": {"t": [1]}}
    records = {
        "cost": store.put(Record.make("cost", network, cost)).id,
        "accuracy": store.put(Record.make("accuracy", key, result, predictions="feed"), kept).id,
    }
    row = {"label": "two_exits", "method": "two", "cell": cell.model_dump(mode="json"), "records": records}
    store.write_run("two", {"suite": {"name": "two"}, "created": "2026-01-01T00:00:00Z", "command": "x", "rows": [row]})
