"""The start of a transformer that no pretrained file initialises."""

import math

import pytest
import torch
from torch import nn

from methods.parts.vit_start import sine_positions, start_from_scratch


def test_the_first_frequency_is_one_period_over_the_grid():
    waves = sine_positions((2, 4), 4)
    x = [0.7 * math.sin(2 * math.pi * i / 4) for i in range(4)]
    y = [0.7 * math.sin(2 * math.pi * i / 2) for i in range(2)]
    assert waves.shape == (1, 8, 4)
    assert waves[0, :4, 0].tolist() == pytest.approx(x, abs=1e-6)
    assert waves[0, ::4, 2].tolist() == pytest.approx(y, abs=1e-6)


@pytest.mark.parametrize("grid, dim", [((16, 12), 64), ((8, 6), 32)])
def test_no_two_cells_have_the_same_position(grid, dim):
    waves = sine_positions(grid, dim)[0]
    apart = torch.cdist(waves, waves) + 10 * torch.eye(len(waves))
    assert apart.min() > 0.3


def test_linear_weights_are_rescaled_and_the_class_slot_starts_at_zero():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(3, 8, 3))
    convolution = network[1].weight.clone()
    positions = nn.Parameter(torch.randn(1, 7, 16))
    start_from_scratch(network, (positions, (2, 3)))
    assert float(network[0].weight.detach().std()) == pytest.approx(math.sqrt(2 / 128), rel=0.05)
    assert torch.equal(network[1].weight, convolution)
    assert torch.equal(positions[:, :1].detach(), torch.zeros(1, 1, 16))
    assert torch.equal(positions[:, 1:].detach(), sine_positions((2, 3), 16))
