"""Uncertainty of AP and PCKh: images are drawn again, persons of an image together; matching is done once, before.

Percentile and bias-corrected accelerated (BCa) intervals: Efron and Tibshirani, An Introduction to the Bootstrap,
1993, chapters 13 and 14. Sign-flip permutation and Holm's correction (Scandinavian Journal of Statistics 6, 1979) for
differences between two sets of predictions on the same images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr, ndtri

from harness.accuracy.ap import Curves
from harness.accuracy.checks import differing_images
from harness.accuracy.pck import Shares
from harness.accuracy.scored import Scored, curves_of, side_by_side
from harness.errors import DataError

__all__ = ["FEW_IMAGES", "Difference", "Interval", "different_ground", "holm", "image_weights", "interval", "intervals",
           "paired_difference", "resample", "weighted"]  # fmt: skip

FEW_IMAGES = 30
_JACKKNIFE_GROUPS = 200  # the skewness of influences adds up over groups, so blocks of images estimate it as well
Progress = Callable[[], None]


@dataclass(frozen=True)
class Interval:
    """A two-sided interval; `sd` of the resamples; `undefined`: resamples in which nobody of that kind was drawn."""

    level: float
    percentile: tuple[float, float]
    bca: tuple[float, float]
    sd: float
    undefined: int = 0

    def to_dict(self) -> dict[str, object]:
        return {
            "level": self.level,
            "percentile": list(self.percentile),
            "bca": list(self.bca),
            "sd": self.sd,
            "undefined": self.undefined,
        }


@dataclass(frozen=True)
class Difference:
    """First minus second on the same images: value, interval, p by permutation, p after Holm's correction."""

    value: float
    interval: Interval | None
    p: float
    p_holm: float

    def to_dict(self) -> dict[str, object]:
        return {
            "value": self.value,
            "interval": self.interval.to_dict() if self.interval else None,
            "p": self.p,
            "p_holm": self.p_holm,
        }


def image_weights(num_images: int, n: int, seed: int) -> np.ndarray:
    """(n, I) int64: how often each image is drawn in each of n resamples; depends on these three numbers only."""
    draws = np.random.default_rng(seed).integers(num_images, size=(n, num_images))
    return np.stack([np.bincount(row, minlength=num_images) for row in draws])


def resample(matches: Scored, n: int, seed: int, *, progress: Progress | None = None) -> np.ndarray:
    """(n, S) statistics of n image-level resamples, in the order of `ap.STAT_NAMES`."""
    return weighted([curves_of(matches)], image_weights(matches.num_images, n, seed), progress)


def intervals(
    matches: Scored, n: int = 1000, seed: int = 0, *, level: float = 0.95, progress: Progress | None = None
) -> dict[str, Interval | None]:
    """An interval for each statistic; None where the statistic, or half of its resamples, is undefined."""
    curves = curves_of(matches)
    value = curves.stats(np.ones(matches.num_images))
    samples = weighted([curves], image_weights(matches.num_images, n, seed), progress)
    jackknife = _jackknife(curves, seed, progress)
    return {
        name: interval(value[i], samples[:, i], jackknife[:, i], level=level) for i, name in enumerate(curves.names)
    }


def interval(value: float, samples: np.ndarray, jackknife: np.ndarray, *, level: float = 0.95) -> Interval | None:
    """The interval of `value` from resampled (n,) and jackknifed (m,) values; nan marks undefined ones."""
    defined = samples[np.isfinite(samples)]
    if not np.isfinite(value) or len(defined) < max(2, len(samples) / 2):
        return None
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    low, high = np.quantile(defined, tails)
    bca_low, bca_high = np.quantile(defined, _bca_tails(value, defined, jackknife, tails))
    sd = float(np.std(defined, ddof=1))
    return Interval(
        level, (float(low), float(high)), (float(bca_low), float(bca_high)), sd, len(samples) - len(defined)
    )


def paired_difference(
    a: Scored, b: Scored, *, n: int = 1000, seed: int = 0, level: float = 0.95, progress: Progress | None = None
) -> dict[str, Difference | None]:
    """a minus b for each statistic; None where it is undefined. Raises DataError when the images differ.

    The interval weights both with the same draws. p: share of n random exchanges of a's and b's poses, image by image,
    whose difference is at least as large (two-sided, the observed one counted; so never below 1 / (n + 1)).
    """
    _check_same_ground(a, b)
    first, second = curves_of(a), curves_of(b)
    unit = np.ones(a.num_images)
    value = first.stats(unit) - second.stats(unit)
    weights = image_weights(a.num_images, n, seed)
    samples = weighted([first], weights, progress) - weighted([second], weights, progress)
    jackknife = _jackknife(first, seed, progress) - _jackknife(second, seed, progress)
    exchanged = _exchange(a, b, n, seed + 1, progress)
    out: dict[str, Difference | None] = {}
    for i, name in enumerate(first.names):
        if np.isnan(value[i]):
            out[name] = None
            continue
        p = _p_value(value[i], exchanged[:, i])
        out[name] = Difference(float(value[i]), interval(value[i], samples[:, i], jackknife[:, i], level=level), p, p)
    return out


