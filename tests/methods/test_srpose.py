"""SRPose and the SR head against the official implementation's outputs, names, losses and counts."""

import json

import numpy as np
import pytest
import torch

from harness.cost.account import account
from harness.cost.macs import parameters
from harness.errors import UserError
from harness.method import Predictor, Trainable, find_variant
from harness.pose.decoders import decode
from harness.pose.flip import average, flip_back
from harness.pose.skeletons import COCO
from harness.train.recipes import Progress, TrainBatch

COARSE_TO_FINE = ["srpose_r50", "srpose_hrnet_w32", "srpose_hrnet_w48", "srpose_tiny"]
SR_HEADS = ["simplebaseline_r50_srhead", "hrnet_w32_srhead", "vitpose_b_srhead"]


def _build(name, num_joints=17, input_size=None):
    variant = find_variant(name)
    return variant.build(num_joints=num_joints, input_size=input_size or variant.input_size)


def _on_meta(name, *args):
    with torch.device("meta"):
        return _build(name, *args)


def _batch(images, target, weight):
    zeros = torch.zeros(*target.shape[:2], 2)
    return TrainBatch(images, target, weight, zeros, zeros[..., 0], zeros[:, 0], zeros[:, 0])


def _close(ours, theirs):
    return np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("name, trunk", [("srpose_r50", "res50"), ("srpose_hrnet_w32", "hrnet_w32")])
def test_every_output_and_loss_equals_the_official_network(golden, golden_tools, shared, name, trunk):
    stored = golden(f"srpose_{trunk}_256x192")
    network = _build(name).eval()
    wanted = json.loads((shared / "goldens" / f"srpose_{trunk}_256x192.keys.json").read_text())
    assert golden_tools.fill(network) == wanted
    images = golden_tools.image()
    with torch.inference_mode():
        found = network.forward_raw(images, settings={}, train=True)
        plain = network.predict(images, {}).exits[0]
        mirrored = network.predict(images.flip(-1), {}).exits[0]
        rng = np.random.RandomState(7)
        target, weight = rng.random_sample((2, 17, 256, 192)), rng.random_sample((2, 17, 1)) > 0.3
        batch = _batch(images, torch.from_numpy(target).float(), torch.from_numpy(weight).float())
        losses = network.losses(batch, Progress(0, 0, 1))
    assert torch.equal(found["exit0"], found["train4"]) and torch.equal(found["exit0"], plain)
    assert _close(found["exit0"][:1], stored["eval_img0"])
    assert _close(found["exit0"][1:, :, ::4, ::4], stored["eval_img1_stride4"])
    for i in range(4):
        assert _close(found[f"train{i}"], stored[f"train{i}"])
    shifted = average(plain, flip_back(mirrored, COCO, shift=True))
    assert _close(shifted[:, :, ::4, ::4], stored["flip_avg_shift_stride4"])
    for key, value in losses.items():
        assert float(value) == pytest.approx(float(stored[key]), rel=1e-4)


@pytest.mark.parametrize("name, stem", [("simplebaseline_r50_srhead", "res50"), ("hrnet_w32_srhead", "hrnet_w32")])
def test_the_sr_head_equals_the_official_layers(golden, golden_tools, shared, name, stem):
    stored = golden(f"srpose_srhead_{stem}_256x192")["heatmap"]
    network = _build(name).eval()
    wanted = json.loads((shared / "goldens" / f"srpose_srhead_{stem}_256x192.keys.json").read_text())
    assert golden_tools.fill(network) == wanted
    with torch.inference_mode():
        assert _close(network.predict(golden_tools.image(), {}).exits[0], stored)


