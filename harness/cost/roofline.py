"""Achieved multiply-accumulates per second against what this machine reaches in a plain product and convolution.

A network that seems faster than both was not measured: the clock did not wait, the work was not done, or the count
is wrong. (After Williams, Waterman, Patterson: Roofline, CACM 2009; the roof here is measured, not read off a data
sheet, and memory traffic has no line of its own.)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import torch

__all__ = ["IMPOSSIBLE", "Peak", "Roofline", "machine_peak", "roofline"]

IMPOSSIBLE = "faster than this machine multiplies: check the measurement"
_MARGIN = 1.05  # the peaks are measured too
_SECONDS = 0.5  # for each product


@dataclass(frozen=True)
class Peak:
    """Highest gmacs per second of a square matrix product and of a 3x3 convolution, on `threads` CPU threads."""

    gemm: float
    convolution: float
    dtype: str
    device: str
    threads: int

    @property
    def best(self) -> float:
        """The larger of the two."""
        return max(self.gemm, self.convolution)


@dataclass(frozen=True)
class Roofline:
    """`gmacs_per_second` of a method and its `share` of the peak in its number format; None with the `reason`.

    `warning` is IMPOSSIBLE above 1.05 x every peak that was measured.
    """

    gmacs_per_second: float | None
    share: float | None
    peaks: tuple[Peak, ...] = ()
    warning: str = ""
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def roofline(macs: float | None, milliseconds: float | None, peaks: tuple[Peak, ...], reason: str = "") -> Roofline:
    """`macs` of one call that takes `milliseconds`; `peaks[0]` is that of the run's number format.

    `reason` is why `macs` is None.
    """
    if macs is None or milliseconds is None or milliseconds <= 0:
        return Roofline(None, None, peaks, reason=reason or "no time was measured")
    rate = macs / 1e9 / (milliseconds / 1e3)
    impossible = rate > _MARGIN * max(peak.best for peak in peaks)
    return Roofline(rate, rate / peaks[0].best, peaks, IMPOSSIBLE if impossible else "")


def machine_peak(device: str, dtype: str, threads: int) -> tuple[Peak, ...]:
    """The peaks in `dtype` and in float32, measured once per process (about a second for each)."""
    return tuple(_peak(device, name, threads) for name in dict.fromkeys((dtype, "float32")))


@lru_cache(maxsize=32)
def _peak(device: str, dtype: str, threads: int) -> Peak:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            rates = [_rate(*made, device) for made in (_gemm(device, dtype), _convolution(device, dtype))]
    finally:
        torch.set_num_threads(before)
    return Peak(rates[0], rates[1], dtype, device, threads)


def _gemm(device: str, dtype: str) -> tuple[Callable[[], object], float]:
    """(call, its gmacs): large enough to keep every unit busy, small enough to be repeated."""
    n = 8192 if device.startswith("cuda") else 1024
    a, b = (torch.rand(n, n, device=device, dtype=getattr(torch, dtype)) for _ in range(2))
    return lambda: a @ b, n**3 / 1e9


def _convolution(device: str, dtype: str) -> tuple[Callable[[], object], float]:
    batch, channels, side = (64, 256, 64) if device.startswith("cuda") else (1, 128, 64)
    kind = getattr(torch, dtype)
    image = torch.rand(batch, channels, side, side, device=device, dtype=kind)
    kernel = torch.rand(channels, channels, 3, 3, device=device, dtype=kind)
    macs = batch * channels**2 * 9 * side**2
    return lambda: torch.nn.functional.conv2d(image, kernel, padding=1), macs / 1e9


def _rate(call: Callable[[], object], gmacs: float, device: str) -> float:
    """The best of the repetitions: what else runs on the machine only makes one slower."""
    finish = torch.cuda.synchronize if device.startswith("cuda") else (lambda: None)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < _SECONDS:
        finish()
        start = time.perf_counter()
        call()
        finish()
        best = min(best, time.perf_counter() - start)
    return gmacs / best