def holm(pvalues: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the order given: step-down, monotone, at most 1."""
    p = np.asarray(pvalues, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    out = np.empty_like(p)
    out[order] = adjusted
    return out.tolist()


def corrected(families: Sequence[dict[str, Difference | None]]) -> list[dict[str, Difference | None]]:
    """Holm's correction of each statistic over all the sets it was compared with."""
    result = [dict(family) for family in families]
    for name in result[0] if result else ():
        present = [(family, d) for family in result if (d := family[name]) is not None]
        for (family, d), p in zip(present, holm([d.p for _, d in present]), strict=True):
            family[name] = replace(d, p_holm=p)
    return result


def weighted(curves: Sequence[Curves | Shares], weights: np.ndarray, progress: Progress | None = None) -> np.ndarray:
    """(n, S) statistics of all `curves` side by side, for n weightings (n, I); `progress` is called after each."""
    many = min(c.at_once for c in curves)
    out = np.empty((len(weights), sum(len(c.names) for c in curves)))
    for start in range(0, len(weights), many):
        some = weights[start : start + many]
        out[start : start + many] = np.concatenate([c.stats(some) for c in curves], axis=1)
        if progress:
            for _ in some:
                progress()
    return out


def _jackknife(curves: Curves | Shares, seed: int, progress: Progress | None) -> np.ndarray:
    """(m, S): each image left out in turn, or each of 200 random blocks of images when there are more."""
    m = min(curves.num_images, _JACKKNIFE_GROUPS)
    block = np.random.default_rng(seed).permutation(curves.num_images) % m
    return weighted([curves], np.stack([(block != i).astype(np.int64) for i in range(m)]), progress)


def _bca_tails(value: float, samples: np.ndarray, jackknife: np.ndarray, tails: np.ndarray) -> np.ndarray:
    """The two quantiles of the resamples that BCa reads (Efron and Tibshirani, equations 14.9 to 14.15)."""
    # ties count half, so that a statistic that cannot vary keeps the plain quantiles
    below = np.mean(samples < value) + 0.5 * np.mean(samples == value)
    bias = ndtri(np.clip(below, 0.5 / len(samples), 1 - 0.5 / len(samples)))
    known = jackknife[np.isfinite(jackknife)]
    deviations = known.mean() - known if len(known) else np.zeros(1)
    spread = np.sum(deviations**2)
    acceleration = np.sum(deviations**3) / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = bias + ndtri(tails)
    # beyond its pole the formula would turn round; there the quantile is the outermost one
    stretched = np.maximum(1 - acceleration * shifted, 1e-12)
    return ndtr(bias + shifted / stretched)


def different_ground(a: Scored, b: Scored) -> str:
    """What keeps two sets of matches from being compared image by image; empty when nothing does."""
    what = differing_images(a.image_ids.tolist(), b.image_ids.tolist())
    if not what and (a.evaluator != b.evaluator or not np.array_equal(a.positives, b.positives)):
        what = "the persons to find differ"
    return what


def _check_same_ground(a: Scored, b: Scored) -> None:
    what = different_ground(a, b)
    if what:
        raise DataError(
            f"the two sets were scored on different ground: {what}",
            expected="the same images, persons and evaluator for both",
            hint="evaluate both with the same annotations and restrict both to the images they share",
        )


def _exchange(a: Scored, b: Scored, n: int, seed: int, progress: Progress | None) -> np.ndarray:
    """(n, S) differences after exchanging, in each image with probability one half, a's poses and b's.

    Both sets are put into one, as images 0..I-1 and I..2I-1; an exchange is then a weight of 0 or 1 for each.
    """
    count, both = a.num_images, curves_of(side_by_side(a, b))
    keep = np.random.default_rng(seed).integers(2, size=(n, count))
    first = weighted([both], np.concatenate((keep, 1 - keep), axis=1), progress)
    return first - weighted([both], np.concatenate((1 - keep, keep), axis=1), progress)


def _p_value(value: float, exchanged: np.ndarray) -> float:
    # exchanging everything must count as equal although it is summed in another order
    as_large = np.sum(np.abs(exchanged) >= abs(value) - 1e-12)
    return float((1 + as_large) / (1 + len(exchanged)))