@pytest.mark.parametrize(
    "name, everything, inference, torch_gflops",
    [
        ("srpose_hrnet_w32", 30.272, 29.955, 16.426),
        ("srpose_r50", 25.115, 24.797, 9.152),
        ("hrnet_w32_srhead", 28.626, 28.626, 15.841),
        ("simplebaseline_r50_srhead", 34.101, 34.101, 11.474),
    ],
)
def test_parameters_and_macs_are_those_of_the_card(name, everything, inference, torch_gflops):
    network = _on_meta(name)
    sizes = parameters(network)
    assert (round(sizes.total / 1e6, 3), round(sizes.inference / 1e6, 3)) == (everything, inference)
    assert round(2 * network.macs({}) / 1e9, 3) == torch_gflops


def test_the_head_alone_has_the_published_size():
    heads = {name: sum(p.numel() for p in _on_meta(name).keypoint_head.parameters()) for name in SR_HEADS}
    assert heads["hrnet_w32_srhead"] == 90_644 and heads["simplebaseline_r50_srhead"] == 10_593_172


@pytest.mark.parametrize("name", ["srpose_r50", "srpose_hrnet_w32", "srpose_hrnet_w48", "srpose_tiny"])
def test_intermediate_heads_are_counted_apart_and_not_run_for_an_answer(name):
    network = _on_meta(name)
    sizes = parameters(network)
    early = [p for prefix in network.train_only for p in network.get_submodule(prefix).parameters()]
    assert sizes.total - sizes.inference == sum(p.numel() for p in early) > 0
    if name != "srpose_tiny":
        assert sizes.total - sizes.inference == 317_696


@pytest.mark.parametrize(
    "name, joints, size",
    [
        ("srpose_r50", 17, (256, 192)),
        ("srpose_hrnet_w32", 16, (256, 256)),
        ("srpose_hrnet_w48", 14, (128, 96)),
        ("simplebaseline_r50_srhead", 17, (160, 96)),
        ("hrnet_w32_srhead", 14, (96, 160)),
        ("vitpose_b_srhead", 17, (128, 112)),
    ],
)
def test_closed_form_macs_equal_the_operator_counters_and_maps_are_as_large_as_the_input(name, joints, size):
    network = _build(name, joints, size).eval()
    counted = account(network, {})
    assert counted["macs"] == counted["closed_form"] == network.macs({})
    with torch.inference_mode():
        assert network.predict(torch.zeros(1, 3, *size), {}).exits[0].shape == (1, joints, *size)


