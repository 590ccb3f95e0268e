from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy.breakdown import subsets
from harness.accuracy.evaluate import evaluate
from harness.accuracy.inputs import GroundTruth
from harness.pose.skeletons import COCO

FAMILIES = ("size", "crowding", "occlusion", "truncation", "labelled")


def _annotation(n: int, image: int = 1, **fields) -> dict:
    points = np.c_[np.linspace(20, 80, 17), np.linspace(30, 90, 17), np.full(17, 2)]
    points[:, 0] += 200 * n
    base = {
        "id": n + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 5000.0, "num_keypoints": 17,
        "bbox": [200.0 * n + 10, 20, 80, 80], "keypoints": points.ravel().tolist(),
    }  # fmt: skip
    return {**base, **fields}


def _world(annotations: list[dict], **picture) -> dict:
    pictures = [{"id": i, "width": 2000, "height": 500, **picture} for i in (1, 2)]
    return {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _subsets(gt: dict) -> dict:
    return subsets(GroundTruth.from_coco(gt, num_joints=17))


def _perfect(gt: dict) -> list[dict]:
    return [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.5}
        for a in gt["annotations"]
        if a["num_keypoints"] and not a["iscrowd"]
    ]


def _with_visibility(*visibility: int) -> list[float]:
    points = np.array(_annotation(0)["keypoints"]).reshape(17, 3)
    points[:, 2] = 2
    points[: len(visibility), 2] = visibility
    return points.ravel().tolist()


def test_crowding_counts_the_other_persons_whose_boxes_overlap():
    boxes = [[10, 10, 100, 100], [30, 10, 100, 100], [50, 10, 100, 100], [70, 10, 100, 100], [1000, 10, 50, 50]]
    annotations = [_annotation(i, bbox=box) for i, box in enumerate(boxes)]
    annotations.append(_annotation(5, image=2, bbox=boxes[0]))  # same place, another image
    annotations.append(_annotation(6, bbox=[1000, 10, 50, 50], iscrowd=1))  # a crowd region is no person
    found = _subsets(_world(annotations))["crowding"]
    persons = GroundTruth.from_coco(_world(annotations), num_joints=17).records
    assert [p["id"] for p in np.array(persons)[found["three or more others"]]] == [1, 2, 3, 4]
    assert [p["id"] for p in np.array(persons)[found["alone"]]] == [5, 6]


@pytest.mark.parametrize(
    ("visibility", "part"),
    [
        ((), "none"),
        ((0,) * 10, "none"),
        ((1,) * 4, "up to a quarter"),
        ((1,) * 5, "more"),
        ((0,) * 13 + (1,), "up to a quarter"),
    ],
)
def test_occlusion_is_the_share_of_hidden_joints_among_the_labelled(visibility, part):
    found = _subsets(_world([_annotation(0, keypoints=_with_visibility(*visibility))]))["occlusion"]
    assert [name for name, member in found.items() if member[0]] == [part]


@pytest.mark.parametrize(
    ("box", "cut"),
    [([10, 10, 50, 50], False), ([0.5, 10, 50, 50], True), ([10, 0, 50, 50], True),
     ([1949.5, 10, 50, 50], True), ([10, 450, 50, 50], True), ([10, 400, 50, 50], False)],
)  # fmt: skip
def test_a_box_at_the_edge_of_the_image_is_cut(box, cut):
    found = _subsets(_world([_annotation(0, bbox=box)]))["truncation"]
    assert bool(found["cut by the edge"][0]) is cut
    assert bool(found["whole"][0]) is not cut


def test_without_image_sizes_truncation_is_null_with_the_reason():
    gt = _world([_annotation(0)], width=None)
    row = evaluate(gt, _perfect(gt), bootstrap=0, judge=False).breakdown().to_dict()["truncation"]["whole"]
    assert row["value"] is None
    assert row["persons"] is None
    assert "width and height" in row["reason"]


