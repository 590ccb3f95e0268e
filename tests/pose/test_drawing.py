from __future__ import annotations

import numpy as np
import pytest

from harness.errors import DataError
from harness.pose.drawing import SIDE_COLOURS, dim_regions, draw_poses, on_top_of_each_other, side_by_side
from harness.pose.skeletons import COCO, CROWDPOSE, MPII


def picture(height=200, width=160):
    return np.full((height, width, 3), 120, dtype=np.uint8)


def pose(scale=1.0):
    """A standing person, seen from the front: its left side is on the right of the picture."""
    places = [
        (80, 30), (84, 27), (76, 27), (88, 30), (72, 30), (100, 50), (60, 50), (110, 80), (50, 80), (115, 105),
        (45, 105), (93, 110), (67, 110), (95, 150), (65, 150), (96, 185), (64, 185),
    ]  # fmt: skip
    return np.array([[(x * scale, y * scale, 1.0) for x, y in places]])


def near(image, x, y, colour, reach=2):
    patch = image[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(int)
    return (np.abs(patch - np.array(colour)).sum(axis=-1) < 40).any()


def test_limbs_wear_the_colour_of_the_persons_own_side():
    image = draw_poses(picture(), pose(), COCO)
    assert near(image, 94, 130, SIDE_COLOURS["left"]) and near(image, 66, 130, SIDE_COLOURS["right"])
    assert near(image, 80, 50, SIDE_COLOURS["centre"])


def test_the_picture_handed_in_is_not_drawn_on():
    image = picture()
    assert (draw_poses(image, pose()) != image).any() and (image == 120).all()


def test_joints_below_the_threshold_and_their_limbs_are_left_out():
    faint = pose()
    faint[0, 13:17, 2] = 0.1
    image = draw_poses(picture(), faint)
    assert (image[125:] == 120).all() and (image[:100] != 120).any()
    assert (draw_poses(picture(), faint, score_threshold=0.05)[125:] != 120).any()


def test_a_larger_person_is_drawn_with_thicker_lines():
    def inked_across_the_shin(scale):
        image = draw_poses(picture(int(200 * scale), int(160 * scale)), pose(scale))
        return (image[int(167 * scale), : int(80 * scale)] != 120).any(axis=-1).sum()

    assert inked_across_the_shin(5) > 2 * inked_across_the_shin(1) > 0


def test_boxes_are_xywh():
    image = draw_poses(picture(), np.zeros((0, 17, 3)), boxes=[[20, 30, 50, 60]])
    changed = np.argwhere((image != 120).any(axis=-1))
    np.testing.assert_allclose(changed.min(axis=0), [30, 20], atol=2)
    np.testing.assert_allclose(changed.max(axis=0), [90, 70], atol=2)


@pytest.mark.parametrize("text", ["AP 74.4", "a caption that is much longer than the picture is wide " * 3])
def test_a_caption_stays_in_the_upper_left_corner(text):
    changed = np.argwhere((draw_poses(picture(), [], caption=text) != 120).any(axis=-1))
    assert len(changed) and changed[:, 0].max() < 40


@pytest.mark.parametrize("skeleton", [CROWDPOSE, MPII], ids=lambda s: s.name)
def test_other_joint_sets_are_drawn(skeleton):
    points = np.random.default_rng(0).uniform(10, 150, size=(2, skeleton.num_joints, 3))
    assert (draw_poses(picture(), points, skeleton) != 120).any()


def test_joints_that_are_not_finite_or_far_outside_do_no_harm():
    wild = pose()
    wild[0, 0, 0], wild[0, 1, :2], wild[0, 2, 2] = np.nan, 1e12, np.nan
    assert draw_poses(picture(), wild).shape == (200, 160, 3)


def test_pictures_of_different_heights_stand_side_by_side():
    row = side_by_side([picture(100, 50), picture(60, 40)], gap=4)
    assert row.shape == (100, 94, 3)
    assert (row[:, :50] == 120).all() and (row[:, 50:54] == 255).all() and (row[60:, 54:] == 255).all()


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(DataError, match="float64"):
        draw_poses(np.zeros((10, 10, 3)), pose())
    with pytest.raises(DataError, match="14"):
        draw_poses(picture(), np.ones((1, 14, 3)))
    with pytest.raises(DataError, match="no pictures"):
        side_by_side([])


def test_regions_that_were_not_seen_are_dark_and_the_others_stay_as_they_are():
    picture = np.full((40, 30, 3), 200, np.uint8)
    seen = np.zeros((4, 3), dtype=bool)
    seen[1, 2] = True
    drawn = dim_regions(picture, seen)
    assert (drawn[12:18, 22:28] == 200).all(), "inside the frame"
    assert (drawn[10, 20:30] == 255).all() and (drawn[19, 20:30] == 255).all()
    assert (drawn[:10] == 50).all() and (drawn[:, :20] == 50).all() and (picture == 200).all()


def test_pictures_of_different_widths_stand_on_top_of_each_other():
    joined = on_top_of_each_other([np.zeros((5, 8, 3), np.uint8), np.zeros((4, 3, 3), np.uint8)], gap=2)
    assert joined.shape == (11, 8, 3)
    assert (joined[5:7] == 255).all() and (joined[7:, 3:] == 255).all() and (joined[7:, :3] == 0).all()
