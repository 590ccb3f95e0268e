"""What each factor of an ablation does to AP: paired differences to a base, with intervals over images and seeds.

Every cell is measured on the same resamples of images (`harness.accuracy.bootstrap.image_weights`), so AP is computed
once for each cell and resample, and each difference, mean over seeds or mean over settings is a linear combination of
those numbers: paired, because whatever a drawn image does, it does to both sides.

Seeds. Where networks were trained with S > 1 seeds, each resample also draws S - 1 of the seeds with replacement, the
same ones on both sides of a difference, as it draws the same images. Drawing S of S would understate the variance of
a mean over seeds by the factor (S - 1) / S; S - 1 draws give it without bias (Rao and Wu, JASA 83, 1988).

Intervals are 95 % percentile intervals. p is what inverts them: twice the smaller share of resamples on one side of
zero, the observed difference counted once; corrected after Holm within one list of differences.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from harness.accuracy.bootstrap import different_ground, holm, resample
from harness.accuracy.scored import Scored, headline
from harness.errors import DataError

__all__ = ["Ablation", "Draws", "Effect", "Estimate", "Lead", "Outcome", "Setting", "ablation", "lead"]

Levels = Mapping[str, Any]
Progress = Callable[[], None]
_TAILS = (0.025, 0.975)


@dataclass(frozen=True)
class Outcome:
    """One scored cell: the value of each factor, the seed of its training, and its matches."""

    levels: Levels
    seed: int
    matches: Scored


@dataclass(frozen=True)
class Estimate:
    """A number in units of AP 0..1 with its interval; bounds are None when there were no, or too few, resamples,
    `value` where AP is not defined (nobody to find).
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None


@dataclass(frozen=True)
class Setting:
    """One combination of levels: AP as the mean over its seeds, and its difference to the base (None for the base)."""

    levels: Levels
    changed: tuple[str, ...]
    seeds: tuple[int, ...]
    ap: Estimate
    difference: Estimate | None = None


@dataclass(frozen=True)
class Effect:
    """Main effect: level minus base level of one factor, mean over `over` settings of the other factors."""

    factor: str
    level: Any
    base: Any
    over: int
    estimate: Estimate


@dataclass(frozen=True)
class Ablation:
    """Settings in their order, the base first, and the main effect of every level of every factor that has two."""

    settings: tuple[Setting, ...]
    effects: tuple[Effect, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


@dataclass(frozen=True)
class Lead:
    """The best AP of several, and by how much it leads each other one; `best` counts from 0."""

    best: int
    differences: tuple[Estimate, ...]
    """best minus each of the others, in their order"""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"best": self.best, "differences": [asdict(d) for d in self.differences]}


class Draws:
    """AP (or PCKh@0.5) of matches and of every resample of their images, computed once for each set of matches.

    n: resamples, 0 for none; progress: called after each set of matches that is asked for.
    """

    def __init__(self, n: int = 1000, seed: int = 0, progress: Progress | None = None) -> None:
        self.n, self.seed, self._progress = n, seed, progress
        self._known: dict[int, tuple[Scored, float, np.ndarray]] = {}

    def of(self, matches: Scored) -> tuple[float, np.ndarray]:
        """AP, and that of each resample (n,)."""
        if id(matches) not in self._known:  # the matches are kept with it, so that their id stays theirs
            samples = resample(matches, self.n, self.seed)[:, 0] if self.n else np.zeros(0)  # the headline comes first
            self._known[id(matches)] = (matches, headline(matches), samples)
        if self._progress:
            self._progress()
        _, value, samples = self._known[id(matches)]
        return value, samples


def lead(several: Sequence[Scored], draws: Draws) -> Lead | None:
    """The best of matches of the same images and persons, one by method; None where fewer than two have an AP, or
    they are of different ones."""
    if any(different_ground(several[0], other) for other in several[1:]):
        return None
    found = [draws.of(matches) for matches in several]
    values, samples = np.array([value for value, _ in found]), [drawn for _, drawn in found]
    if np.isfinite(values).sum() < 2:
        return None
    best = int(np.nanargmax(values))
    others = [i for i in range(len(several)) if i != best]
    differences = [_estimated(float(values[best] - values[i]), samples[best] - samples[i]) for i in others]
    return Lead(best, tuple(_corrected(differences)))


def ablation(outcomes: Sequence[Outcome], base: Levels, draws: Draws) -> Ablation | None:
    """Effects of the factors of `base` over `outcomes`, all scored on the same images; None without a scored base.

    Raises DataError when the images differ.
    """
    _check_same_ground(outcomes)
    table = _Table(outcomes, draws)
    if _key(base) not in table.settings:
        return None
    settings = [table.setting(levels, base) for levels in [base, *(s for s in table.levels if _key(s) != _key(base))]]
    differences = _corrected([s.difference for s in settings if s.difference])
    rest = iter(differences)
    settings = [replace(s, difference=next(rest)) if s.difference else s for s in settings]
    effects = table.effects(base)
    estimates = _corrected([e.estimate for e in effects])
    return Ablation(tuple(settings), tuple(replace(e, estimate=x) for e, x in zip(effects, estimates)))


