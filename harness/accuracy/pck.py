"""PCKh of MPII: the share of joints nearer to the truth than a part of the head size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.errors import DataError
from harness.pose.skeletons import MPII

__all__ = ["PCKh", "head_sizes", "pckh"]

_HEAD_PART = 0.6  # of the diagonal of the head box (MPII evaluation)
_NOT_IN_MEAN = ("pelvis", "thorax")


@dataclass(frozen=True)
class PCKh:
    """`joints`: name -> share in 0 to 1, None where the joint is never visible; `mean` without pelvis and thorax."""

    threshold: float
    joints: dict[str, float | None]
    mean: float | None
    persons: int

    def to_dict(self) -> dict[str, object]:
        return dict(self.__dict__)


def head_sizes(head_boxes: np.ndarray) -> np.ndarray:
    """(N,) pixels: 0.6 of the diagonal of head boxes (N, 4) xyxy."""
    boxes = np.asarray(head_boxes, dtype=np.float64)
    return _HEAD_PART * np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1)


def pckh(
    predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray, heads: np.ndarray, *, threshold: float = 0.5
) -> PCKh:
    """PCKh@threshold (0.5 and 0.1 are usual).

    predicted, truth: (N, 16, 2) pixels; visible: (N, 16) bool; heads: (N,) head sizes in pixels. The mean is over all
    visible joints but pelvis and thorax, so a joint weighs as often as it is visible. Raises DataError for head sizes
    that are not positive or predictions that are not finite.
    """
    visible = np.asarray(visible, dtype=bool)
    _check(np.asarray(predicted), np.asarray(heads))
    distance = np.linalg.norm(np.asarray(predicted, dtype=np.float64) - truth, axis=2)
    right = ((distance / np.asarray(heads)[:, None] <= threshold) & visible).sum(axis=0)
    shown = visible.sum(axis=0)
    counted = np.array([name not in _NOT_IN_MEAN for name in MPII.joints])
    total = int(shown[counted].sum())
    shares = {name: float(r / s) if s else None for name, r, s in zip(MPII.joints, right, shown, strict=True)}
    return PCKh(threshold, shares, float(right[counted].sum() / total) if total else None, len(visible))


def _check(predicted: np.ndarray, heads: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(heads) & (heads > 0)))
    if len(bad):
        raise DataError(f"head size {heads[bad[0]]} of person {bad[0]}", expected="a positive size in pixels")
    bad = np.flatnonzero(~np.isfinite(predicted).all(axis=(1, 2)))
    if len(bad):
        raise DataError(f"prediction of person {bad[0]} is not finite", expected="finite coordinates for every joint")
