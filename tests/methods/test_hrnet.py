"""HRNet against the official implementation's outputs, names, and counts."""

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from harness.method import Predictor, Trainable, find_variant
from methods.parts.hrnet import HRNet, HRNetShape


def _build(name, num_joints=17, input_size=(256, 192)):
    return find_variant(name).build(num_joints=num_joints, input_size=input_size)


def test_heatmaps_and_names_equal_the_official_network(golden, golden_tools, shared):
    stored = golden("hrnet_w32_256x192_official")["heatmaps"]
    network = _build("hrnet_w32").eval()
    wanted = json.loads((shared / "goldens" / "hrnet_w32_256x192_official.keys.json").read_text())
    assert list(golden_tools.fill(network).items()) == list(wanted.items())
    with torch.inference_mode():
        maps = network.predict(golden_tools.image(), {}).exits[0].numpy()
    assert np.abs(maps - stored).max() <= 1e-4 * np.abs(stored).max()


@pytest.mark.parametrize("name, params", [("hrnet_w32", 28_536_113), ("hrnet_w48", 63_595_745)])
def test_parameter_and_tensor_counts_are_the_published_ones(name, params):
    with torch.device("meta"):
        network = _build(name)
    assert sum(p.numel() for p in network.parameters()) == params
    assert len(network.state_dict()) == 1754


@pytest.mark.parametrize(
    "name, size, gmacs",
    [
        ("hrnet_w32", (256, 192), 7.645),
        ("hrnet_w32", (384, 288), 17.201),
        ("hrnet_w48", (256, 192), 15.692),
        ("hrnet_w48", (384, 288), 35.307),
        ("hrnet_tiny", (128, 96), None),
        ("hrnet_tiny", (96, 160), None),
    ],
)
def test_closed_form_macs_equal_the_operator_counter_and_the_card(name, size, gmacs):
    with torch.device("meta"):
        network = _build(name, input_size=size)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.predict(torch.empty(1, 3, *size), {})
    assert network.macs({}) == counter.get_total_flops() // 2
    assert gmacs is None or round(network.macs({}) / 1e9, 3) == gmacs


def test_a_multiscale_trunk_answers_on_four_branches_and_counts_them():
    shape = HRNetShape(width=8, modules=(1, 2, 2), blocks=1, stem=8, planes=4, first_blocks=2)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        trunk = HRNet(shape, multiscale_output=True)
        maps = trunk.stages(torch.empty(1, 3, 64, 96))
    assert [tuple(m.shape[1:]) for m in maps] == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]
    assert trunk.channels == (8, 16, 32, 64)
    assert trunk.trunk_macs((64, 96)) == counter.get_total_flops() // 2


def test_a_size_that_is_no_multiple_of_32_is_refused():
    with pytest.raises(UserError, match="multiples of 32"):
        _build("hrnet_tiny", input_size=(128, 100))


def test_the_tiny_variant_is_small_follows_the_contract_and_passes_gradients_to_every_tensor():
    torch.manual_seed(0)
    network = _build("hrnet_tiny", 4, (64, 64))
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    assert sum(p.numel() for p in network.parameters()) <= 1_000_000  # at most 2 MB in half precision
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
