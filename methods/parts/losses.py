"""Heatmap losses by name: `name(pred, target, weight) -> scalar`.

`pred`, `target`: (B, K, h, w) float32. `weight`: (B, K) or (B, K, 1), 0 for joints that are not annotated.
Formulas: cards, components.md 'Losses'.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["LOSSES", "mse", "mse_half", "ohkm"]


def mse(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of w (pred - target)^2, as in mmpose (KeypointMSELoss): no factor 0.5, the weight is linear."""
    return (_spread(weight, pred) * (pred - target).square()).mean()


def mse_half(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """0.5 x mean of (w pred - w target)^2, as in SimpleBaseline and HRNet (JointsMSELoss).

    For weights 0 and 1 this is half of `mse`; other weights enter squared.
    """
    return 0.5 * (_spread(weight, pred) * (pred - target)).square().mean()


def ohkm(pred: Tensor, target: Tensor, weight: Tensor, topk: int = 8) -> Tensor:
    """`mse_half` over the `topk` joints of each person that are worst (online hard keypoint mining, CPN).

    Raises ValueError with fewer than `topk` joints.
    """
    if pred.shape[1] < topk:
        raise ValueError(f"ohkm takes the {topk} worst joints, there are only {pred.shape[1]}")
    per_joint = 0.5 * (_spread(weight, pred) * (pred - target)).square().mean(dim=(2, 3))  # (B, K)
    return torch.topk(per_joint, topk, dim=1).values.mean()


def _spread(weight: Tensor, maps: Tensor) -> Tensor:
    """(B, K) or (B, K, 1) -> (B, K, 1, 1)."""
    return weight.reshape(*maps.shape[:2], 1, 1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mse": mse,
    "mse_half": mse_half,
    "ohkm": ohkm,
}
"""Every loss by the name a knob uses."""
