"""What is inside the timer, over which persons, and whether the timed poses are the scored ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data import synthetic
from harness.data.boxes import from_ground_truth
from harness.data.coco import load
from harness.method import PoseProtocol, find_variant
from harness.records.store import Store, load_arrays, save_arrays
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.run.timed_calls import inside_timer, turns
from harness.run.timed_poses import difference
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

TINY = "simplebaseline_tiny"
SUITE = f"""name: timed
data: {{name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}}
measure: {{accuracy: {{bootstrap: 0, judge: false}}, latency: {{rounds: 9, seconds: 2, threads: 1}}}}
methods: [{{variant: {TINY}}}]
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("people")
    synthetic.write(root, images=10, seed=3)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    variant = find_variant(TINY)
    network = variant.build(num_joints=17, input_size=variant.input_size)
    with torch.no_grad():
        network.final_layer.weight.mul_(300)
    path = tmp_path_factory.mktemp("weights") / f"{TINY}.safetensors"
    checkpoints.write(path, network.state_dict())
    return path


@pytest.fixture(scope="module")
def dataset(people):
    return load(people / "annotations/person_keypoints_val2017.json", people / "val2017")


def _run(folder: Path, people: Path, weights: Path | None, *sets: str) -> dict[str, Any]:
    """The only row of the suite, its records' results in `found`."""
    path = folder / "suite.yaml"
    path.write_text(SUITE)
    suite, marked = load_suite(path, sets)
    sources = Sources({"people": people}, {TINY: weights} if weights else {})
    store = Store(folder / "records")
    (row,) = run_suite(suite, store, sources, Options(workers=0), Progress(), marked)["rows"]
    found = {n: store.by_id(n.partition("_")[0], i).result for n, i in row["records"].items()}
    return {**row, "found": found}


def test_a_turn_is_a_full_batch_or_an_image_with_all_its_persons(dataset):
    boxes = from_ground_truth(dataset)
    batches = turns(dataset, boxes, 5, "network")
    assert {sum(len(p.rows) for p in turn) for turn in batches} == {5}
    seen = [row for turn in batches for p in turn for row in p.rows.tolist()]
    assert seen == list(range(5 * (len(boxes) // 5)))
    images = turns(dataset, boxes, 5, "end-to-end")
    assert [len(t[0].rows) for t in images] == [int(np.sum(boxes.image_ids == t[0].boxes.image_ids[0])) for t in images]
    assert all(len(turn) == 1 and turn[0].image.shape[:2] == turn[0].size[::-1] for turn in images)


def test_fewer_persons_than_a_batch_are_repeated(dataset):
    boxes = from_ground_truth(dataset)
    (turn,) = turns(dataset, boxes, len(boxes) + 4, "network")
    rows = np.concatenate([p.rows for p in turn]).tolist()
    assert rows == [*range(len(boxes)), *range(4)]


def test_the_scope_says_in_words_what_is_inside_the_timer():
    protocol = PoseProtocol()
    words = {s: inside_timer(s, protocol, 4) for s in ("network", "crop+network+decode", "end-to-end")}
    assert "no decoding" in words["network"] and "flip test" in words["network"]
    assert "cropping" in words["crop+network+decode"] and "no NMS" in words["crop+network+decode"]
    for part in ("reading", "cropping", "mirrored", protocol.decoder, "rescoring", "NMS (oks)", "at most 4"):
        assert part in words["end-to-end"]
    bare = inside_timer("end-to-end", PoseProtocol(flip=False, rescore=False, nms="none"), 1)
    assert "mirrored" not in bare and "rescoring" not in bare and "no NMS" in bare


@pytest.mark.parametrize("scope", ["network", "crop+network+decode", "end-to-end"])
def test_timed_poses_are_the_scored_ones_in_every_scope(tmp_path, people, weights, scope):
    row = _run(tmp_path, people, weights, f"measure.latency.scope={scope}", "measure.latency.batch=3")
    found = row["found"]["latency_b3"]
    assert found["pose_difference_px"] < 0.1 and found["pose_difference_persons"] >= 3
    assert found["execution"]["scope"] == scope and found["inside_timer"]
    assert len(found["persons_per_call"]) == len(found["samples"])
    assert found["ms_per_person"]["value"] < found["median_ms"]
    forwards = 1 if scope == "network" else 2
    macs = forwards * row["found"]["cost"]["macs"] * np.median(found["persons_per_call"])
    assert found["roofline"]["gmacs_per_second"] == pytest.approx(macs / 1e6 / found["median_ms"])
    assert {"mhz", "load", "cpus"} <= found["passing"]["before"].keys() & found["passing"]["after"].keys()
    if scope == "end-to-end":
        assert len(set(found["persons_per_call"])) > 1


def test_a_pass_that_holds_other_poses_than_were_timed_is_a_failure_of_that_row(tmp_path, people, weights):
    _run(tmp_path, people, weights, "measure.latency=false")
    for block in (tmp_path / "records").rglob("block-*.npz"):
        arrays = load_arrays(block)
        for name in [n for n in arrays if n.startswith("keypoints")]:
            arrays[name][0, :, 0] += 0.3
        save_arrays(block, arrays)
    row = _run(tmp_path, people, weights)
    assert "latency_b1" not in row["records"]
    reason = row["reasons"]["latency_b1"]
    assert re.search(r"up to 0\.3\d* px", reason) and "scored" in reason


def test_joints_that_rounding_moves_fail_nothing_and_are_counted(tmp_path, people, weights):
    found = _run(tmp_path, people, weights)["found"]["latency_b1"]  # an untrained network: some maps are all but flat
    assert found["pose_difference_px"] <= 0.1
    assert found["pose_joints_undecided"] < 17 * found["pose_difference_persons"] / 2


def test_without_weights_there_is_a_time_and_the_reason_why_no_pose_was_compared(tmp_path, people):
    row = _run(tmp_path, people, None)
    found = row["found"]["latency_b1"]
    assert (
        found["median_ms"] > 0 and found["pose_difference_px"] is None and "scored" in found["pose_difference_reason"]
    )
    json.dumps(found, allow_nan=False)


def test_the_difference_is_the_largest_over_the_persons_that_both_have():
    scored = np.zeros((3, 2, 3))
    timed = np.zeros((2, 2, 3))
    timed[1, 1, :2] = 3, 4
    timed[:, :, 2] = 9  # scores are no positions
    assert difference(np.array([7, 5]), timed, np.array([4, 5, 6]), scored) == (5.0, 1)
    assert difference(np.array([9]), timed[:1], np.array([4, 5, 6]), scored) == (None, 0)
    certain = np.array([[True, False], [True, True]])
    assert difference(np.array([5, 7]), timed[::-1], np.array([4, 5, 6]), scored, certain) == (0.0, 1)
    timed[1, 0, 0] = np.nan
    assert difference(np.array([7, 5]), timed, np.array([4, 5, 6]), scored)[0] == np.inf
