"""Training losses by name: `name(pred, target, weight) -> scalar`.

`pred`, `target`: (B, K, h, w), unless a loss says otherwise. `weight`: (B, K) or (B, K, 1), 0 for joints that are
not annotated. Losses named in `LOGITS` read `pred` as logits, z with p = sigmoid(z); what is trained with them
answers p. No logarithm of a sigmoid is taken, so they are finite for any finite z. Formulas: cards, components.md
'Losses' and fasterpose.md 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError

__all__ = [
    "BIAS_PRIOR",
    "LOGITS",
    "LOSSES",
    "MAP_LOSSES",
    "OTHER_LOSSES",
    "SQUARED_ERROR",
    "as_heatmaps",
    "bce",
    "dsnt",
    "focal",
    "heatmap_loss",
    "mse",
    "mse_half",
    "ohkm",
    "rce_abs",
    "rce_kl",
    "rce_qfl",
    "rce_soft",
    "simcc_kl",
    "start_from_prior",
    "udp_combined",
]

SQUARED_ERROR = "squared error, mean over persons, joints and pixels of the heatmaps; joints without label count as 0"
"""`mse` in the words of a recipe; `mse_half` is 0.5 x it."""
BIAS_PRIOR = -4.0
"""Start of the last bias of a network of logits: p = 0.018, near the mean of a Gaussian target (fasterpose.md 4)."""


def mse(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of w (pred - target)^2, as in mmpose (KeypointMSELoss): no factor 0.5, the weight is linear."""
    return (_by_joint(weight, pred) * _squared_error(pred, target)).mean()


