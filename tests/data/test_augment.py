"""Augmentation: distributions against hrnet.md F, and the geometry of what is drawn."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data.augment import draw, frozen_shift, mirrored, moved_joints
from harness.data.crops import affine, warp
from harness.errors import UserError
from harness.pose.skeletons import COCO
from harness.train.recipes import Augmentation

BOX = np.array([40.0, 30.0, 60.0, 120.0])
WIDTH = 200
INPUT = (256, 192)
COUNT = 10_000
HRNET = Augmentation(half_body=0.0)
NORMAL_BELOW = 0.5 * (1 + math.erf(1 / math.sqrt(2)))  # of 1


def person(labelled=17):
    rng = np.random.default_rng(5)
    points = BOX[:2] + rng.random((17, 2)) * BOX[2:]
    return np.concatenate([points, (np.arange(17) < labelled)[:, None] * 2.0], axis=1)


def draws(augmentation, keypoints=None, count=COUNT, box=BOX):
    keypoints = person() if keypoints is None else keypoints
    rng = np.random.default_rng(11)
    options = {"input_size": INPUT, "image_width": WIDTH}
    return [draw(rng, box, keypoints, augmentation, COCO, **options) for _ in range(count)]


def factors(found):
    return np.array([d.scale[0] for d in found]) / (120 * 0.75 * 1.25 / 200)


def within(rate, expected, count=COUNT):
    """Four standard deviations of a binomial rate."""
    return abs(rate - expected) < 4 * math.sqrt(expected * (1 - expected) / count)


def test_without_randomness_the_crop_is_the_box_fixed_to_the_aspect_and_padded():
    still = Augmentation(flip=0, scale=0, rotation_prob=0, half_body=0)
    one = draws(still, count=1)[0]
    np.testing.assert_allclose(one.center, [70, 90])
    np.testing.assert_allclose(one.scale, [120 * 0.75 * 1.25 / 200, 120 * 1.25 / 200], rtol=1e-6)
    assert (one.rotation, one.flip) == (0.0, False)


def test_hrnet_scale_is_a_clipped_normal_draw():
    scale = factors(draws(HRNET))
    assert scale.min() == pytest.approx(0.65, abs=1e-5) and scale.max() == pytest.approx(1.35, abs=1e-5)
    tail = 1 - NORMAL_BELOW
    assert within(np.mean(scale < 0.65 + 1e-4), tail) and within(np.mean(scale > 1.35 - 1e-4), tail)
    inner = scale[(scale > 0.6501) & (scale < 1.3499)]
    assert inner.std() == pytest.approx(0.35 * 0.5396, rel=0.03)  # of a normal truncated to one deviation


def test_hrnet_rotation_happens_in_60_percent_and_is_clipped_at_two_deviations():
    rotation = np.array([d.rotation for d in draws(HRNET)])
    assert within(np.mean(rotation != 0), 0.6)
    assert np.abs(rotation).max() == 90
    turned = rotation[(rotation != 0) & (np.abs(rotation) < 90)]
    assert turned.std() == pytest.approx(45 * 0.8796, rel=0.03)  # of a normal truncated to two deviations


def test_mmpose0_draws_as_hrnet_with_other_factors():
    found = draws(Augmentation("mmpose0", scale=0.5, rotation=40, half_body=0))
    scale, rotation = factors(found), np.array([d.rotation for d in found])
    assert scale.min() == pytest.approx(0.5, abs=1e-5) and scale.max() == pytest.approx(1.5, abs=1e-5)
    assert within(np.mean(scale < 0.5 + 1e-4), 1 - NORMAL_BELOW) and within(np.mean(rotation != 0), 0.6)
    assert np.abs(rotation).max() == 80
    turned = rotation[(rotation != 0) & (np.abs(rotation) < 80)]
    assert turned.std() == pytest.approx(40 * 0.8796, rel=0.03)


def test_mmpose1_scale_and_rotation_are_truncated_normal_draws():
    found = draws(Augmentation("mmpose1", scale=0.5, rotation=80, half_body=0))
    scale, rotation = factors(found), np.array([d.rotation for d in found])
    assert 0.5 < scale.min() < 0.52 and 1.48 < scale.max() < 1.5
    assert scale.std() == pytest.approx(0.5 * 0.5396, rel=0.03)
    assert within(np.mean(rotation != 0), 0.6)
    assert rotation[rotation != 0].std() == pytest.approx(80 * 0.5396, rel=0.03)
    assert np.abs(rotation).max() < 80


@pytest.mark.parametrize("dialect", ["hrnet", "mmpose0", "mmpose1"])
def test_flip_mirrors_the_centre_in_half_of_the_samples(dialect):
    found = draws(Augmentation(dialect, half_body=0))
    flips = np.array([d.flip for d in found])
    assert within(flips.mean(), 0.5)
    centers = np.array([d.center for d in found])
    np.testing.assert_allclose(centers[~flips], np.tile([70, 90], (int((~flips).sum()), 1)))
    np.testing.assert_allclose(centers[flips], np.tile([WIDTH - 1 - 70, 90], (int(flips.sum()), 1)))


def half_body_centres(keypoints):
    upper = keypoints[(keypoints[:, 2] > 0) & (np.arange(17) <= 10), :2]
    lower = keypoints[(keypoints[:, 2] > 0) & (np.arange(17) > 10), :2]
    return upper, lower


def still(dialect, **more):
    return Augmentation(dialect, flip=0, scale=0, rotation_prob=0, **more)


@pytest.mark.parametrize(("dialect", "upper_rate"), [("hrnet", 0.6915), ("mmpose0", 0.6915), ("mmpose1", 0.7)])
def test_half_body_takes_the_upper_body_as_often_as_published(dialect, upper_rate):
    found = draws(still(dialect, half_body=0.3))
    upper, lower = half_body_centres(person())
    centers = np.array([d.center for d in found])
    is_upper = np.abs(centers - upper.mean(axis=0)).max(axis=1) < 1e-3
    is_lower = np.abs(centers - lower.mean(axis=0)).max(axis=1) < 1e-3
    assert within(np.mean(is_upper | is_lower), 0.3)
    assert abs(is_upper.sum() / (is_upper | is_lower).sum() - upper_rate) < 0.035
    extent = np.ptp(upper, axis=0) * 1.5
    wide = max(extent[0], extent[1] * 0.75) / 200
    assert found[int(np.argmax(is_upper))].scale[0] == pytest.approx(wide, rel=1e-5)


@pytest.mark.parametrize("dialect", ["hrnet", "mmpose0", "mmpose1"])
def test_half_body_needs_more_than_eight_labelled_joints(dialect):
    always = still(dialect, half_body=1.0)
    assert all(np.allclose(d.center, [70, 90]) for d in draws(always, person(8), count=50))
    assert not any(np.allclose(d.center, [70, 90]) for d in draws(always, person(9), count=50))


def test_half_body_of_a_person_without_lower_body_is_always_the_upper_one():
    keypoints = person(11)
    upper, _ = half_body_centres(keypoints)
    for dialect in ("hrnet", "mmpose1"):
        for one in draws(still(dialect, half_body=1.0), keypoints, count=50):
            np.testing.assert_allclose(one.center, upper.mean(axis=0), rtol=1e-5)


def test_half_body_leaves_joints_on_one_point_alone():
    keypoints = person()
    keypoints[:, :2] = 77.0
    one = draws(still("hrnet", half_body=1.0), keypoints, count=1)[0]
    np.testing.assert_allclose(one.center, [70, 90])


def test_mmpose1_jitter_is_fresh_and_relative_to_the_padded_box():
    found = draws(still("mmpose1", half_body=0, shift=0.16, shift_prob=0.3))
    moves = (np.array([d.center for d in found]) - [70, 90]) / (BOX[2:] * 1.25 * 0.16)
    moved = np.abs(moves).max(axis=1) > 0
    assert within(moved.mean(), 0.3)
    assert np.abs(moves).max() < 1 + 1e-5
    np.testing.assert_allclose(moves[moved].std(axis=0), 0.5396, rtol=0.05)


def test_mmpose0_jitter_is_uniform_in_the_box_and_drawn_with_the_list_of_persons():
    a = Augmentation("mmpose0", shift=0.2, shift_prob=0.3)
    rng = np.random.default_rng(0)
    moves = np.array([(frozen_shift(rng, BOX, a) - BOX)[:2] / BOX[2:] for _ in range(COUNT)])
    moved = np.abs(moves).max(axis=1) > 0
    assert within(moved.mean(), 0.3)
    assert np.abs(moves).max() <= 0.2 and np.abs(moves).max() > 0.195
    np.testing.assert_allclose(moves[moved].std(axis=0), 0.4 / math.sqrt(12), rtol=0.05)
    assert all(np.allclose(d.center, [70, 90]) for d in draws(still("mmpose0", half_body=0, shift=0.2), count=20))


def test_the_later_mmpose0_jitter_is_fresh_and_relative_to_the_crop():
    a = still("mmpose0", half_body=0, shift=0.16, shift_prob=1.0, fresh_shift=True)
    moves = (np.array([d.center for d in draws(a)]) - [70, 90]) / (120 * 1.25 * np.array([0.75, 1]))
    assert 0.155 < np.abs(moves).max() <= 0.16 + 1e-6
    np.testing.assert_allclose(frozen_shift(np.random.default_rng(0), BOX, a), BOX)


@pytest.mark.parametrize(("dialect", "displaced"), [("mmpose0", 0.0), ("mmpose1", 1.0)])
def test_a_half_body_crop_takes_no_notice_of_the_shift_that_mmpose0_draws_before_it(dialect, displaced):
    keypoints = person()
    still_there = draws(still(dialect, half_body=1.0), keypoints)
    centers = {tuple(np.round(d.center, 3)) for d in still_there}  # of the upper and of the lower body
    shifted = draws(still(dialect, half_body=1.0, shift=0.16, shift_prob=1.0, fresh_shift=True), keypoints)
    share = np.mean([tuple(np.round(d.center, 3)) not in centers for d in shifted])
    assert len(centers) == 2 and share == displaced


def test_hrnet_with_a_centre_jitter_is_refused():
    with pytest.raises(UserError, match="no centre jitter"):
        Augmentation("hrnet", shift=0.2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), udp=st.booleans(), dialect=st.sampled_from(["hrnet", "mmpose0", "mmpose1"]))
def test_a_white_dot_at_a_joint_arrives_where_the_joint_does(seed, udp, dialect):
    keypoints, image = person(), np.zeros((180, WIDTH, 3), np.uint8)
    x, y = np.round(keypoints[7, :2]).astype(int)
    keypoints[7, :2] = x, y
    cv2.circle(image, (int(x), int(y)), 3, (255, 255, 255), -1)
    a = Augmentation(dialect, scale=0.2, rotation=40, half_body=0.0)
    rng = np.random.default_rng(seed)
    one = draw(rng, BOX, keypoints, a, COCO, input_size=INPUT, image_width=WIDTH)
    matrix = affine(one.center, one.scale, one.rotation, INPUT, udp=udp)
    if one.flip:
        matrix = mirrored(matrix, WIDTH)
    joint = moved_joints(keypoints, matrix, COCO, one.flip)[8 if one.flip else 7]
    pixels = warp(image, matrix, INPUT)[:, :, 0].astype(float)
    if not (10 < joint[0] < 180 and 10 < joint[1] < 245):
        return  # outside of the crop
    rows, columns = np.indices(pixels.shape)
    centroid = np.array([(columns * pixels).sum(), (rows * pixels).sum()]) / pixels.sum()
    assert np.abs(centroid - joint[:2]).max() < 0.35


def test_cropping_through_the_mirrored_matrix_is_cropping_the_mirrored_image():
    image = np.random.default_rng(3).integers(0, 256, (180, WIDTH, 3), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    matrix = affine(np.array([90, 80]), np.array([0.5, 0.66]), 25.0, INPUT)
    plain = warp(np.ascontiguousarray(image[:, ::-1]), matrix, INPUT).astype(int)
    folded = warp(image, mirrored(matrix, WIDTH), INPUT).astype(int)
    assert np.abs(plain - folded).max() <= 3  # OpenCV rounds positions to 1/32 of a pixel


def test_a_flip_exchanges_left_and_right_with_their_visibility():
    keypoints = person()
    keypoints[5, 2] = 1
    moved = moved_joints(keypoints, np.array([[-1.0, 0, 199], [0, 1, 0]]), COCO, True)
    np.testing.assert_allclose(moved[6], [199 - keypoints[5, 0], keypoints[5, 1], 1])
    np.testing.assert_allclose(moved[0], [199 - keypoints[0, 0], keypoints[0, 1], 2])
