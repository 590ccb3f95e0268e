"""AP of boxes: the rules of COCO's box evaluation, by hand and against pycocotools."""

from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy import box_ap
from harness.accuracy.box_ap import evaluate_boxes, overlaps
from harness.errors import JudgeDisagreement


def truth(boxes, images=(1, 2), crowd=(), unlabelled=()):
    people = [
        {
            "id": n, "image_id": image, "category_id": 1, "bbox": list(map(float, box)), "area": 0.6 * box[2] * box[3],
            "iscrowd": int(n in crowd), "num_keypoints": 0 if n in unlabelled else 17,
            "keypoints": [0, 0, 0 if n in unlabelled else 2] * 17,
        }
        for n, (image, box) in enumerate(boxes, 1)
    ]  # fmt: skip
    pictures = [{"id": i, "width": 640, "height": 480} for i in images]
    return {"images": pictures, "annotations": people, "categories": [{"id": 1, "name": "person"}]}


def judged(gt, found, images=(1, 2), **options):
    image_ids = np.array([f[0] for f in found], dtype=np.int64)
    boxes = np.array([f[1] for f in found], dtype=np.float64).reshape(-1, 4)
    scores = np.array([f[2] for f in found], dtype=np.float64)
    options = {"bootstrap": 0, **options}
    return evaluate_boxes(gt, image_ids, boxes, scores, num_joints=17, images=list(images), **options)


def test_the_overlap_of_two_boxes_by_hand():
    pairs = np.array([[0.0, 0, 10, 10]] * 4), np.array([[5.0, 0, 10, 10], [20, 0, 5, 5], [0, 0, 40, 40], [0, 0, 10, 5]])
    found = overlaps(*pairs, np.array([False, False, True, False]))
    np.testing.assert_allclose(found, [50 / 150, 0, 1, 0.5])


def test_a_perfect_detector_has_ap_100_and_half_of_it_half():
    people = [(1, (10, 10, 100, 200)), (2, (50, 50, 150, 150))]
    gt = truth(people)
    found = judged(gt, [(i, b, 0.9) for i, b in people])
    assert found.stats["AP"] == found.stats["AR"] == 1.0 and found.largest_difference <= 1e-9
    half = judged(gt, [(1, people[0][1], 0.9)])
    assert half.stats["AR"] == 0.5 and half.stats["AP"] == pytest.approx(51 / 101)
    assert np.isnan(found.stats["APm"]) and found.to_dict()["stats"]["APm"]["value"] is None


def test_persons_without_keypoints_count_and_crowds_do_not():
    people = [(1, (10, 10, 100, 200)), (1, (200, 10, 100, 200)), (2, (50, 50, 150, 150))]
    gt = truth(people, unlabelled={2}, crowd={3})
    found = judged(gt, [(1, people[0][1], 0.9), (2, (60, 60, 50, 50), 0.8), (2, (90, 60, 50, 50), 0.7)])
    assert found.stats["AR"] == 0.5, "two persons to find; boxes in the crowd are not held against it"
    assert found.stats["AP"] == pytest.approx(51 / 101)


def random_case(seed, images=40):
    rng = np.random.default_rng(seed)
    people, found = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, 5)):
            box = (*rng.uniform(0, 400, 2), *rng.uniform(10, 200, 2))
            people.append((image, box))
            for _ in range(rng.integers(0, 3)):
                moved = np.array(box) + rng.normal(0, 0.12, 4) * np.array([box[2], box[3], box[2], box[3]])
                found.append((image, (*moved[:2], *np.maximum(moved[2:], 1)), round(float(rng.uniform()), 2)))
    crowd = set(rng.choice(len(people), 4, replace=False).tolist())
    return truth(people, range(1, images + 1), crowd=crowd, unlabelled={3, 5}), found, range(1, images + 1)


@pytest.mark.parametrize("seed", range(4))
def test_random_boxes_are_judged_as_pycocotools_does(seed):
    gt, found, images = random_case(seed)
    result = judged(gt, found, images)
    assert 0.05 < result.stats["AP"] < 0.95 and result.largest_difference <= 1e-9


def test_more_than_a_hundred_boxes_of_an_image_are_cut_to_the_best():
    gt = truth([(1, (10, 10, 100, 200))], images=(1,))
    beside = [(1, (300, 300, 20, 20), 0.9)] * 100
    found = judged(gt, [*beside, (1, (10, 10, 100, 200), 0.1)], images=(1,))
    assert found.stats["AR"] == 0 and found.detections == 100
    assert judged(gt, [*beside[1:], (1, (10, 10, 100, 200), 0.1)], images=(1,)).stats["AR"] == 1


def test_no_box_at_all_is_an_ap_of_zero():
    assert judged(truth([(1, (10, 10, 100, 200))]), []).stats["AP"] == 0


def test_the_order_of_the_boxes_does_not_matter_and_intervals_hold_the_value():
    gt, found, images = random_case(9)
    found = [(i, b, s + 1e-4 * n) for n, (i, b, s) in enumerate(found)]
    one = judged(gt, found, images, bootstrap=50)
    other = judged(gt, found[::-1], images)
    assert one.stats["AP"] == pytest.approx(other.stats["AP"], abs=1e-12)
    low, high = one.intervals["AP"].percentile
    assert low < one.stats["AP"] < high


def test_a_difference_to_the_judge_stops_the_run(monkeypatch):
    monkeypatch.setattr(box_ap, "_pycocotools", lambda truth, found: np.full(12, 0.5))
    with pytest.raises(JudgeDisagreement, match="box AP"):
        judged(truth([(1, (10, 10, 100, 200))]), [(1, (10, 10, 100, 200), 0.9)])
