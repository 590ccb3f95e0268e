from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.pose.codecs import CODECS
from harness.pose.decoders import DECODERS, decode, non_finite, to_image
from harness.pose.targets import encode

# golden name -> decoder, dialect, udp, key of the coordinates in image pixels
GOLDEN = [
    ("hrnet_final_post0", "argmax", "hrnet", False),
    ("hrnet_final_post1", "quarter", "hrnet", False),
    ("mm0_none_preds", "argmax", "mmpose0", False),
    ("mm0_default_preds", "quarter", "mmpose0", False),
    ("mm0_dark_preds", "dark", "mmpose0", False),
    ("mm0_megvii_preds", "megvii", "mmpose0", False),
    ("mm0_udp_preds", "udp_dark", "mmpose0", True),
    ("mm0_udpcombined_preds", "udp_combined", "mmpose0", True),
    ("mm1_msra_image_space", "quarter", "mmpose1", False),
    ("mm1_dark_image_space", "dark", "mmpose1", False),
    ("mm1_megvii_image_space", "megvii", "mmpose1", False),
    ("mm1_udp_image_space", "udp_dark", "mmpose1", True),
]
SMALL = {"input_size": (256, 192), "heatmap_size": (64, 48)}
LARGE = {"input_size": (384, 288), "heatmap_size": (96, 72)}


def delta(x, y, value=1.0, size=(64, 48)):
    maps = np.zeros((1, 1, *size), dtype=np.float32)
    maps[0, 0, y, x] = value
    return maps


def gaussian(x, y, sigma=2.0, size=(64, 48)):
    rows, columns = np.mgrid[: size[0], : size[1]]
    return np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * sigma**2))[None, None].astype(np.float32)


@pytest.mark.parametrize(("key", "decoder", "dialect", "udp"), GOLDEN)
def test_decoding_equals_the_published_code(golden, key, decoder, dialect, udp):
    g = golden("decode_64x48")
    maps = g["combined_heatmaps" if decoder == "udp_combined" else "heatmaps"]
    coords, scores = decode(maps, decoder, dialect=dialect, blur_kernel=int(g["blur_kernel"]))
    points = to_image(coords, g["centers"], g["scales"], (64, 48), udp=udp)
    assert coords.dtype == scores.dtype == points.dtype == np.float32
    reference = g[key]
    known = np.isfinite(reference)  # the published code writes nan on the all-zero map, we do not
    assert np.isfinite(points).all() and known.mean() > 0.98
    assert np.abs(points - reference)[known].max() <= 1e-6 * np.abs(reference[known]).max()


@pytest.mark.parametrize(("key", "decoder", "dialect", "udp"), GOLDEN[2:])
def test_scores_equal_the_published_code(golden, key, decoder, dialect, udp):
    g = golden("decode_64x48")
    maps = g["combined_heatmaps" if decoder == "udp_combined" else "heatmaps"]
    _, scores = decode(maps, decoder, dialect=dialect)
    name = key.replace("_preds", "_maxvals").replace("_image_space", "_scores")
    reference = g[name].reshape(4, 17)
    np.testing.assert_allclose(scores, np.where(np.isnan(reference), 0.5, reference), atol=1e-6)


def test_the_raw_maximum_equals_the_published_code(golden):
    g = golden("decode_64x48")
    coords, scores = decode(g["heatmaps"], "argmax")
    np.testing.assert_array_equal(coords, g["hrnet_argmax"])
    np.testing.assert_array_equal(scores, g["hrnet_maxvals"][..., 0])


@pytest.mark.parametrize("decoder", ["argmax", "quarter", "dark"])
def test_a_single_bright_pixel_is_found_where_it_is(decoder):
    coords, scores = decode(delta(20, 30, 0.7), decoder)
    np.testing.assert_allclose(coords[0, 0], [20, 30], atol=1e-5)
    assert scores[0, 0] == pytest.approx(0.7)


def test_the_quarter_offset_goes_towards_the_higher_neighbour():
    maps = delta(20, 30)
    maps[0, 0, 30, 21], maps[0, 0, 29, 20] = 0.5, 0.5
    np.testing.assert_array_equal(decode(maps, "quarter")[0][0, 0], [20.25, 29.75])


def test_beside_the_border_hrnet_moves_neither_axis_and_mmpose_1_the_inner_one():
    maps = delta(1, 30)
    maps[0, 0, 31, 1] = maps[0, 0, 30, 2] = 0.5
    expected = {"hrnet": [1, 30], "mmpose0": [1, 30], "mmpose1": [1, 30.25]}
    assert {d: decode(maps, "quarter", dialect=d)[0][0, 0].tolist() for d in expected} == expected


