"""AP of one set of predictions, judged and with intervals; and two sets compared. What the verb and the runs call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from harness.accuracy import bootstrap as resampling
from harness.accuracy.anatomy import Anatomy, anatomy
from harness.accuracy.bootstrap import Difference
from harness.accuracy.breakdown import Breakdown, breakdown
from harness.accuracy.checks import differing_images, read_json
from harness.accuracy.evaluation import Evaluated, rough
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.judges import judged
from harness.accuracy.match import Matches, match
from harness.accuracy.resampled import MOST_RESAMPLES
from harness.accuracy.scored import Scored, summarise
from harness.accuracy.stream import stream_json
from harness.errors import DataError, UserError, unknown_name
from harness.pose.skeletons import COCO, CROWDPOSE

__all__ = ["Comparison", "Evaluation", "check_coverage", "compare", "evaluate"]

_SKELETONS = {"coco": COCO, "crowdpose": CROWDPOSE}
Progress = Callable[[], None]


@dataclass(frozen=True, kw_only=True)
class Evaluation(Evaluated):
    """What OKS says of one set of predictions."""

    matches: Matches = field(repr=False)
    truth: GroundTruth = field(repr=False)
    poses: Detections = field(repr=False)
    sigmas: tuple[float, ...]

    def breakdown(self, progress: Progress | None = None) -> Breakdown:
        """On whom and on which joints AP is lost, with intervals from at most 200 of the resamples."""
        return breakdown(
            self.truth, self.poses, self.sigmas, _SKELETONS[self.evaluator].joints,
            resamples=min(self.resamples, MOST_RESAMPLES), seed=self.seed, progress=progress,
        )  # fmt: skip

    def anatomy(self, progress: Progress | None = None) -> Anatomy:
        """Which errors cost how much AP, with intervals from at most 200 of the resamples."""
        return anatomy(
            self.truth, self.poses, _SKELETONS[self.evaluator], self.sigmas,
            resamples=min(self.resamples, MOST_RESAMPLES), seed=self.seed, progress=progress,
        )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """First minus second for each statistic; None where it is undefined, with the reason."""

    differences: dict[str, Difference | None]
    reasons: dict[str, str]
    resamples: int
    seed: int
    compared: int = 1

    def to_dict(self) -> dict[str, Any]:
        rows = {
            name: found.to_dict() if found else {"value": None, "reason": self.reasons.get(name, "undefined")}
            for name, found in self.differences.items()
        }
        return {
            "differences": rows,
            "test": {
                "resamples": self.resamples,
                "permutations": self.resamples,
                "seed": self.seed,
                "unit": "image",
                "correction": "holm",
                "compared": self.compared,
            },
        }


def evaluate(
    gt: Mapping[str, Any] | str | Path,
    detections: Iterable[Mapping[str, Any]] | str | Path,
    *,
    evaluator: str = "coco",
    bootstrap: int = 1000,
    seed: int = 0,
    judge: bool = True,
    image_ids: Iterable[Any] | None = None,
    sigmas: Sequence[float] | None = None,
    progress: Progress | None = None,
    gt_name: str = "annotations",
) -> Evaluation:
    """AP and AR of COCO-format results.

    gt: annotation dict or file; detections: list of results (image_id, category_id, keypoints, score) or file;
    evaluator: `coco` or `crowdpose`;
    a file of results is read piece by piece and only the 20 best of each image are kept;
    bootstrap: resamples of images, 0 for none; image_ids: only these images count;
    sigmas: (K,) OKS constants, those of the evaluator's skeleton unless given; progress: called after each resample;
    gt_name: what messages call annotations that are given as a dict.

    Raises DataError (all faults of a file), MissingPackage (judge), JudgeDisagreement.
    """
    constants = _constants(evaluator, sigmas)
    _check_count(bootstrap)
    if seed < 0:
        raise UserError(f"seed {seed}", expected="0 or more")
    truth, found = _read(gt, detections, evaluator, len(constants), image_ids, gt_name)
    matches = match(truth, found, constants, evaluator=evaluator)
    verdict = judged(matches, truth, found, constants, seed=seed) if judge else None
    notes = [*truth.notes, *found.notes, *rough(matches.num_images, bootstrap)]
    if not judge:
        notes.append("not judged by a reference evaluator")
    return Evaluation(
        evaluator=evaluator,
        stats=summarise(matches),
        intervals=resampling.intervals(matches, bootstrap, seed, progress=progress) if bootstrap else {},
        matches=matches,
        truth=truth,
        poses=found,
        sigmas=constants,
        images=matches.num_images,
        persons=int(np.sum(~truth.ignore)),
        detections=found.count,
        resamples=bootstrap,
        seed=seed,
        verdict=verdict,
        notes=tuple(notes),
    )


def compare(
    first: Evaluated | Scored,
    others: Sequence[Evaluated | Scored],
    *,
    bootstrap: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Comparison]:
    """`first` minus each of `others` on the same images, p corrected after Holm over the others.

    Raises DataError, with the images listed, when they were not scored on the same ground.
    """
    _check_count(bootstrap, least=1)
    a, bs = _matches(first), [_matches(other) for other in others]
    families = [resampling.paired_difference(a, b, n=bootstrap, seed=seed, progress=progress) for b in bs]
    reasons = summarise(a).reasons
    return [Comparison(family, reasons, bootstrap, seed, len(others)) for family in resampling.corrected(families)]


def check_coverage(first: Evaluation, second: Evaluation, *, where: str = "") -> None:
    """Raises DataError, images listed, when one set has results in images where the other has none.

    That may be an honest "nobody found", or predictions made on other images; only the user can tell.
    """
    a, b = (np.unique(e.matches.image_ids[e.matches.image]).tolist() for e in (first, second))
    difference = differing_images(a, b)
    if difference:
        raise DataError(
            f"the two sets have results for different images: {difference}",
            where=where,
            expected="predictions on the same images, for a paired difference",
            hint="if nobody was found there, say so with --missing-as-empty",
        )


def _matches(source: Evaluated | Scored) -> Scored:
    return source.matches if isinstance(source, Evaluated) else source


def _constants(evaluator: str, sigmas: Sequence[float] | None) -> tuple[float, ...]:
    if evaluator not in _SKELETONS:
        what, hint = unknown_name("evaluator", evaluator, _SKELETONS)
        raise UserError(what, hint=hint)
    constants = _SKELETONS[evaluator].sigmas if sigmas is None else tuple(sigmas)
    if not all(np.isfinite(s) and s > 0 for s in constants):
        raise UserError(f"sigmas are {constants}", expected="one positive number for each joint")
    return constants


def _check_count(n: int, least: int = 0) -> None:
    if n < least or n == 1:
        raise UserError(
            f"{n} bootstrap resamples",
            expected="0 for none, or 2 and more (1000 is usual)" if least == 0 else "2 or more",
        )


def _read(
    gt: Mapping[str, Any] | str | Path,
    detections: Iterable[Mapping[str, Any]] | str | Path,
    evaluator: str,
    joints: int,
    image_ids: Iterable[Any] | None,
    gt_name: str,
) -> tuple[GroundTruth, Detections]:
    gt_name = str(gt) if isinstance(gt, str | Path) else gt_name
    name = str(detections) if isinstance(detections, str | Path) else "predictions"
    content = read_json(gt) if isinstance(gt, str | Path) else gt
    results = stream_json(detections) if isinstance(detections, str | Path) else detections
    ids = None if image_ids is None else list(image_ids)
    if ids is not None and not ids:
        raise DataError("no image is left to evaluate", where=gt_name, expected="at least one image")
    truth = GroundTruth.from_coco(content, num_joints=joints, evaluator=evaluator, image_ids=ids, where=gt_name)
    known = [picture["id"] for picture in content["images"]]
    return truth, Detections.from_results(results, truth, known_images=known, where=name)