def mse_half(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """0.5 x mean of (w pred - w target)^2, as in SimpleBaseline and HRNet (JointsMSELoss).

    For weights 0 and 1 this is half of `mse`; other weights enter squared.
    """
    return 0.5 * (_by_joint(weight, pred).square() * _squared_error(pred, target)).mean()


def ohkm(pred: Tensor, target: Tensor, weight: Tensor, topk: int = 8) -> Tensor:
    """`mse_half` over the `topk` joints of each person that are worst (online hard keypoint mining, CPN).

    Raises UserError with fewer than `topk` joints.
    """
    if pred.shape[1] < topk:
        raise UserError(f"ohkm takes the {topk} worst joints, there are only {pred.shape[1]}", hint="another loss")
    per_joint = 0.5 * _by_joint(weight, pred).square() * _squared_error(pred, target)  # (B, K)
    return torch.topk(per_joint, topk, dim=1).values.mean()


def bce(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of w (-t log p - (1 - t) log(1 - p)), on logits."""
    return _weighted_mean(_cross_entropy(pred, target), weight)


def rce_soft(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The plainest reading of FasterPose's regressive cross-entropy: `bce` with t anywhere in 0..1.

    Its gradient in z is p - t, its minimum, at p = t, the entropy of t.
    """
    return bce(pred, target, weight)


def rce_kl(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """`rce_soft` minus the entropy of t: the same gradient, minimum 0."""
    entropy = -(torch.xlogy(target, target) + torch.xlogy(1 - target, 1 - target))
    return _weighted_mean(_cross_entropy(pred, target) - entropy, weight)


def rce_abs(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of -w log(1 - |p - t|), on logits; like an absolute error it has a kink at p = t."""
    # 1 - |p - t| is (1 - p) + t above t and p + (1 - t) below it; either sum is taken in logarithms
    above = torch.logaddexp(F.logsigmoid(-pred), target.log())
    below = torch.logaddexp(F.logsigmoid(pred), (1 - target).log())
    return _weighted_mean(-torch.minimum(above, below), weight)


def rce_qfl(pred: Tensor, target: Tensor, weight: Tensor, beta: float = 2.0) -> Tensor:
    """Mean of w |p - t|^beta (-t log p - (1 - t) log(1 - p)), the form of the generalised focal loss; minimum 0."""
    distance = (pred.sigmoid() - target).abs() ** beta
    return _weighted_mean(distance * _cross_entropy(pred, target), weight)


def focal(
    pred: Tensor,
    target: Tensor,
    weight: Tensor,
    alpha: float = 2.0,
    beta: float = 4.0,
    pooled: Callable[[Tensor], Tensor] = lambda count: count,
) -> Tensor:
    """CornerNet's focal loss for heatmaps, on logits: positives are pixels with t = 1 exactly.

    Sum of -w (1 - p)^alpha log p over positives and of -w (1 - t)^beta p^alpha log(1 - p) over the others, divided
    by the weighted number of positives where there is one, `pooled` over the processes that share a batch. Targets
    need their peak on a pixel (encoder msra).
    """
    w, positive = _by_joint(weight, pred)[..., None, None], target == 1
    at_peak = (-pred).sigmoid() ** alpha * F.logsigmoid(pred)
    elsewhere = (1 - target) ** beta * pred.sigmoid() ** alpha * F.logsigmoid(-pred)
    total = -(w * torch.where(positive, at_peak, elsewhere)).sum()
    count = pooled((w * positive).sum())
    return total / torch.where(count > 0, count, torch.ones_like(count))


def udp_combined(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Disc and offset maps of UDP: (B, 3K, h, w), interleaved (class c, offset x, offset y) by joint.

    0.5 x [mean of (w c - w c*)^2 + means of (m o - m o*)^2 of both offsets], mean over joints; the mask m = w c*
    leaves the offsets free outside the disc.
    """
    (c, *offsets), (c_star, *offsets_star) = (_by_part(maps) for maps in (pred, target))
    w = _by_joint(weight, c)[..., None, None]
    mask = w * c_star
    total = (w * (c - c_star)).square().mean()
    for o, o_star in zip(offsets, offsets_star, strict=True):
        total = total + (mask * (o - o_star)).square().mean()
    return 0.5 * total


def simcc_kl(pred: Sequence[Tensor], target: Sequence[Tensor], weight: Tensor, beta: float = 1.0) -> Tensor:
    """SimCC: `pred` logits and `target` distributions, each a pair of x bins (B, K, m) and y bins (B, K, n).

    Per axis the mean over bins of t (log t - log softmax(beta z)); both axes added, times w, mean over persons and
    joints (the official code; mmpose sums over persons).
    """
    axes = [
        (torch.xlogy(t, t) - t * F.log_softmax(beta * z, dim=-1)).mean(dim=-1)
        for z, t in zip(pred, target, strict=True)
    ]
    return (_by_joint(weight, pred[0]) * sum(axes)).mean()


def dsnt(pred: Tensor, target: tuple[Tensor, Tensor], weight: Tensor, beta: float = 1.0) -> Tensor:
    """Soft-argmax coordinates with a heatmap term: `target` is the pair of maps (B, K, h, w) and points (B, K, 2).

    Points are (x, y) in fractions of the map's width and height, pixel i of n lying at i / n. Smooth L1 between
    them and the expectation of softmax(beta z), plus the squared error between that softmax and the map divided by
    its sum; each a mean, weighted by joint.
    """
    maps, points = target
    height, width = pred.shape[2:]
    p = (beta * pred).flatten(2).softmax(dim=-1).unflatten(2, (height, width))
    x = (p.sum(dim=2) * torch.arange(width, device=p.device) / width).sum(dim=-1)
    y = (p.sum(dim=3) * torch.arange(height, device=p.device) / height).sum(dim=-1)
    distance = F.smooth_l1_loss(torch.stack([x, y], dim=-1), points, reduction="none")
    normalised = maps / maps.sum(dim=(2, 3), keepdim=True).clamp(min=1e-24)
    return (_by_joint(weight, pred)[..., None] * distance).mean() + mse(p, normalised, weight)


def heatmap_loss(name: str, pred: Tensor, batch: Any, progress: Any) -> Tensor:
    """The loss `name` of MAP_LOSSES for a batch of a training (harness.train.recipes.TrainBatch, Progress)."""
    options = {"pooled": progress.pooled} if name == "focal" else {}
    return LOSSES[name](pred, batch.target, batch.weight, **options)


def as_heatmaps(pred: Tensor, loss: str) -> Tensor:
    """What a network trained with `loss` answers: p for logits, else `pred` itself.

    Before flip averaging and decoding, since the mean of two logits is not the logit of the mean.
    """
    return pred.float().sigmoid() if loss in LOGITS else pred


def start_from_prior(last: nn.Conv2d, loss: str) -> None:
    """The last layer's bias at BIAS_PRIOR if `loss` reads logits: else thousands of empty pixels come first."""
    if loss in LOGITS:
        assert last.bias is not None
        nn.init.constant_(last.bias, BIAS_PRIOR)


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none")


def _squared_error(pred: Tensor, target: Tensor) -> Tensor:
    """(B, K): mean over each map."""
    return _map_mean(F.mse_loss(pred, target, reduction="none"))


def _weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Of w x values, over everything."""
    return (_by_joint(weight, values) * _map_mean(values)).mean()


def _map_mean(maps: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, K). As a sum, because the gradient of a mean would fill maps of the same size."""
    # in float32 at least: the sum of a map of half precision may pass the largest number of float16
    wide = torch.promote_types(maps.dtype, torch.float32)
    return maps.sum(dim=(2, 3), dtype=wide) / maps[0, 0].numel()


def _by_joint(weight: Tensor, maps: Tensor) -> Tensor:
    """(B, K) or (B, K, 1) -> (B, K)."""
    return weight.reshape(maps.shape[:2])


def _by_part(maps: Tensor) -> tuple[Tensor, ...]:
    """(B, 3K, h, w) interleaved -> three times (B, K, h, w)."""
    return maps.unflatten(1, (-1, 3)).unbind(2)


LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": mse,
    "mse_half": mse_half,
    "ohkm": ohkm,
    "bce": bce,
    "rce_soft": rce_soft,
    "rce_kl": rce_kl,
    "rce_abs": rce_abs,
    "rce_qfl": rce_qfl,
    "focal": focal,
    "udp_combined": udp_combined,
    "simcc_kl": simcc_kl,
    "dsnt": dsnt,
}
"""Every loss by the name a knob uses."""

LOGITS = frozenset({"bce", "rce_soft", "rce_kl", "rce_abs", "rce_qfl", "focal"})
"""Losses that read maps of logits."""

MAP_LOSSES = tuple(name for name in LOSSES if name not in {"udp_combined", "simcc_kl", "dsnt"})
"""Losses of one map per joint against a heatmap target: those that are interchangeable."""

OTHER_LOSSES = {
    "udp_combined": "it compares three channels a joint (class, dx, dy), and this network writes one",
    "simcc_kl": "it compares two vectors of bins a joint, and this network writes a map",
    "dsnt": "it needs the joints' coordinates beside the map, and this network is trained on maps alone",
}
"""Why the others do not go with a network that writes one map a joint."""
