"""Flip test: what a network writes for the mirrored image, turned back, and the average of both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError
from harness.pose.skeletons import Skeleton

__all__ = ["average", "flip_back"]


def flip_back(heatmaps: Any, mirror: Skeleton | Sequence[int] | NDArray[np.int64], *, shift: bool) -> Any:
    """The maps of the mirrored image in the frame of the image itself; the same type and shape, a copy.

    `heatmaps` (B, K, h, w), torch or NumPy; (B, 3K, h, w) for the combined UDP maps (class, dx, dy
    interleaved), whose x offsets change sign; the pair (x bins, y bins) for simcc. `mirror` is a skeleton or
    its `flip_order` (K,). `shift` moves the result right by one column, as biased codecs need; column 0 is
    kept.

    Raises UserError if the channels are not those of the skeleton. Source: HRNet card G1.
    """
    order = (mirror.flip_order if isinstance(mirror, Skeleton) else np.asarray(mirror)).tolist()
    if isinstance(heatmaps, (tuple, list)):
        x_bins, y_bins = heatmaps
        return flip_back(x_bins, order, shift=shift), y_bins[:, order]
    channels = heatmaps.shape[1]
    combined = channels == 3 * len(order)
    if combined:
        order = [3 * joint + part for joint in order for part in range(3)]
    elif channels != len(order):
        raise UserError(f"maps of {channels} channels cannot be mirrored with {len(order)} joints", expected="K or 3K")
    swapped = heatmaps[:, order]
    back = np.flip(swapped, -1).copy() if isinstance(swapped, np.ndarray) else swapped.flip(-1)
    if combined:
        back[:, 1::3] *= -1
    return _shifted(back) if shift else back


def average(plain: Any, back: Any) -> Any:
    """Mean of the maps of an image and those of its mirror image, turned back; of pairs the two means."""
    if isinstance(plain, (tuple, list)):
        return tuple(average(a, b) for a, b in zip(plain, back))
    return (plain + back) * 0.5


def _shifted(maps: Any) -> Any:
    # QUIRK: column 0 stays in place and so appears twice; a shift in place would smear it on CPU
    out = maps.copy() if isinstance(maps, np.ndarray) else maps.clone()
    out[..., 1:] = maps[..., :-1]
    return out