@pytest.mark.parametrize("joints, size", [(17, (128, 96)), (5, (64, 96))])
def test_the_tiny_variant_counts_exactly_and_has_maps_half_as_large_as_the_input(joints, size):
    network = _build("srpose_tiny", joints, size).eval()
    counted = account(network, {})
    assert counted["macs"] == counted["closed_form"] == network.macs({})
    with torch.inference_mode():
        maps = network.predict(torch.zeros(1, 3, *size), {}).exits[0]
    assert maps.shape == (1, joints, size[0] // 2, size[1] // 2)


def test_a_training_output_below_full_size_is_compared_with_the_block_mean_of_the_target():
    network = _build("srpose_tiny", 3, (64, 32)).eval()
    images, target = torch.randn(2, 3, 64, 32), torch.rand(2, 3, 32, 16)
    with torch.inference_mode():
        losses = network.losses(_batch(images, target, torch.ones(2, 3)), Progress(0, 0, 1))
        maps = [network.forward_raw(images, settings={}, train=True)[f"train{i}"] for i in range(5)]
    assert [tuple(m.shape[2:]) for m in maps] == [(2, 1), (16, 8), (16, 8), (16, 8), (32, 16)]
    blocks = target.reshape(2, 3, 2, 16, 1, 16).mean(dim=(3, 5))
    assert float(losses["hp0_2d_loss"]) == pytest.approx(1e-4 * float((maps[0] - blocks).square().mean()), rel=1e-5)
    assert float(losses["hp4_2d_loss"]) == pytest.approx(float((maps[4] - target).square().mean()), rel=1e-5)


@pytest.mark.parametrize("name", COARSE_TO_FINE)
def test_published_targets_are_drawn_at_full_size_and_the_quarter_offset_is_always_on(name):
    variant = find_variant(name)
    official = variant.recipes["official"].target
    assert (official.encoder, official.sigma, official.stride) == (
        ("msra", 4.0, 2) if name == "srpose_tiny" else ("msra", 8.0, 1)
    )
    wanted = ("unbiased", "dark") if name == "srpose_tiny" else ("biased", "quarter")
    assert (variant.protocol.codec, variant.protocol.decoder) == wanted


def test_sizes_that_the_trunk_cannot_halve_and_regions_are_refused():
    with pytest.raises(UserError, match="multiples of 32"):
        _build("srpose_tiny", input_size=(100, 96))
    with pytest.raises(UserError, match="multiples of 16"):
        _on_meta("vitpose_b_srhead", 17, (100, 96))
    with pytest.raises(UserError, match="no regions"):
        _build("srpose_tiny").forward_raw(torch.zeros(1, 3, 128, 96), settings={}, rois=torch.zeros(1, 4))


def test_the_vit_trunk_answers_as_that_of_vitpose():
    torch.manual_seed(0)
    ours, theirs = _build("vitpose_b_srhead", 2, (32, 48)).eval(), _build("vitpose_b", 2, (32, 48)).eval()
    ours.backbone.load_state_dict(theirs.backbone.state_dict())
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        assert torch.allclose(ours.backbone.stages(images)[-1], theirs.backbone(images), atol=1e-5)
    positions = {"backbone.pos_embed": torch.randn(1, 17, 768), "backbone.norm.weight": torch.ones(768)}
    state, notes = ours.adapt_state(positions)
    assert state.keys() == {"backbone.pos_embed"} and state["backbone.pos_embed"].shape == (1, 7, 768)
    assert "4x4 to 2x3" in notes[0]


@pytest.mark.parametrize("name", ["srpose_r50", "srpose_hrnet_w32", "simplebaseline_r50_srhead", "hrnet_w32_srhead"])
def test_a_pretrained_trunk_starts_every_tensor_of_the_trunk(name):
    network, variant = _on_meta(name), find_variant(name)
    trunk = network.backbone.state_dict()
    layout = next(layout for layout in variant.layouts if layout.partial)
    assert layout.matches(trunk) and layout.name == variant.recipes["official"].trunk
    own = {key for key in network.state_dict() if key.startswith("backbone.")}
    assert layout.to_own(trunk).keys() == own
    assert next(layout for layout in variant.layouts if layout.matches(network.state_dict())).name == "official"


def test_the_tiny_variant_is_small_and_every_tensor_gets_a_gradient():
    torch.manual_seed(0)
    network = _build("srpose_tiny")
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    assert sum(p.numel() for p in network.parameters()) <= 1_300_000
    batch = _batch(torch.randn(2, 3, 128, 96), torch.rand(2, 17, 64, 48), torch.ones(2, 17))
    sum(network.losses(batch, Progress(0, 0, 1)).values()).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_the_tiny_variant_learns_a_point_to_the_pixel():
    torch.manual_seed(0)
    network = find_variant("srpose_tiny").build(num_joints=2, input_size=(64, 64))
    points = torch.rand(8, 2, 2) * 44 + 10
    x, y = torch.arange(64.0), torch.arange(64.0)[:, None]
    near = (x - points[..., 0, None, None]).square() + (y - points[..., 1, None, None]).square()  # (8, 2, 64, 64)
    images = 0.1 * torch.randn(8, 3, 64, 64) + torch.cat([near < 25, near[:, :1] < 0], dim=1)
    target = torch.exp(-near[..., ::2, ::2] / (2 * 6.0**2))  # (8, 2, 32, 32)
    batch = _batch(images, target, torch.ones(8, 2))
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3)
    for step in range(80):
        loss = sum(network.losses(batch, Progress(0, step, 1)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.inference_mode():  # in training mode: after so few steps the running statistics lag behind
        found, _ = decode(network.predict(images, {}).exits[0], "quarter")
    assert float((2 * torch.from_numpy(found) - points).norm(dim=-1).mean()) < 4  # one pixel of a map at stride 4
