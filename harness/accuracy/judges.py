"""The reference evaluators, called as they are: pycocotools for COCO, xtcocotools for CrowdPose."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from harness.accuracy.ap import STAT_NAMES, Stats, summarise
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import CROWDED, Matches
from harness.errors import JudgeDisagreement, MissingPackage

__all__ = ["JUDGES", "TOLERANCE", "Verdict", "judge", "judged"]

JUDGES = {"coco": "pycocotools", "crowdpose": "xtcocotools"}
TOLERANCE = 1e-9
MOST_DETECTIONS = 200_000  # beyond, a sample of images is judged
_INSTALL = {
    "pycocotools": "pip install pycocotools",
    # the wheel was built for numpy 1, and the source does not build in isolation
    "xtcocotools": "pip install cython setuptools; "
    "pip install --no-build-isolation --no-binary xtcocotools xtcocotools",
}


@dataclass(frozen=True)
class Verdict:
    """That the judge agreed: who, on how much, and the largest difference."""

    name: str
    version: str
    images: int
    detections: int
    sampled: bool
    largest_difference: float

    def to_dict(self) -> dict[str, object]:
        return dict(self.__dict__)


def judge(gt: GroundTruth, detections: Detections, sigmas: Sequence[float], *, evaluator: str = "coco") -> Stats:
    """All statistics by the reference evaluator. Raises MissingPackage when it is not installed."""
    name = JUDGES[evaluator]
    try:
        coco_class = importlib.import_module(f"{name}.coco").COCO
        evaluation_class = importlib.import_module(f"{name}.cocoeval").COCOeval
    except (ImportError, ValueError) as error:  # a wheel for another numpy raises ValueError
        raise MissingPackage(f"judging {evaluator} results", name, _INSTALL[name]) from error
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        truth = _ground_truth(coco_class, gt, Path(folder))
        found = _results(coco_class, truth, gt, detections)
        values = (_coco if evaluator == "coco" else _crowdpose)(evaluation_class, truth, found, gt, sigmas)
    # the judges write -1 where nobody counts
    return Stats({key: float(v) if v > -1 else float("nan") for key, v in values.items()})


def judged(
    matches: Matches, gt: GroundTruth, detections: Detections, sigmas: Sequence[float], *, seed: int = 0
) -> Verdict:
    """Compares our statistics with the judge's, on all images or, with very many poses, on a sample of them.

    Raises JudgeDisagreement when any statistic differs by more than 1e-9.
    """
    chosen = _sample(gt, detections, seed)
    sampled = len(chosen) < len(gt.image_ids)
    if sampled:
        gt, detections = _restricted(gt, detections, chosen)
    weights = np.isin(np.arange(matches.num_images), chosen).astype(np.int64)
    ours, theirs = summarise(matches, weights), judge(gt, detections, sigmas, evaluator=matches.evaluator)
    name = JUDGES[matches.evaluator]
    gaps = {key: _gap(ours[key], theirs[key]) for key in ours}
    worst = max(gaps, key=lambda key: gaps[key])
    if gaps[worst] > TOLERANCE:
        raise JudgeDisagreement(
            f"{worst} is {ours[worst]:.12g} here and {theirs[worst]:.12g} in {name}",
            where=f"{len(chosen)} images, {len(detections.image)} detections",
            expected=f"agreement to {TOLERANCE:g} in every statistic",
            hint="please report it with both files; --no-judge gives our figure, marked as not judged",
        )
    return Verdict(name, version(name), len(chosen), len(detections.image), sampled, gaps[worst])


def _gap(a: float, b: float) -> float:
    if np.isnan(a) and np.isnan(b):
        return 0.0
    return abs(a - b) if np.isfinite(a) and np.isfinite(b) else float("inf")


def _sample(gt: GroundTruth, detections: Detections, seed: int) -> np.ndarray:
    """Sorted indices of the images to judge: all, or a random part with at most 200,000 poses."""
    everything = np.arange(len(gt.image_ids))
    if len(detections.image) <= MOST_DETECTIONS:
        return everything
    per_image = np.bincount(detections.image, minlength=len(everything))
    order = np.random.default_rng(seed).permutation(len(everything))
    fitting = np.cumsum(per_image[order]) <= MOST_DETECTIONS
    return np.sort(order[fitting])


def _restricted(gt: GroundTruth, detections: Detections, chosen: np.ndarray) -> tuple[GroundTruth, Detections]:
    """The dicts of the chosen images only, which is all that the judge reads of the truth, and their poses."""
    ids = set(gt.image_ids[chosen].tolist())
    pictures = [p for p in gt.pictures if p["id"] in ids]
    records = [r for r in gt.records if r["image_id"] in ids]
    return replace(gt, pictures=pictures, records=records), detections.subset(np.isin(detections.image, chosen))


def _ground_truth(coco_class: Any, gt: GroundTruth, folder: Path) -> Any:
    records = [{**a, "id": i + 1, "category_id": gt.category} for i, a in enumerate(gt.records)]
    content = {"images": gt.pictures, "annotations": records, "categories": [{"id": gt.category, "name": "person"}]}
    path = folder / "annotations.json"  # xtcocotools reads the crowd index from the file
    path.write_text(json.dumps(content), encoding="utf-8")
    return coco_class(str(path))


def _results(coco_class: Any, truth: Any, gt: GroundTruth, detections: Detections) -> Any:
    if not len(detections.image):  # loadRes fails on an empty list
        found = coco_class()
        found.dataset = {**truth.dataset, "annotations": []}
        found.createIndex()
        return found
    return truth.loadRes(detections.to_results(gt))


def _coco(evaluation_class: Any, truth: Any, found: Any, gt: GroundTruth, sigmas: Sequence[float]) -> dict[str, float]:
    run = evaluation_class(truth, found, "keypoints")
    run.params.kpt_oks_sigmas = np.asarray(sigmas)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return dict(zip(STAT_NAMES["coco"], run.stats, strict=True))


def _crowdpose(
    evaluation_class: Any, truth: Any, found: Any, gt: GroundTruth, sigmas: Sequence[float]
) -> dict[str, float]:
    """The six overall figures, and those of the crowd ranges before xtcocotools rounds them to four digits."""
    run = evaluation_class(truth, found, "keypoints_crowd", np.asarray(sigmas), use_area=False)
    run.evaluate()
    run.accumulate()
    run.summarize()
    values = dict(zip(STAT_NAMES["crowdpose"], run.stats, strict=True))
    for name, (low, high) in CROWDED.items():
        run.params.imgIds = [p["id"] for p in gt.pictures if low <= p["crowdIndex"] < high]
        values[f"AP_{name}"] = _mean_precision(run) if run.params.imgIds else -1.0
    return values


def _mean_precision(run: Any) -> float:
    run.evaluate()
    run.accumulate()
    precision = run.eval["precision"][:, :, 0, 0, -1]
    return float(np.mean(precision[precision > -1])) if (precision > -1).any() else -1.0
