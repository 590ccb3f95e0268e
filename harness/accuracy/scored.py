"""What a set of poses is resampled from: matches (AP) or hits (PCKh), under one set of functions."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from harness.accuracy import ap
from harness.accuracy.ap import Curves, Stats
from harness.accuracy.match import Matches
from harness.accuracy.pck import Hits, Shares

__all__ = ["Scored", "curves_of", "from_arrays", "headline", "side_by_side", "summarise"]

Scored = Matches | Hits
_UNLABELLED = "no person in whom such a joint is labelled"


def curves_of(scored: Scored) -> Curves | Shares:
    """`names`, `num_images` and `stats(weights)` of the statistics; the first one is the headline."""
    return Shares(scored) if isinstance(scored, Hits) else Curves(scored)


def summarise(scored: Scored, weights: np.ndarray | None = None) -> Stats:
    """All statistics, with every image counted once or as often as `weights` (I,) says."""
    if not isinstance(scored, Hits):
        return ap.summarise(scored, weights)
    shares = Shares(scored)
    found = shares.stats(np.ones(scored.num_images) if weights is None else weights)
    values = dict(zip(shares.names, found.tolist(), strict=True))
    return Stats(values, {name: _UNLABELLED for name, value in values.items() if math.isnan(value)})


def headline(scored: Scored) -> float:
    """AP, or PCKh@0.5; nan where it is not defined."""
    return next(iter(summarise(scored).values()))


def from_arrays(arrays: Mapping[str, np.ndarray]) -> Scored:
    """What `to_arrays` of either gave; takes an opened npz file as it is."""
    kind = Hits if str(arrays["evaluator"]) == Hits.evaluator else Matches
    return kind.from_arrays(arrays)


def side_by_side(a: Scored, b: Scored) -> Scored:
    """Both sets, of the same I images, as one of 2 I images: a's first, then b's."""
    count = a.num_images
    if isinstance(a, Hits) and isinstance(b, Hits):
        right, labelled = (np.concatenate((getattr(a, n), getattr(b, n))) for n in ("right", "labelled"))
        return Hits(a.joints, a.thresholds, np.arange(2 * count), right, labelled)
    assert isinstance(a, Matches) and isinstance(b, Matches)
    score = np.concatenate((a.score, b.score))
    order = np.argsort(-score, kind="stable")
    return Matches(
        a.evaluator,
        a.groups,
        np.arange(2 * count),
        np.concatenate((a.image, b.image + count))[order],
        score[order],
        np.concatenate((a.status, b.status))[order],
        np.concatenate((a.positives, b.positives)),
    )