class _Table:
    """AP of every setting and seed: values (S,) and samples (S, n) by setting, nan where a seed is missing."""

    def __init__(self, outcomes: Sequence[Outcome], draws: Draws) -> None:
        self.seeds = sorted({o.seed for o in outcomes})
        self.levels = list({_key(o.levels): o.levels for o in outcomes}.values())
        self.settings = {_key(levels): i for i, levels in enumerate(self.levels)}
        shape = (len(self.levels), len(self.seeds))
        self.values, self.samples = np.full(shape, np.nan), np.full((*shape, draws.n), np.nan)
        for o in outcomes:
            at = self.settings[_key(o.levels)], self.seeds.index(o.seed)
            self.values[at], self.samples[at] = draws.of(o.matches)
        self.draws = _seed_draws(len(self.seeds), draws.n, draws.seed)

    def setting(self, levels: Levels, base: Levels) -> Setting:
        i, b = self.settings[_key(levels)], self.settings[_key(base)]
        changed = tuple(name for name in base if _key(levels[name]) != _key(base[name]))
        seeds = tuple(s for s, value in zip(self.seeds, self.values[i]) if np.isfinite(value))
        ap = replace(self._estimate([(self.values[i], self.samples[i])]), p=None)
        return Setting(levels, changed, seeds, ap, self._difference([(i, b)]) if changed else None)

    def effects(self, base: Levels) -> list[Effect]:
        """In the order of factors and of levels."""
        found = []
        for factor in base:
            levels = {_key(s[factor]): s[factor] for s in self.levels if _key(s[factor]) != _key(base[factor])}
            for level in levels.values():
                pairs = self._pairs(factor, level, base[factor])
                if pairs:
                    found.append(Effect(factor, level, base[factor], len(pairs), self._difference(pairs)))
        return found

    def _pairs(self, factor: str, level: Any, base: Any) -> list[tuple[int, int]]:
        """Settings that differ in `factor` alone: (with `level`, with `base`), both scored with a common seed."""
        pairs = []
        for i, levels in enumerate(self.levels):
            partner = self.settings.get(_key({**levels, factor: base}))
            if _key(levels[factor]) != _key(level) or partner is None:
                continue
            if np.isfinite(self.values[i] - self.values[partner]).any():
                pairs.append((i, partner))
        return pairs

    def _difference(self, pairs: Sequence[tuple[int, int]]) -> Estimate:
        return self._estimate([(self.values[i] - self.values[j], self.samples[i] - self.samples[j]) for i, j in pairs])

    def _estimate(self, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> Estimate:
        """The mean over parts of their means over seeds; each part has values (S,) and samples (S, n)."""
        once = np.ones((1, len(self.seeds)))
        value = np.mean([_over_seeds(values[:, None], once) for values, _ in parts])
        samples = np.mean([_over_seeds(drawn, self.draws) for _, drawn in parts], axis=0)
        return _estimated(float(value), samples)


def _seed_draws(seeds: int, n: int, seed: int) -> np.ndarray:
    """(n, S) how often each seed is drawn: S - 1 draws of S, the one seed where there is one."""
    if seeds == 1:
        return np.ones((n, 1))
    drawn = np.random.default_rng([seed, seeds]).integers(seeds, size=(n, seeds - 1))
    return (drawn[:, :, None] == np.arange(seeds)).sum(axis=1).astype(np.float64)


def _over_seeds(samples: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """(n,) means of samples (S, n) over the seeds as drawn (n, S), missing ones left out; nan where none is left."""
    weights = np.where(np.isfinite(samples.T), draws, 0.0)
    total = weights.sum(axis=1)
    sums = (weights * np.nan_to_num(samples.T)).sum(axis=1)
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0)


def _estimated(value: float, samples: np.ndarray) -> Estimate:
    if not np.isfinite(value):
        return Estimate(None)
    defined = samples[np.isfinite(samples)]
    if not len(defined) or len(defined) < len(samples) / 2:
        return Estimate(value)
    low, high = np.quantile(defined, _TAILS)
    share = (1 + min(np.sum(defined <= 0), np.sum(defined >= 0))) / (1 + len(defined))
    return Estimate(value, float(low), float(high), min(1.0, float(2 * share)))


def _corrected(estimates: Sequence[Estimate]) -> list[Estimate]:
    """With p after Holm's correction over all that have one."""
    corrected = iter(holm([e.p for e in estimates if e.p is not None]))
    return [e if e.p is None else replace(e, p_holm=next(corrected)) for e in estimates]


def _key(value: Any) -> str:
    """Levels may be lists (a size) and are compared by what they say; 1, 1.0 and true are three levels."""
    return json.dumps(value, sort_keys=True)


def _check_same_ground(outcomes: Sequence[Outcome]) -> None:
    for a, b in itertools.pairwise(o.matches for o in outcomes):
        if different_ground(a, b):
            raise DataError(
                "the cells of an ablation were scored on different images or persons",
                expected="the same ground for all, for paired differences",
            )
