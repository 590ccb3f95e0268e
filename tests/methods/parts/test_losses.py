"""Losses against the published implementations' values and against their definitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import UserError
from harness.method import find_variant
from harness.train.recipes import Progress, TrainBatch
from methods.parts.losses import (
    BIAS_PRIOR,
    LOGITS,
    LOSSES,
    MAP_LOSSES,
    bce,
    dsnt,
    focal,
    mse,
    mse_half,
    ohkm,
    simcc_kl,
    udp_combined,
)


def _sample(joints=9, seed=0, size=(4, 3)):
    g = torch.Generator().manual_seed(seed)
    pred = torch.randn(2, joints, *size, generator=g)
    weight = (torch.rand(2, joints, generator=g) > 0.4).float()
    return pred, torch.rand(2, joints, *size, generator=g), weight


@pytest.mark.parametrize(
    "name, key", [("mse", "loss_mm0"), ("mse", "loss_mm1"), ("mse_half", "loss_hrnet"), ("ohkm", "loss_hrnet_ohkm8")]
)
def test_losses_equal_the_published_implementations(golden, name, key):
    z = golden("loss")
    value = LOSSES[name](*(torch.from_numpy(z[k]) for k in ("output", "target", "weight")))
    assert float(value) == pytest.approx(float(z[key]), rel=1e-6)


def test_mse_half_of_one_pixel_by_hand():
    pred, target = torch.zeros(1, 2, 1, 2), torch.zeros(1, 2, 1, 2)
    pred[0, 1, 0, 1] = 3.0
    assert float(mse_half(pred, target, torch.tensor([[0.0, 1.0]]))) == pytest.approx(0.5 * 9 / 4)
    assert float(mse_half(pred, target, torch.tensor([[1.0, 0.0]]))) == 0


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_mse_is_twice_mse_half_for_binary_weights(seed):
    sample = _sample(seed=seed)
    assert float(mse(*sample)) == pytest.approx(2 * float(mse_half(*sample)), rel=1e-5)


def test_ohkm_over_all_joints_is_mse_half():
    sample = _sample(joints=8)
    assert float(ohkm(*sample)) == pytest.approx(float(mse_half(*sample)), rel=1e-6)


def test_ohkm_takes_the_worst_joints_of_each_person():
    pred, weight = torch.zeros(1, 9, 1, 1), torch.ones(1, 9)
    pred[0, :, 0, 0] = torch.arange(9.0)
    assert float(ohkm(pred, torch.zeros_like(pred), weight)) == pytest.approx(0.5 * np.mean(np.arange(1, 9) ** 2))


def test_ohkm_refuses_fewer_joints_than_it_takes():
    with pytest.raises(UserError, match="8 worst joints"):
        ohkm(*_sample(joints=7))


PROBABILISTIC = ("bce", "rce_soft", "rce_kl", "rce_abs", "rce_qfl")


def _grid(logits, t):
    """One joint whose map holds every logit, against the constant target t."""
    z = logits.reshape(1, 1, 1, -1).clone().requires_grad_()
    return z, torch.full_like(z, t).detach(), torch.ones(1, 1)


@pytest.mark.parametrize("name", ["rce_soft", "rce_kl", "rce_abs"])
def test_cross_entropies_for_continuous_targets_are_the_ordinary_one_at_binary_targets(name):
    pred, _, weight = _sample()
    target = (torch.rand(pred.shape, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    assert float(LOSSES[name](pred, target, weight)) == pytest.approx(float(bce(pred, target, weight)), rel=1e-5)


def test_bce_of_one_pixel_by_hand():
    z, target, weight = _grid(torch.tensor([math.log(3)]), 0.2)  # p = 3/4
    wanted = -0.2 * math.log(0.75) - 0.8 * math.log(0.25)
    assert float(bce(z, target, weight).detach()) == pytest.approx(wanted, rel=1e-6)
    assert float(LOSSES["rce_abs"](z, target, weight).detach()) == pytest.approx(-math.log(1 - 0.55), rel=1e-6)
    assert float(LOSSES["rce_qfl"](z, target, weight).detach()) == pytest.approx(0.55**2 * wanted, rel=1e-5)


@pytest.mark.parametrize("name", PROBABILISTIC)
@pytest.mark.parametrize("t", [0.02, 0.3, 0.5, 0.9])
def test_the_minimum_lies_where_the_probability_is_the_target(name, t):
    logits = torch.linspace(-8, 8, 1601)
    values = torch.stack([LOSSES[name](*_grid(z, t)).detach() for z in logits])
    assert float(logits[values.argmin()].sigmoid()) == pytest.approx(t, abs=5e-3)
    if name in ("rce_kl", "rce_abs", "rce_qfl"):
        there = torch.tensor(math.log(t / (1 - t)))
        assert float(LOSSES[name](*_grid(there, t)).detach()) == pytest.approx(0, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.floats(-12, 12), st.floats(0, 1))
def test_soft_and_kl_have_the_gradient_p_minus_t(z, t):
    for name in ("bce", "rce_soft", "rce_kl"):
        logits, target, weight = _grid(torch.tensor([z], dtype=torch.float64), t)
        LOSSES[name](logits, target, weight.double()).backward()
        assert float(logits.grad) == pytest.approx(1 / (1 + math.exp(-z)) - t, abs=1e-9)


@pytest.mark.parametrize("name", sorted(LOGITS))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_losses_on_logits_and_their_gradients_are_finite_at_the_far_ends(name, dtype):
    z = torch.tensor([-100.0, -100, -100, 0, 0, 100, 100, 100], dtype=dtype).reshape(1, 1, 2, 4).requires_grad_()
    t = torch.tensor([0.0, 0.5, 1, 0, 1, 0, 0.5, 1], dtype=dtype).reshape(1, 1, 2, 4)
    value = LOSSES[name](z, t, torch.ones(1, 1))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_a_map_of_half_precision_does_not_pass_the_largest_number(name):
    z = torch.full((1, 8, 64, 48), 100.0, dtype=torch.float16, requires_grad=True)
    value = LOSSES[name](z, torch.zeros(1, 8, 64, 48, dtype=torch.float16), torch.ones(1, 8))
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(z.grad).all()


@pytest.mark.parametrize("name", MAP_LOSSES)
def test_joints_of_weight_zero_get_no_gradient(name):
    pred, target, weight = _sample()
    pred.requires_grad_()
    LOSSES[name](pred, target, weight[..., None]).backward()
    assert (pred.grad[weight == 0] == 0).all() and (pred.grad[weight == 1] != 0).any()


def test_focal_of_a_perfect_answer_is_nothing_and_of_two_pixels_is_as_by_hand():
    target = torch.tensor([1.0, 0.5]).reshape(1, 1, 1, 2)
    perfect = torch.tensor([50.0, -50.0]).reshape(1, 1, 1, 2)
    assert float(focal(perfect, target, torch.ones(1, 1))) == pytest.approx(0, abs=1e-12)
    half = torch.zeros(1, 1, 1, 2)
    wanted = 0.25 * math.log(2) + 0.5**4 * 0.25 * math.log(2)
    assert float(focal(half, target, torch.ones(1, 1))) == pytest.approx(wanted, rel=1e-6)
    none = focal(half, target / 2, torch.ones(1, 1))  # no positive: not divided
    assert float(none) == pytest.approx((0.5**4 + 0.75**4) * 0.25 * math.log(2), rel=1e-6)


def test_combined_maps_are_charged_for_offsets_inside_the_disc_only():
    target = torch.zeros(1, 6, 1, 2)  # two joints: class, dx, dy; the disc covers the first pixel
    target[0, 0, 0, 0] = target[0, 3, 0, 0] = 1
    pred = target.clone()
    pred[0, 1, 0] = torch.tensor([0.4, 9.0])  # x offset of joint 0: 0.4 inside, 9 outside
    pred[0, 3, 0, 1] = 0.6  # class of joint 1
    weight = torch.ones(1, 2)
    assert float(udp_combined(pred, target, weight)) == pytest.approx(0.5 * (0.4**2 + 0.6**2) / 4)
    weight[0, 1] = 0
    assert float(udp_combined(pred, target, weight)) == pytest.approx(0.5 * 0.4**2 / 4)


def test_simcc_loss_is_zero_for_the_target_itself_and_the_divergence_by_hand():
    x, y = torch.tensor([[[0.5, 0.25, 0.25]]]), torch.tensor([[[0.9, 0.1]]])
    weight = torch.ones(1, 1)
    assert float(simcc_kl((x.log(), y.log()), (x, y), weight)) == pytest.approx(0, abs=1e-7)
    uniform = simcc_kl((torch.zeros(1, 1, 3), y.log()), (x, y), weight)
    assert float(uniform) == pytest.approx((0.5 * math.log(1.5) + 0.5 * math.log(0.75)) / 3, rel=1e-5)
    assert float(simcc_kl((torch.zeros(1, 1, 3), y.log()), (x, y), torch.zeros(1, 1))) == 0


def test_soft_argmax_loss_is_zero_where_softmax_and_target_agree_and_measures_fractions_of_the_map():
    maps = torch.zeros(1, 1, 2, 4)
    maps[0, 0, 1, 2] = 1
    sure = 200 * maps
    weight = torch.ones(1, 1)
    there = torch.tensor([[[2 / 4, 1 / 2]]])
    assert float(dsnt(sure, (maps, there), weight)) == pytest.approx(0, abs=1e-7)
    away = there - torch.tensor([0.25, 0.0])
    assert float(dsnt(sure, (maps, away), weight)) == pytest.approx(0.5 * 0.25**2 / 2, rel=1e-5)
    assert float(dsnt(sure, (maps, away), torch.zeros(1, 1))) == 0


@pytest.mark.parametrize("name", ["simplebaseline_tiny", "hrnet_tiny"])
@pytest.mark.parametrize("loss", MAP_LOSSES)
def test_the_loss_knob_trains_and_networks_of_logits_answer_probabilities(name, loss):
    torch.manual_seed(0)
    variant = find_variant(name)
    assert loss in variant.knob("loss").choices
    network = variant.build(num_joints=8, input_size=(64, 32), loss=loss)
    images, (_, target, weight) = torch.randn(2, 3, 64, 32), _sample(joints=8, size=(16, 8))
    zeros = torch.zeros(2, 8, 2)
    batch = TrainBatch(images, target, weight, zeros, zeros[..., 0], zeros[:, 0], zeros[:, 0])
    network.losses(batch, Progress(0, 0, 1))["heatmap"].backward()
    assert network.final_layer.weight.grad.abs().sum() > 0
    with torch.inference_mode():
        maps, raw = network.eval().predict(images, {}).exits[0], network(images)
    assert torch.equal(maps, raw.sigmoid() if loss in LOGITS else raw)
    assert float(network.final_layer.bias[0].detach()) == (BIAS_PRIOR if loss in LOGITS else 0)
