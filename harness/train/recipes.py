"""What a training run is made of, as plain data: recipe, augmentation, target, batch, progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Augmentation", "Progress", "Recipe", "TargetSpec", "TrainBatch"]


@dataclass(frozen=True)
class Progress:
    """Where training stands: `epoch` and `step` count from 0; `epochs` is the length of the run."""

    epoch: int
    step: int
    epochs: int


@dataclass(frozen=True)
class TrainBatch:
    """What `losses` of a top-down method gets; B persons.

    `images` (B, 3, H, W) float32 normalised. `target`: heatmaps (B, K, h, w), or for simcc the pair
    (B, K, W*split), (B, K, H*split). `weight` (B, K). `joints` (B, K, 2) in input pixels, `visible` (B, K) in 0..2,
    `centers` and `scales` (B, 2) of the crop, scale in units of 200 image pixels, padding included.
    """

    images: Tensor
    target: Tensor | tuple[Tensor, Tensor]
    weight: Tensor
    joints: Tensor
    visible: Tensor
    centers: Tensor
    scales: Tensor


@dataclass(frozen=True)
class TargetSpec:
    """Target encoding: `encoder` as in harness.pose.targets, `sigma` in heatmap pixels, `stride` input/heatmap."""

    encoder: str = "msra"
    sigma: float = 2.0
    stride: int = 4


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of one training sample; `dialect` names whose order and draws are followed.

    `hrnet`: scale and rotation are drawn, then flip; clipped normal draws. `mmpose0`: flip, half-body, scale and
    rotation; centre jitter frozen per run. `mmpose1`: truncated-normal draws, jitter fresh each time.
    """

    dialect: Literal["hrnet", "mmpose0", "mmpose1"] = "hrnet"
    flip: float = 0.5
    scale: float = 0.35
    rotation: float = 45.0
    rotation_prob: float = 0.6
    half_body: float = 0.3
    half_body_min_joints: int = 8
    shift: float = 0.0
    shift_prob: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """A training recipe. `batch` is the total over all devices; `warmup_steps` rise linearly from `warmup_ratio`.

    `schedule` 'step' multiplies the rate by 0.1 at each of `milestones` (epochs), 'cosine' falls to zero.
    `groups(module, recipe)` gives optimiser parameter groups (layer-wise decay, no-decay rules); None: one group.
    `differs` states what departs from the source and why.
    """

    epochs: int
    batch: int
    lr: float
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = ()
    warmup_steps: int = 0
    warmup_ratio: float = 0.001
    target: TargetSpec = TargetSpec()
    augmentation: Augmentation = Augmentation()
    groups: Callable[[nn.Module, Recipe], list[dict[str, object]]] | None = None
    trunk: str = ""
    source: str = ""
    differs: tuple[str, ...] = ()