def test_the_parts_of_a_family_hold_everybody_who_counts_once(val188, made_up):
    for gt in (val188, made_up(40, 3)):
        truth = GroundTruth.from_coco(gt, num_joints=17)
        for family, parts in subsets(truth).items():
            together = np.sum(list(parts.values()), axis=0)
            np.testing.assert_array_equal(together, ~truth.ignore, err_msg=family)


def test_perfect_poses_reach_one_in_every_part_and_for_every_keypoint(val188):
    found = evaluate(val188, _perfect(val188), bootstrap=0, judge=False).breakdown().to_dict()
    assert set(found["keypoint"]) == set(COCO.joints)
    for family in ("keypoint", *FAMILIES):
        for name, row in found[family].items():
            # in a crowd, a pose may take a person who counts from the pose that fits, as in COCO's area ranges
            assert row["value"] == pytest.approx(1, abs=1e-12 if family == "keypoint" else 2e-3), (family, name)


def test_medium_and_large_are_those_of_coco(val188, jittered):
    found = evaluate(val188, jittered(val188, 2), bootstrap=0, judge=False)
    rows = found.breakdown().to_dict()["size"]
    assert rows["medium"]["value"] == pytest.approx(found.stats["APm"], abs=1e-12)
    assert rows["large"]["value"] == pytest.approx(found.stats["APl"], abs=1e-12)


def test_a_keypoint_that_is_always_wrong_has_ap_zero_and_the_others_one():
    gt = _world([_annotation(0), _annotation(1)])
    results = [{**r, "keypoints": [*[5000.0, 5000.0, 1.0], *r["keypoints"][3:]]} for r in _perfect(gt)]
    found = evaluate(gt, results, bootstrap=0, judge=False).breakdown().to_dict()["keypoint"]
    assert found["nose"]["value"] == 0
    assert all(row["value"] == pytest.approx(1) for name, row in found.items() if name != "nose")


def test_a_keypoint_counts_only_the_persons_in_whom_it_is_labelled():
    gt = _world([_annotation(0, keypoints=_with_visibility(0)), _annotation(1)])
    found = evaluate(gt, _perfect(gt), bootstrap=0, judge=False).breakdown().to_dict()["keypoint"]
    assert found["nose"]["persons"] == 1
    assert found["nose"]["value"] == pytest.approx(1)  # the pose of the other person is ignored
    assert found["left_eye"]["persons"] == 2


def test_a_bad_pose_counts_in_the_parts_of_the_person_it_is_nearest_to():
    gt = _world([_annotation(0), _annotation(1, bbox=[0, 20, 80, 80])])
    good, other = _perfect(gt)
    again = {**good, "score": 0.9, "keypoints": [v + 6 * (i % 3 < 2) for i, v in enumerate(good["keypoints"])]}
    far = {**good, "score": 1.0, "keypoints": [9000.0] * 51}
    found = evaluate(gt, [good, other, again, far], bootstrap=0, judge=False).breakdown().to_dict()["truncation"]
    assert found["whole"]["value"] < 1
    assert found["cut by the edge"]["value"] == pytest.approx(1)


def test_the_difference_of_a_set_and_itself_is_exactly_zero(val188, jittered):
    results = jittered(val188, 5)
    first, second = (evaluate(val188, results, bootstrap=10, judge=False).breakdown() for _ in range(2))
    found = first.minus(second)
    for family in ("keypoint", *FAMILIES):
        for row in found[family].values():
            assert row["value"] == 0
            assert row["interval"] is None or row["interval"]["percentile"] == [0, 0]


def test_crowdpose_has_its_own_fourteen_joints(crowdpose):
    few = [p["id"] for p in crowdpose["images"][:20]]
    results = [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": a["keypoints"], "score": 0.5}
        for a in crowdpose["annotations"]
        if a["image_id"] in few
    ]
    found = evaluate(crowdpose, results, evaluator="crowdpose", bootstrap=0, judge=False, image_ids=few)
    rows = found.breakdown().to_dict()
    assert len(rows["keypoint"]) == 14
    assert rows["truncation"]["whole"]["value"] == pytest.approx(1, abs=0.02)
    assert found.anatomy().to_dict()["errors"]["missed persons"]["ap_after"] == pytest.approx(1, abs=1e-9)
