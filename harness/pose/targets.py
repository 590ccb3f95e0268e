"""Target encoders: joints in input pixels -> what a network is trained to output.

A Gaussian is the outer product of two axis profiles, so a map costs one multiplication a pixel and no
exponential; only the discs of the combined encoding are pasted patch by patch.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, unknown_name

__all__ = ["ENCODERS", "RADIUS_FACTOR", "combined_radius", "encode"]

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Bool = NDArray[np.bool_]
Size = tuple[int, int]

ENCODERS = ("msra", "unbiased", "udp", "udp_combined", "megvii", "simcc")
RADIUS_FACTOR = 0.0546875  # 3.5 px at 64x48: the disc of the combined UDP encoding


def encode(
    encoder: str,
    joints: NDArray[np.floating],
    visible: NDArray[np.number],
    *,
    input_size: Size,
    heatmap_size: Size,
    sigma: float = 2.0,
    dialect: str = "hrnet",
    blur_kernel: int | None = None,
    split: float = 2.0,
) -> tuple[Float | tuple[Float, Float], Float]:
    """Training target and joint weight, both float32.

    `joints` (..., K, 2) in input pixels, `visible` (..., K) in 0..2; sizes are (height, width), `sigma` is in
    heatmap pixels (`simcc`: in bins). The target is (..., K, h, w); (..., 3K, h, w) for `udp_combined`,
    interleaved (class, dx, dy); for `simcc` the pair (..., K, W * split), (..., K, H * split). The weight
    (..., K) is min(visible, 1), and 0 where the encoder cannot represent the joint. `blur_kernel` is megvii's
    (11 at sigma 2, 17 at sigma 3 unless stated). `dialect` hrnet, mmpose0 or mmpose1 matters to udp_combined
    only: on maps wider than high.

    Raises UserError for an unknown encoder and for shapes that do not fit.
    Source: HRNet card, section D; components card, target encoders.
    """
    if encoder not in ENCODERS:
        what, hint = unknown_name("target encoder", encoder, ENCODERS)
        raise UserError(what, hint=hint)
    points, weight, lead = _flatten(joints, visible)
    if encoder == "simcc":
        pair, weight = _simcc(points, weight, input_size, sigma, split)
        return (pair[0].reshape(*lead, -1), pair[1].reshape(*lead, -1)), weight.reshape(lead)
    if encoder == "udp_combined":
        radius = combined_radius(heatmap_size, dialect)
        maps = _combined(_to_heatmap(points, input_size, heatmap_size, udp=True), weight, heatmap_size, radius)
        return maps.reshape(*lead[:-1], lead[-1] * 3, *heatmap_size), weight.reshape(lead)
    if encoder == "megvii":
        maps, weight = _megvii(points, weight, input_size, heatmap_size, blur_kernel or _kernel_of(sigma))
    else:
        mu = _to_heatmap(points, input_size, heatmap_size, udp=encoder == "udp")
        maps, weight = _gaussian(encoder, mu, weight, heatmap_size, sigma)
    return maps.reshape(*lead, *heatmap_size), weight.reshape(lead)


def combined_radius(heatmap_size: Size, dialect: str) -> float:
    """Disc radius of the combined UDP encoding in heatmap pixels; mmpose 1.x measures the longer side."""
    return RADIUS_FACTOR * (max(heatmap_size) if dialect == "mmpose1" else heatmap_size[0])


def _flatten(joints: NDArray[np.floating], visible: NDArray[np.number]) -> tuple[Double, Float, tuple[int, ...]]:
    points, seen = np.asarray(joints, dtype=np.float64), np.asarray(visible)
    if points.ndim < 2 or points.shape[-1] != 2 or points.shape[:-1] != seen.shape:
        raise UserError(
            f"joints of shape {points.shape} do not go with visibilities of shape {seen.shape}",
            expected="joints (..., K, 2) and visible (..., K)",
        )
    return points.reshape(-1, 2), np.minimum(seen, 1).astype(np.float32).reshape(-1), seen.shape


def _to_heatmap(points: Double, input_size: Size, heatmap_size: Size, *, udp: bool) -> Double:
    # UDP measures a picture by the distance of its outer pixel centres, hence one less on both sides
    less = 1 if udp else 0
    ratio = [(h - less) / (i - less) for h, i in zip(heatmap_size, input_size)]
    return points * np.array(ratio[::-1])


def _rounded(mu: Double) -> Double:
    # QUIRK: int() truncates towards zero, so that -1 < mu < 0 rounds to 0; every code line has it
    return np.trunc(mu + 0.5)


def _in_reach(centre: Double, weight: Float, size: Size, reach: float) -> Float:
    """Weights with 0 where the window centre +- reach misses the map.

    QUIRK: the window is taken one pixel too far on the lower side (`br < 0`, where br is exclusive), so a
    joint just outside keeps its weight although nothing of it is drawn; published models were trained so.
    """
    outside = (centre - reach >= np.array(size[::-1])) | (centre + reach + 1 < 0)
    return np.where(outside.any(axis=-1), np.float32(0), weight)


def _gaussian(encoder: str, mu: Double, weight: Float, size: Size, sigma: float) -> tuple[Float, Float]:
    """msra: rounded centre, 3 sigma window; unbiased: true centre, no window; udp: true centre, window."""
    reach = 3 * sigma
    window = mu if encoder == "unbiased" else _rounded(mu)
    weight = _in_reach(window, weight, size, reach)
    centre = window if encoder == "msra" else mu
    x, y = (
        _profile(centre[:, axis], None if encoder == "unbiased" else window[:, axis], length, sigma, weight > 0.5)
        for axis, length in enumerate(size[::-1])
    )
    return y[:, :, None] * x[:, None, :], weight


def _profile(centre: Double, window: Double | None, length: int, sigma: float, drawn: Bool) -> Float:
    """(N, length): the Gaussian along one axis, cut to 3 sigma around `window`, zero where not drawn."""
    grid = np.arange(length)
    values = np.exp(-((grid - centre[:, None]) ** 2) / (2 * sigma**2))
    kept = drawn[:, None]
    if window is not None:
        kept = kept & (np.abs(grid - window[:, None]) <= 3 * sigma)
    return np.where(kept, values, 0.0).astype(np.float32)


def _combined(mu: Double, weight: Float, size: Size, radius: float) -> Float:
    """(N, 3, h, w): disc, and the offsets to the joint in radii inside it; no test against the map's edge."""
    maps = np.zeros((len(mu), 3, *size), dtype=np.float32)
    for n in np.flatnonzero((weight > 0.5) & np.isfinite(mu).all(axis=-1)):
        x, y = (_span(mu[n, axis], radius, length) for axis, length in enumerate(size[::-1]))
        if not (x.size and y.size):
            continue
        dx, dy = np.meshgrid((mu[n, 0] - x) / radius, (mu[n, 1] - y) / radius)
        inside = dx**2 + dy**2 <= 1
        maps[n, :, y[0] : y[-1] + 1, x[0] : x[-1] + 1] = inside * np.stack([np.ones_like(dx), dx, dy])
    return maps


