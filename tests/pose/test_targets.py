from __future__ import annotations

import numpy as np
import pytest

from harness.errors import UserError
from harness.pose.targets import encode

SMALL = {"input_size": (256, 192), "heatmap_size": (64, 48)}

GOLDEN = {
    "hrnet": "msra",
    "mm0_msra": "msra",
    "mm0_dark": "unbiased",
    "mm0_udp": "udp",
    "mm0_udpcombined": "udp_combined",
    "mm0_megvii": "megvii",
    "mm1_msra": "msra",
    "mm1_dark": "unbiased",
    "mm1_udp": "udp",
    "mm1_megvii": "megvii",
}
DIALECT = {"hrnet": "hrnet", "mm0": "mmpose0", "mm1": "mmpose1"}


def one(encoder, x, y, **kwargs):
    """Target and weight of a single visible joint."""
    target, weight = encode(encoder, np.array([[x, y]]), np.array([1]), **{**SMALL, **kwargs})
    return target, float(weight[0])


@pytest.mark.parametrize("name", GOLDEN)
def test_targets_equal_those_of_the_published_code(golden, name):
    g, dialect = golden("targets_64x48"), DIALECT[name.split("_")[0]]
    target, weight = encode(
        GOLDEN[name],
        g["joints"][:, :2],
        g["joints_visible"][:, 0],
        **SMALL,
        sigma=2,
        dialect=dialect,
    )
    reference = g[f"{name}_target"]
    assert target.dtype == weight.dtype == np.float32
    assert np.abs(target - reference).max() <= 1e-5 * np.abs(reference).max()
    np.testing.assert_array_equal(weight, g[f"{name}_weight"].ravel())


def test_a_biased_target_peaks_with_one_at_the_rounded_pixel():
    target, weight = one("msra", 97.9, 130.0)  # 24.475, 32.5
    assert weight == 1
    assert np.unravel_index(target[0].argmax(), (64, 48)) == (33, 24)
    assert target.max() == 1
    assert target[0, 33, 25] == pytest.approx(np.exp(-1 / 8), rel=1e-6)
    assert target[0, 33 + 6, 24 + 6] > 0 and target[0, 33 + 7, 24] == 0


def test_the_unbiased_target_is_a_gaussian_at_the_true_place_over_the_whole_map():
    target, _ = one("unbiased", 97.9, 130.0)
    assert target[0, 32, 24] == pytest.approx(np.exp(-(0.475**2 + 0.5**2) / 8), rel=1e-6)
    assert target[0, 20, 24] == pytest.approx(np.exp(-(0.475**2 + 12.5**2) / 8), rel=1e-5)


def test_udp_measures_between_outer_pixel_centres():
    target, _ = one("udp", 191.0, 255.0)
    assert target[0, 63, 47] == pytest.approx(1)
    assert one("unbiased", 191.0, 255.0)[0][0, 63, 47] < 0.99


def test_a_joint_far_outside_weighs_nothing_and_one_within_three_sigma_does():
    for encoder in ("msra", "unbiased", "udp"):
        target, weight = one(encoder, -60.0, 100.0)
        assert weight == 0 and not target.any()
        target, weight = one(encoder, -8.0, 100.0)
        assert weight == 1 and target.any()


def test_a_joint_in_the_half_pixel_before_the_map_rounds_to_column_zero():
    assert one("msra", -5.0, 100.0)[0][0, :, 0].max() == 1  # -1.25 + 0.5 truncates to 0, not -1


def test_unlabelled_joints_are_blank_and_visible_two_weighs_one():
    joints = np.full((3, 2), 100.0)
    joints[0] = np.nan
    target, weight = encode("unbiased", joints, np.array([0, 1, 2]), **SMALL)
    assert weight.tolist() == [0, 1, 1]
    assert not target[0].any() and np.isfinite(target).all()
    np.testing.assert_array_equal(target[1], target[2])


def test_the_combined_target_holds_a_disc_and_the_offsets_to_the_joint():
    target, _ = one("udp_combined", 95.5, 127.5)  # the middle: 23.5, 31.5
    disc, dx, dy = target
    assert set(np.unique(disc)) == {0, 1}
    assert disc[31, 23] == disc[32, 24] == 1
    assert dx[31, 23] == pytest.approx(0.5 / 3.5) and dy[32, 24] == pytest.approx(-0.5 / 3.5)
    assert not dx[disc == 0].any() and not dy[disc == 0].any()


def test_the_disc_follows_the_height_except_in_mmpose_1_where_it_follows_the_longer_side():
    sizes = {"input_size": (128, 256), "heatmap_size": (32, 64)}
    narrow = one("udp_combined", 100.0, 60.0, **sizes)[0][0].sum()
    wide = one("udp_combined", 100.0, 60.0, **sizes, dialect="mmpose1")[0][0].sum()
    assert wide > 3 * narrow


def test_megvii_truncates_and_is_255_at_the_joint_even_at_the_edge():
    target, weight = one("megvii", 7.9, 100.0)
    assert weight == 1 and target[0, 25, 1] == pytest.approx(255)
    assert target.max() > 260  # the reflected border
    assert one("megvii", -4.0, 100.0)[1] == 0


def test_the_megvii_kernel_grows_with_sigma():
    def width(sigma):
        return (one("megvii", 100.0, 100.0, sigma=sigma)[0][0, 25] > 0).sum()

    assert (width(2), width(3)) == (11, 17)


def test_simcc_gives_one_normalised_gaussian_an_axis_at_the_nearest_bin():
    (x, y), weight = one("simcc", 50.3, 200.2, sigma=6.0)
    assert x.shape == (1, 384) and y.shape == (1, 512) and weight == 1
    assert (x.argmax(), y.argmax()) == (101, 400)
    assert x.sum() == pytest.approx(1, abs=1e-4) and x.max() == pytest.approx(1 / (6 * np.sqrt(2 * np.pi)), rel=1e-5)


@pytest.mark.parametrize("encoder", ["msra", "unbiased", "udp", "udp_combined", "megvii", "simcc"])
def test_a_batch_is_encoded_as_its_samples_at_any_size_and_number_of_joints(encoder):
    rng = np.random.default_rng(0)
    sizes = {"input_size": (192, 320), "heatmap_size": (48, 80)}
    joints, visible = rng.uniform(-30, 330, size=(2, 3, 5, 2)), rng.integers(0, 3, size=(2, 3, 5))
    target, weight = encode(encoder, joints, visible, **sizes)
    single, single_weight = encode(encoder, joints[1, 2], visible[1, 2], **sizes)
    np.testing.assert_array_equal(weight[1, 2], single_weight)
    for batch, alone in zip(*((target, single) if encoder == "simcc" else ((target,), (single,)))):
        np.testing.assert_array_equal(batch[1, 2], alone)


def test_an_unknown_encoder_names_the_near_ones():
    with pytest.raises(UserError, match="unbiased"):
        one("unbised", 1.0, 1.0)


def test_joints_that_do_not_go_with_their_visibilities_are_refused():
    with pytest.raises(UserError, match=r"\(17, 2\)"):
        encode("msra", np.zeros((17, 2)), np.zeros((17, 1)), **SMALL)
