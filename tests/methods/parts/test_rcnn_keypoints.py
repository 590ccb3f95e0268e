"""The keypoint head, its global context, targets, loss and decoding, by hand and against torchvision."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.roi_heads import heatmaps_to_keypoints, keypointrcnn_loss

from methods.parts.rcnn_keypoints import GCM, GlobalAttention, decoded, keypoint_head, keypoint_head_macs, keypoint_loss


def _attention_by_loops(layer, x):
    """The formula of the card, one query and one key at a time, for a single map."""
    side, dim = layer.size, x.shape[1] // layer.heads
    q, k = layer.to_qk(x)[0].chunk(2)
    v = layer.to_v(x)[0]
    rel_h, rel_w = layer.pos_emb.rel_height, layer.pos_emb.rel_width
    out = torch.zeros_like(x[0])
    for head in range(layer.heads):
        part = slice(head * dim, (head + 1) * dim)
        for row in range(side):
            for column in range(side):
                query = q[part, row, column] * dim**-0.5
                logits = torch.stack(
                    [
                        query @ (k[part, i, j] + rel_w[j - column + side - 1] + rel_h[i - row + side - 1])
                        for i in range(side)
                        for j in range(side)
                    ]
                )
                out[part, row, column] = v[part].flatten(1) @ logits.softmax(0)
    return out[None]


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_follows_the_formula(heads):
    torch.manual_seed(0)
    layer, x = GlobalAttention(8, heads, size=4).eval(), torch.randn(1, 8, 4, 4)
    with torch.inference_mode():
        assert torch.allclose(layer(x), _attention_by_loops(layer, x), atol=1e-6)


def test_attention_and_its_module_equal_the_published_ones(golden, golden_tools, shared):
    import json

    stored = golden("maskrcnn_refined_head_parts")
    keys = json.loads((shared / "goldens" / "maskrcnn_refined_r50_fpn.keys.json").read_text())
    prefix = "roi_heads.keypoint_head.MHSA_1."
    module = GCM(512).eval()
    state = {k.removeprefix(prefix): golden_tools.seeded(k, s) for k, s in keys.items() if k.startswith(prefix)}
    module.load_state_dict(state)
    x = torch.from_numpy(np.random.RandomState(12).standard_normal((2, 512, 14, 14)).astype(np.float32))
    with torch.inference_mode():
        found = {"iso_sablock_ch0_32": module(x)[:, :32], "iso_mhsa_ch0_32": module.MHSA(x)[:, :32]}
    for name, ours in found.items():
        assert np.abs(ours.numpy() - stored[name]).max() <= 1e-4 * np.abs(stored[name]).max()


def test_without_regions_every_parameter_has_a_gradient_of_zero():
    module = GCM(16)
    module(torch.zeros(0, 16, 14, 14)).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in module.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_an_empty_batch_of_regions_passes(training):
    for gcm in ("none", "first", "both"):
        head = keypoint_head(4, 8, 4, gcm).train(training)
        assert head(torch.zeros(0, 4, 14, 14)).shape == (0, 8, 14, 14)


@pytest.mark.parametrize("gcm", ["none", "first", "both"])
def test_closed_form_macs_of_a_region_equal_the_counter(gcm):
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        head = keypoint_head(12, 16, 4, gcm)
        F.conv_transpose2d(head(torch.empty(3, 12, 14, 14)), torch.empty(16, 5, 4, 4), stride=2, padding=1)
    assert 3 * keypoint_head_macs(head, 5) == counter.get_total_flops() // 2


@pytest.mark.parametrize("gcm, gflops", [("none", 6.991), ("both", 10.150)])
def test_a_region_costs_what_the_card_says(gcm, gflops):
    with torch.device("meta"):
        macs = keypoint_head_macs(keypoint_head(256, 512, 8, gcm), 17)
    assert round(2 * macs / 1e9, 3) == gflops


def test_the_parts_of_the_head_stand_where_the_card_says():
    assert [n for n, _ in keypoint_head(4, 8, 8, "none").named_children() if "relu" not in n] == [
        f"conv_fcn{i}" for i in range(1, 9)
    ]
    names = [n for n, _ in keypoint_head(4, 8, 8, "both").named_children() if "relu" not in n]
    assert names[:3] == ["conv_channel", "MHSA_1", "conv_fcn1"] and names[6] == "MHSA_5"
    assert [n for n, _ in keypoint_head(4, 8, 8, "first").named_children() if "MHSA" in n] == ["MHSA_1"]


def _by_hand(logits, boxes, joints, visible):
    terms = []
    for n in range(len(boxes)):
        x1, y1, x2, y2 = boxes[n].tolist()
        for k in range(joints.shape[1]):
            x, y = joints[n, k].tolist()
            column = 55 if x == x2 else int(np.floor((x - x1) * 56 / (x2 - x1)))
            row = 55 if y == y2 else int(np.floor((y - y1) * 56 / (y2 - y1)))
            if visible[n, k] > 0 and 0 <= column < 56 and 0 <= row < 56:
                flat = logits[n, k].flatten().double()
                terms.append(float(flat.logsumexp(0) - flat[row * 56 + column]))
    return sum(terms) / max(1, len(terms))


def _regions():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 4, 56, 56, generator=generator)
    boxes = torch.tensor([[0.0, 0.0, 112.0, 56.0], [10.0, 20.0, 43.0, 61.0], [-20.0, 5.0, 36.0, 61.0]])
    joints = torch.rand(3, 4, 2, generator=generator) * 60
    joints[0, 0] = torch.tensor([112.0, 56.0])  # the far corner belongs to the last cell
    joints[0, 1] = torch.tensor([112.1, 10.0])  # outside
    joints[2, 0] = torch.tensor([-19.9, 5.0])
    visible = torch.tensor([[2, 1, 2, 0], [1, 0, 2, 2], [1, 2, 0, 1]])
    return logits, boxes, joints, visible


def test_the_loss_is_the_cross_entropy_of_visible_joints_inside():
    logits, boxes, joints, visible = _regions()
    found = keypoint_loss(logits, boxes, joints, visible)
    assert float(found) == pytest.approx(_by_hand(logits, boxes, joints, visible), rel=1e-5)
    inside = torch.cat([joints, visible[..., None].float()], dim=2)
    theirs = keypointrcnn_loss(logits, [boxes], [inside], [torch.arange(3)])  # a mean over the same joints
    assert float(found) == pytest.approx(float(theirs), rel=1e-5)


def test_a_loss_without_a_valid_joint_is_zero_with_zero_gradients():
    logits, boxes, joints, visible = _regions()
    logits.requires_grad_()
    loss = keypoint_loss(logits, boxes, joints, visible * 0)
    loss.backward()
    assert float(loss) == 0 and (logits.grad == 0).all()
    empty = keypoint_loss(logits[:0], boxes[:0], joints[:0], visible[:0])
    assert float(empty) == 0
    degenerate = keypoint_loss(logits[:1], torch.zeros(1, 4), joints[:1], visible[:1])
    assert float(degenerate) == 0


def test_processes_share_the_number_of_joints():
    logits, boxes, joints, visible = _regions()
    alone = keypoint_loss(logits, boxes, joints, visible)
    assert float(keypoint_loss(logits, boxes, joints, visible, lambda n: 2 * n)) == pytest.approx(float(alone) / 2)


def test_keypoints_equal_torchvisions_and_the_score_is_the_peak_by_the_sum():
    logits, boxes, _, _ = _regions()
    boxes = boxes + torch.tensor([0.3, 0.2, 0.7, 0.4])
    found = decoded(logits, boxes)
    points, _ = heatmaps_to_keypoints(logits, boxes)
    assert torch.allclose(found[..., :2], points[..., :2], atol=1e-4)
    side = boxes[0, 2:] - boxes[0, :2]
    width, height = (int(np.ceil(s)) for s in side.tolist())
    peak = F.interpolate(logits[:1], size=(height, width), mode="bicubic", align_corners=False).amax((2, 3))[0]
    wanted = 1 / (logits[0] - peak[:, None, None]).exp().sum((1, 2))
    assert torch.allclose(found[0, :, 2], wanted)


def test_a_peak_is_found_where_it_was_put():
    logits = torch.zeros(1, 1, 56, 56)
    logits[0, 0, 10, 20] = 50.0
    x, y, _ = decoded(logits, torch.tensor([[100.0, 200.0, 212.0, 256.0]]))[0, 0].tolist()
    assert (x, y) == pytest.approx((100 + 20.5 * 2, 200 + 10.5), abs=0.6)


@pytest.mark.parametrize("box", [[5.0, 5.0, 6.0, 6.0], [5.0, 5.0, 5.0, 5.0], [-90.0, -80.0, -50.0, -40.0]])
def test_a_box_of_one_pixel_of_none_or_outside_still_answers(box):
    found = decoded(torch.randn(1, 17, 56, 56), torch.tensor([box]))
    assert found.shape == (1, 17, 3) and torch.isfinite(found).all()
    assert (found[..., 0] >= box[0]).all() and (found[..., 0] <= max(box[2], box[0] + 1)).all()


def test_scores_stay_finite_whatever_the_logits():
    logits = torch.full((1, 1, 56, 56), -500.0)
    logits[0, 0, ::2] = 500.0
    assert torch.isfinite(decoded(logits, torch.tensor([[0.0, 0.0, 112.0, 112.0]]))).all()


def test_a_huge_box_is_decoded_joint_by_joint_with_the_same_answer(monkeypatch):
    logits, boxes = torch.randn(1, 5, 56, 56), torch.tensor([[0.0, 0.0, 90.0, 70.0]])
    at_once = decoded(logits, boxes)
    monkeypatch.setattr("methods.parts.rcnn_keypoints._DECODED", 90 * 70 + 1)
    assert torch.equal(decoded(logits, boxes), at_once)


def test_no_box_gives_no_keypoints():
    assert decoded(torch.zeros(0, 17, 56, 56), torch.zeros(0, 4)).shape == (0, 17, 3)