def test_a_map_without_a_positive_value_is_at_zero_in_hrnet_and_at_minus_one_in_mmpose():
    empty = np.full((1, 1, 64, 48), -0.5)
    assert decode(empty, "quarter")[0].tolist() == [[[0, 0]]]
    assert decode(empty, "quarter", dialect="mmpose0")[0].tolist() == [[[-1, -1]]]


@pytest.mark.parametrize("decoder", ["argmax", "quarter", "dark", "udp_dark", "megvii", "soft_argmax"])
@pytest.mark.parametrize("dialect", ["hrnet", "mmpose0", "mmpose1"])
def test_an_all_zero_map_gives_finite_numbers(decoder, dialect):
    coords, scores = decode(np.zeros((2, 17, 64, 48)), decoder, dialect=dialect)
    assert np.isfinite(coords).all() and np.isfinite(scores).all()


@settings(max_examples=25, deadline=None)
@given(x=st.floats(12, 35), y=st.floats(12, 51))
def test_newton_steps_find_a_gaussian_at_its_sub_pixel_place(x, y):
    for decoder, dialect in (("dark", "hrnet"), ("udp_dark", "mmpose0"), ("udp_dark", "mmpose1")):
        coords, _ = decode(gaussian(x, y), decoder, dialect=dialect)
        np.testing.assert_allclose(coords[0, 0], [x, y], atol=0.02)


def test_dark_leaves_the_two_outermost_pixels_alone_but_udp_refines_them():
    maps = gaussian(2.3, 30.4) + gaussian(1.3, 30.4)
    assert decode(gaussian(1.3, 30.4), "dark")[0][0, 0].tolist() == [1, 30]
    assert decode(maps, "udp_dark")[0][0, 0, 1] == pytest.approx(30.4, abs=0.1)


def test_a_person_is_decoded_alike_in_any_batch(golden):
    maps = golden("decode_64x48")["heatmaps"]
    for decoder in ("quarter", "dark", "udp_dark", "megvii", "soft_argmax"):
        together, alone = decode(maps, decoder, dialect="mmpose0"), decode(maps[1:2], decoder, dialect="mmpose0")
        np.testing.assert_array_equal(together[0][1:2], alone[0])
        np.testing.assert_array_equal(together[1][1:2], alone[1])


def test_soft_argmax_is_the_mean_under_the_softmax():
    maps = np.zeros((1, 1, 4, 3))
    maps[0, 0, 1, 2] = np.log(5.0)  # weight 5 of 16
    coords, scores = decode(maps, "soft_argmax")
    np.testing.assert_allclose(coords[0, 0], [(4 * (0 + 1 + 2) - 2 + 5 * 2) / 16, (18 - 1 + 5) / 16], rtol=1e-6)
    assert scores[0, 0] == pytest.approx(np.log(5.0))


def test_debiased_soft_argmax_takes_out_the_pull_of_the_background():
    # one pixel of value v, the rest 0: C = exp(v) + hw - 1, and the formula is checked by its own terms
    h, w, v = 64, 48, 9.0
    maps = delta(40, 50, v)
    plain, _ = decode(maps, "soft_argmax")
    debiased, _ = decode(maps, "soft_argmax", debias=True)
    total = np.exp(v) + h * w - 1
    expected = total / (total - 1) * (plain[0, 0] / [w, h] - 1 / (2 * total)) * [w, h]
    np.testing.assert_allclose(debiased[0, 0], expected, rtol=1e-5)


def test_soft_argmax_survives_maps_of_any_magnitude():
    coords, _ = decode(delta(40, 50, 5000.0), "soft_argmax", debias=True)
    np.testing.assert_allclose(coords[0, 0], [40, 50], atol=1e-4)


def test_simcc_takes_the_smaller_of_the_two_maxima():
    x, y = np.zeros((1, 1, 384)), np.zeros((1, 1, 512))
    x[0, 0, 101], y[0, 0, 400] = 0.9, 0.4
    coords, scores = decode((x, y), "simcc")
    assert coords.tolist() == [[[50.5, 200.0]]] and scores[0, 0] == pytest.approx(0.4)


