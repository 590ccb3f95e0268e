"""SHaRPose against official outputs, its early exit, token selection, counts, losses and refusals."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import UserError, WeightsError
from harness.method import Predictor, Trainable, find_variant
from harness.train.recipes import Progress, TrainBatch
from methods.parts.sharpose import TrunkSize
from methods.sharpose import SHaRPose

ALPHAS = [round(0.1 * i, 1) for i in range(1, 11)]


def _build(name="sharpose_s", size=(256, 192), num_joints=17, **knobs):
    return find_variant(name).build(num_joints=num_joints, input_size=size, **knobs)


@pytest.fixture(scope="module")
def small(golden_tools):
    """The small network with golden weights."""
    network = _build().eval()
    golden_tools.fill(network)
    return network


@pytest.fixture(scope="module")
def images(golden_tools):
    return golden_tools.image(2, 256, 192, 0)


def _narrow(**knobs):
    """A narrow network of four blocks for 64x64 images (8 x 8 patches of 4 pixels, fine) with spread qualities."""
    torch.manual_seed(1)
    size = TrunkSize(16, 4, 2, patch=4, drop_path=0.0)
    network = SHaRPose(size, num_joints=5, input_size=(32, 32), **knobs).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def _people(count=6):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def _close(ours, theirs):
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def _counted(network, images, settings):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        output = network.predict(images, settings)
    trace = {name: values.numpy() for name, values in output.trace.items() if name != "quality_fine"}
    return counter.get_total_flops() // 2, trace


# --- against the published network


def test_names_and_shapes_are_the_published_ones(shared):
    stored = json.loads((shared / "goldens" / "sharpose_small_256x192.keys.json").read_text())
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in _build().state_dict().items()}
    assert ours == stored


@torch.inference_mode()
def test_both_stages_equal_the_published_network(small, images, golden):
    stored = golden("sharpose_small_256x192")
    raw = small.forward_raw(images, settings={})
    _close(raw["exit0"], stored["heatmap_coarse"])
    _close(raw["exit1"], stored["heatmap_fine"])
    _close(raw["quality"], stored["quality"])
    _close(raw["trace_selection_score"], stored["selection_score"])
    np.testing.assert_array_equal(raw["trace_selected_coarse"], stored["selected_coarse_indices_sorted"])
    kept = torch.from_numpy(stored["selected_coarse_indices"])
    np.testing.assert_array_equal(small.backbone.fine_patches(kept), stored["selected_fine_indices"])
    coarse = small.backbone.coarse(images)
    _close(small.backbone.reuse_block(coarse.features), stored["reuse_out"])
    _close(coarse.keypoints, stored["coarse_keypoint_tokens"])


@torch.inference_mode()
def test_a_person_that_leaves_early_keeps_its_coarse_heatmap(small, images, golden):
    stored = golden("sharpose_small_256x192")
    raw = small.forward_raw(images, settings={"quality_threshold": float(stored["exit_threshold"])})
    _close(raw["exit1"], stored["exit_heatmap_fine"])
    gone = int(stored["exit_index"])
    assert raw["trace_tokens"].tolist() == [0 if i == gone else 137 for i in (0, 1)]
    assert (raw["trace_selected_coarse"][gone] == -1).all()
    np.testing.assert_array_equal(
        raw["trace_selected_coarse"][1 - gone], np.sort(stored["exit_selected_coarse_indices"][0])
    )


@torch.inference_mode()
def test_every_alpha_equals_the_published_network_in_one_shared_pass(small, images, golden):
    stored = golden("sharpose_small_256x192_alpha_sweep")
    alphas = [0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0]
    outputs = small.forward_many(images, [{"alpha": alpha} for alpha in alphas])
    for alpha, output in zip(alphas, outputs):
        expected = small.keypoint_head(torch.from_numpy(stored[f"fine_tokens_alpha_{alpha}"]))
        _close(output.exits[-1], expected.numpy())


@pytest.mark.parametrize(
    "name, knobs",
    [("sigmoid", {"quality": "sigmoid"}), ("abs", {"quality": "abs"}), ("replace_oks", {"replace_oks": True})],
)
@torch.inference_mode()
def test_quality_variants_equal_the_published_network(golden, golden_tools, images, name, knobs):
    stored = golden(f"sharpose_small_256x192_variant_{name}")
    network = _build(**knobs).eval()
    golden_tools.fill(network)
    output = network.predict(images, {"alpha": 0.5, "quality_threshold": 0.99, "all_exits": True})
    assert int(output.trace["exit"].sum()) == int(stored["refined"])
    _close(output.quality, stored["quality_0"])
    for maps, tokens in zip(output.exits, ("coarse_tokens", "fine_tokens")):
        _close(maps, network.keypoint_head(torch.from_numpy(stored[tokens])).numpy())
    if name == "replace_oks":
        _close(output.trace["quality_fine"], stored["quality_1"])


@pytest.mark.parametrize(
    "name, size, parameters, tensors, full, coarse",
    [
        ("sharpose_s", (256, 192), 28_484_737, 174, 9_663_474_432, 3_273_007_872),
        ("sharpose_b", (256, 192), 94_116_097, 170, 34_080_511_488, 11_591_370_240),
        ("sharpose_b", (384, 288), 118_543_489, 174, 65_352_648_192, 23_923_410_432),
    ],
)
def test_published_sizes_parameters_and_counts(name, size, parameters, tensors, full, coarse):
    with torch.device("meta"):
        network = _build(name, size)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == tensors
    trace = {
        "tokens_coarse": np.array([18 + math.prod(network.backbone.grid)] * 2),
        "tokens_fine": np.array([network.cost.fine_tokens(network.alpha), 0]),
        "exit": np.array([1, 0]),
        "heads": np.array([1, 1]),
    }
    assert (2 * network.as_published_macs(trace)).tolist() == [full, coarse]
    assert {m.eps for m in network.modules() if isinstance(m, nn.LayerNorm)} == {1e-5}
    assert {block.attn.heads for block in network.backbone.blocks} == {12}


def test_published_defaults_follow_the_input_size():
    with torch.device("meta"):
        built = [_build("sharpose_s"), _build("sharpose_b"), _build("sharpose_b", (384, 288))]
    assert [(m.alpha, m.quality_threshold) for m in built] == [(0.5, 0.99), (0.4, 0.99), (0.3, 1.2)]
    assert [m.cost.fine_tokens(m.alpha) for m in built] == [137, 125, 224]


# --- early exit


@torch.inference_mode()
def test_a_batch_with_all_none_or_one_leaving_equals_the_two_exits():
    network, people = _narrow(), _people()
    both = network.predict(people, {"all_exits": True})
    coarse, fine = both.exits
    quality = both.quality.sort().values
    between = float(quality[-2] + quality[-1]) / 2
    for threshold, leaving in (("always", 0), ("never", 6), (between, 1), (float("inf"), 0), (-1e9, 6)):
        output = network.predict(people, {"quality_threshold": threshold})
        exits = output.trace["exit"]
        assert int((exits == 0).sum()) == leaving and len(output.exits) == 1
        expected = torch.where(exits[:, None, None, None] == 1, fine, coarse)
        torch.testing.assert_close(output.exits[0], expected, atol=1e-5, rtol=1e-5)
        assert ((output.trace["tokens_fine"] == 0) == (exits == 0)).all()


@torch.inference_mode()
def test_quality_equal_to_the_threshold_leaves():
    network, people = _narrow(), _people(1)
    quality = float(network.predict(people, {}).quality[0])
    assert network.predict(people, {"quality_threshold": quality}).trace["exit"].tolist() == [0]
    above = float(np.nextafter(np.float32(quality), np.float32(np.inf)))
    assert network.predict(people, {"quality_threshold": above}).trace["exit"].tolist() == [1]


@torch.inference_mode()
def test_two_classes_are_compared_with_each_other_and_their_rival_is_told():
    network, people = _narrow(quality="abs"), _people(12)
    first = network.predict(people, {})
    network.backbone.quality_predictor.mlp[-2].bias[0] -= (first.quality / first.rival).log().median()
    output = network.predict(people, {"quality_threshold": 0.99})
    assert torch.equal(output.trace["exit"], (output.quality < output.rival).long())
    assert 0 < int(output.trace["exit"].sum()) < 12
    torch.testing.assert_close(output.quality + output.rival, torch.ones(12))
    assert _narrow().predict(people, {}).rival is None


@torch.inference_mode()
def test_a_threshold_is_not_rounded_to_the_number_format_of_the_network():
    network, people = _narrow(), _people()
    with torch.autocast("cpu", torch.bfloat16):
        quality = network.predict(people, {}).quality
        assert quality.dtype == torch.bfloat16
        above = quality.float().max().item() * (1 + 1e-4)  # the same number in bfloat16
        assert network.predict(people, {"quality_threshold": above}).trace["exit"].tolist() == [1] * 6


@torch.inference_mode()
def test_nobody_in_a_batch_is_no_trouble():
    output = _narrow().predict(_people(0), {"quality_threshold": 0.5, "all_exits": True})
    assert [tuple(maps.shape) for maps in output.exits] == [(0, 5, 8, 8)] * 2
    assert all(len(values) == 0 for values in output.trace.values())


@torch.inference_mode()
def test_the_fine_stage_runs_for_refined_persons_only(monkeypatch):
    network, people = _narrow(), _people()
    quality = network.predict(people, {}).quality.sort().values
    seen = []
    run = network.backbone.fine
    monkeypatch.setattr(network.backbone, "fine", lambda p, c, a: seen.append((len(p), a)) or run(p, c, a))
    network.predict(people, {"quality_threshold": "never"})
    assert seen == []
    network.predict(people, {"quality_threshold": float(quality[2])})
    assert seen == [(2, 0.5)]


@torch.inference_mode()
def test_settings_of_one_pass_share_the_coarse_stage_and_each_alpha(monkeypatch):
    network, people = _narrow(), _people()
    middle = float(network.predict(people, {}).quality.median())
    settings = [
        {"alpha": 0.25},
        {"alpha": 0.25, "quality_threshold": middle},
        {"alpha": 0.5, "quality_threshold": "never"},
        {"alpha": 0.75, "quality_threshold": middle, "all_exits": True},
    ]
    alone = [network.predict(people, s) for s in settings]
    calls = {"coarse": 0, "fine": 0, "enter_fine": 0}

    def counting(name, run):
        def counted(*args):
            calls[name] += 1
            return run(*args)

        return counted

    for name in calls:
        monkeypatch.setattr(network.backbone, name, counting(name, getattr(network.backbone, name)))
    shared = network.forward_many(people, settings)
    assert calls == {"coarse": 1, "fine": 2, "enter_fine": 1}
    for one, other in zip(alone, shared):
        assert len(one.exits) == len(other.exits)
        for a, b in zip(one.exits, other.exits):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        assert all(torch.equal(one.trace[name], other.trace[name]) for name in one.trace)


@torch.inference_mode()
def test_persons_do_not_influence_each_other():
    network, people = _narrow(), _people()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    together = network.predict(people, {}).exits[0]
    torch.testing.assert_close(network.predict(people[order], {}).exits[0], together[order], atol=1e-5, rtol=1e-5)


# --- tokens


@torch.inference_mode()
def test_the_score_is_the_running_attention_of_all_keypoints_but_the_last():
    network, people = _narrow(), _people(2)
    seen = []
    for block in network.backbone.blocks:
        block.register_forward_pre_hook(lambda block, args: seen.append(args[0]))
        run = block.with_rows
        block.with_rows = lambda x, rows, run=run: seen.append(x) or run(x, rows)
    score = network.backbone.coarse(people).score
    expected = torch.zeros(2, 16)
    for block, x in list(zip(network.backbone.blocks, seen))[1:]:  # a quarter of the four blocks is left out
        q, k, _ = block.attn.qkv(block.norm1(x)).reshape(2, 22, 3, 2, 8).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(dim=-1).mean(dim=1)
        expected = 0.99 * expected + 0.01 * attention[:, 1:5, 6:].sum(dim=1)  # rows 1..4 of keypoints 1..5
    torch.testing.assert_close(score, expected)


def test_kept_patches_name_their_four_children_corner_by_corner():
    network = _narrow()  # 4 x 4 coarse, 8 x 8 fine
    assert network.backbone.fine_patches(torch.tensor([[0, 6]])).tolist() == [[0, 20, 1, 21, 8, 28, 9, 29]]


@torch.inference_mode()
def test_every_region_is_kept_once_or_dropped_once():
    network = _narrow()
    kept, dropped = network.backbone.choose(torch.rand(3, 16), 0.3)
    assert kept.shape == (3, 5)
    assert torch.cat([kept, dropped], dim=1).sort(dim=1).values.tolist() == [list(range(16))] * 3


@torch.inference_mode()
def test_refined_regions_are_the_selected_ones_of_those_that_stay():
    network, people = _narrow(), _people()
    middle = float(network.predict(people, {}).quality.median())
    settings = {"alpha": 0.3, "quality_threshold": middle}
    raw = network.forward_raw(people, settings=settings)
    regions = network.refined_regions(people, settings)
    assert regions.shape == (6, 4, 4) and regions.dtype == torch.bool
    for seen, selected in zip(regions, raw["trace_selected_coarse"]):
        assert seen.flatten().nonzero()[:, 0].tolist() == [i for i in selected.tolist() if i >= 0]
    assert sorted(regions.flatten(1).sum(dim=1).unique().tolist()) == [0, 5]


# --- cost


@pytest.mark.parametrize("knobs", [{}, {"quality": "abs"}, {"replace_oks": True}, {"single_layer_head": True}])
def test_closed_form_macs_equal_the_operator_counter_for_every_alpha_and_exit(knobs):
    network, people = _narrow(**knobs), _people(3)
    for alpha in ALPHAS[:: 9 if knobs else 1]:
        for settings in (
            {"quality_threshold": "always"},
            {"quality_threshold": "never"},
            *([{"all_exits": True}, {"quality_threshold": 0.0}] if alpha == 0.1 else []),
        ):
            counted, trace = _counted(network, people, {"alpha": alpha, **settings})
            assert int(network.macs(trace).sum()) == counted, (alpha, settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, size", [("sharpose_s", (256, 192)), ("sharpose_b", (256, 192)), ("sharpose_b", (384, 288))]
)
def test_macs_of_the_published_networks_equal_the_operator_counter(name, size):
    with torch.device("meta"):
        network = _build(name, size).eval()
    for alpha in ALPHAS:
        for threshold in ("always", "never"):
            counted, trace = _counted(
                network, torch.empty(1, 3, *size, device="meta"), {"alpha": alpha, "quality_threshold": threshold}
            )
            assert int(network.macs(trace).sum()) == counted, (alpha, threshold)


def test_the_cost_of_a_threshold_follows_from_a_pass_that_stored_both_exits():
    network, people = _narrow(), _people()
    with torch.no_grad():
        middle = float(network.predict(people, {}).quality.median())
    counted, real = _counted(network, people, {"quality_threshold": middle})
    _, stored = _counted(network, people, {"all_exits": True})
    replayed = network.trace_at(stored, real["exit"])
    assert replayed.keys() == real.keys() and all((replayed[n] == real[n]).all() for n in real)
    assert int(network.macs(replayed).sum()) == counted


# --- training


def _batch(count=4, joints=5, side=32, visible=True):
    generator = torch.Generator().manual_seed(0)
    weight = torch.ones(count, joints) if visible else torch.zeros(count, joints)
    target = torch.rand(count, joints, side // 4, side // 4, generator=generator)
    empty = torch.zeros(count, joints, 2)
    return TrainBatch(
        torch.randn(count, 3, side, side, generator=generator),
        target,
        weight,
        empty,
        weight,
        empty[:, 0],
        torch.ones(count, 2),
    )


def test_quality_is_learned_late_and_weighs_three_hundredths(monkeypatch):
    network, batch = _narrow(quality_start=0.5), _batch()
    monkeypatch.setattr(network, "_quality_target", lambda maps, batch: torch.tensor([1.0, 0.5, 0.25, math.nan]))
    early, late = (network.losses(batch, Progress(epoch, 0, 10)) for epoch in (5, 6))
    assert early["quality"] == 0 and early["quality"].requires_grad
    quality = network.predict(batch.images, {}).quality[:3]
    expected = 0.03 * (quality - torch.tensor([1.0, 0.5, 0.25])).square().mean()
    torch.testing.assert_close(late["quality"], expected)
    sum(late.values()).backward()
    assert network.backbone.quality_token.grad.abs().sum() > 0


def test_heatmap_losses_are_those_of_both_exits():
    network, batch = _narrow(), _batch()
    losses = network.losses(batch, Progress(0, 0, 10))
    exits = network.predict(batch.images, {"all_exits": True}).exits
    for name, maps in zip(("heatmap_coarse", "heatmap_fine"), exits):
        torch.testing.assert_close(losses[name], (maps - batch.target).square().mean())


@pytest.mark.parametrize(
    "knobs", [{}, {"quality": "sigmoid"}, {"quality": "abs"}, {"replace_oks": True}, {"quality_target": "pck"}]
)
@pytest.mark.parametrize("visible", [True, False])
def test_every_quality_variant_trains_with_finite_losses(knobs, visible):
    torch.manual_seed(0)
    network = _build("sharpose_tiny", (128, 96), **knobs).train()
    batch = _batch(2, 17, 128, visible)
    batch = TrainBatch(**{**batch.__dict__, "images": batch.images[..., :96], "target": batch.target[..., :24]})
    losses = network.losses(batch, Progress(9, 0, 10))
    assert ("quality_fine" in losses) == ("replace_oks" in knobs)
    sum(losses.values()).backward()
    assert all(math.isfinite(v.item()) for v in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_tokens_learn_slowest_and_do_not_decay():
    recipe = find_variant("sharpose_b").recipes["official"]
    with torch.device("meta"):
        network = _build("sharpose_b")
    groups = recipe.groups(network, recipe)
    rate = {id(p): (g["lr"] / recipe.lr, g["weight_decay"]) for g in groups for p in g["params"]}
    backbone = network.backbone
    for lowest in (backbone.keypoint_tokens, backbone.quality_token, backbone.pos_embed_list[1]):
        assert rate[id(lowest)] == (pytest.approx(0.75**13), 0.0)
    assert rate[id(backbone.patch_embed.proj.weight)] == (pytest.approx(0.75**13), 0.1)
    assert rate[id(backbone.reuse_block[1].fc1.weight)] == (1.0, 0.1)
    assert rate[id(backbone.quality_predictor.mlp[0].weight)] == (1.0, 0.1)


def test_published_recipes_are_for_the_input_size_they_were_published_with():
    found = {name: find_variant(name).recipes for name in ("sharpose_s", "sharpose_b", "sharpose_tiny")}
    assert found["sharpose_s"]["official"].input_size == found["sharpose_b"]["official"].input_size == (256, 192)
    assert found["sharpose_b"]["official_384x288"].input_size == (384, 288)
    assert found["sharpose_tiny"]["official"].input_size is None


def test_the_tiny_variant_stays_small_and_learns():
    torch.manual_seed(0)
    network = _build("sharpose_tiny", (128, 96))
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    assert sum(p.numel() for p in network.parameters()) <= 800_000
    recipe = find_variant("sharpose_tiny").recipes["quick"]
    optimiser = torch.optim.AdamW(recipe.groups(network, recipe))
    batch = _batch(2, 17, 128)
    batch = TrainBatch(**{**batch.__dict__, "images": batch.images[..., :96], "target": batch.target[..., :24]})
    values = []
    for step in range(8):
        loss = sum(network.losses(batch, Progress(0, step, 1)).values())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


# --- files and refusals


def test_a_pretrained_encoder_starts_both_position_grids_and_the_final_norm():
    network = _narrow()
    state = {n.removeprefix("backbone."): v for n, v in network.state_dict().items() if ".blocks." in n}
    state |= {"norm.weight": torch.full((16,), 2.0), "norm.bias": torch.zeros(16), "cls_token": torch.zeros(1, 1, 16)}
    state |= {"pos_embed": torch.randn(1, 197, 16), "patch_embed.proj.weight": torch.ones(16, 3, 4, 4)}
    layout = next(found for found in find_variant("sharpose_b").layouts if found.matches(state))
    assert layout.name == "mae" and layout.partial
    own, notes = network.adapt_state(layout.to_own(state))
    assert not network.load_state_dict(own, strict=False).unexpected_keys
    assert (network.backbone.norm.weight == 2).all()
    assert [p.shape[1] for p in network.backbone.pos_embed_list] == [16, 64]
    assert len(notes) == 2 and "14x14 to 8x8" in notes[1]


def test_files_of_another_network_are_refused_by_name():
    with torch.device("meta"):
        small, base, large = _build(), _build("sharpose_b"), _build("sharpose_b", (384, 288))
        two_class = _build(quality="abs")
    with pytest.raises(WeightsError, match=r"(?s)SHaRPose-S 256x192.*expected: SHaRPose-B 256x192"):
        base.adapt_state(small.state_dict())
    with pytest.raises(
        WeightsError, match=r"(?s)SHaRPose-B 256x192.*one-layer.*expected: SHaRPose-B 384x288.*two-layer"
    ):
        large.adapt_state(base.state_dict())
    with pytest.raises(WeightsError, match=r"(?s)quality outputs 2.*quality outputs 1"):
        small.adapt_state(two_class.state_dict())
    with pytest.raises(WeightsError, match="6 heads"):
        small.adapt_state({"backbone.head.weight": torch.zeros(1000, 384)})
    assert "12" in small.adapt_state(small.state_dict())[1][0]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"alpha": 0.0}, "0 < alpha <= 1"),
        ({"alpha": 1.01}, "0 < alpha <= 1"),
        ({"alpha": math.nan}, "0 < alpha <= 1"),
        ({"alpha": math.inf}, "0 < alpha <= 1"),
        ({"alpha": True}, "0 < alpha <= 1"),
        ({"quality_threshold": math.nan}, "a finite number or 'always' or 'never'"),
        ({"quality_threshold": True}, "'always' or 'never'"),
        ({"exit_rate": 0.5}, "one forward does not know the others"),
        ({"quality_threshold": "sometimes"}, "'always' or 'never'"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        _narrow().predict(_people(1), settings)


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"(?s)240x192.*divisible by 32.*take 256x192"):
        _build(size=(240, 192))
    with pytest.raises(UserError, match=r"(?s)64x32.*32x32"):
        _narrow().predict(torch.zeros(1, 3, 64, 32), {})
    with pytest.raises(UserError, match="no regions"):
        _narrow().forward_raw(_people(1), settings={}, rois=[[0, 0, 1, 1]])
