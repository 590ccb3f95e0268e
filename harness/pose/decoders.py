"""Heatmaps -> joints in heatmap pixels -> joints in image pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import UserError, unknown_name
from harness.pose import peaks, refine

__all__ = ["DECODERS", "DIALECTS", "decode", "non_finite", "to_image"]

Float = NDArray[np.float32]

PIXEL_STD = 200  # image pixels in one unit of `scale`
DIALECTS = ("hrnet", "mmpose0", "mmpose1")
_PLAIN: dict[str, Callable[[Float, str], tuple[Float, Float]]] = {
    "argmax": peaks.argmax,
    "quarter": peaks.quarter,
}
_BLURRED: dict[str, Callable[[Float, int, str], tuple[Float, Float]]] = {
    "dark": refine.dark,
    "udp_dark": refine.udp_dark,
    "udp_combined": refine.udp_combined,
    "megvii": refine.megvii,
}
DECODERS = (*_PLAIN, *_BLURRED, "simcc", "soft_argmax")


def decode(
    heatmaps: Any,
    decoder: str,
    *,
    dialect: str = "hrnet",
    blur_kernel: int = 11,
    beta: float = 1.0,
    debias: bool = False,
    split: float = 2.0,
) -> tuple[Float, Float]:
    """Coordinates (B, K, 2) in heatmap pixels and scores (B, K), both float32.

    `heatmaps` (B, K, h, w), NumPy or torch on the CPU, any floating type; `udp_combined` takes (B, 3K, h, w),
    `simcc` the pair (B, K, W * split), (B, K, H * split) and answers in input pixels. `dialect` says whose
    border rules hold where code lines differ: hrnet, mmpose0 or mmpose1; decoders HRNet does not have follow
    mmpose 0.x there. `blur_kernel` belongs to dark, udp_dark, udp_combined and megvii; `beta` and `debias` to
    soft_argmax (maps trained with a squared error lie in 0..1 and need a beta of about 20); `split` to
    simcc.

    Raises UserError for an unknown decoder or dialect, an even kernel, maps of the wrong shape. Values that
    are not finite are not looked for: see `non_finite`. Source: HRNet card G2 and G3, ViTPose card 5,
    components card.
    """
    _check(decoder, dialect, blur_kernel)
    if decoder == "simcc":
        x_bins, y_bins = (_array(a, 3, decoder) for a in _pair(heatmaps))
        return peaks.simcc(x_bins, y_bins, split, dialect)
    maps = _array(heatmaps, 4, decoder)
    if decoder == "soft_argmax":
        return peaks.expectation(maps, beta, debias)
    if decoder in _PLAIN:
        return _PLAIN[decoder](maps, dialect)
    return _BLURRED[decoder](maps, blur_kernel, dialect)


def to_image(
    coords: ArrayLike, centers: ArrayLike, scales: ArrayLike, heatmap_size: tuple[int, int], *, udp: bool
) -> Float:
    """Heatmap pixels (B, K, 2) -> image pixels (B, K, 2) float32.

    `centers`, `scales` (B, 2) of the crops, scale in units of 200 pixels; `heatmap_size` (height, width), the
    input size for simcc. UDP measures between outer pixel centres (size - 1). Source: HRNet card G4, ViTPose
    card 5d.
    """
    sides = np.asarray(scales, dtype=np.float64)[:, None] * PIXEL_STD
    cells = np.array(heatmap_size[::-1], dtype=np.float64) - (1 if udp else 0)
    middle = np.asarray(centers, dtype=np.float64)[:, None]
    return (np.asarray(coords) * (sides / cells) + middle - sides / 2).astype(np.float32)


def non_finite(heatmaps: Any) -> NDArray[np.int64]:
    """(n, 2) indices (person, joint) of maps that hold nan or inf; of a simcc pair those of either axis."""
    parts = heatmaps if isinstance(heatmaps, (tuple, list)) else (heatmaps,)
    finite = [np.isfinite(a).all(axis=tuple(range(2, a.ndim))) for a in map(_to_numpy, parts)]
    return np.argwhere(~np.logical_and.reduce(finite))


def _check(decoder: str, dialect: str, blur_kernel: int) -> None:
    for kind, name, known in (("decoder", decoder, DECODERS), ("dialect", dialect, DIALECTS)):
        if name not in known:
            what, hint = unknown_name(kind, name, known)
            raise UserError(what, hint=hint)
    if decoder in _BLURRED and (blur_kernel < 1 or blur_kernel % 2 == 0):
        raise UserError(f"blur_kernel is {blur_kernel}", expected="an odd number of heatmap pixels, such as 11")


def _pair(heatmaps: Any) -> tuple[Any, Any]:
    if not isinstance(heatmaps, (tuple, list)) or len(heatmaps) != 2:
        raise UserError(
            f"simcc was handed {type(heatmaps).__name__}",
            expected="the pair of x bins (B, K, n) and y bins (B, K, m)",
        )
    return heatmaps[0], heatmaps[1]


def _to_numpy(values: Any) -> Float:
    if hasattr(values, "detach"):  # torch, whose bfloat16 NumPy cannot read
        values = values.detach().float().cpu().numpy()
    return np.asarray(values, dtype=np.float32)


def _array(values: Any, ndim: int, decoder: str) -> Float:
    array = np.ascontiguousarray(_to_numpy(values))
    if array.ndim != ndim or (decoder == "udp_combined" and array.shape[1] % 3):
        shape = {"simcc": "(B, K, bins)", "udp_combined": "(B, 3K, h, w)"}.get(decoder, "(B, K, h, w)")
        raise UserError(f"{decoder} was handed an array of shape {array.shape}", expected=shape)
    return array
