"""Persons who were found while timing, beside those who were scored."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from harness.errors import MeasurementError
from harness.passes.predict_images import Persons
from harness.run import timed_image_poses
from harness.run.timed_image_poses import apart, scored_persons


def persons(*left, moved=0.0):
    boxes = np.array([[x, 0, x + 10, 20] for x in left], dtype=np.float32).reshape(-1, 4)
    points = np.zeros((len(left), 17, 3), np.float32)
    points[..., 0] = np.array(left, dtype=np.float32).reshape(-1, 1) + moved
    return Persons(boxes, np.ones(len(left), np.float32), points, {})


def test_persons_are_paired_by_their_boxes_whatever_their_order():
    assert apart(persons(0, 50, 90), persons(90, 0, 50)).max() == 0
    np.testing.assert_allclose(apart(persons(0, 50), persons(50, 0, moved=3.0)), 3.0)


def test_somebody_who_is_not_there_is_infinitely_far_away():
    gaps = apart(persons(0, 50), persons(0))
    assert gaps.shape == (2, 17) and gaps[0].max() == 0 and np.isinf(gaps[1]).all()
    assert np.isinf(apart(persons(0), persons())).all() and apart(persons(), persons(3)).shape == (0, 17)


def test_of_two_persons_in_one_box_the_nearer_pose_is_meant():
    both = persons(0, 0)
    both.keypoints[1, :, 0] += 40
    assert apart(both, both).max() == 0


def test_a_stored_pass_is_taken_apart_by_image():
    found = {
        "index": np.array([0, 3, 4]),
        "image": np.array([3, 3, 4]),
        "boxes": np.arange(12.0).reshape(3, 4),
        "scores": np.array([0.9, 0.8, 0.7]),
        "keypoints": np.zeros((3, 17, 3)),
    }
    parts = scored_persons(found)
    assert [len(parts[i].scores) for i in (0, 3, 4)] == [0, 2, 1]


class _Call:
    """Two persons; noise moves the first one's nose in every fourth draw, as where two cells are level."""

    def __init__(self):
        self.draws = 0

    def found(self, noise=0.0, seed=0):
        self.draws += noise > 0
        return {0: _nose_moved(40.0) if noise and seed % 4 == 3 else persons(0, 50)}


def _nose_moved(pixels, person=0):
    moved = persons(0, 50)
    moved.keypoints[person, 0, 0] += pixels
    return moved


def _difference(monkeypatch, call, scored):
    row = SimpleNamespace(cell=SimpleNamespace(run={"dtype": "float32"}, label="a row"))
    monkeypatch.setattr(timed_image_poses, "first_scored", lambda rows, find: (row, None))
    monkeypatch.setattr(timed_image_poses, "scored_persons", lambda found: {0: scored})
    return timed_image_poses.image_pose_difference(None, [row], call)


def test_noise_is_drawn_until_it_shows_the_joints_that_jump(monkeypatch):
    call = _Call()
    found = _difference(monkeypatch, call, _nose_moved(40.0))
    assert found["pose_joints_undecided"] == 1 and found["pose_difference_px"] == 0 and call.draws == 4
    call = _Call()
    assert _difference(monkeypatch, call, _nose_moved(0.05))["pose_joints_undecided"] == 0 and call.draws == 0


def test_one_joint_that_no_noise_moves_is_an_error(monkeypatch):
    with pytest.raises(MeasurementError, match="40 px"):
        _difference(monkeypatch, _Call(), _nose_moved(40.0, person=1))
    with pytest.raises(MeasurementError, match="inf px"):
        _difference(monkeypatch, _Call(), persons(0))
