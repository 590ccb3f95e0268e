"""SimpleBaseline against the official implementation's outputs, names, and counts."""

import json

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError
from harness.method import Predictor, Trainable, find_variant
from harness.train.recipes import Progress, TrainBatch

NAMES = [f"simplebaseline_{s}" for s in ("r18", "r34", "r50", "r101", "r152")]


def _build(name, num_joints=17, input_size=(256, 192), **knobs):
    return find_variant(name).build(num_joints=num_joints, input_size=input_size, **knobs)


def _counted(network, size):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.predict(torch.empty(1, 3, *size), {})
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("style, name", [("pytorch", "r50"), ("caffe", "r50_caffe")])
def test_heatmaps_equal_the_official_network(golden, golden_tools, shared, style, name):
    stored = golden(f"simplebaseline_{name}_256x192")
    network = _build("simplebaseline_r50", style=style).eval()
    shapes = golden_tools.fill(network)
    wanted = json.loads((shared / "goldens" / f"simplebaseline_{name}_256x192.keys.json").read_text())
    assert list(shapes.items()) == list(wanted["keys"].items())
    with torch.inference_mode():
        maps = network.predict(golden_tools.image(), {}).exits[0].numpy()
    assert np.abs(maps - stored["heatmap"]).max() <= 1e-4 * np.abs(stored["heatmap"]).max()
    assert (maps.reshape(2, 17, -1).argmax(-1) == stored["argmax_flat"]).all()


@pytest.mark.parametrize(
    "name, joints, params",
    [
        ("simplebaseline_r50", 17, 33_999_697),
        ("simplebaseline_r50", 16, 33_999_440),
        ("simplebaseline_r101", 17, 52_991_825),
        ("simplebaseline_r152", 17, 68_635_473),
    ],
)
def test_parameter_counts_are_the_published_ones(name, joints, params):
    with torch.device("meta"):
        assert sum(p.numel() for p in _build(name, joints).parameters()) == params


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(256, 192), (384, 288), (256, 256)])
def test_closed_form_macs_equal_the_operator_counter(name, size):
    with torch.device("meta"):
        network = _build(name, input_size=size)
    assert network.macs({}) == _counted(network, size)


def test_closed_form_macs_of_the_caffe_style_and_the_tiny_one_equal_the_counter():
    with torch.device("meta"):
        caffe = _build("simplebaseline_r50", style="caffe")
        tiny = _build("simplebaseline_tiny", 5, (160, 96))
    assert caffe.macs({}) == _counted(caffe, (256, 192)) == 5_199_888_384
    assert tiny.macs({}) == _counted(tiny, (160, 96))


def test_r50_costs_what_the_card_states():
    with torch.device("meta"):
        assert _build("simplebaseline_r50").macs({}) == 5_426_380_800


def test_a_size_that_the_trunk_cannot_halve_five_times_is_refused():
    with pytest.raises(UserError, match="250x192"):
        _build("simplebaseline_r18", input_size=(250, 192))


def test_the_tiny_variant_is_small_and_its_loss_falls():
    torch.manual_seed(0)
    network = _build("simplebaseline_tiny", 4, (64, 32))
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    assert sum(p.numel() for p in network.parameters()) <= 900_000
    target = torch.zeros(8, 4, 16, 8)
    target[:, :, 5, 3] = 1
    zeros = torch.zeros(8, 4, 2)
    batch = TrainBatch(torch.randn(8, 3, 64, 32), target, torch.ones(8, 4), zeros, zeros[..., 0], zeros, zeros)
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    values = []
    for step in range(12):
        loss = network.losses(batch, Progress(0, step, 1))["heatmap"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.5 * values[0]


def test_official_weights_expect_bgr_and_mmpose_weights_rgb():
    variant = find_variant("simplebaseline_r50")
    assert variant.protocol.colour == "bgr"
    colours = {layout.name: layout.protocol.get("colour", variant.protocol.colour) for layout in variant.layouts}
    assert colours["official"] == "bgr" and colours["mmpose0"] == colours["mmpose1"] == "rgb"
