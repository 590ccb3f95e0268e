"""What a whole image costs as a function of its persons, and where a one-stage network becomes the cheaper one.

Top-down: detector + persons x (crop + pose). One-stage: trunk, proposals and boxes + persons x pose head. Both are
lines in the number of persons, in multiply-accumulates exactly, in milliseconds fitted to timed calls. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

__all__ = ["Crossing", "Line", "TimedLine", "Timing", "crossing", "fit", "measured_crossing", "timing_of"]

Verdict = Literal["always", "never", "from", "up to"]
_TAILS = (2.5, 97.5)
_LEAST = 3  # calls that a line is drawn through
_STEPS, _CLOSE = 40, 1e-9  # of the reweighting that finds least absolute deviations


class Line(NamedTuple):
    """`fixed` for an image with nobody on it, `each` for every person."""

    fixed: float
    each: float

    def at(self, persons: float) -> float:
        """The cost of an image with that many persons."""
        return self.fixed + self.each * persons


@dataclass(frozen=True)
class Crossing:
    """For which images the one-stage network is cheaper: `always`, `never`, `from` or `up to` so many `persons`."""

    verdict: Verdict
    persons: float | None = None


def crossing(one_stage: Line, top_down: Line) -> Crossing:
    """Where the line of a one-stage network runs below that of a top-down system, for 0 persons and more."""
    ahead = top_down.fixed - one_stage.fixed  # of the one-stage network, on an empty image
    gain = top_down.each - one_stage.each  # with every person
    if gain > 0:
        return Crossing("always") if ahead > 0 else Crossing("from", -ahead / gain)
    if ahead <= 0:
        return Crossing("never")
    return Crossing("always") if gain == 0 else Crossing("up to", ahead / -gain)


@dataclass(frozen=True)
class Timing:
    """S timed calls: `round` (S,), `ms` (S,) and `design` (S, 2), how often the fixed part and how many persons each
    held. `busy`: nearly all were starved of the processor, and all are here."""

    round: np.ndarray
    ms: np.ndarray
    design: np.ndarray
    busy: bool = False

    @property
    def reason(self) -> str:
        """Why no line can be drawn through the calls; empty when one can."""
        used = self.design[:, self.design.any(axis=0)]
        if len(self.ms) < _LEAST:
            return f"{len(self.ms)} timed calls"
        if np.linalg.matrix_rank(used) < used.shape[1]:
            return "every timed image held the same number of persons: their share cannot be told from the image's"
        return ""


def fit(timing: Timing, weights: np.ndarray) -> np.ndarray:
    """(B, 2) fixed and each, for weights (B, S) of the calls: least absolute deviations, as a median is.

    A part that no call had is 0. Iteratively reweighted least squares (Schlossmacher, JASA 68, 1973).
    """
    used = np.flatnonzero(timing.design.any(axis=0))
    x, found = timing.design[:, used], np.zeros((len(weights), 2))
    scale = float(np.median(np.abs(timing.ms))) or 1.0
    w = weights.astype(np.float64)
    for _ in range(_STEPS):
        normal = np.einsum("bs,si,sj->bij", w, x, x) + _CLOSE * np.eye(len(used))
        solved = np.linalg.solve(normal, np.einsum("bs,si,s->bi", w, x, timing.ms)[..., None])[..., 0]
        off = np.abs(timing.ms - solved @ x.T)
        w = weights / np.maximum(off, 1e-6 * scale)
    found[:, used] = solved
    return found


@dataclass(frozen=True)
class TimedLine:
    """A system's milliseconds: what its timed calls give, each part `factors` times, plus `added` (fixed, each) that
    was measured beside. `detector`: another system whose fixed part comes on top."""

    timing: Timing
    factors: tuple[float, float] = (1.0, 1.0)
    added: tuple[float, float] = (0.0, 0.0)
    detector: TimedLine | None = None

    def lines(self, rounds: Mapping[int, np.ndarray]) -> np.ndarray:
        """(B, 2) for B resamples; `rounds` maps each round to how often (B,) it was drawn."""
        weights = np.stack([rounds[int(r)] for r in self.timing.round], axis=1)
        found = fit(self.timing, weights) * np.array(self.factors) + np.array(self.added)
        if self.detector is not None:
            found[:, 0] += self.detector.lines(rounds)[:, 0]
        return found

    @property
    def line(self) -> Line:
        """From all calls."""
        return Line(*map(float, self.lines({r: np.ones(1) for r in self.rounds()})[0]))

    @property
    def busy(self) -> bool:
        """Whether the machine left hardly one call alone."""
        return self.timing.busy or (self.detector is not None and self.detector.busy)

    def rounds(self) -> set[int]:
        """The numbers of the rounds that the calls were made in."""
        own = set(map(int, self.timing.round))
        return own | self.detector.rounds() if self.detector is not None else own


def measured_crossing(one_stage: TimedLine, top_down: TimedLine, *, n: int = 1000, seed: int = 0) -> dict[str, Any]:
    """`crossing` of measured lines, its 95 % percentile interval from `n` resamples of the rounds, and in which share
    of them each verdict came out.

    The same rounds are drawn for both, as they met the same machine. `low` and `high` are the persons from which on
    the one-stage network is cheaper: 0 where it always is, null where it never is however many there are. There is no
    interval, and a `warning`, where the machine was busy.
    """
    busy = one_stage.busy or top_down.busy
    names = sorted(one_stage.rounds() | top_down.rounds())
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=n)
    usable = {number: drawn[:, at] for at, number in enumerate(names)}
    a, b = one_stage.lines(usable), top_down.lines(usable)
    each = [crossing(Line(*map(float, own)), Line(*map(float, other))) for own, other in zip(a, b, strict=True)]
    onsets = np.array([_onset(one) for one in each])
    low, high = (float(np.percentile(onsets, tail, method="nearest")) for tail in _TAILS)
    shares = {verdict: sum(one.verdict == verdict for one in each) / n for verdict in get_args(Verdict)}
    return {
        **asdict(crossing(one_stage.line, top_down.line)),
        "low": None if busy else _finite(low),
        "high": None if busy else _finite(high),
        "warning": "the machine was busy: nearly every call was starved of the processor" if busy else "",
        "shares": shares,
        "resamples": n,
        "seed": seed,
        "unit": "round",
    }


def _onset(one: Crossing) -> float:
    """Persons from which on the one-stage network is cheaper; infinite where no number is enough."""
    if one.verdict == "always":
        return 0.0
    return one.persons if one.verdict == "from" and one.persons is not None else np.inf


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def timing_of(samples: Sequence[Mapping[str, Any]], fixed: Sequence[float], persons: Sequence[float]) -> Timing:
    """The calls of a latency record that were not starved of the processor; where hardly one was not, all of them."""
    every = [(s["round"], s["wall_ms"], f, p) for s, f, p in zip(samples, fixed, persons)]
    kept = [row for row, s in zip(every, samples) if not s["starved"]]
    busy = len(kept) < _LEAST
    table = np.array(every if busy else kept, dtype=np.float64).reshape(-1, 4)
    return Timing(table[:, 0].astype(np.int64), table[:, 1], table[:, 2:], busy)
