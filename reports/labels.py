"""Where labels go: beside their points, over no other label, point or bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["Box", "place"]

_GAP = 4.0
_RADII = (8.0, 16.0, 28.0, 42.0, 60.0, 84.0, 116.0)
_DIRECTIONS = (
    (1, 1), (1, -1), (-1, 1), (-1, -1), (0, 1), (0, -1), (1, 0), (-1, 0),
    (2, 1), (2, -1), (-2, 1), (-2, -1), (1, 2), (1, -2), (-1, 2), (-1, -2),
)  # fmt: skip
_STEP = 12.0
_SPARSE = 500  # with more boxes than these there is hardly a free place, and looking for it takes long


class Box(NamedTuple):
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float


def place(
    anchors: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    *,
    hard: Sequence[Box],
    soft: Sequence[Box],
    bounds: Box,
) -> list[Box | None]:
    """A box for each label, in order of priority; None where there is no room.

    `anchors` (N) points and `sizes` (N) width and height of their labels, in pixels. No box overlaps another or a
    `hard` one, or leaves `bounds`; among the free places around its point that with the least `soft` overlaps, then the
    nearest, is taken; where all of these are taken, the nearest free one anywhere.
    """
    taken = np.array(hard, dtype=float).reshape(-1, 4)
    avoided = np.array(soft, dtype=float).reshape(-1, 4)
    placed: list[Box | None] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        boxes = _free(_candidates(anchor, size), taken, bounds)
        if not len(boxes) and len(taken) < _SPARSE:
            boxes = _free(_anywhere(anchor, size, bounds), taken, bounds)[:1]
        if not len(boxes):
            placed.append(None)
            continue
        best = boxes[int(np.argmin(_hits(boxes, avoided).sum(axis=1)))]  # the first of equals is the nearest
        placed.append(Box(*best.tolist()))
        taken = np.vstack([taken, best + np.array([-_GAP, -_GAP, _GAP, _GAP]) / 2])
    return placed


def _candidates(anchor: tuple[float, float], size: tuple[float, float]) -> np.ndarray:
    """(C, 4) boxes around the anchor, from near to far."""
    (x, y), (width, height) = anchor, size
    boxes = []
    for radius in _RADII:
        for dx, dy in _DIRECTIONS:
            away = radius / np.hypot(dx, dy)
            left = x + dx * away - (width if dx < 0 else width / 2 if dx == 0 else 0)
            bottom = y + dy * away - (height if dy < 0 else height / 2 if dy == 0 else 0)
            boxes.append((left, bottom, left + width, bottom + height))
    return np.array(boxes)


def _anywhere(anchor: tuple[float, float], size: tuple[float, float], bounds: Box) -> np.ndarray:
    """(C, 4) boxes all over the bounds, from near to far."""
    lefts, bottoms = (
        np.arange(low, high, _STEP) for low, high in ((bounds.left, bounds.right), (bounds.bottom, bounds.top))
    )
    corners = np.stack(np.meshgrid(lefts, bottoms), axis=-1).reshape(-1, 2)
    away = np.hypot(*(corners + np.array(size) / 2 - np.array(anchor)).T)
    near = corners[np.argsort(away, kind="stable")]
    return np.hstack([near, near + np.array(size)])


def _free(boxes: np.ndarray, taken: np.ndarray, bounds: Box) -> np.ndarray:
    """Those inside the bounds that overlap nothing taken, in their order."""
    return boxes[~_hits(boxes, taken).any(axis=1) & _inside(boxes, bounds)]


def _hits(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(C, M) bool: which boxes overlap which others."""
    a, b = boxes[:, None], others[None]
    return (a[..., 0] < b[..., 2]) & (b[..., 0] < a[..., 2]) & (a[..., 1] < b[..., 3]) & (b[..., 1] < a[..., 3])


def _inside(boxes: np.ndarray, bounds: Box) -> np.ndarray:
    low, high = np.array(bounds[:2]), np.array(bounds[2:])
    return np.logical_and((boxes[:, :2] >= low).all(axis=1), (boxes[:, 2:] <= high).all(axis=1))
