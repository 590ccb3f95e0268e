"""The box branch: detectron2's order of classes and its loss inside torchvision's code."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou

from methods.parts.rcnn import RCNNShape
from methods.parts.rcnn_boxes import BoxBranch, targets_of

SHAPE = RCNNShape(pyramid=4, fc=8, sampled_boxes=16)
SIZE = (128, 160)


@pytest.fixture
def branch():
    torch.manual_seed(0)
    return BoxBranch(SHAPE).eval()


def _maps(images=1):
    torch.manual_seed(1)
    return [torch.randn(images, 4, SIZE[0] // s, SIZE[1] // s) for s in (4, 8, 16, 32)]


def _boxes(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(n, 2, generator=generator) * 60
    return torch.cat([corners, corners + 20 + 40 * torch.rand(n, 2, generator=generator)], dim=1)


def test_the_first_logit_is_the_person_and_no_deltas_leave_the_proposal(branch):
    with torch.no_grad():
        branch.box_predictor.cls_score.bias.copy_(torch.tensor([9.0, 0.0]))
        branch.box_predictor.bbox_pred.weight.zero_()
        proposals = [_boxes(1)]
        boxes, scores = branch(_maps(), proposals, [SIZE], 0.05)
    assert torch.allclose(boxes[0], proposals[0], atol=1e-4) and float(scores[0]) > 0.99
    with torch.no_grad():
        branch.box_predictor.cls_score.bias.copy_(torch.tensor([0.0, 9.0]))
        assert len(branch(_maps(), proposals, [SIZE], 0.05)[0][0]) == 0


def test_detections_are_sorted_apart_in_the_image_and_above_the_threshold(branch):
    proposals = [_boxes(300, 1), _boxes(300, 2)]
    with torch.inference_mode():
        boxes, scores = branch(_maps(2), proposals, [SIZE, (70, 60)], 0.3)
        fewer, _ = branch(_maps(2), proposals, [SIZE, (70, 60)], float(scores[0][4]))
    for one, score, (height, width) in zip(boxes, scores, [SIZE, (70, 60)], strict=True):
        assert 0 < len(one) <= 100 and (score > 0.3).all() and (score.diff() <= 0).all()
        assert (one >= 0).all() and (one[:, 2] <= width).all() and (one[:, 3] <= height).all()
        overlap = box_iou(one, one).fill_diagonal_(0)
        assert overlap.max() <= 0.5
    assert torch.equal(fewer[0], boxes[0][:4])


def test_the_best_hundred_persons_are_kept(branch):
    grid = torch.cartesian_prod(torch.arange(0.0, 150, 10), torch.arange(0.0, 120, 10))
    with torch.no_grad():
        branch.box_predictor.cls_score.bias.copy_(torch.tensor([2.0, 0.0]))
        branch.box_predictor.bbox_pred.weight.zero_()
        boxes, _ = branch(_maps(), [torch.cat([grid, grid + 9], dim=1)], [SIZE], 0.05)
    assert len(grid) == 180 and len(boxes[0]) == 100


def test_no_proposal_is_no_person(branch):
    with torch.inference_mode():
        boxes, scores = branch(_maps(), [torch.zeros(0, 4)], [SIZE], 0.05)
    assert boxes[0].shape == (0, 4) and scores[0].shape == (0,)


def test_the_loss_by_hand(branch):
    persons = _boxes(2, 5)
    proposals = [torch.cat([persons + 2, _boxes(10, 6)])]
    torch.manual_seed(3)
    losses, positives = branch.losses(_maps(), proposals, targets_of([persons]))
    torch.manual_seed(3)
    boxes, matched, labels, wanted = branch.select_training_samples(list(proposals), targets_of([persons]))
    logits, deltas = branch._predict(_maps(), boxes)
    found = labels[0] > 0
    assert torch.equal(positives.boxes[0], boxes[0][found]) and torch.equal(positives.persons[0], matched[0][found])
    assert box_iou(positives.boxes[0], persons)[torch.arange(int(found.sum())), positives.persons[0]].min() >= 0.5
    count = len(labels[0])
    assert float(losses["loss_cls"]) == pytest.approx(float(F.cross_entropy(logits, labels[0])), rel=1e-5)
    distance = (deltas[found, 4:] - wanted[0][found]).abs()
    smooth = torch.where(distance < 0.5, distance**2, distance - 0.25)  # beta 0.5
    assert float(losses["loss_box_reg"]) == pytest.approx(float(smooth.sum()) / count, rel=1e-5)


def test_an_image_without_a_person_teaches_background_only(branch):
    losses, positives = branch.losses(_maps(), [_boxes(10)], targets_of([torch.zeros(0, 4)]))
    assert float(losses["loss_box_reg"]) == 0 and float(losses["loss_cls"]) > 0
    assert positives.boxes[0].shape == (0, 4)


def test_at_most_a_quarter_of_the_samples_are_persons(branch):
    person = torch.tensor([[10.0, 10.0, 60.0, 90.0]])
    _, positives = branch.losses(_maps(), [person.repeat(40, 1)], targets_of([person]))
    assert len(positives.boxes[0]) == SHAPE.sampled_boxes // 4
