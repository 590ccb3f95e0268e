"""The evaluation that belongs to a data set: AP of COCO or CrowdPose, PCKh of MPII, of the joints that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.accuracy.evaluate import evaluate
from harness.accuracy.evaluate_pckh import evaluate_pckh
from harness.accuracy.evaluation import Evaluated
from harness.data.coco import Dataset
from harness.data.crowdpose import without_crowd_index
from harness.errors import DataError

__all__ = ["check_scorable", "evaluate_on"]


def evaluate_on(
    dataset: Dataset,
    results: Sequence[Mapping[str, Any]],
    *,
    bootstrap: int = 0,
    seed: int = 0,
    judge: bool = False,
    absent_as_wrong: bool = False,
) -> Evaluated:
    """The figures of COCO results on all images of the data set; `absent_as_wrong` as `evaluate_pckh` has it."""
    if dataset.evaluator == "mpii":
        return evaluate_pckh(dataset, results, bootstrap=bootstrap, seed=seed, absent_as_wrong=absent_as_wrong)
    return evaluate(
        dataset.annotations,
        results,
        evaluator=dataset.evaluator,
        bootstrap=bootstrap,
        seed=seed,
        judge=judge,
        image_ids=[image.id for image in dataset.images],
        sigmas=dataset.skeleton.sigmas,
        gt_name=dataset.name,
    )


def check_scorable(dataset: Dataset) -> None:
    """DataError where the annotations lack what their evaluation needs, before anything is predicted."""
    if dataset.evaluator == "mpii" and any(person.head_size is None for person in dataset.persons):
        raise DataError(
            "no head sizes, which PCKh divides by",
            where=dataset.name,
            expected="the mat file with the head boxes of the split",
            hint="data: {heads: FILE.mat}",
        )
    lacking = without_crowd_index(dataset.annotations["images"]) if dataset.evaluator == "crowdpose" else []
    if lacking:
        raise DataError(
            f"{len(lacking)} images have no crowdIndex: {', '.join(map(str, lacking[:10]))}",
            where=dataset.name,
            expected="CrowdPose's own annotation file, whose images tell easy, medium and hard",
        )
