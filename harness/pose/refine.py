"""Decoders that smooth the maps first: DARK, DARK for UDP, UDP's combined maps, megvii.

All take float32 maps and give coordinates (B, K, 2) in heatmap pixels and scores (B, K). Sources: HRNet card
G3, ViTPose card section 5, components card (decoders).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.pose.peaks import argmax, blank, peaks, quarter_offsets
from harness.pose.targets import combined_radius

__all__ = ["dark", "megvii", "udp_combined", "udp_dark"]

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Int = NDArray[np.int64]


def dark(maps: Float, kernel: int, dialect: str) -> tuple[Float, Float]:
    """One Newton step on the logarithm of the smoothed map, from the maximum of the raw one (DARK)."""
    coords, scores = argmax(maps, dialect)
    x, y = coords[..., 0].astype(np.int64), coords[..., 1].astype(np.int64)
    h, w = maps.shape[-2:]
    person, joint = np.nonzero((x > 1) & (x < w - 2) & (y > 1) & (y < h - 2))
    if len(person):
        smooth = _blur_keeping_maximum(maps, kernel)
        px, py = x[person, joint], y[person, joint]
        reach = np.arange(-2, 3)
        around = smooth[
            person[:, None, None],
            joint[:, None, None],
            (py[:, None] + reach)[:, :, None],
            (px[:, None] + reach)[:, None],
        ]
        coords[person, joint] += _dark_step(np.log(np.maximum(around, 1e-10)).astype(np.float64))
    return coords, scores


def _dark_step(p: Double) -> Double:
    """(n, 5, 5) logarithms, rows y, around the maximum -> (n, 2) offsets; zero for a singular Hessian."""
    dx, dy = 0.5 * (p[:, 2, 3] - p[:, 2, 1]), 0.5 * (p[:, 3, 2] - p[:, 1, 2])
    dxx = 0.25 * (p[:, 2, 4] - 2 * p[:, 2, 2] + p[:, 2, 0])
    dyy = 0.25 * (p[:, 4, 2] - 2 * p[:, 2, 2] + p[:, 0, 2])
    dxy = 0.25 * (p[:, 3, 3] - p[:, 1, 3] - p[:, 3, 1] + p[:, 1, 1])
    return _newton(dx, dy, dxx, dxy, dyy)


def _newton(dx: Double, dy: Double, dxx: Double, dxy: Double, dyy: Double) -> Double:
    """(..., 2): minus the inverse Hessian times the gradient; zero where the determinant is."""
    det = dxx * dyy - dxy**2
    over = -1 / np.where(det == 0, np.inf, det)
    return np.stack([(dyy * dx - dxy * dy) * over, (dxx * dy - dxy * dx) * over], axis=-1)


def udp_dark(maps: Float, kernel: int, dialect: str) -> tuple[Float, Float]:
    """DARK as UDP has it: unit-step differences on clipped logarithms, at every joint, without a border test.

    QUIRK: the offset is not capped; on a flat map it may jump by several pixels. mmpose 1.x smooths with a
    zero border and restores the maximum, all others (ViTPose too) with a reflecting border; they differ near
    the edges only.
    """
    coords, scores = peaks(maps)
    coords = blank(coords, scores, -1.0)
    smooth = _blur_keeping_maximum(maps, kernel) if dialect == "mmpose1" else _blur(maps, kernel, cv2.BORDER_DEFAULT)
    values = _around_in_padded_stack(smooth, coords.astype(np.int64))
    c, e, s, se, w, n, nw = np.log(values.clip(0.001, 50)).astype(np.float64)
    tiny = float(np.finfo(np.float32).eps)
    step = _newton(
        0.5 * (e - w),
        0.5 * (s - n),
        e - 2 * c + w + tiny,
        0.5 * (se - e - s + 2 * c - w - n + nw),
        s - 2 * c + n + tiny,
    )
    return (coords + step).astype(np.float32), scores


def _around_in_padded_stack(maps: Float, at: Int) -> Float:
    """(7, B, K): values at the joint and its E, S, SE, W, N, NW neighbours, maps being padded by their edge.

    QUIRK: the published code indexes the flat stack of padded maps. A joint without a maximum, at (-1, -1),
    so reads its W, N and NW neighbours in the joint before it. Here the stack is that of one person: with the
    whole batch, as mmpose 0.x has it, a person's first joint would depend on who else is in the batch.
    """
    B, K, h, w = maps.shape
    row, cells = w + 2, (w + 2) * (h + 2)
    here = np.arange(K) * cells + (at[..., 1] + 1) * row + at[..., 0] + 1
    steps = np.array([0, 1, row, row + 1, -1, -row, -row - 1])
    place = (here + steps[:, None, None]) % (K * cells)
    joint, cell = place // cells, place % cells
    y, x = (cell // row - 1).clip(0, h - 1), (cell % row - 1).clip(0, w - 1)
    return maps[np.arange(B)[:, None], joint, y, x]


def udp_combined(maps: Float, kernel: int, dialect: str) -> tuple[Float, Float]:
    """UDP's combined maps (B, 3K, h, w), (class, dx, dy) interleaved: class maximum plus offset there.

    The class map is smoothed with 2 * kernel + 1, the offsets with kernel; the score is the smoothed maximum.
    """
    B, channels, h, w = maps.shape
    K = channels // 3
    disc = _blur(maps[:, 0::3], 2 * kernel + 1, cv2.BORDER_DEFAULT)
    coords, scores = peaks(disc)
    coords = blank(coords, scores, -1.0)
    # QUIRK: a joint without a maximum, at (-1, -1), reads its offset in the map of the joint before it
    place = coords[..., 0].astype(np.int64) + coords[..., 1].astype(np.int64) * w + np.arange(K) * (h * w)
    place %= K * h * w
    offsets = [
        np.take_along_axis(_blur(maps[:, part::3], kernel, cv2.BORDER_DEFAULT).reshape(B, K * h * w), place, axis=1)
        for part in (1, 2)
    ]
    return coords + np.float32(combined_radius((h, w), dialect)) * np.stack(offsets, axis=-1), scores


def megvii(maps: Float, kernel: int, dialect: str) -> tuple[Float, Float]:
    """Quarter offset on smoothed maps, half a pixel for the truncation of the encoder; score / 255 + 0.5."""
    smooth = _blur_keeping_maximum(maps, kernel)
    coords, scores = peaks(smooth)
    coords = blank(coords, scores, -1.0)
    if dialect == "mmpose1":
        # QUIRK: on an all-zero map its restored maximum is 0 / 0, not <= 0, and the joint stays at (0, 0)
        coords[~maps.any(axis=(-2, -1))] = 0
    x, y = coords[..., 0], coords[..., 1]
    h, w = maps.shape[-2:]
    inside = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)
    # QUIRK: outside the border test even the half pixel is left out, in all code lines
    coords += inside[..., None] * (quarter_offsets(smooth, coords, "mmpose0") + np.float32(0.5))
    return coords, scores / np.float32(255) + np.float32(0.5)


def _blur(maps: Float, kernel: int, border: int) -> Float:
    smooth = np.empty(maps.shape, dtype=np.float32)
    for index in np.ndindex(*maps.shape[:2]):
        cv2.GaussianBlur(maps[index], (kernel, kernel), 0, dst=smooth[index], borderType=border)
    return smooth


def _blur_keeping_maximum(maps: Float, kernel: int) -> Float:
    """Smoothed with a zero border, then scaled to the old maximum; an all-zero map stays zero (not 0 / 0)."""
    smooth = _blur(maps, kernel, cv2.BORDER_CONSTANT)
    new = smooth.max(axis=(-2, -1), keepdims=True)
    return smooth * (maps.max(axis=(-2, -1), keepdims=True) / np.where(new == 0, 1, new))
