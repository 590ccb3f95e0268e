"""CrowdPose and MPII as data of a suite, and networks with other joints than their data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import sets
from harness.data.boxes import from_ground_truth
from harness.method import find_variant
from harness.pictures.cases import cases_of
from harness.pose.skeletons import CROWDPOSE, MPII
from harness.records.store import Store
from harness.run.recompute import recompute
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.run.stored import Stored, open_row
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints, loop
from harness.train.recipes import with_epochs
from harness.train.validation import validator

TINY = "simplebaseline_tiny"
SUITE = """name: others
data: {name: NAME, root: people, annotations: NAME.json, images: val2017}
measure: {accuracy: {bootstrap: 20}, cost: false}
methods:
  - {variant: simplebaseline_tiny}
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory, other_sets) -> Path:
    root = other_sets.people(tmp_path_factory.mktemp("others"))
    other_sets.crowdpose(root)
    other_sets.mpii(root)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[int, Path]:
    """Random networks with 14, 16 and 17 joints, scaled so that maps have a peak."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    variant = find_variant(TINY)
    for joints in (14, 16, 17):
        torch.manual_seed(joints)
        network = variant.build(num_joints=joints, input_size=variant.input_size)
        with torch.no_grad():
            network.final_layer.weight.mul_(300)
        found[joints] = folder / f"{joints}.safetensors"
        checkpoints.write(found[joints], network.state_dict())
    return found


def _run(folder, people, weights, name, *assignments):
    path, store = folder / "suite.yaml", Store(folder / "records")
    path.write_text(SUITE.replace("NAME", name))
    suite, marked = load_suite(path, assignments)
    sources = Sources({"people": people}, {TINY: weights})
    manifest = run_suite(suite, store, sources, Options(results=folder / "results"), Progress(), marked)
    row = manifest["rows"][0]
    identity = row["records"].get("accuracy")
    return row, store.by_id("accuracy", identity) if identity else None, store, sources


HEADS = "data.heads=gt_mpii.mat"


def test_crowdpose_has_its_figures_with_an_interval_and_xtcocotools_as_judge(tmp_path, people, weights):
    row, record, store, _ = _run(tmp_path, people, weights[14], "crowdpose")
    assert row["reasons"] == {} and record.key["joints"] == 14
    stats = record.result["stats"]
    assert {"AP", "AP50", "AP75", "AP_easy", "AP_medium", "AP_hard"} <= stats.keys()
    assert stats["AP"]["interval"]["bca"] and record.result["judge"]["name"] == "xtcocotools"
    assert "joints" not in record.result
    assert all(check.verdict == "matches" for check in recompute(record, store))


def test_mpii_has_pckh_that_can_be_recomputed_from_its_predictions(tmp_path, people, weights):
    row, record, store, _ = _run(tmp_path, people, weights[16], "mpii", HEADS)
    assert row["reasons"] == {} and record.result["evaluator"] == "mpii"
    protocol = record.key["protocol"]
    assert (protocol["box_cleaning"], protocol["nms"], protocol["rescore"]) == ("none", "none", False)
    dataset = sets.load(people / "mpii.json", people / "val2017", heads=people / "gt_mpii.mat")
    results = {r["person"]: r for r in json.loads((tmp_path / "results" / f"{TINY}.json").read_text())}
    assert results.keys() == {p.id for p in dataset.persons}
    right = total = 0
    for person in dataset.persons:
        pose = np.reshape(results[person.id]["keypoints"], (16, 3))
        for j, name in enumerate(MPII.joints):
            if person.keypoints[j, 2] > 0 and name not in ("pelvis", "thorax"):
                total += 1
                right += np.hypot(*(pose[j, :2] - person.keypoints[j, :2])) <= 0.5 * 30.0
    assert 0 < right < total
    assert record.result["stats"]["PCKh@0.5"]["value"] == pytest.approx(right / total)
    assert {"PCKh@0.1", "PCKh@0.5 left_hip"} <= record.result["stats"].keys()
    assert all(check.verdict == "matches" for check in recompute(record, store))


def test_a_network_with_other_joints_is_refused_with_both_lists_and_the_option(tmp_path, people, weights):
    row, record, *_ = _run(tmp_path, people, weights[17], "crowdpose")
    assert record is None
    for part in ("left_eye", *CROWDPOSE.joints, "joints: common"):
        assert part in row["reasons"]["accuracy"]


@pytest.mark.parametrize(("name", "extra"), [("crowdpose", ()), ("mpii", (HEADS,))])
def test_common_joints_are_evaluated_when_the_suite_says_so_and_the_record_tells_which(
    tmp_path, people, weights, name, extra
):
    row, record, _, sources = _run(tmp_path, people, weights[17], name, "data.joints=common", *extra)
    assert row["reasons"] == {} and record.key["joints"] == 17
    told = record.result["joints"]
    assert len(told["evaluated"]) == len(told["sigmas"]) == 12 and told["network"] == "coco"
    assert told["mapping"]["left_hip"] == "left_hip" and "left_hip" not in told["left_out"]
    stored = open_row(row, Store(tmp_path / "records"), sources)
    assert isinstance(stored, Stored) and stored.dataset.skeleton.num_joints == 12
    assert cases_of(stored)[0].jpeg[:2] == b"\xff\xd8"


def test_another_mapping_is_another_record(tmp_path, people, weights):
    one, two = (
        _run(tmp_path, people, weights[17], "crowdpose", f"data.joints={{left_hip: {other}}}")[1]
        for other in ("left_hip", "right_hip")
    )
    assert one.id != two.id and two.result["joints"]["mapping"] == {"left_hip": "right_hip"}


@pytest.mark.parametrize(
    ("name", "joints", "assignments", "message"),
    [
        ("mpii", 16, (), "no head sizes"),
        ("mpii", 16, (HEADS, "data.boxes=mpii.json"), "PCKh asks for one pose of each annotated person"),
        ("mpii", 16, (HEADS, "protocol.nms=oks", "protocol.nms_threshold=0"), "persons have no pose"),
        ("mpii", 16, ("data.heads=gone.mat",), "no such mat file"),
        ("crowdpose", 14, (HEADS,), "head boxes of a set in COCO's format"),
        ("crowdpose", 17, ("data.joints={head: noze}",), "did you mean nose"),
    ],
)
def test_what_cannot_be_scored_is_a_row_that_says_why(tmp_path, people, weights, name, joints, assignments, message):
    row, record, *_ = _run(tmp_path, people, weights[joints], name, *assignments)
    assert record is None and message in row["reasons"]["accuracy"]


def test_a_missing_image_is_skipped_and_its_persons_count_as_wrong(tmp_path, other_sets, weights):
    root = other_sets.people(tmp_path / "own", images=3)
    other_sets.mpii(root)
    gone = json.loads((root / "mpii.json").read_text())[0]["image"]
    (root / "val2017" / gone).unlink()
    row, record, *_ = _run(tmp_path, root, weights[16], "mpii", HEADS, "data.missing=skip")
    assert row["reasons"] == {} and record.result["skipped_boxes"] > 0
    assert any("have no pose: their joints count as wrong" in note for note in record.result["notes"])
    row, record, *_ = _run(tmp_path, root, weights[16], "mpii", HEADS)
    assert record is None and gone in row["reasons"]["accuracy"]


@pytest.mark.parametrize("name", ["crowdpose", "mpii"])
def test_a_few_steps_of_the_common_loop_train_and_validate(tmp_path, people, name):
    heads = people / "gt_mpii.mat" if name == "mpii" else None
    dataset, variant = sets.load(people / f"{name}.json", people / "val2017", heads=heads), find_variant(TINY)
    network = variant.build(num_joints=dataset.skeleton.num_joints, input_size=variant.input_size)
    recipe = with_epochs(variant.recipes["quick"], 2)
    options = loop.Options(device="cpu", workers=0, validate=validator(variant, dataset), validate_every=2)
    done = loop.train(network, variant, recipe, dataset, out=tmp_path, seed=0, build={}, metadata={}, options=options)
    assert done.samples == len(from_ground_truth(dataset, dataset.protocol.get("box_cleaning", "hrnet")))
    assert np.isfinite(done.loss) and next(iter(done.scores)) == ("pckh@0.5" if name == "mpii" else "ap")
