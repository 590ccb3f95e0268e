"""What a training run is made of, as plain data: recipe, augmentation, target, batch, progress."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = [
    "Augmentation",
    "ImageAugmentation",
    "ImageBatch",
    "Precision",
    "Progress",
    "Recipe",
    "TargetSpec",
    "TrainBatch",
    "describe",
    "determined",
    "flat",
    "with_epochs",
]

Size = tuple[int, int]  # (height, width) in pixels
Precision = Literal["float32", "bfloat16", "float16"]  # of a forward pass


def _alone(count: Tensor) -> Tensor:
    return count


@dataclass(frozen=True)
class Progress:
    """Where training stands: `epoch` and `step` (of the whole run) count from 0; `epochs` is the run's length.

    A loss that is no mean over samples, but a sum divided by a `count` of something else (visible joints, positives),
    divides by `pooled(count)`: that is what makes the mean over several processes the loss of all their samples
    together. In one process it is `count`. Every process has to call it equally often, so never within a condition
    on the data.
    """

    epoch: int
    step: int
    epochs: int
    pooled: Callable[[Tensor], Tensor] = _alone


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
class ImageBatch:
    """What `losses` of a one-stage method gets; one entry per image, images of different sizes.

    `images` (3, H, W) float32 normalised. `boxes` (n, 4) x1 y1 x2 y2, `joints` (n, K, 2) and `crowd` (m, 4), all in
    pixels of that tensor; `visible` (n, K) in 0..2. `crowd`: regions to ignore.
    """

    images: list[Tensor]
    boxes: list[Tensor]
    joints: list[Tensor]
    visible: list[Tensor]
    crowd: list[Tensor]


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
    rotation; centre jitter frozen per run, or with `fresh_shift` before the half-body crop. `mmpose1`: truncated-normal
    draws, jitter fresh each time.

    `scale` and `rotation` (degrees) are the factors of the draws: a normal draw times the factor, clipped at one
    (scale) or two (rotation) factors; in `mmpose1` a normal draw truncated to -1..1, times the factor. Half-body
    crops need more than `half_body_min_joints` labelled joints. `shift` moves the centre with `shift_prob`: in
    `mmpose0` uniform in +-shift of the person box, once per run; with `fresh_shift` (its later pipeline step) of the
    crop, each time; in `mmpose1` truncated normal, of the padded box, each time. Card hrnet.md F.
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
    fresh_shift: bool = False

    def __post_init__(self) -> None:
        if self.dialect == "hrnet" and self.shift:
            raise UserError("the hrnet augmentation has no centre jitter", expected="shift=0, or another dialect")


@dataclass(frozen=True)
class ImageAugmentation:
    """Augmentation of a whole image (detectron2): mirrored with probability `flip`, then scaled until its shorter
    side is one of `short_sides`, drawn evenly, or its longer side `longest`, whichever comes first."""

    flip: float = 0.5
    short_sides: tuple[int, ...] = (640, 672, 704, 736, 768, 800)
    longest: int = 1333


@dataclass(frozen=True)
class Recipe:
    """A training recipe. `batch` is the total over all devices; `warmup_steps` rise linearly from `warmup_ratio`.

    `schedule` 'step' multiplies the rate by 0.1 at each of `milestones` (epochs), 'cosine' falls to zero. Where the
    source counts in optimiser steps, `steps` is the length, `milestones` are steps and `epochs` is not read.
    `groups(module, recipe)` gives optimiser parameter groups (layer-wise decay, no-decay rules), each a dict of
    `params` and the torch options that differ (`lr`, `weight_decay`); None: one group. `ema`: decay of a running
    mean of the weights, which is then what is validated and written. `input_size`: the one it was published for,
    None where it suits any. `loss` states in words what is minimised, weights and start of each part included.
    `differs` states what departs from the source and why.
    """

    epochs: int
    batch: int
    lr: float
    steps: int | None = None
    optimiser: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip_norm: float | None = None
    schedule: Literal["step", "cosine"] = "step"
    milestones: tuple[int, ...] = ()
    warmup_steps: int = 0
    warmup_ratio: float = 0.001
    ema: float | None = None
    input_size: Size | None = None
    loss: str = ""
    target: TargetSpec = TargetSpec()
    augmentation: Augmentation | ImageAugmentation = Augmentation()
    groups: Callable[[nn.Module, Recipe], list[dict[str, object]]] | None = None
    trunk: str = ""
    source: str = ""
    differs: tuple[str, ...] = ()


def describe(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, target and augmentation nested; `groups` by its name and bound options."""
    plain = dataclasses.asdict(dataclasses.replace(recipe, groups=None))
    plain["groups"] = _name(recipe.groups) if recipe.groups else None
    return _listed(plain)


def determined(recipe: Recipe) -> dict[str, Any]:
    """What of `describe` determines the weights: not the words about loss, source and departures."""
    return {name: value for name, value in describe(recipe).items() if name not in ("loss", "source", "differs")}


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """What is nested in a description, under names such as `target.sigma`."""
    found: dict[str, Any] = {}
    for name, value in plain.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return found


def _listed(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {name: _listed(value) for name, value in plain.items()}
    return list(plain) if isinstance(plain, tuple) else plain


def _name(groups: Callable[..., Any]) -> str:
    if isinstance(groups, partial):
        bound = [*map(repr, groups.args), *(f"{name}={value!r}" for name, value in groups.keywords.items())]
        return f"{_name(groups.func)}({', '.join(bound)})"
    return getattr(groups, "__name__", type(groups).__name__)


def with_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe at another length; milestones move in proportion, and `differs` says so."""
    if epochs < 1:
        raise UserError(f"{epochs} epochs", expected="at least 1")
    if epochs == recipe.epochs and recipe.steps is None:
        return recipe
    length = recipe.steps or recipe.epochs
    moved = tuple(round(m * epochs / length) for m in recipe.milestones)
    former = f"{recipe.steps} steps" if recipe.steps else str(recipe.epochs)
    note = f"{epochs} epochs in place of {former}" + (", milestones in proportion" if moved else "")
    return dataclasses.replace(recipe, epochs=epochs, steps=None, milestones=moved, differs=(*recipe.differs, note))
