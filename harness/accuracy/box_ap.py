"""AP of person boxes: COCO's box evaluation, matched and resampled like the poses.

The rules are those of the keypoint evaluation with the overlap of boxes in place of OKS, the 100 best boxes of an
image in place of 20, and every person that is no crowd region to be found, labelled joints or not.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from harness.accuracy import bootstrap as resampling
from harness.accuracy.ap import Stats, summarise
from harness.accuracy.bootstrap import Interval
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.judges import TOLERANCE
from harness.accuracy.match import THRESHOLDS, Matches, match_pairs, pairs_by_image, within_area
from harness.errors import JudgeDisagreement, MissingPackage

__all__ = ["BoxEvaluation", "evaluate_boxes", "match_boxes", "overlaps"]

MOST_BOXES = 100  # of an image, the best ones
# where COCO's twelve box statistics hold what we call ...; small persons have no keypoint statistic beside them
_COCO_PLACES = {"AP": 0, "AP50": 1, "AP75": 2, "APm": 4, "APl": 5, "AR": 8, "ARm": 10, "ARl": 11}


@dataclass(frozen=True)
class BoxEvaluation:
    """Statistics in 0 to 1 with their intervals over images; `detections` of all images, the best 100 of each.

    `largest_difference` to pycocotools, None when it was not asked; `matches` for paired comparisons.
    """

    matches: Matches
    stats: Stats
    intervals: dict[str, Interval | None]
    detections: int
    largest_difference: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; a statistic that is not defined is null, with the reason."""
        judge = None
        if self.largest_difference is not None:
            known = {"name": "pycocotools", "version": version("pycocotools")}
            judge = {**known, "largest_difference": self.largest_difference}
        return {"stats": {n: self._stat(n) for n in _COCO_PLACES}, "detections": self.detections, "judge": judge}

    def _stat(self, name: str) -> dict[str, Any]:
        if name in self.stats.reasons:
            return {"value": None, "interval": None, "reason": self.stats.reasons[name]}
        found = self.intervals.get(name)
        return {"value": self.stats[name], "interval": found.to_dict() if found else None}


def evaluate_boxes(
    gt: Mapping[str, Any],
    image_ids: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray,
    *,
    num_joints: int,
    images: list[int],
    bootstrap: int = 1000,
    seed: int = 0,
    judge: bool = True,
) -> BoxEvaluation:
    """AP and AR of `boxes` (N, 4) x y w h with `scores` (N,) in the images `image_ids` (N,).

    gt: COCO keypoint annotations, of which only `images` count. Raises JudgeDisagreement when pycocotools differs by
    more than 1e-9, MissingPackage without it.
    """
    truth = GroundTruth.from_coco(gt, num_joints=num_joints, image_ids=images)
    truth = replace(truth, ignore=truth.crowd)
    found = _detections(truth, image_ids, boxes, scores)
    matches = match_boxes(truth, found)
    stats = summarise(matches)
    gap = _judged(stats, truth, found) if judge else None
    spread = resampling.intervals(matches, bootstrap, seed) if bootstrap else {}
    return BoxEvaluation(matches, stats, spread, len(found.score), gap)


def _detections(truth: GroundTruth, image_ids: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Detections:
    """The best boxes of each image, by image, then by falling score, then as given."""
    number = {identity: at for at, identity in enumerate(truth.image_ids.tolist())}
    image = np.array([number[identity] for identity in image_ids.tolist()], dtype=np.int64)
    order = np.lexsort((-scores, image))
    counts = np.bincount(image, minlength=len(truth.image_ids))
    rank = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[rank < MOST_BOXES]
    box = boxes[kept].astype(np.float64)
    nothing = np.zeros((len(kept), 0, 2))
    return Detections(image[kept], nothing, scores[kept].astype(np.float64), box[:, 2:].prod(axis=1), box, len(order))


def match_boxes(truth: GroundTruth, found: Detections) -> Matches:
    """Matches of boxes for all, medium and large persons, at the thresholds 0.50 to 0.95 of the overlap."""
    assert found.box is not None
    near: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for d, g in pairs_by_image(found.image, truth):
        overlap = overlaps(found.box[d], truth.bbox[g], truth.crowd[g])
        close = overlap >= THRESHOLDS[0]
        near.append((d[close], g[close], overlap[close]))
    d, g, overlap = (np.concatenate(parts) for parts in zip(*near, strict=True))
    groups = {name: within_area(truth, found, name) for name in ("all", "medium", "large")}
    return match_pairs(truth, found, (d, g, overlap), groups)


def overlaps(boxes: np.ndarray, truth: np.ndarray, crowd: np.ndarray) -> np.ndarray:
    """(P,) intersection over union of boxes (P, 4) and (P, 4) x y w h; over the box alone where `crowd` (P,)."""
    low = np.maximum(boxes[:, :2], truth[:, :2])
    high = np.minimum(boxes[:, :2] + boxes[:, 2:], truth[:, :2] + truth[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    own = boxes[:, 2:].prod(axis=1)
    whole = np.where(crowd, own, own + truth[:, 2:].prod(axis=1) - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _judged(stats: Stats, truth: GroundTruth, found: Detections) -> float:
    """The largest difference to pycocotools, at most 1e-9."""
    theirs = _pycocotools(truth, found)
    gaps = {name: _gap(stats[name], float(theirs[place])) for name, place in _COCO_PLACES.items()}
    worst = max(gaps, key=lambda name: gaps[name])
    if gaps[worst] > TOLERANCE:
        raise JudgeDisagreement(
            f"box {worst} is {stats[worst]:.12g} here and {theirs[_COCO_PLACES[worst]]:.12g} in pycocotools",
            where=f"{len(truth.image_ids)} images, {len(found.score)} boxes",
            expected=f"agreement to {TOLERANCE:g} in every statistic",
        )
    return gaps[worst]


def _gap(ours: float, theirs: float) -> float:
    if math.isnan(ours) and theirs == -1:  # what pycocotools writes where nobody counts
        return 0.0
    return abs(ours - theirs) if math.isfinite(ours) else math.inf


def _pycocotools(truth: GroundTruth, found: Detections) -> np.ndarray:
    """COCO's twelve box statistics."""
    try:
        coco, evaluation = (importlib.import_module(f"pycocotools.{n}") for n in ("coco", "cocoeval"))
    except ImportError as error:
        raise MissingPackage("judging boxes", "pycocotools", "pip install pycocotools") from error
    ids, category = truth.image_ids, truth.category
    people = [{**a, "id": i + 1, "category_id": category} for i, a in enumerate(truth.records)]
    assert found.box is not None
    rows = zip(ids[found.image].tolist(), found.box.tolist(), found.score.tolist(), strict=True)
    results = [
        {"id": n, "image_id": i, "category_id": category, "bbox": b, "score": s, "area": b[2] * b[3], "iscrowd": 0}
        for n, (i, b, s) in enumerate(rows, 1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        run = evaluation.COCOeval(*(_indexed(coco.COCO, truth, a) for a in (people, results)), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.asarray(run.stats)


def _indexed(kind: Any, truth: GroundTruth, annotations: list[dict[str, Any]]) -> Any:
    table = kind()
    categories = [{"id": truth.category, "name": "person"}]
    table.dataset = {"images": truth.pictures, "annotations": annotations, "categories": categories}
    table.createIndex()
    return table
