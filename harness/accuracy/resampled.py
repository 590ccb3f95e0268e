"""Many figures on the same resamples of images, so that differences between any two of them are paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.accuracy.ap import Curves
from harness.accuracy.bootstrap import weighted

__all__ = ["LEVEL", "MOST_RESAMPLES", "Resampled", "resampled"]

LEVEL = 0.95
MOST_RESAMPLES = 200  # each is dozens of curves; 200 settle the ends of a 95 % interval to about a tenth of its width
Progress = Callable[[], None]


@dataclass(frozen=True)
class Resampled:
    """values: (S,) on all images; samples: (n, S) on resamples; nan where nobody is there to be found."""

    values: np.ndarray
    samples: np.ndarray

    def __sub__(self, other: Resampled) -> Resampled:
        return Resampled(self.values - other.values, self.samples - other.samples)

    def __getitem__(self, chosen: int | Sequence[int] | slice) -> Resampled:
        """The figures chosen; an integer keeps the axis, so that it can be subtracted from several."""
        columns = [chosen] if isinstance(chosen, int) else chosen
        return Resampled(self.values[columns], self.samples[:, columns])

    def row(self, i: int, reason: str = "") -> dict[str, Any]:
        """JSON-ready `value` and `interval`; null with the reason where it is undefined.

        The interval is by percentiles, and null when there are no resamples or fewer than half are defined.
        """
        value, samples = float(self.values[i]), self.samples[:, i]
        if not np.isfinite(value):
            return {"value": None, "interval": None, "reason": reason}
        known = samples[np.isfinite(samples)]
        if len(known) < max(2, len(samples) / 2):
            return {"value": value, "interval": None}
        ends = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
        return {"value": value, "interval": {"level": LEVEL, "percentile": ends, "sd": float(np.std(known, ddof=1))}}


def resampled(curves: Sequence[Curves], weights: np.ndarray, progress: Progress | None = None) -> Resampled:
    """The statistics of all `curves`, one after the other, with every image once and with `weights` (n, I)."""
    once = np.ones((1, curves[0].num_images))
    found = weighted(curves, np.concatenate((once, weights)), progress)
    return Resampled(found[0], found[1:])
