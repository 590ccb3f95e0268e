from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pose.nms import oks_matrix, oks_nms, rescore, soft_oks_nms
from harness.pose.skeletons import COCO, CROWDPOSE


def crowd(seed, count=30, joints=17):
    """Poses in clusters, so that some suppress each other."""
    rng = np.random.default_rng(seed)
    middles = rng.uniform(0, 600, size=(5, joints, 2))[rng.integers(0, 5, size=count)]
    keypoints = np.concatenate([middles + rng.normal(scale=8, size=middles.shape), np.ones((count, joints, 1))], axis=2)
    return keypoints, rng.permutation(count) / count + 0.01, rng.uniform(4e3, 3e4, size=count)


def test_oks_equals_the_published_code(golden):
    g = golden("oks_nms")
    np.testing.assert_allclose(oks_matrix(g["keypoints"], g["areas"]), g["oks_matrix"], atol=1e-6)


@pytest.mark.parametrize("percent", [50, 70, 90])
def test_nms_keeps_the_poses_that_the_published_code_keeps(golden, percent):
    g = golden("oks_nms")
    args = g["keypoints"], g["scores"], g["areas"], percent / 100
    np.testing.assert_array_equal(oks_nms(*args), g[f"oks_nms_keep_{percent}"])
    np.testing.assert_array_equal(soft_oks_nms(*args), g[f"soft_oks_nms_keep_{percent}"])


def test_rescoring_equals_the_published_code(golden):
    g = golden("oks_nms")
    scores = rescore(g["keypoints"][..., 2], g["box_scores"])
    np.testing.assert_allclose(scores, g["rescored"], atol=1e-6)
    np.testing.assert_array_equal(oks_nms(g["keypoints"], scores, g["areas"]), g["rescored_oks_nms_keep_90"])


def test_oks_of_a_pose_moved_by_hand():
    keypoints = np.zeros((2, 17, 3))
    keypoints[1, :, 0] = 10
    expected = np.mean([np.exp(-100 / (2 * s) ** 2 / 1000 / 2) for s in COCO.sigmas])  # areas 500 and 1500
    oks = oks_matrix(keypoints, [500, 1500])
    assert oks[0, 1] == oks[1, 0] == pytest.approx(expected) and oks[0, 0] == 1


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), threshold=st.floats(0.3, 0.95))
def test_nms_does_not_depend_on_the_order_of_the_poses(seed, threshold):
    keypoints, scores, areas = crowd(seed)
    shuffle = np.random.default_rng(seed + 1).permutation(len(scores))
    for nms in (oks_nms, soft_oks_nms):
        kept = nms(keypoints, scores, areas, threshold)
        moved = nms(keypoints[shuffle], scores[shuffle], areas[shuffle], threshold)
        np.testing.assert_array_equal(shuffle[moved], kept)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000))
def test_kept_poses_are_apart_and_every_other_one_is_close_to_a_better_one(seed):
    keypoints, scores, areas = crowd(seed)
    kept, oks = oks_nms(keypoints, scores, areas, 0.5), oks_matrix(keypoints, areas)
    assert (np.diff(scores[kept]) <= 0).all()
    assert (oks[np.ix_(kept, kept)][~np.eye(len(kept), dtype=bool)] <= 0.5).all()
    for gone in set(range(len(scores))) - set(kept.tolist()):
        assert any(oks[gone, k] > 0.5 and scores[k] > scores[gone] for k in kept)


def test_of_two_equal_poses_with_equal_scores_the_later_one_stays():
    keypoints = np.ones((3, 17, 3))
    assert oks_nms(keypoints, [0.5, 0.5, 0.1], [100, 100, 100]).tolist() == [1]
    assert soft_oks_nms(keypoints, [0.5, 0.5, 0.1], [100, 100, 100])[0] == 1


def test_a_pose_at_exactly_the_threshold_is_kept():
    keypoints = np.ones((2, 17, 3))
    assert oks_nms(keypoints, [0.9, 0.5], [100, 100], threshold=1.0).tolist() == [0, 1]


def test_soft_nms_keeps_twenty_at_most_and_hard_nms_as_many_as_are_apart():
    keypoints = np.arange(30)[:, None, None] * np.full((1, 17, 3), 1000.0)
    scores, areas = np.linspace(1, 0, 30), np.full(30, 100.0)
    assert soft_oks_nms(keypoints, scores, areas).tolist() == list(range(20))
    assert oks_nms(keypoints, scores, areas).tolist() == list(range(30))


def test_soft_nms_lowers_a_double_below_a_weaker_pose_far_away():
    keypoints = np.zeros((3, 17, 3))
    keypoints[2] += 1000
    assert soft_oks_nms(keypoints, [0.9, 0.8, 0.5], np.full(3, 100.0)).tolist() == [0, 2, 1]


def test_other_joint_sets_bring_their_sigmas():
    keypoints, scores, areas = crowd(0, joints=14)
    assert len(oks_nms(keypoints, scores, areas, 0.9, CROWDPOSE.sigmas))


def test_an_image_without_poses_keeps_none():
    empty = np.zeros((0, 17, 3)), np.zeros(0), np.zeros(0)
    assert oks_nms(*empty).tolist() == soft_oks_nms(*empty).tolist() == []


def test_rescoring_averages_the_joints_strictly_above_the_threshold():
    joints = [[0.2, 0.4, 0.6], [0.1, 0.2, 0.0], [np.nan, 0.8, 0.1]]
    np.testing.assert_allclose(rescore(joints, [0.5, 1.0, 1.0]), [0.25, 0.0, 0.8])
    np.testing.assert_allclose(rescore(joints, [1.0, 1.0, 1.0], threshold=0.5), [0.6, 0.0, 0.8])
