from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.accuracy.anatomy import ERRORS, KINDS, anatomy, diagnose, mend
from harness.accuracy.evaluate import evaluate
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import match
from harness.pose.skeletons import COCO

AREA = 10_000.0
WRIST, MIRRORED_WRIST, KNEE = 9, 10, 13


def _world(images: int = 4, apart: float = 400.0) -> dict:
    """Two persons in every image, joints in a grid 60 pixels wide, so that none is near another."""
    annotations = []
    grid = np.stack(np.meshgrid(np.arange(5), np.arange(4)), axis=-1).reshape(-1, 2)[:17] * 60.0
    for image in range(images):
        for person in range(2):
            points = np.c_[grid + 10 + [person * apart, 0], np.full(17, 2)]
            annotations.append(
                {
                    "id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "area": AREA,
                    "num_keypoints": 17, "bbox": [person * apart, 0, 260, 200], "keypoints": points.ravel().tolist(),
                }
            )  # fmt: skip
    pictures = [{"id": i, "width": 900, "height": 600} for i in range(images)]
    return {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _perfect(gt: dict) -> list[dict]:
    return [
        {"image_id": a["image_id"], "category_id": 1, "keypoints": list(a["keypoints"]), "score": 1 - 0.01 * i}
        for i, a in enumerate(gt["annotations"])
    ]


def _move(result: dict, joint: int, to: tuple[float, float]) -> None:
    result["keypoints"][3 * joint : 3 * joint + 2] = list(to)


def _at(gt: dict, person: int, joint: int) -> tuple[float, float]:
    return tuple(gt["annotations"][person]["keypoints"][3 * joint : 3 * joint + 2])


def _offset(ks: float, joint: int) -> float:
    """How many pixels away the similarity with a joint is `ks`."""
    return float(np.sqrt(-2 * AREA * np.log(ks)) * 2 * COCO.sigmas[joint])


def _anatomy(gt: dict, results: list[dict], resamples: int = 0):
    truth = GroundTruth.from_coco(gt, num_joints=17)
    return anatomy(truth, Detections.from_results(results, truth), COCO, COCO.sigmas, resamples=resamples)


def _plant(kind: str, gt: dict, results: list[dict]) -> None:
    """Many joints of the first pose get the error, so that its OKS falls below some thresholds."""
    first = results[0]
    if kind == "jitter":
        for joint in range(17):
            x, y = _at(gt, 0, joint)
            _move(first, joint, (x + _offset(0.6, joint), y))
    elif kind == "inversion":
        for joint in range(5, 13):
            _move(first, joint, _at(gt, 0, COCO.flip_order[joint]))
    elif kind == "swap":
        for joint in range(5, 13):
            _move(first, joint, _at(gt, 1, joint))
    elif kind == "miss":
        for joint in range(5, 13):
            _move(first, joint, (5000.0, 5000.0))
    elif kind == "background":
        results.append({**copy.deepcopy(first), "keypoints": [5000.0] * 51, "score": 2.0})
    elif kind == "score order":
        _plant("background", gt, results)
    elif kind == "missed persons":
        del results[0]


@pytest.mark.parametrize("kind", ERRORS)
def test_a_planted_error_is_found_and_costs_ap_and_no_other_joint_error_is(kind):
    gt = _world()
    results = _perfect(gt)
    _plant(kind, gt, results)
    found = _anatomy(gt, results).to_dict()
    assert found["ap"]["value"] < 1
    assert found["errors"][kind]["alone"]["value"] > 0
    for name in KINDS[1:]:
        planted = {"jitter": 17}.get(name, 8) if name == kind else 0
        assert found["errors"][name]["count"] == planted
        assert name == kind or found["errors"][name]["alone"]["value"] == 0
    assert found["errors"]["background"]["count"] == int(kind in ("background", "score order"))
    assert found["errors"]["missed persons"]["count"] == int(kind == "missed persons")
    assert all(row["alone"]["value"] >= 0 and row["step"]["value"] >= 0 for row in found["errors"].values())
    assert found["errors"]["missed persons"]["ap_after"] == pytest.approx(1, abs=1e-12)


def test_the_borders_are_those_of_the_paper():
    gt = _world(1)
    for ks, kind in ((0.86, "good"), (0.84, "jitter"), (0.51, "jitter"), (0.49, "miss")):
        results = _perfect(gt)
        x, y = _at(gt, 0, WRIST)
        _move(results[0], WRIST, (x + _offset(ks, WRIST), y))
        counts = _anatomy(gt, results).to_dict()["keypoints"]["left_wrist"]
        assert counts[kind] == 1 + (kind == "good")


def test_a_counterpart_is_an_inversion_even_where_another_person_is_nearer():
    gt = _world(1)
    x, y = _at(gt, 0, MIRRORED_WRIST)
    other = gt["annotations"][1]["keypoints"]
    other[3 * KNEE : 3 * KNEE + 2] = [x + 1, y]
    results = _perfect(gt)
    _move(results[0], WRIST, (x + 1, y))
    found = _anatomy(gt, results).to_dict()
    assert found["errors"]["inversion"]["count"] == found["mirrored"] == 1
    # at any other joint of the own person, the nearer person decides
    x, y = _at(gt, 0, 0)
    other[3 * KNEE : 3 * KNEE + 2] = [x + 5, y]
    results = _perfect(gt)
    _move(results[0], WRIST, (x + 5, y))
    assert _anatomy(gt, results).to_dict()["errors"]["swap"]["count"] == 1
    _move(results[0], WRIST, (x, y))
    found = _anatomy(gt, results).to_dict()
    assert found["errors"]["inversion"]["count"] == 1
    assert found["mirrored"] == 0


def test_joints_that_are_not_labelled_are_neither_judged_nor_landed_on():
    gt = _world(1)
    keypoints = gt["annotations"][0]["keypoints"]
    keypoints[3 * WRIST + 2] = keypoints[3 * MIRRORED_WRIST + 2] = 0
    results = _perfect(gt)
    _move(results[0], WRIST, (5000.0, 0.0))
    _move(results[0], KNEE, _at(gt, 0, WRIST))
    found = _anatomy(gt, results).to_dict()
    assert found["errors"]["miss"]["count"] == 1  # the knee, which is where an unlabelled joint is
    assert sum(found["keypoints"]["left_wrist"].values()) == 1


def test_a_second_pose_of_a_person_is_background_and_a_duplicate():
    gt = _world(1)
    found = _anatomy(gt, _perfect(gt) + [{**r, "score": 0.1} for r in _perfect(gt)]).to_dict()
    assert found["errors"]["background"]["count"] == found["duplicates"] == 2


def test_a_pose_at_a_person_who_does_not_count_is_no_background():
    gt = _world(1)
    results = _perfect(gt)
    gt["annotations"][0]["iscrowd"] = 1
    found = _anatomy(gt, results).to_dict()
    assert (found["ignored_poses"], found["paired_poses"], found["errors"]["background"]["count"]) == (1, 1, 0)


def test_a_pose_of_low_oks_is_diagnosed_though_the_evaluation_matches_it_with_nobody():
    gt = _world(1)
    results = _perfect(gt)
    for joint in range(14):
        _move(results[0], joint, (5000.0, 5000.0))
    found = _anatomy(gt, results).to_dict()
    assert found["paired_poses"] == 2
    assert found["errors"]["miss"]["count"] == 14


def test_mending_nothing_changes_nothing_and_the_given_arrays_are_left_alone(val188, jittered):
    truth = GroundTruth.from_coco(val188, num_joints=17)
    dets = Detections.from_results(jittered(val188, 3, copies=2), truth)
    found = diagnose(truth, dets, COCO.sigmas, COCO.flip_order)
    before = dets.xy.copy()
    mend(truth, dets, found, COCO.sigmas, ERRORS)
    np.testing.assert_array_equal(dets.xy, before)
    same_truth, same = mend(truth, dets, found, COCO.sigmas, ())
    np.testing.assert_array_equal(match(same_truth, same, COCO.sigmas).status, match(truth, dets, COCO.sigmas).status)


def test_planted_errors_in_real_annotations_are_counted_and_mending_all_leaves_what_good_joints_lack(val188):
    results, rng = [], np.random.default_rng(0)
    for a in val188["annotations"]:
        points = np.array(a["keypoints"], dtype=float).reshape(-1, 3)
        if (points[:, 2] > 0).any() and not a["iscrowd"]:
            points[:, :2] += rng.normal(0, 0.004, (17, 2)) * np.sqrt(a["area"])
            if rng.random() < 0.3:
                both = (points[:, 2] > 0) & (points[COCO.flip_order, 2] > 0) & (np.arange(17) >= 5)
                points[both, :2] = points[COCO.flip_order[both], :2]
            results.append(
                {"image_id": a["image_id"], "category_id": 1, "score": float(rng.random()),
                 "keypoints": points.ravel().tolist()}
            )  # fmt: skip
    evaluation = evaluate(val188, results, bootstrap=0, judge=False)
    found = evaluation.anatomy().to_dict()
    costs = {name: row["alone"]["value"] for name, row in found["errors"].items()}
    assert found["ap"]["value"] == pytest.approx(evaluation.stats["AP"], abs=1e-12)
    assert found["errors"]["inversion"]["count"] > 10 * found["errors"]["miss"]["count"]
    assert max(KINDS[1:], key=lambda name: costs[name]) == "inversion"
    assert found["errors"]["missed persons"]["ap_after"] > 0.999
    paired = evaluation.anatomy().diagnosis.person
    labelled = (evaluation.truth.keypoints[paired[paired >= 0], :, 2] > 0).sum(axis=0)
    assert [sum(counts.values()) for counts in found["keypoints"].values()] == labelled.tolist()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_steps_add_up_to_all_that_is_gained(made_up, jittered, seed):
    gt = made_up(8, seed)
    found = _anatomy(gt, jittered(gt, seed, copies=2), resamples=2)
    if np.isfinite(found.found.values).all():
        gained = found.found.values[-1] - found.found.values[0]
        assert found.step.values.sum() == pytest.approx(gained, abs=1e-12)
        assert found.step.values[0] == found.alone.values[0]


def test_the_difference_of_a_set_and_itself_is_exactly_zero(val188, jittered):
    results = jittered(val188, 5)
    first, second = (evaluate(val188, results, bootstrap=20, judge=False).anatomy() for _ in range(2))
    for row in first.minus(second)["errors"].values():
        for cost in row.values():
            assert cost["value"] == 0
            assert cost["interval"]["percentile"] == [0, 0]


def test_paired_differences_are_the_differences_of_the_costs(val188, jittered):
    first, second = (evaluate(val188, jittered(val188, s), bootstrap=30, judge=False).anatomy() for s in (1, 2))
    row = first.minus(second)["errors"]["miss"]["alone"]
    a, b = (x.to_dict()["errors"]["miss"]["alone"]["value"] for x in (first, second))
    assert row["value"] == pytest.approx(a - b, abs=1e-12)
    low, high = row["interval"]["percentile"]
    assert low < high


def test_nobody_to_be_found_gives_null_with_the_reason():
    gt = {**_world(2), "annotations": []}
    row = _anatomy(gt, [], resamples=5).to_dict()["errors"]["swap"]
    assert row["alone"] == {"value": None, "interval": None, "reason": "no person is there to be found"}
