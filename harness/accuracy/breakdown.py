"""On whom and on which joints AP is lost: per keypoint, and by size, crowding, occlusion, truncation and labelling.

A part's AP is COCO's with the persons of other parts ignored, as COCO's area ranges ignore persons of other sizes. By
size, poses of other sizes that match nobody are ignored too, so medium and large are COCO's APm and APl. In the other
families a pose belongs to the person of its image with whom it has the highest OKS, and one that reaches OKS 0.1 with
nobody to no part. A keypoint's AP is that of a skeleton of this joint only, over the persons in whom it is labelled; a
pose of another person is ignored when it matches nobody, one that is near nobody counts.

(Subsets by overlap and by labelled joints: Ronchi and Perona, ICCV 2017, section 4.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.accuracy.ap import Curves
from harness.accuracy.bootstrap import image_weights
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import Matches, candidates, match_groups, pairs_by_image, within_area
from harness.accuracy.resampled import LEVEL, Progress, Resampled, resampled

__all__ = ["Breakdown", "breakdown", "subsets"]

_NEAR = 0.1  # OKS; below, a pose has to do with nobody
_OVERLAP = 0.1  # IoU of boxes
_EDGE = 1.0  # pixels
_EVERYBODY = "all"
_SIZES = ("small", "medium", "large")
_NOBODY = "no person of this kind"
_NO_SIZES = "the annotations have no width and height of every image"


@dataclass(frozen=True)
class Breakdown:
    """`parts`: (family, name, persons) of each figure in `found`; persons is None where it cannot be told."""

    parts: tuple[tuple[str, str, int | None], ...]
    found: Resampled
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: family -> part -> persons, value, interval."""
        return {**self._head(), **self._families(self.found, persons=True)}

    def minus(self, other: Breakdown) -> dict[str, Any]:
        """JSON-ready paired differences, this minus `other`, which was made with the same truth and resamples."""
        return {**self._head(), **self._families(self.found - other.found, persons=False)}

    def _head(self) -> dict[str, Any]:
        return {"resamples": len(self.found.samples), "seed": self.seed, "level": LEVEL}

    def _families(self, figures: Resampled, *, persons: bool) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for i, (family, name, count) in enumerate(self.parts):
            row = figures.row(i, _NO_SIZES if count is None else _NOBODY)
            out.setdefault(family, {})[name] = {"persons": count, **row} if persons else row
        return out


