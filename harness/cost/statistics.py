"""Quantiles of latencies with order-statistic intervals, and the test that ends a warm-up. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from scipy.special import bdtr

from harness.words import counted

__all__ = ["Quantile", "kept_median", "quantile", "stationary"]


@dataclass(frozen=True)
class Quantile:
    """A quantile of `n` samples with its interval; `value` None (or bounds None) says `reason`."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    confidence: float = 0.95
    reason: str = ""


def quantile(samples: Sequence[float], q: float, confidence: float = 0.95) -> Quantile:
    """The q-quantile (linear between order statistics) with a distribution-free interval of at least `confidence`.

    Bounds are order statistics x(l), x(u) (counted from 1) with P(l <= Binomial(n, q) <= u - 1) >= confidence and
    equal tails. The median has a value from the first sample on; other quantiles need enough samples that an upper
    bound exists (n = 36 for p90, n = 368 for p99 at 95 %), else value and bounds are None with the reason.
    """
    values = np.sort(np.asarray(samples, dtype=np.float64))
    n = len(values)
    if not n:
        return Quantile(None, None, None, 0, confidence, "no sample was kept")
    ranks = _ranks(n, q, confidence)
    if ranks is None:
        reason = f"{counted(n, 'sample')}; an interval needs {_needed(q, confidence)}"
        value = float(np.quantile(values, q)) if q == 0.5 else None
        return Quantile(value, None, None, n, confidence, reason)
    low, high = ranks
    value = float(np.quantile(values, q))
    return Quantile(value, float(values[low - 1]), float(values[high - 1]), n, confidence)


def _ranks(n: int, q: float, confidence: float) -> tuple[int, int] | None:
    """1-based ranks of the bounds, or None when n samples reach no such interval."""
    tail = (1 - confidence) / 2
    at_most = bdtr(np.arange(n), n, q)  # P(B <= k)
    # largest l with P(B < l) <= tail, smallest u with P(B >= u) <= tail
    low = int(np.searchsorted(at_most, tail, side="right"))
    high = int(np.searchsorted(at_most, 1 - tail, side="left")) + 1
    return (low, high) if low >= 1 and high <= n else None


def _needed(q: float, confidence: float) -> int:
    """Fewest samples with an interval: both extremes must be allowed to be bounds."""
    tail = (1 - confidence) / 2
    return ceil(np.log(tail) / np.log(max(q, 1 - q)) - 1e-12)


def kept_median(kept: Sequence[float], every: Sequence[float]) -> Quantile:
    """The median of the samples that were kept; where none was, that of all, without an interval and with a warning."""
    if kept or not every:
        return quantile(kept, 0.5)
    reason = "the machine was busy: every sample was starved of the processor"
    return replace(quantile(every, 0.5), low=None, high=None, reason=reason)


def stationary(times: Sequence[float], window: int = 5, tolerance: float = 0.05) -> bool:
    """Whether a warm-up has ended: the last `window` calls show no downward trend against those before.

    The medians of the two halves of the last 2 x `window` calls differ by at most `tolerance` of the
    first. Fewer calls than that are not stationary.
    """
    if len(times) < 2 * window:
        return False
    recent = np.asarray(times[-2 * window :], dtype=np.float64)
    before, after = np.median(recent[:window]), np.median(recent[window:])
    return bool(abs(after - before) <= tolerance * before)
