"""Features of boxes: ROIAlign on the levels of a pyramid, and what the refined Mask R-CNN changes about the boxes.

Boxes are x1 y1 x2 y2 in pixels of the canvas, one tensor (n, 4) for each image. Card: maskrcnn.md 1, 2.1, 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from harness.errors import UserError

__all__ = ["beyond_edges", "enlarged", "pooled", "refuse_huge"]

_LONGEST = 1 << 13  # side of a region, in pixels
_STRIDES = (4, 8, 16, 32)  # of p2 to p5


def enlarged(boxes: Tensor, factor: float) -> Tensor:
    """(n, 4), grown by `factor` in width and height about their centres, not clipped (card 2.2)."""
    grow = (boxes[:, 2:] - boxes[:, :2]) * ((factor - 1) / 2)
    return torch.cat([boxes[:, :2] - grow, boxes[:, 2:] + grow], dim=1)


def refuse_huge(regions: Tensor) -> Tensor:
    """`regions` (n, 4). UserError for one whose heatmap, resized to its pixels, no machine could hold."""
    # a box at the end of float32 has no finite extent, and no comparison holds for a nan
    if not bool(((regions[:, 2:] - regions[:, :2]) <= _LONGEST).all() and torch.isfinite(regions).all()):
        raise UserError("a box is too large for its heatmap", expected=f"sides of at most {_LONGEST} pixels")
    return regions


def beyond_edges(boxes: Sequence[Tensor], canvas: tuple[int, int]) -> Tensor:
    """(B, 4) bool: does any box of an image reach beyond the left, top, right, bottom edge of its canvas?"""
    height, width = canvas
    edges = []
    for one in boxes:
        over = torch.stack([one[:, 0] < 0, one[:, 1] < 0, one[:, 2] > width, one[:, 3] > height], dim=1)
        edges.append(over.any(0))
    return torch.stack(edges)


def pooled(maps: Sequence[Tensor], boxes: Sequence[Tensor], size: int, beyond: Tensor | None = None) -> Tensor:
    """Features (N, C, size, size) of all boxes, those of the first image first. `maps`: p2, or p2 to p5.

    torchvision's MultiScaleRoIAlign cannot be used: it samples unaligned (half a cell aside), and its level rule has
    another rounding. A sampling ratio of 0 takes ceil(bin) samples in each direction, so large boxes cost more.
    `beyond` (B, 4) as from `beyond_edges`: there the world outside the canvas is zero; elsewhere, and without
    `beyond`, the last cell goes on for one cell.
    """
    images = torch.cat([one.new_full((len(one), 1), i) for i, one in enumerate(boxes)])
    rois = torch.cat([images, torch.cat(list(boxes))], dim=1)
    level = _level(rois[:, 1:], len(maps))
    parts = []
    for i, (features, stride) in enumerate(zip(maps, _STRIDES, strict=False)):
        inside = rois[level == i]
        if beyond is not None:
            features = _ringed(features, beyond)
            inside = torch.cat([inside[:, :1], inside[:, 1:] + stride], dim=1)
        parts.append(roi_align(features, inside, size, 1 / stride, sampling_ratio=0, aligned=True))
    back = torch.argsort(torch.argsort(level, stable=True))
    return torch.cat(parts)[back]


def _level(boxes: Tensor, levels: int) -> Tensor:
    """(N,) 0 for p2: level floor(4 + log2(sqrt(area) / 224)) of FPN, within p2 to p5."""
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    level = torch.floor(4 + torch.log2(sides.prod(dim=1).sqrt() / 224 + 1e-8))
    return level.clamp(2, 1 + levels).long() - 2


def _ringed(features: Tensor, beyond: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, C, h + 2, w + 2): one more cell on each side, zero on the sides that `beyond` names.

    The published code pads whole cells until every box of the batch fits. One cell does the same, whatever the box:
    ROIAlign interpolates up to it, and takes what lies beyond for its value or for zero, which here is one. A side
    that no box crosses goes on as ROIAlign itself would go on, so the image's other boxes alone decide, as with the
    published test batch of one.
    """
    ring = F.pad(features, (1, 1, 1, 1), mode="replicate")
    keep = (~beyond).to(ring.dtype)[:, :, None, None]  # (B, 4, 1, 1)
    ring[:, :, :, 0] *= keep[:, 0]
    ring[:, :, 0] *= keep[:, 1]
    ring[:, :, :, -1] *= keep[:, 2]
    ring[:, :, -1] *= keep[:, 3]
    return ring
