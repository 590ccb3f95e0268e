"""Decoders that read the maps as they are: arg max, quarter offset, per-axis bins, expectation.

All take float32 maps (B, K, h, w) and give coordinates (B, K, 2) in heatmap pixels and scores (B, K).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["argmax", "blank", "expectation", "peaks", "quarter", "quarter_offsets", "simcc"]

Float = NDArray[np.float32]
Bool = NDArray[np.bool_]


def peaks(maps: Float) -> tuple[Float, Float]:
    """Place and value of the maximum of each map, the first in raster order."""
    B, K, h, w = maps.shape
    flat = maps.reshape(B, K, h * w)
    at = flat.argmax(axis=-1)
    scores = np.take_along_axis(flat, at[..., None], axis=-1)[..., 0]
    return np.stack([at % w, at // w], axis=-1).astype(np.float32), scores


def blank(coords: Float, scores: Float, place: float) -> Float:
    """Coordinates with `place` where the maximum is not positive: such a map shows no joint."""
    return np.where((scores <= 0)[..., None], np.float32(place), coords)


def argmax(maps: Float, dialect: str) -> tuple[Float, Float]:
    """The pixel of the maximum; without a positive one (0, 0) in HRNet's code and (-1, -1) in mmpose's."""
    coords, scores = peaks(maps)
    return blank(coords, scores, 0.0 if dialect == "hrnet" else -1.0), scores


def quarter(maps: Float, dialect: str) -> tuple[Float, Float]:
    """The maximum moved by a quarter pixel towards its higher neighbour, on each axis (HRNet card G3)."""
    coords, scores = argmax(maps, dialect)
    return coords + quarter_offsets(maps, coords, dialect), scores


def quarter_offsets(maps: Float, coords: Float, dialect: str) -> Float:
    """(B, K, 2): -0.25, 0 or 0.25 an axis.

    QUIRK: 1 < x excludes the second pixel too, not only the border. HRNet and mmpose 0.x move neither axis
    unless both are inside; mmpose 1.x asks the moved axis only, the other one has to be off the first row or
    column.
    """
    x, y = coords[..., 0].astype(np.int64), coords[..., 1].astype(np.int64)
    h, w = maps.shape[-2:]
    inside_x, inside_y = (x > 1) & (x < w - 1), (y > 1) & (y < h - 1)
    if dialect == "mmpose1":
        inside_x, inside_y = inside_x & (y > 0), inside_y & (x > 0)
    else:
        inside_x = inside_y = inside_x & inside_y
    moved_x = _read(maps, x + 1, y) - _read(maps, x - 1, y)
    moved_y = _read(maps, x, y + 1) - _read(maps, x, y - 1)
    signs = np.stack([np.sign(moved_x) * inside_x, np.sign(moved_y) * inside_y], axis=-1)
    return np.float32(0.25) * signs.astype(np.float32)


def _read(maps: Float, x: NDArray[np.int64], y: NDArray[np.int64]) -> Float:
    B, K, h, w = maps.shape
    row, joint = np.ogrid[:B, :K]
    return maps[row, joint, y.clip(0, h - 1), x.clip(0, w - 1)]


def simcc(x_bins: Float, y_bins: Float, split: float, dialect: str) -> tuple[Float, Float]:
    """Input pixels from per-axis bins (B, K, W * split) and (B, K, H * split); score: the smaller maximum.

    mmpose puts joints without a positive score to bin -1; otherwise negative logits are as good as any.
    """
    coords = np.stack([x_bins.argmax(axis=-1), y_bins.argmax(axis=-1)], axis=-1).astype(np.float32)
    scores = np.minimum(x_bins.max(axis=-1), y_bins.max(axis=-1))
    if dialect != "hrnet":
        coords = blank(coords, scores, -1.0)
    return coords / np.float32(split), scores


def expectation(maps: Float, beta: float, debias: bool) -> tuple[Float, Float]:
    """Mean place under softmax(beta * map); the score is the maximum of the map.

    `debias` takes out the pull towards the centre that the background of the softmax exerts:
    x <- C / (C - 1) * (x - 1 / (2 C)) on coordinates in 0..1, C the sum of exp(map).
    """
    B, K, h, w = maps.shape
    scores = maps.reshape(B, K, h * w).max(axis=-1)
    prob = np.exp(beta * (maps - scores[..., None, None]))
    prob /= prob.sum(axis=(-2, -1), keepdims=True)
    coords = np.stack([prob.sum(axis=-2) @ np.arange(w), prob.sum(axis=-1) @ np.arange(h)], axis=-1)
    if debias:
        total = np.exp(maps - scores[..., None, None]).sum(axis=(-2, -1), dtype=np.float64)
        inverse = (np.exp(-scores.astype(np.float64)) / total)[..., None]  # 1 / C, which cannot overflow for big maps
        coords = (coords - inverse / 2 * np.array([w, h])) / (1 - inverse)
    return coords.astype(np.float32), scores
