"""AP and AR from matches, for any integer weight of every image. Unit weights give exactly what pycocotools gives."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from harness.accuracy.match import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, Matches

__all__ = ["GROUPS", "STAT_NAMES", "Curves", "Stats", "summarise"]

_RECALLS = np.linspace(0.0, 1.0, 101)
_CACHED = 2**17  # numbers of eight bytes
_COCO = (
    ("AP", "all", None), ("AP50", "all", 0), ("AP75", "all", 5), ("APm", "medium", None), ("APl", "large", None),
    ("AR", "all", None), ("AR50", "all", 0), ("AR75", "all", 5), ("ARm", "medium", None), ("ARl", "large", None),
)  # fmt: skip
_CROWDPOSE = (
    *(s for s in _COCO if s[1] == "all"),
    ("AP_easy", "easy", None), ("AP_medium", "medium", None), ("AP_hard", "hard", None),
)  # fmt: skip
_SPECS: dict[str, tuple[tuple[str, str, int | None], ...]] = {"coco": _COCO, "crowdpose": _CROWDPOSE}
GROUPS = {evaluator: tuple(dict.fromkeys(group for _, group, _ in spec)) for evaluator, spec in _SPECS.items()}
STAT_NAMES = {evaluator: tuple(name for name, _, _ in spec) for evaluator, spec in _SPECS.items()}
_EMPTY = {
    "all": "no person with keypoints",
    "medium": "no person of medium size (32 x 32 to 96 x 96 pixels of area)",
    "large": "no person of large size (96 x 96 pixels of area or more)",
}
_EMPTY_CROWDED = {
    "all": _EMPTY["all"],
    "easy": "no person in an image with crowd index below 0.2",
    "medium": "no person in an image with crowd index from 0.2 to 0.8",
    "hard": "no person in an image with crowd index 0.8 or more",
}


@dataclass(frozen=True)
class Stats(Mapping[str, float]):
    """Name -> value in 0 to 1; nan where the ground truth has nobody to find, with the reason in `reasons`."""

    values_by_name: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> float:
        return self.values_by_name[name]

    def __iter__(self):  # type: ignore[no-untyped-def] # noqa: ANN204
        return iter(self.values_by_name)

    def __len__(self) -> int:
        return len(self.values_by_name)


class _Curve:
    """One precision-recall curve (a group at a threshold), as positions in the movers of its group.

    Precision needs to be known at true positives only: between two of them it can only fall.
    """

    def __init__(self, status: np.ndarray) -> None:
        self.kept = np.flatnonzero(status != IGNORED)
        hit = status[self.kept] == TRUE_POSITIVE
        self.hits_in_kept = np.flatnonzero(hit)
        self.hits = self.kept[hit]

    def measure(
        self, movers: np.ndarray, misses_before: np.ndarray, positives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """((R, 101) interpolated precision, (R,) final recall) for R weightings of the movers, one in each column."""
        count, hits = movers.shape[1], len(self.hits)
        out = np.zeros((count, len(_RECALLS)))
        if not hits:
            return out, np.zeros(count)
        found = np.cumsum(movers[self.hits], axis=0)
        shown = np.cumsum(movers[self.kept], axis=0)[self.hits_in_kept] + misses_before[self.hits]
        precision = np.ascontiguousarray((found / (shown + np.spacing(1))).T)
        at = _first_reaching(np.ascontiguousarray(found.T), positives)
        # envelope: best precision from here on; needed at the 101 recalls only. Recall 0 is reached at once, so that
        # the last stretch of one row ends where the next row begins
        reached = at < hits
        starts = (at + hits * np.arange(count)[:, None])[reached]
        out[reached] = np.maximum.reduceat(precision.reshape(-1), starts)
        return np.maximum.accumulate(out[:, ::-1], axis=1)[:, ::-1], found[-1] / positives


def _first_reaching(found: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """(R, 101) index of the first entry of each rising row of `found` (R, H) with found / positives >= recall, as
    floats compare; H where there is none."""
    wanted = positives[:, None]
    need = np.ceil(_RECALLS * wanted)
    # the product may be off by a rounding: settle it with the division that the reference compares
    need = np.where((need - 1) / wanted >= _RECALLS, need - 1, need)
    need = np.where(need / wanted < _RECALLS, need + 1, need)
    # one search for all rows: whole numbers, each row lifted above the one before
    row = np.arange(len(found))[:, None]
    lift = row * (max(found[:, -1].max(), need.max()) + 2)
    return np.searchsorted((found + lift).reshape(-1), need + lift, side="left") - row * found.shape[1]


class _Group:
    """The curves of one group. Poses that are false at every threshold (most of them) are summed once for all."""

    def __init__(self, image: np.ndarray, status: np.ndarray, positives: np.ndarray) -> None:
        self.positives = positives.astype(np.float64)
        never = (status == FALSE_POSITIVE).all(axis=1)
        moving = ~never & (status != IGNORED).any(axis=1)
        self.miss_image = image[never]
        self.mover_image = image[moving]
        self.misses_before = np.cumsum(never)[moving]
        self.curves = [_Curve(column) for column in np.ascontiguousarray(status[moving].T)]

    def measure(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """((R, T, 101) precision, (R, T) recall) for R weightings, weights (I, R); nan where no person counts."""
        positives = self.positives @ weights
        someone = positives > 0
        sums = np.concatenate((np.zeros((1, weights.shape[1])), np.cumsum(weights[self.miss_image], axis=0)))
        before, movers = sums[self.misses_before], weights[self.mover_image]
        safe = np.where(someone, positives, 1.0)
        rows = [curve.measure(movers, before, safe) for curve in self.curves]
        precision, recall = np.stack([p for p, _ in rows], axis=1), np.stack([r for _, r in rows], axis=1)
        precision[~someone] = recall[~someone] = np.nan
        return precision, recall


class Curves:
    """Matches made ready for many weightings: build once, call `stats` often.

    The statistics are those of the evaluator, or with `each_group` the AP of every group, named as the group.
    """

    def __init__(self, matches: Matches, *, each_group: bool = False) -> None:
        spec = tuple(("AP", group, None) for group in matches.groups) if each_group else _SPECS[matches.evaluator]
        self.spec: Sequence[tuple[str, str, int | None]] = spec
        self.names = tuple(matches.groups) if each_group else STAT_NAMES[matches.evaluator]
        self.num_images = matches.num_images
        self._groups = {
            name: _Group(matches.image, matches.status[:, i], matches.positives[:, i])
            for i, name in enumerate(matches.groups)
        }

    @property
    def at_once(self) -> int:
        """How many weightings one call of `stats` should get: as many as keep its arrays in the cache."""
        poses = max(len(g.mover_image) + len(g.miss_image) for g in self._groups.values())
        return max(1, _CACHED // max(poses, len(_RECALLS)))

    def stats(self, weights: np.ndarray) -> np.ndarray:
        """(..., S) statistics in the order of `names`; nan where no person counts.

        weights: (..., I) whole numbers >= 0, how often each image counts. An image drawn twice counts each of its
        poses twice, in its place in the order of scores.
        """
        weights = np.asarray(weights, dtype=np.float64)
        columns = np.ascontiguousarray(weights.reshape(-1, self.num_images).T)
        found = self._summary({name: g.measure(columns) for name, g in self._groups.items()})
        return found.reshape(*weights.shape[:-1], len(self.spec))

    def _summary(self, measured: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        columns = []
        for name, group, threshold in self.spec:
            values = measured[group][0 if name.startswith("AP") else 1]
            chosen = values if threshold is None else values[:, threshold]
            columns.append(np.mean(chosen.reshape(len(chosen), -1), axis=1))
        return np.stack(columns, axis=1)


def summarise(matches: Matches, weights: np.ndarray | None = None) -> Stats:
    """All statistics of the evaluator, with every image counted once or as often as `weights` (I,) says."""
    if weights is None:
        weights = np.ones(matches.num_images)
    curves = Curves(matches)
    values = dict(zip(curves.names, curves.stats(weights).tolist(), strict=True))
    texts = _EMPTY if matches.evaluator == "coco" else _EMPTY_CROWDED
    reasons = {name: texts[group] for name, group, _ in curves.spec if math.isnan(values[name])}
    return Stats(values, reasons)
