"""Where the crop of one training sample lies: the published augmentations, one numpy generator per sample.

Three dialects (harness.train.recipes.Augmentation, card hrnet.md F). None of the published recipes changes colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from harness.data.crops import center_scale
from harness.pose.skeletons import Skeleton

if TYPE_CHECKING:
    from harness.train.recipes import Augmentation

__all__ = ["Draw", "draw", "frozen_shift", "mirrored", "moved_joints"]

Size = tuple[int, int]  # (height, width) in pixels
_HALF_BODY_PADDING = 1.5
_NORMAL = NormalDist()
_BELOW_ONE = _NORMAL.cdf(-1.0)


@dataclass(frozen=True)
class Draw:
    """Geometry of one training crop.

    `center` (2,) float32 in pixels of the image, of the mirrored image where `flip`; `scale` (2,) float32 in units
    of 200 pixels, padding included; `rotation` in degrees, as `harness.data.crops.affine` takes it.
    """

    center: np.ndarray
    scale: np.ndarray
    rotation: float
    flip: bool


def draw(
    rng: np.random.Generator,
    box: np.ndarray,
    keypoints: np.ndarray,
    augmentation: Augmentation,
    skeleton: Skeleton,
    *,
    input_size: Size,
    image_width: int,
    padding: float = 1.25,
) -> Draw:
    """One augmented crop of the person with `box` (4,) x y w h and `keypoints` (K, 3) x y visibility, in pixels.

    Order of the draws: half-body, scale, rotation, flip in the hrnet dialect; flip, shift, half-body, scale, rotation
    in mmpose0, where a half-body crop thus takes no notice of the shift; flip, half-body, shift, scale, rotation in
    mmpose1. The rotation's sign does not follow the flip.
    """
    a, late_flip = augmentation, augmentation.dialect == "hrnet"
    flip = False if late_flip else bool(rng.random() < a.flip)
    center, extent = box[:2] + box[2:] / 2, box[2:] * padding
    if a.dialect == "mmpose0":
        center = center + _fresh_shift(rng, a, extent, input_size)
    if (keypoints[:, 2] > 0).sum() > a.half_body_min_joints and rng.random() < a.half_body:
        center, extent = _half_body(rng, keypoints, a, skeleton) or (center, extent)
    if a.dialect == "mmpose1":
        center = center + _fresh_shift(rng, a, extent, input_size)
    extent = extent * _scale(rng, a)
    rotation = _rotation(rng, a)
    if late_flip:
        flip = bool(rng.random() < a.flip)
    if flip:
        center = np.array([image_width - 1 - center[0], center[1]])
    centers, scales = center_scale(np.concatenate([center - extent / 2, extent])[None], input_size, padding=1.0)
    return Draw(centers[0], scales[0], rotation, flip)


def frozen_shift(rng: np.random.Generator, box: np.ndarray, augmentation: Augmentation) -> np.ndarray:
    """`box` (4,) x y w h, moved by the jitter that mmpose 0.x draws once, when it lists the persons of a run."""
    a = augmentation
    if a.dialect != "mmpose0" or a.fresh_shift or not a.shift or rng.random() >= a.shift_prob:
        return box
    return np.concatenate([box[:2] + rng.uniform(-a.shift, a.shift, 2) * box[2:], box[2:]])


def mirrored(matrix: np.ndarray, image_width: int) -> np.ndarray:
    """The 2x3 `matrix` of a crop from the mirrored image, as one from the image itself (x -> width - 1 - x)."""
    return matrix @ np.array([[-1.0, 0.0, image_width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])


def moved_joints(keypoints: np.ndarray, matrix: np.ndarray, skeleton: Skeleton, flip: bool) -> np.ndarray:
    """`keypoints` (K, 3) through the 2x3 `matrix`, left and right exchanged where `flip`; visibility goes along."""
    moved = np.concatenate([keypoints[:, :2] @ matrix[:, :2].T + matrix[:, 2], keypoints[:, 2:]], axis=1)
    return moved[skeleton.flip_order] if flip else moved


def _half_body(
    rng: np.random.Generator, keypoints: np.ndarray, augmentation: Augmentation, skeleton: Skeleton
) -> tuple[np.ndarray, np.ndarray] | None:
    """Centre and padded extent (2,) around the upper or the lower body; None where neither can stand alone."""
    is_upper = np.isin(np.arange(len(keypoints)), skeleton.upper)
    labelled = keypoints[:, 2] > 0
    upper, lower = keypoints[labelled & is_upper, :2], keypoints[labelled & ~is_upper, :2]
    choose = _choose_mmpose1 if augmentation.dialect == "mmpose1" else _choose_hrnet
    joints = choose(rng, upper, lower)
    if len(joints) < 2 or not np.ptp(joints, axis=0).any():
        return None
    return joints.mean(axis=0), np.ptp(joints, axis=0) * _HALF_BODY_PADDING


def _choose_hrnet(rng: np.random.Generator, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    # QUIRK the published code compares a normal draw with 0.5: the upper body wins in 69 % of the cases, not in half
    if rng.standard_normal() < 0.5 and len(upper) > 2:
        return upper
    return lower if len(lower) > 2 else upper


def _choose_mmpose1(rng: np.random.Generator, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    prefers_upper = rng.random() < 0.7
    if len(upper) < 2 and len(lower) < 3:
        return upper[:0]
    if len(upper) < 2 or len(lower) < 3:
        return lower if len(upper) < 2 else upper
    return upper if prefers_upper else lower


def _fresh_shift(rng: np.random.Generator, augmentation: Augmentation, extent: np.ndarray, size: Size) -> np.ndarray:
    """Displacement (2,) in pixels of a jitter that is drawn anew for each sample."""
    a = augmentation
    if not a.shift or (a.dialect == "mmpose0" and not a.fresh_shift) or rng.random() >= a.shift_prob:
        return np.zeros(2)
    if a.dialect == "mmpose1":
        return np.array([_truncated(rng), _truncated(rng)]) * a.shift * extent
    height, width = size
    crop_width = max(extent[0], extent[1] * width / height)
    return rng.uniform(-a.shift, a.shift, 2) * crop_width * np.array([1.0, height / width])


def _scale(rng: np.random.Generator, augmentation: Augmentation) -> float:
    factor = augmentation.scale
    if augmentation.dialect == "mmpose1":
        return 1 + _truncated(rng) * factor
    return float(np.clip(1 + rng.standard_normal() * factor, 1 - factor, 1 + factor))


def _rotation(rng: np.random.Generator, augmentation: Augmentation) -> float:
    factor = augmentation.rotation
    if rng.random() >= augmentation.rotation_prob:
        return 0.0
    if augmentation.dialect == "mmpose1":
        return _truncated(rng) * factor
    return float(np.clip(rng.standard_normal() * factor, -2 * factor, 2 * factor))


def _truncated(rng: np.random.Generator) -> float:
    """A standard normal draw, given that it lies in -1..1."""
    return _NORMAL.inv_cdf(rng.uniform(_BELOW_ONE, 1 - _BELOW_ONE))
