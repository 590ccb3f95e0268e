"""Canvas, pyramid, anchors and proposals of R-CNN."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import FrozenBatchNorm2d

from harness.errors import UserError
from methods.parts.rcnn import (
    MAX_PIXELS,
    Anchors,
    ProposalNetwork,
    Pyramid,
    RCNNShape,
    level_sizes,
    on_canvas,
)
from methods.parts.resnet import BasicBlock

SMALL = RCNNShape(
    block=BasicBlock,
    blocks=(1, 1, 1, 1),
    widths=(4, 8, 8, 8),
    pyramid=8,
    anchors=(16, 32),
    candidates=(20, 20),
    proposals=(10, 6),
    sampled_anchors=8,
)


def test_images_of_different_sizes_are_padded_at_the_right_and_the_bottom():
    images = [torch.ones(3, 30, 70), torch.full((3, 33, 5), 2.0)]
    batch = on_canvas(images)
    assert batch.tensors.shape == (2, 3, 64, 96) and batch.image_sizes == [(30, 70), (33, 5)]
    assert torch.equal(batch.tensors[0, :, :30, :70], images[0]) and batch.tensors[0].sum() == images[0].sum()
    assert torch.equal(batch.tensors[1, :, :33, :5], images[1]) and batch.tensors[1].sum() == images[1].sum()


def test_an_image_of_one_pixel_gets_the_smallest_canvas():
    assert on_canvas([torch.zeros(3, 1, 1)]).tensors.shape == (1, 3, 32, 32)


@pytest.mark.parametrize("shape", [(1, 20, 20), (4, 20, 20), (20, 20), (3, 0, 20), (2, 3, 20, 20)])
def test_another_shape_of_image_is_refused_by_number(shape):
    with pytest.raises(UserError, match="image 1"):
        on_canvas([torch.zeros(3, 8, 8), torch.zeros(shape)])


def test_a_canvas_beyond_memory_is_refused_before_anything_is_allocated():
    huge = torch.zeros(1).expand(3, 8000, 8000)
    with pytest.raises(UserError, match="8000x8000") as refused:
        on_canvas([huge])
    assert f"{MAX_PIXELS:,}" in refused.value.expected


def test_levels_have_the_published_strides_and_p6_rounds_up():
    assert level_sizes((800, 1344)) == [(200, 336), (100, 168), (50, 84), (25, 42), (13, 21)]
    pyramid = Pyramid(SMALL).eval()
    assert [tuple(m.shape) for m in pyramid(torch.zeros(2, 3, 96, 64))] == [
        (2, 8, h, w) for h, w in level_sizes((96, 64))
    ]


def test_a_frozen_trunk_trains_neither_norms_nor_the_first_stage():
    trained = {n for n, p in Pyramid(SMALL).named_parameters() if p.requires_grad}
    kinds = {type(m) for m in Pyramid(SMALL).modules()}
    assert FrozenBatchNorm2d in kinds and nn.BatchNorm2d not in kinds
    assert not [n for n in trained if n.startswith(("body.conv1", "body.layer1", "body.bn1"))]
    assert "body.layer2.0.conv1.weight" in trained and "fpn.inner_blocks.0.0.weight" in trained


def test_a_trunk_that_is_not_frozen_trains_all_of_it():
    free = Pyramid(RCNNShape(**{**vars(SMALL), "frozen": False}))
    assert all(p.requires_grad for p in free.parameters())
    assert FrozenBatchNorm2d not in {type(m) for m in free.modules()}


def test_anchors_stand_on_the_cells_corners_with_the_area_of_their_size():
    boxes = Anchors((32, 64), (4, 8))(ImageList(torch.zeros(1, 3, 8, 8), [(8, 8)]), [torch.zeros(1, 1, 2, 2)] * 2)[0]
    assert boxes.shape == (2 * 4 * 3, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert torch.allclose(sides.prod(1), torch.tensor([32.0**2] * 12 + [64.0**2] * 12))
    assert torch.allclose((sides[:, 1] / sides[:, 0]).view(8, 3), torch.tensor([0.5, 1.0, 2.0]).expand(8, 3))
    centres = (boxes[:, 2:] + boxes[:, :2]) / 2
    assert torch.allclose(centres[:12:3], torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]]), atol=1e-5)
    assert torch.allclose(boxes[0, 2:], torch.tensor([32 / math.sqrt(0.5), 32 * math.sqrt(0.5)]) / 2)


def test_anchors_are_torchvisions_but_for_its_rounding():
    maps = [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)]
    images = ImageList(torch.zeros(1, 3, 32, 48), [(32, 48)])
    theirs = AnchorGenerator(((32,), (64,)), ((0.5, 1.0, 2.0),) * 2)(images, maps)[0]
    ours = Anchors((32, 64), (4, 8))(images, maps)[0]
    assert (ours - theirs).abs().max() <= 0.5 and ours.shape == theirs.shape


def _proposing(count=1):
    torch.manual_seed(0)
    network = ProposalNetwork(SMALL)
    maps = [torch.randn(count, 8, h, w) for h, w in level_sizes((64, 64))]
    return network, ImageList(torch.zeros(count, 3, 64, 64), [(60, 50)] * count), maps


def test_proposals_lie_in_the_image_best_first_and_no_more_than_asked_for():
    network, images, maps = _proposing(2)
    boxes, losses = network.eval().propose(images, maps)
    assert losses == {} and [len(b) for b in boxes] == [6, 6]
    for one in boxes:
        assert (one >= 0).all() and (one[:, 2] <= 50).all() and (one[:, 3] <= 60).all()


def test_the_losses_are_sums_over_the_samples_by_the_number_wanted():
    network, images, maps = _proposing()
    target = [{"boxes": torch.tensor([[4.0, 4.0, 40.0, 40.0]]), "labels": torch.ones(1, dtype=torch.int64)}]
    chosen = {}
    sampler = network.fg_bg_sampler

    def remember(labels):
        chosen["masks"] = sampler(labels)
        return chosen["masks"]

    network.fg_bg_sampler = remember
    _, losses = network.train().propose(images, maps, target)
    logits, deltas = network.raw(maps)
    positive, negative = (mask[0].bool() for mask in chosen["masks"])
    anchors = network.anchor_generator(images, maps[-2:])[0]
    truth = network.box_coder.encode_single(target[0]["boxes"].expand(int(positive.sum()), 4), anchors[positive])
    wanted = F.softplus(-logits[0, positive]).sum() + F.softplus(logits[0, negative]).sum()
    assert losses["loss_objectness"].item() == pytest.approx(float(wanted) / 8, rel=1e-5)
    distance = (deltas[0, positive] - truth).abs().sum()
    assert float(losses["loss_rpn_box_reg"]) == pytest.approx(float(distance) / 8, rel=1e-5)
    assert positive.any() and negative.any()
