from __future__ import annotations

import io

import numpy as np
import pytest

from harness.accuracy.ap import summarise
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Matches, match, oks_pairs
from harness.pose.skeletons import COCO


def _person(n, image, at, *, size=100.0, visible=17, crowd=0):
    points = np.zeros((17, 3))
    points[:visible] = [*at, 2]
    return {
        "id": n, "image_id": image, "category_id": 1, "iscrowd": crowd, "num_keypoints": visible,
        "bbox": [at[0], at[1], size, size], "area": size * size, "keypoints": points.ravel().tolist(),
    }  # fmt: skip


def _pose(image, at, score):
    points = np.tile([*at, 1.0], (17, 1))
    return {"image_id": image, "category_id": 1, "keypoints": points.ravel().tolist(), "score": score}


def _matched(annotations, results, images=2):
    gt = {
        "images": [{"id": i} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    truth = GroundTruth.from_coco(gt, num_joints=17)
    found = Detections.from_results(results, truth)
    return truth, found, match(truth, found, COCO.sigmas)


def test_oks_of_one_visible_joint_is_the_formula():
    truth, found, _ = _matched([_person(1, 1, (50, 60), visible=1)], [_pose(1, (53, 64), 0.5)])
    oks = oks_pairs(truth, found, np.array([0]), np.array([0]), COCO.sigmas)
    assert oks[0] == pytest.approx(np.exp(-25 / (2 * 100.0**2 * (2 * 0.026) ** 2)), rel=1e-12)


def test_a_person_without_visible_joints_is_measured_by_the_doubled_box():
    person = _person(1, 1, (100, 100), visible=0)
    poses = [_pose(1, (5, 100), 0.9), _pose(1, (295, 295), 0.8), _pose(1, (900, 100), 0.7)]
    truth, found, matches = _matched([person], poses)
    oks = oks_pairs(truth, found, np.arange(3), np.zeros(3, int), COCO.sigmas)
    assert oks[0] == oks[1] == 1
    assert oks[2] < 0.01
    assert matches.positives.sum() == 0


def test_the_better_scored_pose_takes_the_person_and_the_other_is_false():
    poses = [_pose(1, (50, 50), 0.2), _pose(1, (50, 50), 0.9)]
    _, _, matches = _matched([_person(1, 1, (50, 50))], poses)
    assert matches.score.tolist() == [0.9, 0.2]
    assert (matches.status[0, 0] == TRUE_POSITIVE).all()
    assert (matches.status[1, 0] == FALSE_POSITIVE).all()


def test_any_number_of_poses_in_a_crowd_region_is_ignored():
    poses = [_pose(1, (50 + i, 50), 0.9 - 0.1 * i) for i in range(3)]
    _, _, matches = _matched([_person(1, 1, (50, 50), visible=0, crowd=1)], poses)
    assert (matches.status[:, 0] == IGNORED).all()


def test_a_person_that_counts_is_preferred_to_a_nearer_one_that_is_ignored():
    ignored = {**_person(1, 1, (50, 50)), "iscrowd": 1}
    counted = _person(2, 1, (51, 50))
    _, _, matches = _matched([ignored, counted], [_pose(1, (50, 50), 0.9)])
    assert matches.status[0, 0, 0] == TRUE_POSITIVE


def test_an_unmatched_pose_counts_only_in_its_own_area_range():
    pose = _pose(1, (0, 0), 0.9)
    pose["keypoints"][0:2] = [200, 200]  # an extent of 200 x 200 is large
    _, _, matches = _matched([_person(1, 1, (600, 600))], [pose])
    assert matches.groups == ("all", "medium", "large")
    assert matches.status[0, :, 0].tolist() == [FALSE_POSITIVE, IGNORED, FALSE_POSITIVE]


def test_only_the_twenty_best_poses_of_an_image_count():
    poses = [_pose(1, (500 + 9 * i, 50), 0.1 + 0.02 * i) for i in range(25)] + [_pose(1, (50, 50), 0.05)]
    _, _, matches = _matched([_person(1, 1, (50, 50))], poses)
    assert len(matches.score) == 20
    assert matches.score.min() == pytest.approx(0.2)
    assert not (matches.status == TRUE_POSITIVE).any()


def test_two_of_three_persons_found_before_one_miss_is_ap_two_thirds_by_hand():
    persons = [_person(i, i, (50, 50)) for i in (1, 2, 3)]
    poses = [_pose(1, (50, 50), 0.9), _pose(2, (50, 50), 0.8), _pose(3, (900, 900), 0.7)]
    stats = summarise(_matched(persons, poses, images=3)[2])
    assert stats["AP"] == pytest.approx(67 / 101)  # recalls 0.00 to 0.66 of 101 are reached
    assert stats["AR"] == pytest.approx(2 / 3)


def test_matches_survive_an_npz_file(made_up, jittered):
    gt = made_up()
    truth = GroundTruth.from_coco(gt, num_joints=17)
    matches = match(truth, Detections.from_results(jittered(gt), truth), COCO.sigmas)
    stream = io.BytesIO()
    np.savez_compressed(stream, **matches.to_arrays())
    stream.seek(0)
    with np.load(stream) as archive:
        again = Matches.from_arrays(archive)
    assert dict(summarise(again)) == pytest.approx(dict(summarise(matches)), abs=0, nan_ok=True)
    assert again.groups == matches.groups
    assert again.image_ids.tolist() == matches.image_ids.tolist()


def test_the_order_of_images_and_annotations_in_the_file_does_not_matter(made_up, jittered):
    gt = made_up(15, 4)
    results = jittered(gt)
    shuffled = {**gt, "images": gt["images"][::-1], "annotations": gt["annotations"][::-1]}
    stats = []
    for world, found in ((gt, results), (shuffled, results[::-1])):
        truth = GroundTruth.from_coco(world, num_joints=17)
        stats.append(dict(summarise(match(truth, Detections.from_results(found, truth), COCO.sigmas))))
    assert stats[0] == pytest.approx(stats[1], abs=1e-12, nan_ok=True)
