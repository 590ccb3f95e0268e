from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy.pck import head_sizes, pckh
from harness.errors import DataError
from harness.pose.skeletons import MPII


def _people(n=4):
    truth = np.random.default_rng(0).uniform(0, 200, (n, 16, 2))
    return truth, np.ones((n, 16), dtype=bool), np.full(n, 10.0)


def test_the_head_size_is_six_tenths_of_the_diagonal():
    assert head_sizes(np.array([[10, 20, 40, 60]])).tolist() == [30.0]


def test_a_joint_at_exactly_the_threshold_is_right_and_one_beyond_is_wrong():
    truth, visible, heads = _people(2)
    truth = np.zeros_like(truth)
    predicted = truth.copy()
    predicted[0, 0] = (3, 4)
    predicted[1, 0] = (3, 4.01)
    assert pckh(predicted, truth, visible, heads).joints["right_ankle"] == 0.5
    assert pckh(predicted, truth, visible, heads, threshold=0.1).mean == pytest.approx(26 / 28)


def test_pelvis_and_thorax_are_told_but_not_in_the_mean():
    truth, visible, heads = _people()
    predicted = truth.copy()
    for name in ("pelvis", "thorax"):
        predicted[:, MPII.joints.index(name)] += 100
    found = pckh(predicted, truth, visible, heads)
    assert found.joints["pelvis"] == found.joints["thorax"] == 0
    assert found.mean == 1


def test_a_joint_weighs_in_the_mean_as_often_as_it_is_visible():
    truth, visible, heads = _people(4)
    predicted = truth.copy()
    predicted[:, 0] += 100
    visible[1:, 0] = False
    assert pckh(predicted, truth, visible, heads).mean == pytest.approx(13 * 4 / (13 * 4 + 1))


def test_a_joint_that_is_never_visible_has_no_share():
    truth, visible, heads = _people()
    visible[:, 3] = False
    assert pckh(truth, truth, visible, heads).joints["left_hip"] is None
    assert pckh(truth, truth, np.zeros_like(visible), heads).mean is None


def test_bad_head_sizes_and_predictions_are_refused():
    truth, visible, heads = _people()
    with pytest.raises(DataError, match="head size 0"):
        pckh(truth, truth, visible, heads * 0)
    with pytest.raises(DataError, match="not finite"):
        pckh(truth * np.nan, truth, visible, heads)
