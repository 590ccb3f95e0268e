"""ROIAlign over a pyramid, enlarged boxes, and the world outside the image."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import roi_align

from methods.parts.rcnn_regions import beyond_edges, enlarged, pooled


def test_a_box_grows_about_its_centre_and_is_not_clipped():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0], [0.0, 0.0, 1.0, 1.0]])
    wanted = torch.tensor([[7.0, 14.0, 33.0, 66.0], [-0.15, -0.15, 1.15, 1.15]])
    assert torch.allclose(enlarged(boxes, 1.3), wanted)
    assert torch.equal(enlarged(boxes, 1.0), boxes)
    assert enlarged(torch.zeros(0, 4), 1.3).shape == (0, 4)


def test_each_image_tells_which_edges_its_own_boxes_cross():
    boxes = [
        torch.tensor([[-1.0, 2.0, 5.0, 32.1], [0.0, 0.0, 48.0, 32.0]]),
        torch.zeros(0, 4),
        torch.tensor([[3.0, -0.1, 48.5, 9.0]]),
    ]
    assert beyond_edges(boxes, (32, 48)).tolist() == [
        [True, False, False, True],
        [False, False, False, False],
        [False, True, True, False],
    ]


def _maps(images=1):
    torch.manual_seed(0)
    return [torch.randn(images, 3, 128 // s, 160 // s) for s in (4, 8, 16, 32)]


def test_a_box_is_read_on_the_level_of_its_size():
    maps = [torch.full((1, 1, 1024 // s, 1024 // s), float(i)) for i, s in zip((2, 3, 4, 5), (4, 8, 16, 32))]
    sides = torch.tensor([1.0, 20, 111, 112, 223, 224, 447, 448, 1000])
    boxes = torch.cat([torch.full((9, 2), 10.0), sides[:, None].expand(9, 2) + 10], dim=1)
    level = pooled(maps, [boxes], 2).mean((1, 2, 3))
    assert level.tolist() == [2, 2, 2, 3, 3, 4, 4, 5, 5]


def test_features_come_in_the_order_of_the_boxes_image_after_image():
    maps = _maps(2)
    small, large = torch.tensor([[8.0, 8.0, 40.0, 60.0]]), torch.tensor([[0.0, 0.0, 158.0, 120.0]])
    both = pooled(maps, [torch.cat([large, small]), small], 7)
    for at, image, box in ((0, 0, large), (1, 0, small), (2, 1, small)):
        alone = pooled([m[image : image + 1] for m in maps], [box], 7)
        assert torch.allclose(both[at : at + 1], alone, atol=1e-6)


def test_no_box_at_all_gives_no_features():
    assert pooled(_maps(2), [torch.zeros(0, 4)] * 2, 14).shape == (0, 3, 14, 14)
    assert pooled(_maps(1), [torch.zeros(0, 4)], 14, torch.zeros(1, 4, dtype=torch.bool)).shape == (0, 3, 14, 14)


def _padded_as_published(features, boxes, cells):
    """Whole zero cells around the map until every box fits, boxes moved along."""
    left, top, right, bottom = cells
    padded = F.pad(features, (left, right, top, bottom))
    shift = torch.tensor([left, top, left, top]) * 4.0
    return roi_align(padded, [boxes + shift], 14, 0.25, 0, True)


@pytest.mark.parametrize("enlarge", [1.0, 1.3, 2.5])
def test_one_ring_of_zeros_is_as_good_as_padding_until_every_box_fits(enlarge):
    generator = torch.Generator().manual_seed(1)
    corners = torch.rand(40, 2, generator=generator) * torch.tensor([120.0, 90.0])
    boxes = torch.cat([corners, corners + 1 + torch.rand(40, 2, generator=generator) * 60], dim=1)
    regions = enlarged(boxes, enlarge)
    features = _maps()[0]
    beyond = beyond_edges([regions], (128, 160))
    cells = [40 if b else 0 for b in beyond[0].tolist()]
    wanted = _padded_as_published(features, regions, cells)
    assert torch.allclose(
        pooled([features], [regions], 14, beyond), wanted, atol=1e-4
    )  # coordinates round off elsewhere


@pytest.mark.parametrize("side", range(4))
def test_only_a_crossed_side_is_zero_outside(side):
    features = torch.ones(1, 1, 32, 40)
    edge = torch.tensor([[0.0, 0.0, 160.0, 128.0]])
    beyond = torch.zeros(1, 4, dtype=torch.bool)
    assert torch.allclose(pooled([features], [edge], 40, beyond), torch.ones(1, 1, 40, 40))
    beyond[0, side] = True
    found = pooled([features], [edge], 64, beyond)[0, 0]
    dark = [found[:, 0], found[0], found[:, -1], found[-1]]
    assert (dark[side][1:-1] < 1).all() and all((d[1:-1] == 1).all() for i, d in enumerate(dark) if i != side)


def test_a_box_wholly_outside_is_zero_with_the_border_and_an_image_does_not_darken_its_neighbour():
    features = torch.ones(2, 1, 32, 40)
    boxes = [torch.tensor([[-90.0, -90.0, -40.0, -40.0]]), torch.tensor([[0.0, 0.0, 30.0, 30.0]])]
    found = pooled([features], boxes, 14, beyond_edges(boxes, (128, 160)))
    assert (found[0] == 0).all() and torch.allclose(found[1], torch.ones(1, 14, 14))


def test_gradients_flow_through_the_ring():
    features = torch.randn(1, 2, 8, 8, requires_grad=True)
    boxes = torch.tensor([[-4.0, -4.0, 30.0, 34.0]])
    pooled([features], [boxes], 14, beyond_edges([boxes], (32, 32))).sum().backward()
    assert features.grad is not None and (features.grad != 0).any()
