"""One metric of baseline and candidate -> a verdict. Pure and torch-free; whole runs: harness.gate.runs.

One rule for AP and for time, at a one-sided level of 1 % on each side:
  pass          the interval of the difference excludes a loss as large as the margin (non-inferiority)
  regression    the interval excludes "no loss", and the measured loss exceeds the margin
  inconclusive  neither: the verdict names the smallest loss that would have been called a regression in 9 of 10 cases
A certain loss below the margin is never a regression; a note says that it is certain. Without any change a regression
is called in at most 1 % of comparisons, whatever the noise. Cost is exact: one multiply-accumulate more is a
regression.

AP is paired by image (bootstrap). Time is the ratio to a reference network in the same rounds; its error is that
between runs, which no number of rounds within one run can show, so a term for it is always part of the interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri, stdtrit

from harness.accuracy.ap import summarise
from harness.accuracy.bootstrap import FEW_IMAGES, different_ground, resample
from harness.accuracy.match import Matches
from harness.errors import DataError
from harness.gate.snapshot import Cost

__all__ = ["DRIFT", "OTHER_MACHINE", "Limits", "Verdict", "judge_ap", "judge_cost", "judge_speed"]

DRIFT = 0.015
"""sd of the log ratio between two runs on one machine, beyond what rounds within a run show. 24 runs in processes of
their own, half of them beside a busy core, spread by 1.3 % and 1.6 % (results/reference/gate/selftest.json)."""
OTHER_MACHINE = 0.10
"""sd of the log ratio between machines: another processor favours other layers. An assumption; it is part of the
interval where the baseline comes from another machine, so neither pass nor regression is called within it."""
_BLOCK = 5  # rounds; neighbouring rounds share their disturbance, so blocks of them are the samples
_FEWEST_BLOCKS = 2
_POWER = 0.9


@dataclass(frozen=True)
class Limits:
    """What is tolerated. `margin` in AP of 0 to 1, `tolerance` as a share of time, `level` one-sided on each side."""

    margin: float = 0.002
    tolerance: float = 0.05
    level: float = 0.01
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class Verdict:
    """One metric of one configuration.

    verdict: pass, regression, inconclusive, unmeasured (the candidate lacks what the baseline has) or new (no baseline:
    not judged). Units by metric: ap in 0 to 1 (difference: candidate minus baseline); cost in multiply-accumulates;
    latency_b* as ratio to the reference network (difference: share of the baseline's ratio).
    """

    metric: str
    label: str
    verdict: str
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    smallest_visible_change: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def judge_ap(label: str, baseline: Matches, candidate: Matches, limits: Limits = Limits()) -> Verdict:
    """AP on the same images, paired. DataError when images or persons differ.

    The interval is the percentile interval of the difference over image-level resamples.
    """
    _check_same_ground(label, baseline, candidate)
    before, after = (summarise(m)["AP"] for m in (baseline, candidate))
    if not (np.isfinite(before) and np.isfinite(after)):
        return Verdict("ap", label, "unmeasured", note="AP is not defined: " + summarise(candidate).reasons["AP"])
    draws = [resample(m, limits.resamples, limits.seed)[:, 0] for m in (baseline, candidate)]
    differences = draws[1] - draws[0]
    differences = differences[np.isfinite(differences)]
    low, high = np.quantile(differences, [limits.level, 1 - limits.level])
    loss = before - after
    few = baseline.num_images < FEW_IMAGES
    return Verdict(
        "ap", label, _rule(loss, -high, -low, limits.margin), before, after, after - before, (float(low), float(high)),
        _visible(float(np.std(differences)), limits.margin, -ndtri(limits.level)),
        _join(
            f"warning: {baseline.num_images} images; an interval from fewer than {FEW_IMAGES} is rough" if few else "",
            "warning: the baseline's AP is 0 and cannot become worse" if before == 0 else "",
            "a certain loss, within the margin" if high < 0 and loss < limits.margin else "",
        ),
    )  # fmt: skip


def judge_cost(label: str, baseline: Cost, candidate: Cost) -> Verdict:
    """Multiply-accumulates and parameters, exact."""
    if baseline.macs is None or candidate.macs is None:
        return Verdict("cost", label, "unmeasured", baseline.macs, candidate.macs, note="the record holds no count")
    more = candidate.macs - baseline.macs
    params = (candidate.params or 0) - (baseline.params or 0)
    verdict = "regression" if more > 0 or params > 0 else "pass"
    note = _join(
        f"{params:+,} parameters" if params else "",
        "cheaper: record a new baseline" if more < 0 and params <= 0 else "",
    )
    return Verdict("cost", label, verdict, baseline.macs, candidate.macs, more, (more, more), 1, note)


def judge_speed(
    label: str,
    baseline: Sequence[Sequence[float]],
    candidate: Sequence[Sequence[float]],
    limits: Limits = Limits(),
    *,
    metric: str = "latency_b1",
    drift: float = DRIFT,
    other_machine: str = "",
) -> Verdict:
    """Runs of ratios to the reference network by round. `other_machine` names the baseline's when it is another one.

    A run, of at least two blocks of rounds, is the mean of its blocks' log medians. Its error is the larger of two:
    `drift` with the error of its blocks, and the spread between runs where that is larger and enough were made to tell.
    """
    sides = [[b for run in runs if len(b := _blocks(run)) >= _FEWEST_BLOCKS] for runs in (baseline, candidate)]
    if not all(sides):
        fewest = _FEWEST_BLOCKS * _BLOCK
        return Verdict(metric, label, "unmeasured", note=f"no run of the timer kept {fewest} rounds or more")
    centres = [np.array([blocks.mean() for blocks in side]) for side in sides]
    before, after = (float(c.mean()) for c in centres)
    error, quantile = _error(sides, centres, drift, limits.level)
    if other_machine:
        error = float(np.hypot(error, OTHER_MACHINE))
    slower, reach = after - before, quantile * error
    allowed = np.log1p(limits.tolerance)
    return Verdict(
        metric, label, _rule(slower, slower - reach, slower + reach, allowed),
        float(np.exp(before)), float(np.exp(after)), float(np.expm1(slower)),
        (float(np.expm1(slower - reach)), float(np.expm1(slower + reach))),
        float(np.expm1(_visible(error, allowed, quantile))),
        _join(
            f"baseline from another machine, where ratios differ ({other_machine})" if other_machine else "",
            "certainly slower, within the tolerance" if slower - reach > 0 and slower < allowed else "",
        ),
    )  # fmt: skip


def _rule(loss: float, low: float, high: float, margin: float) -> str:
    """The rule of the module docstring, for a loss with its interval; positive is worse."""
    if high < margin:
        return "pass"
    return "regression" if low > 0 and loss > margin else "inconclusive"


def _visible(error: float, margin: float, quantile: float) -> float:
    """The smallest loss that is called a regression in 9 of 10 cases, under a normal error."""
    return float(max(margin, quantile * error) + ndtri(_POWER) * error)


def _blocks(run: Sequence[float]) -> np.ndarray:
    """Log medians of consecutive blocks of rounds; an incomplete last block joins the one before."""
    values = np.log(np.asarray(run, dtype=np.float64))
    count = len(values) // _BLOCK
    return np.array([np.median(b) for b in np.split(values, _BLOCK * np.arange(1, count))]) if count else np.zeros(0)


def _error(
    sides: Sequence[Sequence[np.ndarray]], centres: Sequence[np.ndarray], drift: float, level: float
) -> tuple[float, float]:
    """Standard error of the difference of the sides' means over runs, and the quantile that its interval takes.

    The spread between runs counts where it is larger than expected, with Student's quantile for its few degrees of
    freedom; two of them at least, as one tells next to nothing.
    """
    within = [float(np.mean([b.var(ddof=1) / len(b) for b in side])) for side in sides]
    expected = sum((drift**2 + w) / len(c) for w, c in zip(within, centres, strict=True))
    freedom = sum(len(c) - 1 for c in centres)
    spread = sum(float(((c - c.mean()) ** 2).sum()) for c in centres) / max(freedom, 1)
    seen = spread * sum(1 / len(c) for c in centres)
    if freedom >= 2 and seen > expected:
        return float(np.sqrt(seen)), float(stdtrit(freedom, 1 - level))
    return float(np.sqrt(expected)), float(-ndtri(level))


def _check_same_ground(label: str, a: Matches, b: Matches) -> None:
    what = different_ground(a, b)
    if what:
        raise DataError(
            f"baseline and candidate were scored on different ground: {what}",
            where=label,
            expected="the same images and persons",
            hint="run the candidate on the baseline's data, or record a new baseline with --record",
        )


def _join(*notes: str) -> str:
    return "; ".join(n for n in notes if n)