def breakdown(
    gt: GroundTruth,
    dets: Detections,
    sigmas: Sequence[float],
    joints: Sequence[str],
    *,
    resamples: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Breakdown:
    """AP of every part. `sigmas`: (K,) OKS constants; `joints`: their names; `progress`: called resamples + 1 times."""
    members = subsets(gt)
    parts: list[tuple[str, str, int | None]] = [
        ("keypoint", name, int(np.sum(~_one_joint(gt, j).ignore))) for j, name in enumerate(joints)
    ]
    parts += [
        (family, name, None if member is None else int(member.sum()))
        for family, names in members.items()
        for name, member in names.items()
    ]
    nearest = _nearest_person(gt, dets, sigmas)
    curves = [Curves(_match_joint(gt, dets, sigmas, nearest, j), each_group=True) for j in range(len(joints))]
    curves.append(Curves(_match_parts(gt, dets, sigmas, nearest, members), each_group=True))
    weights = image_weights(len(gt.image_ids), resamples, seed) if resamples else np.empty((0, len(gt.image_ids)))
    return Breakdown(tuple(parts), resampled(curves, weights, progress), seed)


def subsets(gt: GroundTruth) -> dict[str, dict[str, np.ndarray | None]]:
    """family -> part -> (N,) bool, the persons that count in it; None where the annotations do not tell.

    size: COCO's area ranges. crowding: other persons whose box overlaps with an IoU of 0.1 or more. occlusion: share
    of the labelled joints that are marked as hidden (v = 1). truncation: the box comes within a pixel of the image's
    edge. labelled: share of all joints that are labelled. The parts of a family are disjoint and hold everybody who
    counts (only an area of exactly 32 x 32 or 96 x 96 pixels is in two sizes, as in COCO).
    """
    counts = ~gt.ignore
    seen = (gt.keypoints[..., 2] > 0).sum(axis=1)
    hidden = (gt.keypoints[..., 2] == 1).sum(axis=1) / np.maximum(seen, 1)
    labelled = seen / gt.keypoints.shape[1]
    others, cut = _overlapping(gt), _cut_by_edge(gt)
    nobody = Detections(np.zeros(0, dtype=int), np.empty((0, 0, 2)), np.zeros(0), np.zeros(0), None, 0)
    families: dict[str, dict[str, np.ndarray | None]] = {
        "size": {name: ~within_area(gt, nobody, name)[0] for name in _SIZES},
        "crowding": _ranges(others, {"alone": 0, "one or two others": 2, "three or more others": np.inf}),
        "occlusion": _ranges(hidden, {"none": 0, "up to a quarter": 0.25, "more": np.inf}),
        "truncation": {"whole": None if cut is None else ~cut, "cut by the edge": cut},
        "labelled": _ranges(labelled, {"up to a third": 1 / 3, "up to two thirds": 2 / 3, "more": np.inf}),
    }
    return {
        family: {name: None if member is None else member & counts for name, member in names.items()}
        for family, names in families.items()
    }


def _ranges(values: np.ndarray, ends: dict[str, float]) -> dict[str, np.ndarray | None]:
    """Each part reaches from above the end of the one before to its own end."""
    place = np.searchsorted(list(ends.values()), values, side="left")
    return {name: place == i for i, name in enumerate(ends)}


def _overlapping(gt: GroundTruth) -> np.ndarray:
    """(N,) number of other persons, crowd regions left out, whose boxes overlap with an IoU of 0.1 or more."""
    low, high = gt.bbox[:, :2], gt.bbox[:, :2] + gt.bbox[:, 2:]
    area = gt.bbox[:, 2:].prod(axis=1)
    count = np.zeros(len(gt.image), dtype=np.int64)
    for a, b in pairs_by_image(gt.image, gt):
        shared = np.maximum(0, np.minimum(high[a], high[b]) - np.maximum(low[a], low[b])).prod(axis=1)
        union = area[a] + area[b] - shared
        near = (shared >= _OVERLAP * union) & (shared > 0) & (a != b) & ~gt.crowd[b]
        count += np.bincount(a[near], minlength=len(count))
    return count


def _cut_by_edge(gt: GroundTruth) -> np.ndarray | None:
    sizes = [(p.get("width"), p.get("height")) for p in gt.pictures]
    if not all(isinstance(side, int | float) and side > 0 for size in sizes for side in size):
        return None
    size = np.array(sizes, dtype=np.float64)[gt.image].reshape(-1, 2)
    low, high = gt.bbox[:, :2], gt.bbox[:, :2] + gt.bbox[:, 2:]
    return (low <= _EDGE).any(axis=1) | (high >= size - _EDGE).any(axis=1)


def _one_joint(gt: GroundTruth, j: int) -> GroundTruth:
    """A truth of one joint: persons in whom it is not labelled are ignored."""
    points = gt.keypoints[:, j : j + 1]
    return replace(gt, keypoints=points, ignore=gt.ignore | (points[:, 0, 2] <= 0))


def _match_joint(gt: GroundTruth, dets: Detections, sigmas: Sequence[float], nearest: np.ndarray, j: int) -> Matches:
    """As if a skeleton had this joint only; OKS is then the similarity of the joint."""
    one, poses = _one_joint(gt, j), replace(dets, xy=dets.xy[:, j : j + 1])
    outside = np.append(one.ignore, False)[nearest]
    return match_groups(one, poses, sigmas[j : j + 1], {_EVERYBODY: (one.ignore, outside)})


def _match_parts(
    gt: GroundTruth,
    dets: Detections,
    sigmas: Sequence[float],
    nearest: np.ndarray,
    members: dict[str, dict[str, np.ndarray | None]],
) -> Matches:
    groups: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for family, names in members.items():
        for name, member in names.items():
            inside = np.zeros(len(gt.image), dtype=bool) if member is None else member
            outside = ~np.append(inside, False)[nearest]
            groups[f"{family} {name}"] = within_area(gt, dets, name) if family == "size" else (~inside, outside)
    return match_groups(gt, dets, sigmas, groups)


def _nearest_person(gt: GroundTruth, dets: Detections, sigmas: Sequence[float]) -> np.ndarray:
    """(D,) person with the highest OKS; -1 when none reaches 0.1."""
    d, g, oks = candidates(gt, dets, sigmas, _NEAR)
    nearest = np.full(len(dets.score), -1)
    order = np.lexsort((oks, d))
    nearest[d[order]] = g[order]  # the last one written is the best
    return nearest