def _span(centre: float, radius: float, length: int) -> NDArray[np.int64]:
    first, last = max(0, int(np.ceil(centre - radius))), min(length - 1, int(np.floor(centre + radius)))
    return np.arange(first, last + 1)


def _kernel_of(sigma: float) -> int:
    """The odd kernel that goes with a sigma: 11 with 2, 17 with 3."""
    return max(3, 2 * round((6 * sigma - 2) / 2) + 1)


def _megvii(points: Double, weight: Float, input_size: Size, size: Size, kernel: int) -> tuple[Float, Float]:
    """A blurred one-hot, 255 at the joint."""
    # QUIRK: truncated without the + 0.5 of msra; the decoder adds half a pixel back
    at = np.trunc(_to_heatmap(points, input_size, size, udp=False))
    inside = ((at >= 0) & (at < np.array(size[::-1]))).all(axis=-1)
    weight = np.where(inside, weight, np.float32(0))
    drawn = (weight > 0.5)[:, None]
    cell = np.where(drawn, at, 0).astype(np.int64)
    x, y = (np.where(drawn, _blurred_impulses(n, kernel)[cell[:, a]], np.float32(0)) for a, n in enumerate(size[::-1]))
    return y[:, :, None] * (np.float32(255) * x)[:, None, :], weight


@lru_cache(maxsize=16)
def _blurred_impulses(length: int, kernel: int) -> Float:
    """(length, length): row i is a one-hot at i after the blur, divided by its value at i.

    QUIRK: the reflected border makes the value next to an edge exceed that at the edge's joint (up to 280 of
    255).
    """
    taps = cv2.getGaussianKernel(kernel, 0, cv2.CV_32F)
    rows = cv2.sepFilter2D(np.eye(length, dtype=np.float32), -1, taps, np.ones(1, dtype=np.float32))
    return np.asarray(rows / np.diagonal(rows)[:, None], dtype=np.float32)


def _simcc(
    points: Double, weight: Float, input_size: Size, sigma: float, split: float
) -> tuple[tuple[Float, Float], Float]:
    """One normalised Gaussian an axis, centred at the nearest bin."""
    bins = (int(input_size[0] * split), int(input_size[1] * split))
    centre = np.rint(points * split)
    weight = _in_reach(centre, weight, bins, 3 * sigma)
    peak = np.float32(1 / (sigma * np.sqrt(2 * np.pi)))
    x, y = (peak * _profile(centre[:, a], None, n, sigma, weight > 0.5) for a, n in enumerate(bins[::-1]))
    return (x, y), weight
