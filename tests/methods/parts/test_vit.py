"""The plain vision transformer: attention rows, position grids, layer-wise decay, quality targets."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from harness.pose.skeletons import COCO
from methods.parts import vit
from methods.parts.oks_target import biased_oks, biased_pck, peaks, quality_error
from methods.parts.sharpose import kept_count
from methods.parts.vit_recipe import layer_decay_groups


def _written_out(attention, x):
    """Attention as in the formula, with the whole map."""
    batch, tokens, dim = x.shape
    q, k, v = (p.reshape(batch, tokens, attention.heads, -1).transpose(1, 2) for p in attention.qkv(x).chunk(3, dim=-1))
    weights = (q @ k.transpose(-2, -1) / math.sqrt(dim / attention.heads)).softmax(dim=-1)
    return attention.proj((weights @ v).transpose(1, 2).reshape(batch, tokens, dim)), weights


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 3), st.integers(3, 9), st.sampled_from([(8, 2), (12, 3)]), st.integers(0, 1000))
def test_fused_attention_and_its_rows_equal_the_formula(batch, tokens, shape, seed):
    torch.manual_seed(seed)
    attention, x = vit.Attention(*shape), torch.randn(batch, tokens, shape[0])
    expected, weights = _written_out(attention, x)
    out, rows = attention.with_rows(x, slice(1, tokens - 1))
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(attention(x), out)
    torch.testing.assert_close(rows, weights[:, :, 1 : tokens - 1], atol=1e-5, rtol=1e-5)


def test_a_block_gives_the_same_with_and_without_rows():
    block, x = vit.Block(8, 2, eps=1e-6), torch.randn(2, 5, 8)
    torch.testing.assert_close(block.with_rows(x, slice(0, 2))[0], block(x))


@pytest.mark.parametrize("ratio", [2.0, 4.0])
def test_block_macs_equal_the_operator_counter(ratio):
    block = vit.Block(24, 3, eps=1e-6, mlp_ratio=ratio)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        block.with_rows(torch.zeros(2, 11, 24), slice(0, 4))
    counted = counter.get_total_flops() // 2
    assert counted == 2 * (vit.block_macs(24, 11, ratio) + vit.attention_row_macs(24, 4, 11))


@pytest.mark.parametrize("stem", [(), (8, 16)])
def test_a_stem_makes_as_many_tokens_as_one_kernel_and_its_macs_equal_the_operator_counter(stem):
    embedding = vit.embedding(12, 8, stem)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        tokens = embedding(torch.zeros(2, 3, 32, 24))
    assert tokens.shape == (2, 12, 12)
    assert counter.get_total_flops() // 2 == 2 * vit.embedding_macs(12, 8, 12, stem)


def test_a_stem_sees_no_other_image_of_its_batch_in_training():
    embedding, images = vit.ConvStem(12, (8, 16)).train(), torch.randn(3, 3, 32, 24)
    torch.testing.assert_close(embedding(images)[1:2], embedding(images[1:2]))


def test_a_stem_that_makes_other_patches_is_refused():
    with pytest.raises(ValueError, match="patches of 8 pixels, not 16"):
        vit.embedding(12, 16, (8, 16))


def test_drop_path_rises_linearly_from_zero():
    rates = [block.drop_path.p for block in vit.blocks(8, 5, 2, eps=1e-6, drop_path=0.4)]
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_position_grids_are_resized_like_the_published_loader(golden):
    stored = golden("vitpose_posembed")
    square, pose = (torch.from_numpy(stored[name]) for name in ("src_14x14_cls", "to_16x12"))
    resized = vit.resize_positions(square[:, 1:], (14, 14), (16, 12))
    np.testing.assert_allclose(resized, pose[:, 1:], atol=1e-6)
    for name, grid in (("to_24x18", (24, 18)), ("to_8x6", (8, 6))):
        np.testing.assert_allclose(
            vit.resize_positions(pose[:, 1:], (16, 12), grid), stored[name][:, 1:], atol=1e-6, err_msg=name
        )


def test_a_patch_kernel_of_14_pixels_is_padded_to_16(golden):
    stored = golden("vitpose_posembed")
    padded = vit.pad_patches(torch.from_numpy(stored["patch14"]), 16)
    np.testing.assert_array_equal(padded, stored["patch16"])
    with pytest.raises(ValueError, match="does not fit"):
        vit.pad_patches(padded, 14)


@pytest.mark.parametrize(
    "tokens, grid", [(196, (14, 14)), (192, (16, 12)), (432, (24, 18)), (48, (8, 6)), (256, (16, 16)), (108, (12, 9))]
)
def test_the_grid_of_a_file_is_found_from_its_number_of_patches(tokens, grid):
    assert vit.grid_of(tokens, like=(16, 12)) == grid


@pytest.mark.parametrize("tokens, grid", [(192, (16, 12)), (432, (24, 18)), (196, (14, 14)), (160, (10, 16))])
def test_a_lying_input_does_not_turn_the_grid_of_a_published_file(tokens, grid):
    assert vit.grid_of(tokens, like=(12, 16)) == grid


def test_as_many_positions_of_a_published_file_are_interpolated_to_another_shape():
    upright, lying = (vit.PoseViT(8, 1, 2, size) for size in ((256, 192), (192, 256)))
    assert upright.adapt_state(upright.state_dict(), "")[1] == []
    state, (note,) = lying.adapt_state(upright.state_dict(), "")
    wanted = vit.resize_positions(upright.pos_embed[:, 1:], (16, 12), (12, 16))
    assert torch.equal(state["pos_embed"][:, 1:], wanted) and "from 16x12 to 12x16" in note


def test_layers_learn_slower_the_deeper_they_lie_and_vectors_do_not_decay():
    module = nn.Module()
    module.backbone = nn.Module()
    module.backbone.blocks = vit.blocks(8, 2, 2, eps=1e-6)
    module.backbone.pos_embed = nn.Parameter(torch.zeros(1, 4, 8))
    module.head = nn.Linear(8, 2)
    groups = layer_decay_groups(module, SimpleNamespace(lr=1.0, weight_decay=0.1), rate=0.5)
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert rate[id(module.backbone.pos_embed)] == (0.125, 0.0)
    assert rate[id(module.backbone.blocks[0].mlp.fc1.weight)] == (0.25, 0.1)
    assert rate[id(module.backbone.blocks[1].norm1.weight)] == (0.5, 0.0)
    assert rate[id(module.head.weight)] == (1.0, 0.1)
    assert len(rate) == len(list(module.parameters()))


@pytest.mark.parametrize(
    "alpha, patches, kept", [(0.3, 108, 33), (0.4, 48, 20), (0.5, 48, 24), (1.0, 48, 48), (0.001, 48, 1)]
)
def test_kept_regions_are_the_float_ceiling(alpha, patches, kept):
    assert kept_count(alpha, patches) == kept


def _oks_inputs(stored):
    pred = np.stack([stored["pred_x"], stored["pred_y"]], axis=-1)
    for person, joint in stored["nonpositive_pred"]:
        pred[person, joint] = -1
    truth = np.stack([stored["gt_x"], stored["gt_y"]], axis=-1)
    return torch.from_numpy(pred).double(), torch.from_numpy(truth).double(), torch.from_numpy(stored["visible"])


def test_the_quality_target_is_the_published_biased_oks(golden):
    stored = golden("sharpose_oks_target")
    pred, truth, visible = _oks_inputs(stored)
    size = tuple(int(n) for n in stored["heatmap_hw"])
    oks = biased_oks(pred, truth, visible, torch.from_numpy(stored["scale"]), size, COCO.sigmas)
    pck = biased_pck(pred, truth, visible, size)
    known = stored["instance_mask"]
    assert (oks.isfinite().numpy() == known).all()
    np.testing.assert_allclose(oks.numpy()[known], stored["instance_oks"], atol=1e-7)
    np.testing.assert_allclose(pck.numpy()[known], stored["instance_pck"], atol=1e-7)


def test_the_quality_target_divides_x_by_the_height():
    points, truth = torch.zeros(1, 1, 2).double(), torch.tensor([[[6.0, 0.0]]]).double()
    oks = biased_oks(points, truth, torch.ones(1, 1, dtype=torch.bool), torch.tensor([[0.75, 1.0]]), (64, 48), (0.1,))
    error = (6 * 150 / 64) ** 2 / 0.2**2 / (150 * 200) / 2
    assert oks.item() == pytest.approx(math.exp(-error))


def test_the_quality_errors_of_pieces_add_up_to_that_of_the_whole_batch():
    quality, target = torch.rand(6, 1), torch.tensor([0.5, math.nan, 0.2, 1.0, math.nan, 0.1])
    whole = quality_error(quality, target)
    assert whole.item() == pytest.approx(float(np.mean([(quality[i, 0] - target[i]) ** 2 for i in (0, 2, 3, 5)])))
    pieces = [quality_error(quality[s], target[s], lambda count: torch.tensor(4)) for s in (slice(2), slice(2, 6))]
    assert sum(pieces).item() == pytest.approx(whole.item())


def test_a_batch_without_a_visible_joint_has_no_quality_error_and_no_gradient():
    quality = torch.rand(2, 1, requires_grad=True)
    error = quality_error(quality, torch.full((2,), math.nan))
    error.backward()
    assert error.item() == 0 and quality.grad.tolist() == [[0], [0]]


def test_peaks_are_raster_first_and_minus_one_where_nothing_is_positive():
    maps = torch.zeros(1, 3, 4, 5)
    maps[0, 0, 2, 3] = maps[0, 0, 3, 0] = 1.0
    maps[0, 1] = -1.0
    assert peaks(maps)[0].tolist() == [[3, 2], [-1, -1], [-1, -1]]
