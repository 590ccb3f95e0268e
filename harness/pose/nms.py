"""Person scores and non-maximum suppression between poses of one image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.pose.skeletons import COCO

__all__ = ["oks_matrix", "oks_nms", "rescore", "soft_oks_nms"]

Double = NDArray[np.float64]
Int = NDArray[np.int64]

_MAX_SOFT = 20  # soft NMS keeps as many poses as COCO counts in an image


def oks_matrix(keypoints: ArrayLike, areas: ArrayLike, sigmas: Sequence[float] = COCO.sigmas) -> Double:
    """(N, N) similarity of poses, in 0..1; `keypoints` (N, K, 2 or more) in px, `areas` (N,) in px^2.

    exp(-d^2 / (2 (2 sigma)^2 a)) averaged over all joints, a the mean area of the two; scores of joints play
    no part. Source: HRNet card G7.
    """
    points = np.asarray(keypoints, dtype=np.float64)
    x, y = points[..., 0], points[..., 1]
    area = np.asarray(areas, dtype=np.float64)
    squared = (x[:, None] - x) ** 2 + (y[:, None] - y) ** 2
    mean_area = (area[:, None] + area) / 2 + np.spacing(1)
    variances = (2 * np.asarray(sigmas, dtype=np.float64)) ** 2
    return np.exp(squared * (-0.5 / variances) / mean_area[..., None]).mean(axis=-1)


def oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    threshold: float = 0.9,
    sigmas: Sequence[float] = COCO.sigmas,
) -> Int:
    """Indices of the kept poses of one image, best first; a pose goes if OKS to a kept one > `threshold`.

    Of equal scores the higher index comes first. Shapes as in `oks_matrix`, `scores` (N,). Source: HRNet card
    G7.
    """
    order = np.argsort(np.asarray(scores, dtype=np.float64), kind="stable")[::-1]
    if not len(order):
        return order
    similar = oks_matrix(keypoints, areas, sigmas)[np.ix_(order, order)] > threshold
    alive = np.ones(len(order), dtype=bool)
    for rank, row in enumerate(similar):
        if alive[rank]:
            alive[rank + 1 :] &= ~row[rank + 1 :]
    return order[alive]


def soft_oks_nms(
    keypoints: ArrayLike,
    scores: ArrayLike,
    areas: ArrayLike,
    threshold: float = 0.9,
    sigmas: Sequence[float] = COCO.sigmas,
) -> Int:
    """Indices of at most 20 poses, best first: each chosen pose lowers the rest by exp(-OKS^2 / threshold).

    No pose is cut for its score. Of equal scores the higher index comes first. Source: HRNet card G7.
    """
    left = np.array(scores, dtype=np.float64)
    if not len(left):
        return np.zeros(0, dtype=np.int64)
    decay = np.exp(-(oks_matrix(keypoints, areas, sigmas) ** 2) / threshold)
    kept = np.zeros(min(len(left), _MAX_SOFT), dtype=np.int64)
    for place in range(len(kept)):
        best = len(left) - 1 - int(np.argmax(left[::-1]))
        kept[place] = best
        left *= decay[best]
        left[best] = -np.inf
    return kept


def rescore(joint_scores: ArrayLike, box_scores: ArrayLike, threshold: float = 0.2) -> Double:
    """(N,) person scores: box score x mean of the joint scores strictly above `threshold`, 0 if none is.

    `joint_scores` (N, K), `box_scores` (N,). Source: HRNet card G6.
    """
    joints = np.asarray(joint_scores, dtype=np.float64)
    counted = joints > threshold
    total = np.where(counted, joints, 0).sum(axis=-1)
    return total / np.maximum(counted.sum(axis=-1), 1) * np.asarray(box_scores, dtype=np.float64)
