from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.errors import UserError
from harness.pose.decoders import decode, to_image
from harness.pose.flip import average, flip_back
from harness.pose.skeletons import COCO, CROWDPOSE, MPII
from harness.pose.targets import encode

SMALL = {"input_size": (256, 192), "heatmap_size": (64, 48)}


@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy], ids=["numpy", "torch"])
def test_turning_back_and_averaging_equal_the_published_code(golden, convert):
    g = golden("decode_64x48")
    mirrored, plain = convert(g["flip_input"]), convert(g["heatmaps"])
    for shift, back_key, mean_key in ((False, "flip_back", "noshift"), (True, "flip_back_shifted", "shift")):
        back = flip_back(mirrored, COCO, shift=shift)
        assert type(back) is type(mirrored)
        np.testing.assert_array_equal(np.asarray(back), g[back_key])
        np.testing.assert_array_equal(np.asarray(average(plain, back)), g[f"flip_avg_{mean_key}"])


@pytest.mark.parametrize("shift", [True, False])
def test_poses_after_a_flip_test_equal_the_published_code(golden, shift):
    g = golden("decode_64x48")
    maps = average(g["heatmaps"], flip_back(g["flip_input"], COCO, shift=shift))
    name = "shift" if shift else "noshift"
    for decoder, dialect, key in (("quarter", "hrnet", "hrnet_final"), ("udp_dark", "mmpose0", "mm0_udp")):
        coords, _ = decode(maps, decoder, dialect=dialect)
        points = to_image(coords, g["centers"], g["scales"], (64, 48), udp=decoder == "udp_dark")
        reference = g[f"{key}_flip_{name}"]
        assert np.abs(points - reference).max() <= 1e-6 * np.abs(reference).max()


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, MPII], ids=lambda s: s.name)
@pytest.mark.parametrize("parts", [1, 3], ids=["maps", "combined"])
def test_flipping_twice_without_a_shift_changes_nothing(skeleton, parts):
    maps = np.random.default_rng(0).normal(size=(2, parts * skeleton.num_joints, 8, 6)).astype(np.float32)
    twice = flip_back(flip_back(maps, skeleton, shift=False), skeleton.flip_order, shift=False)
    np.testing.assert_array_equal(twice, maps)


@pytest.mark.parametrize("encoder", ["udp", "udp_combined"])
def test_the_target_of_the_mirrored_picture_turned_back_is_the_target(encoder):
    joints = np.random.default_rng(1).uniform(20, 170, size=(1, 17, 2))
    mirrored = joints[:, COCO.flip_order] * [-1, 1] + [191, 0]
    plain, _ = encode(encoder, joints, np.ones((1, 17)), **SMALL)
    other, _ = encode(encoder, mirrored, np.ones((1, 17)), **SMALL)
    back = flip_back(other, COCO, shift=False)
    # a joint halfway between pixels may round its window to either side
    assert np.quantile(np.abs(back - plain), 0.999) < 1e-5


def test_the_shift_of_a_biased_codec_undoes_the_mirror_about_the_wrong_axis():
    # x -> 191 - x lands 3 / 4 of a heatmap pixel off; one column to the right leaves a quarter
    joints = np.full((1, 17, 2), 96.0)
    mirrored = joints * [-1, 1] + [191, 0]
    plain, other = (encode("unbiased", j, np.ones((1, 17)), **SMALL)[0] for j in (joints, mirrored))
    errors = [np.abs(flip_back(other, COCO, shift=shift) - plain).max() for shift in (True, False)]
    assert errors[0] < 0.5 * errors[1]


def test_simcc_mirrors_the_x_bins_only():
    x, y = np.zeros((1, 17, 8)), np.zeros((1, 17, 10))
    x[0, 5, 1] = y[0, 5, 3] = 1
    back_x, back_y = flip_back((x, y), COCO, shift=False)
    assert np.argwhere(back_x).tolist() == [[0, 6, 6]] and np.argwhere(back_y).tolist() == [[0, 6, 3]]
    mean_x, mean_y = average((x, y), (back_x, back_y))
    assert mean_x.sum() == mean_y.sum() == 1


def test_the_maps_handed_in_stay_as_they_are():
    maps = np.random.default_rng(0).normal(size=(1, 51, 8, 6))
    before = maps.copy()
    flip_back(maps, COCO, shift=True)
    np.testing.assert_array_equal(maps, before)


def test_maps_of_another_joint_set_are_refused():
    with pytest.raises(UserError, match="14 channels"):
        flip_back(np.zeros((1, 14, 8, 6)), COCO, shift=False)
