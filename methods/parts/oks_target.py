"""How good a predicted pose is, computed on the fly from heatmaps: what SHaRPose's quality predictor learns.

Card: sharpose.md, 3 (on-the-fly OKS). B persons, K joints, heatmaps (B, K, h, w); no gradient passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["biased_oks", "biased_pck", "peaks", "quality_error"]

Size = tuple[int, int]

_GOOD = 0.99  # quality from which the two-class predictor calls a pose good


def peaks(maps: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, K, 2) x, y of the largest value in heatmap pixels; (-1, -1) where it is not positive."""
    value, index = maps.detach().flatten(2).max(dim=2)
    points = torch.stack([index % maps.shape[3], index // maps.shape[3]], dim=-1)
    return torch.where(value[..., None] > 0, points, -1).double()


def biased_oks(
    points: Tensor, truth: Tensor, visible: Tensor, scales: Tensor, size: Size, sigmas: Sequence[float]
) -> Tensor:
    """(B,) float64: mean of exp(-e) over the visible joints; nan where none is visible.

    `points`, `truth` (B, K, 2) in heatmap pixels, `visible` (B, K) bool, `scales` (B, 2) in units of 200 pixels,
    `size` (h, w) of the heatmap. No sub-pixel step.
    """
    # QUIRK: the area is that of the padded box, 1.25^2 times the person's and more, so the value is optimistic: the
    # published predictor was trained towards it
    side = 200.0 * scales.double()  # (B, 2) width and height of the box in image pixels
    distance = ((points - truth) * (side / side.new_tensor(size))[:, None]).square().sum(dim=-1)
    # QUIRK: `size` is (h, w) although points are (x, y), so x is divided by the height and y by the width; the
    # published predictor and its threshold of 0.99 were trained on this value.
    variance = (2 * side.new_tensor(sigmas)).square()
    exponent = distance / variance / (side.prod(dim=1, keepdim=True) + torch.finfo(side.dtype).eps) / 2
    return _visible_mean(exponent, visible)


def biased_pck(points: Tensor, truth: Tensor, visible: Tensor, size: Size) -> Tensor:
    """(B,) float64: mean of exp(-d) over the visible joints, d in parts of the heatmap (same swapped sides)."""
    return _visible_mean(((points - truth) / points.new_tensor(size)).norm(dim=-1), visible)


def _visible_mean(exponent: Tensor, visible: Tensor) -> Tensor:
    return (torch.exp(-exponent) * visible).sum(dim=1) / visible.sum(dim=1)


def quality_error(quality: Tensor, target: Tensor, pooled: Callable[[Tensor], Tensor] = lambda count: count) -> Tensor:
    """Mean error of predicted `quality` (B, 1) against `target` (B,): squared, or cross entropy of two classes (B, 2).

    Persons whose target is nan (no visible joint) are left out; 0 where none is left. The mean is over
    `pooled(number of the others)`, of all processes that share a batch.
    """
    known = target.isfinite()
    count = pooled(known.sum()).clamp(min=1)
    quality, target = quality[known].float(), target[known].float()
    if quality.shape[1] == 2:
        # the published two-class path cannot run; class 0 is 'good', as the test-time comparison reads it
        return F.nll_loss(quality.clamp_min(1e-8).log(), (target <= _GOOD).long(), reduction="sum") / count
    return F.mse_loss(quality[:, 0], target, reduction="sum") / count