@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["256x192", "384x288"])
@pytest.mark.parametrize("codec", CODECS)
def test_encoding_and_decoding_returns_the_joints(codec, sizes):
    # heatmap pixels: half a pixel for the rounded centre, less than that for what refines an exact one
    limits = {"argmax": 0.5, "quarter": 0.25, "udp_combined": 0.4, "simcc": 0.0625, "soft_argmax": 0.05}
    large = sizes is LARGE
    rng = np.random.default_rng(3)
    h, w = sizes["input_size"]
    joints = rng.uniform([60, 60], [w - 60, h - 60], size=(4, 17, 2))
    how = CODECS[codec]
    sigma = 6.0 if codec == "simcc" else 3.0 if large else 2.0
    target, _ = encode(how.encoder, joints, np.ones((4, 17)), **sizes, sigma=sigma)
    cells = sizes["input_size"] if codec == "simcc" else sizes["heatmap_size"]
    whole_input = np.tile([w / 2, h / 2], (4, 1)), np.tile([w / 200, h / 200], (4, 1))
    for decoder in how.decoders:
        if decoder == "megvii":
            continue  # has its own encoder, see below
        coords, _ = decode(target, decoder, blur_kernel=17 if large else 11, beta=20.0)
        found = to_image(coords, *whole_input, cells, udp=how.udp)
        aim = joints * [w / (w - 1), h / (h - 1)] if how.udp else joints  # the whole input is w - 1 UDP units wide
        limit = 0.5 if codec == "biased" else limits.get(decoder, 0.02)
        assert np.abs(found - aim).max() / 4 <= limit + 0.01, decoder


@pytest.mark.parametrize(("sizes", "sigma", "kernel"), [(SMALL, 2, 11), (LARGE, 3, 17)])
def test_megvii_decodes_its_own_encoding_within_half_a_pixel(sizes, sigma, kernel):
    h, w = sizes["input_size"]
    joints = np.random.default_rng(4).uniform([40, 40], [w - 40, h - 40], size=(2, 9, 2))
    target, _ = encode("megvii", joints, np.ones((2, 9)), **sizes, sigma=sigma)
    coords, scores = decode(target, "megvii", blur_kernel=kernel)
    assert np.abs(coords - joints / 4).max() <= 0.5 + 1e-6
    np.testing.assert_allclose(scores, 1.5, atol=1e-5)


def test_the_corners_of_the_map_go_to_the_corners_of_the_crop():
    center, scale = np.array([[100.0, 200.0]]), np.array([[0.75, 1.0]])
    corners = np.array([[[0, 0], [47, 63]]], dtype=np.float32)
    udp = to_image(corners, center, scale, (64, 48), udp=True)[0]
    np.testing.assert_allclose(udp, [[25, 100], [175, 300]], rtol=1e-6)
    standard = to_image(corners, center, scale, (64, 48), udp=False)[0]
    np.testing.assert_allclose(standard, [[25, 100], [25 + 47 * 150 / 48, 100 + 63 * 200 / 64]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_any_floating_type_are_read(dtype):
    maps = torch.from_numpy(delta(20, 30)).to(dtype)
    for decoder in ("quarter", "dark", "udp_dark"):
        coords, scores = decode(maps, decoder)
        assert coords.dtype == scores.dtype == np.float32
        np.testing.assert_allclose(coords[0, 0], [20, 30], atol=1e-4)


def test_decoding_does_not_change_the_maps(golden):
    maps = golden("decode_64x48")["heatmaps"]
    before = maps.copy()
    for decoder in ("quarter", "dark", "udp_dark", "megvii", "soft_argmax"):
        decode(maps, decoder)
    np.testing.assert_array_equal(maps, before)


@pytest.mark.parametrize("decoder", [d for d in DECODERS if d != "simcc"])
def test_an_empty_batch_gives_empty_arrays(decoder):
    coords, scores = decode(np.zeros((0, 51, 64, 48), dtype=np.float32), decoder)
    joints = 17 if decoder == "udp_combined" else 51
    assert coords.shape == (0, joints, 2) and scores.shape == (0, joints)


def test_maps_that_are_not_finite_are_named_by_person_and_joint():
    maps = np.zeros((3, 17, 8, 6), dtype=np.float32)
    assert non_finite(maps).shape == (0, 2)
    maps[1, 4, 2, 2], maps[2, 0, 0, 0] = np.nan, -np.inf
    assert non_finite(maps).tolist() == [[1, 4], [2, 0]]
    assert non_finite(torch.from_numpy(maps)).tolist() == [[1, 4], [2, 0]]
    assert non_finite((np.zeros((3, 17, 12)), maps[..., 0])).tolist() == [[2, 0]]


@pytest.mark.parametrize(
    ("maps", "decoder", "options", "message"),
    [
        (np.zeros((1, 17, 8, 6)), "quater", {}, "did you mean quarter"),
        (np.zeros((1, 17, 8, 6)), "quarter", {"dialect": "mmpose"}, "mmpose0"),
        (np.zeros((1, 17, 8, 6)), "dark", {"blur_kernel": 10}, "odd"),
        (np.zeros((1, 17, 8, 6)), "udp_combined", {}, "3K"),
        (np.zeros((1, 17, 8, 6)), "simcc", {}, "pair"),
        (np.zeros((17, 8, 6)), "argmax", {}, "B, K, h, w"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_the_reason(maps, decoder, options, message):
    with pytest.raises(UserError) as caught:
        decode(maps, decoder, **options)
    assert message in str(caught.value)
