"""ViTPose against official outputs in three key layouts, its names, counts, recipes and refusals."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError, WeightsError
from harness.method import Predictor, Trainable, find_variant
from harness.train.checkpoints import fitting_variants
from harness.train.recipes import Progress, TrainBatch
from methods.parts.vit_names import merge_experts
from methods.vitpose import ViTPose, _Size

PARAMETERS = {
    "vitpose_s": 24_290_577,
    "vitpose_b": 89_994_513,
    "vitpose_l": 308_544_785,
    "vitpose_h": 637_208_849,
    "vitpose_s_simple": 21_722_513,
    "vitpose_b_simple": 85_912_337,
    "vitpose_l_simple": 303_453_201,
    "vitpose_h_simple": 631_107_857,
}
TORCH_GFLOPS = {  # card, 8: 2 per multiply-accumulate, matrix products and convolutions
    "vitpose_s": 11.188,
    "vitpose_b": 37.046,
    "vitpose_l": 123.138,
    "vitpose_h": 251.660,
    "vitpose_s_simple": 9.307,
    "vitpose_b_simple": 34.922,
    "vitpose_l_simple": 120.853,
    "vitpose_h_simple": 249.212,
}


def _build(name, size=(256, 192), num_joints=17):
    return find_variant(name).build(num_joints=num_joints, input_size=size)


def _layout(name, state):
    return next(layout for layout in find_variant(name).layouts if layout.matches(state))


def _load(network, layout, state):
    own, notes = network.adapt_state(layout.to_own(state))
    network.load_state_dict(own)
    return notes


@pytest.fixture(scope="module")
def tiny_sized():
    """(name, state) of a narrow two-block network with the classic head, in official names."""

    def make(simple=False, size=(256, 192), heads=4):
        torch.manual_seed(0)
        network = ViTPose(_Size(32, 2, heads), simple=simple, num_joints=17, input_size=size).eval()
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        return network

    return make


@pytest.mark.parametrize(
    "stored, name, layout",
    [
        ("vitpose_s_classic_256x192_official", "vitpose_s", "official"),
        ("vitpose_s_classic_256x192_mmpose1", "vitpose_s", "mmpose1"),
        ("vitpose_s_classic_256x192_hf", "vitpose_s", "huggingface"),
        ("vitpose_b_simple_256x192_official", "vitpose_b_simple", "official"),
    ],
)
def test_heatmaps_equal_the_published_network_in_every_layout(golden, golden_tools, shared, stored, name, layout):
    shapes = json.loads((shared / "goldens" / f"{stored}.keys.json").read_text())
    state = {key: golden_tools.seeded(key, shape) for key, shape in shapes.items()}
    found = _layout(name, state)
    assert found.name == layout
    network = _build(name).eval()
    _load(network, found, state)
    with torch.inference_mode():
        maps = network.predict(golden_tools.image(), {}).exits[0].numpy()
    expected = golden(stored)["heatmaps"]
    assert np.abs(maps - expected).max() <= 1e-4 * np.abs(expected).max()
    back = found.from_own(found.to_own(state))
    assert back.keys() == state.keys() and all(torch.equal(back[k], state[k]) for k in state)


@pytest.mark.parametrize("name, count", PARAMETERS.items())
def test_parameter_counts_are_the_published_ones(name, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in _build(name).parameters()) == count


def test_a_larger_input_adds_positions_only():
    with torch.device("meta"):
        assert sum(p.numel() for p in _build("vitpose_b", (384, 288)).parameters()) == 90_178_833


@pytest.mark.parametrize("name, gflops", TORCH_GFLOPS.items())
def test_macs_are_the_published_count(name, gflops):
    with torch.device("meta"):
        assert 2 * _build(name).macs({}) / 1e9 == pytest.approx(gflops, abs=6e-4)


@pytest.mark.parametrize(
    "name, size",
    [
        ("vitpose_tiny", (128, 96)),
        ("vitpose_s", (256, 192)),
        ("vitpose_s_simple", (128, 112)),
        ("vitpose_b", (384, 288)),
    ],
)
def test_closed_form_macs_equal_the_operator_counter(name, size):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = _build(name, size).eval()
        network.predict(torch.empty(1, 3, *size), {})
    assert network.macs({}) == counter.get_total_flops() // 2


@pytest.mark.parametrize("name", [*PARAMETERS, "vitpose_tiny"])
def test_every_norm_has_the_published_epsilon_and_small_has_twelve_heads(name):
    with torch.device("meta"):
        network = _build(name, find_variant(name).input_size)
    assert {m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}
    if network.size.dim in (384, 768):
        assert {block.attn.heads for block in network.backbone.blocks} == {12}


def test_patches_are_padded_by_two_so_the_last_two_rows_are_never_seen(tiny_sized):
    network, image = tiny_sized(), torch.randn(1, 3, 256, 192)
    changed = image.clone()
    changed[..., -2:, :] += 5
    changed[..., -2:] += 5
    with torch.inference_mode():
        torch.testing.assert_close(network(changed), network(image), atol=0, rtol=0)
        changed[..., -3, 0] += 5
        assert not torch.equal(network(changed), network(image))


def test_the_class_slot_of_the_position_embedding_reaches_every_patch(tiny_sized):
    network, image = tiny_sized(), torch.randn(1, 3, 256, 192)
    with torch.inference_mode():
        before = network(image)
        network.backbone.pos_embed[:, 0] += 0.5
        shifted = network(image)
        network.backbone.pos_embed[:, 0] -= 0.5
        network.backbone.pos_embed[:, 1:] += 0.5
        torch.testing.assert_close(network(image), shifted, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(before, shifted)


def test_the_simple_head_cuts_negative_features_before_it_enlarges(tiny_sized):
    head = tiny_sized(simple=True).keypoint_head
    features = torch.randn(1, 32, 4, 3)
    torch.testing.assert_close(head(features), head(features.clamp_min(0)))
    assert head(features).shape == (1, 17, 16, 12)


def test_layer_decay_of_base_is_the_published_table(shared):
    table = json.loads((shared / "goldens" / "vitpose_b_layer_decay.json").read_text())
    recipe = find_variant("vitpose_b").recipes["official"]
    with torch.device("meta"):
        network = _build("vitpose_b")
    groups = recipe.groups(network, recipe)
    ours = {id(p): (g["lr"] / recipe.lr, g["weight_decay"]) for g in groups for p in g["params"]}
    assert {n for n, _ in network.named_parameters()} == table.keys()
    for name, parameter in network.named_parameters():
        assert ours[id(parameter)] == pytest.approx(table[name]), name


def test_a_file_of_another_input_size_is_interpolated_and_says_so(tiny_sized):
    small, large = tiny_sized(), tiny_sized(size=(384, 288))
    notes = _load(large, find_variant("vitpose_b").layouts[1], small.state_dict())
    assert notes == ["position embedding interpolated from 16x12 to 24x18, not fine-tuned"]
    assert torch.equal(large.backbone.pos_embed[:, 0], small.backbone.pos_embed[:, 0])
    with torch.inference_mode():
        assert large(torch.zeros(1, 3, 384, 288)).shape == (1, 17, 96, 72)


def test_an_mae_file_initialises_the_backbone_but_not_its_last_norm(tiny_sized):
    network = tiny_sized()
    state = {n.removeprefix("backbone."): v for n, v in network.state_dict().items() if n.startswith("backbone.")}
    state = {n.replace("last_norm", "norm"): torch.full_like(v, 0.25) for n, v in state.items()}
    state |= {"cls_token": torch.zeros(1, 1, 32), "pos_embed": torch.randn(1, 197, 32)}
    state["patch_embed.proj.weight"] = torch.ones(32, 3, 14, 14)
    layout = _layout("vitpose_b", state)
    assert layout.name == "mae" and layout.partial
    own, notes = network.adapt_state(layout.to_own(state))
    loaded = network.load_state_dict(own, strict=False)
    assert not loaded.unexpected_keys
    assert {n for n in loaded.missing_keys if n.startswith("backbone.")} == {
        "backbone.last_norm.weight",
        "backbone.last_norm.bias",
    }
    assert network.backbone.patch_embed.proj.weight[0, 0].sum() == 14 * 14
    assert len(notes) == 2 and "14x14 to 16x12" in notes[0]


@pytest.mark.parametrize("nested", ["", "experts."])
def test_a_vitpose_plus_file_becomes_the_plain_coco_network(tiny_sized, nested):
    network = tiny_sized()
    plain, state = network.state_dict(), {}
    for name, value in plain.items():
        if ".mlp.fc2." not in name:
            state[name] = value
            continue
        state[name] = value[:24]
        for expert in range(6):
            part = name.replace("fc2", f"experts.{nested}{expert}")
            state[part] = value[24:] if expert == 0 else torch.zeros_like(value[24:])
    assert _layout("vitpose_b", state).name == ("official" if nested else "vitpose++")
    own = merge_experts(state)
    assert own.keys() == plain.keys() and all(torch.equal(own[n], plain[n]) for n in plain)


def test_a_file_whose_patches_another_part_embeds_is_named_as_another_network():
    by_convolutions = _build("vitpose_tiny", (128, 96))
    by_kernel = ViTPose(_Size(96, 4, 3, mlp_ratio=2.0), simple=True, patch=8, num_joints=17, input_size=(128, 96))
    with pytest.raises(WeightsError, match="width 96 and depth 4") as refusal:
        by_convolutions.adapt_state(by_kernel.state_dict())
    assert "patches by convolutions" in str(refusal.value.expected)
    assert "vitpose_tiny" not in {fit.variant.name for fit in fitting_variants(by_kernel.state_dict())}


def test_a_six_headed_classifier_is_refused_and_other_small_files_are_warned_about():
    network = _build("vitpose_s")
    state = network.state_dict()
    assert "6" in network.adapt_state(state)[1][0]
    with pytest.raises(WeightsError, match="6 heads"):
        network.adapt_state({"backbone.head.weight": torch.zeros(1000, 384)})


def test_a_file_of_another_size_or_head_is_refused_by_name(tiny_sized):
    with torch.device("meta"):
        base, small, simple = _build("vitpose_b"), _build("vitpose_s"), _build("vitpose_b_simple")
    with pytest.raises(WeightsError, match=r"(?s)S, classic head.*B, classic head"):
        base.adapt_state(small.state_dict())
    with pytest.raises(WeightsError, match=r"(?s)B, simple head.*B, classic head"):
        base.adapt_state(simple.state_dict())


def test_sizes_that_do_not_fit_are_refused(tiny_sized):
    with pytest.raises(UserError, match=r"(?s)250x190.*divisible by 16.*256x192"):
        _build("vitpose_s", (250, 190))
    with pytest.raises(UserError, match=r"(?s)128x96.*256x192"):
        tiny_sized().predict(torch.zeros(1, 3, 128, 96), {})


def test_the_tiny_variant_learns_and_stays_small():
    torch.manual_seed(0)
    network = _build("vitpose_tiny", (128, 96))
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    assert sum(p.numel() for p in network.parameters()) <= 450_000
    recipe = find_variant("vitpose_tiny").recipes["quick"]
    optimiser = torch.optim.AdamW(recipe.groups(network, recipe))
    target = torch.rand(2, 17, 32, 24)
    empty = torch.zeros(2, 2)
    batch = TrainBatch(torch.randn(2, 3, 128, 96), target, torch.ones(2, 17), empty, empty, empty, empty)
    values = []
    for step in range(8):
        loss = sum(network.losses(batch, Progress(0, step, 1)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[0] == pytest.approx(target.square().mean().item(), rel=0.05)
    assert values[-1] < 0.8 * values[0]
