"""Losses against the published implementations' values and against their definitions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.parts.losses import LOSSES, mse, mse_half, ohkm

BASIC = {"mse": mse, "mse_half": mse_half, "ohkm": ohkm}


def _sample(joints=9, seed=0):
    g = torch.Generator().manual_seed(seed)
    pred = torch.randn(2, joints, 4, 3, generator=g)
    weight = (torch.rand(2, joints, generator=g) > 0.4).float()
    return pred, torch.rand(2, joints, 4, 3, generator=g), weight


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
    with pytest.raises(ValueError, match="8 worst joints"):
        ohkm(*_sample(joints=7))


@pytest.mark.parametrize("name", BASIC)
def test_joints_of_weight_zero_get_no_gradient(name):
    pred, target, weight = _sample()
    pred.requires_grad_()
    BASIC[name](pred, target, weight[..., None]).backward()
    assert (pred.grad[weight == 0] == 0).all() and (pred.grad[weight == 1] != 0).any()
