"""The evaluation that belongs to a data set, and that of a part of its joints."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.accuracy.evaluate import evaluate
from harness.accuracy.on_dataset import check_scorable, evaluate_on
from harness.data import coco
from harness.data.joints import on_joints
from harness.errors import DataError
from harness.pose.joint_map import joint_map
from harness.pose.skeletons import COCO, CROWDPOSE


@pytest.fixture
def crowd(made_up, tmp_path):
    """A made-up CrowdPose set, and what is read of it."""
    world = made_up(images=9, seed=5, joints=14)
    world["categories"] = [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE.joints)}]
    for picture in world["images"]:
        picture["file_name"] = f"{picture['id']}.jpg"
    (tmp_path / "crowd.json").write_text(json.dumps(world))
    return coco.load(tmp_path / "crowd.json", tmp_path)


def test_crowdpose_is_judged_by_xtcocotools_on_all_its_joints(crowd, jittered):
    found = evaluate_on(crowd, jittered(crowd.annotations, 3), judge=True)
    assert found.verdict.name == "xtcocotools" and 0 < found.stats["AP"] < 1
    assert {"AP_easy", "AP_medium", "AP_hard"} <= set(found.stats)


def test_common_joints_score_as_a_set_that_never_had_the_others(crowd, jittered):
    """Judged by xtcocotools, with the sigmas of the joints that are left."""
    chart = joint_map(CROWDPOSE, COCO, "common")
    part = on_joints(crowd, chart)
    world = json.loads(json.dumps(crowd.annotations))
    for entry in world["annotations"]:
        points = np.reshape(entry["keypoints"], (-1, 3))[:12]
        entry |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
    results = [{**r, "keypoints": r["keypoints"][:36]} for r in jittered(crowd.annotations, 3)]
    plain = evaluate(world, results, evaluator="crowdpose", bootstrap=0, sigmas=CROWDPOSE.sigmas[:12])
    found = evaluate_on(part, results, judge=True)
    assert found.stats == plain.stats
    assert found.sigmas == CROWDPOSE.sigmas[:12] and found.verdict.name == "xtcocotools"


def test_a_person_of_whom_only_other_joints_are_labelled_is_not_looked_for(crowd):
    chart = joint_map(CROWDPOSE, COCO, {"left_hip": "left_hip"})
    part = on_joints(crowd, chart)
    hip = CROWDPOSE.joints.index("left_hip")
    assert [p.num_keypoints for p in part.persons] == [int(p.keypoints[hip, 2] > 0) for p in crowd.persons]
    assert [len(e["keypoints"]) for e in part.annotations["annotations"]] == [3] * len(crowd.persons)
    assert part.fingerprint != crowd.fingerprint


def test_crowdpose_without_crowd_index_is_refused_before_anything_is_predicted(crowd):
    check_scorable(crowd)
    del crowd.annotations["images"][2]["crowdIndex"]
    with pytest.raises(DataError, match="1 images have no crowdIndex: 3"):
        check_scorable(crowd)


def test_the_real_crowdpose_file_scores_as_in_xtcocotools_on_the_common_joints(shared, jittered):
    file = shared / "data/others/crowdpose/test_crowdpose.json"
    crowd = coco.load(file, file.parent)
    part = on_joints(crowd, joint_map(crowd.skeleton, COCO, "common"))
    assert evaluate_on(part, jittered(part.annotations, 1), judge=True).stats["AP"] > 0
