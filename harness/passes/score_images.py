"""A stored pass over whole images -> accuracy of poses and boxes with intervals, and the cost of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.accuracy.box_ap import evaluate_boxes
from harness.accuracy.on_dataset import evaluate_on
from harness.data.boxes import Boxes
from harness.data.coco import Dataset
from harness.method import PoseProtocol
from harness.passes.replay import Pass
from harness.passes.score import described, joints_of
from harness.suite.schema import AccuracySpec

__all__ = ["BOX", "OWN", "boxes_of", "image_work", "kept_persons", "person_results", "score_images"]

OWN = "own"  # where the boxes of a one-stage network come from
BOX = "box_"  # begins the names of the arrays that hold the matches of boxes


def kept_persons(found: Pass, protocol: PoseProtocol) -> np.ndarray:
    """Rows (n,) of a pass's persons: the best `max_persons` of each image with at least the threshold's score."""
    image = found.get("image", np.zeros(0, dtype=np.int64))
    first = np.searchsorted(image, image, side="left") if len(image) else image  # persons lie image by image
    rank = np.arange(len(image)) - first
    return np.flatnonzero((rank < protocol.max_persons) & (_scores(found) >= protocol.box_score_threshold))


def _scores(found: Pass) -> np.ndarray:
    return found.get("scores", np.zeros(0, dtype=np.float32))


def person_results(found: Pass, protocol: PoseProtocol, image_ids: Sequence[int]) -> list[dict[str, Any]]:
    """COCO result records; a person's score is that of its box. `image_ids` by the index of the image."""
    results: list[dict[str, Any]] = []
    for row in kept_persons(found, protocol):
        result: dict[str, Any] = {
            "image_id": image_ids[int(found["image"][row])],
            "category_id": 1,
            "keypoints": found["keypoints"][row].reshape(-1).tolist(),
            "score": float(found["scores"][row]),
        }
        if protocol.results_with_bbox:
            result["bbox"] = _xywh(found["boxes"][row]).tolist()
        results.append(result)
    return results


def boxes_of(found: Pass, protocol: PoseProtocol, dataset: Dataset, source: str) -> Boxes:
    """The persons' boxes as boxes for top-down networks, by image in dataset order."""
    rows = kept_persons(found, protocol)
    ids = np.array([image.id for image in dataset.images], dtype=np.int64)
    return Boxes(
        image_ids=ids[found["image"][rows]] if len(rows) else np.zeros(0, dtype=np.int64),
        xywh=_xywh(found["boxes"][rows].astype(np.float64)) if len(rows) else np.zeros((0, 4)),
        scores=_scores(found)[rows].astype(np.float64),
        ids=np.full(len(rows), -1, dtype=np.int64),
        source=source,
    )


def _xywh(boxes: np.ndarray) -> np.ndarray:
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def score_images(
    found: Pass, results: Sequence[dict[str, Any]], protocol: PoseProtocol, dataset: Dataset, spec: AccuracySpec
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The result of an accuracy record, and the arrays that paired comparisons need later.

    Poses and boxes are judged on the same persons. An image that was skipped counts, with nobody found in it.
    """
    ids = [image.id for image in dataset.images]
    options: dict[str, Any] = {"bootstrap": spec.bootstrap, "seed": spec.seed, "judge": spec.judge}
    poses = evaluate_on(dataset, results, **options)
    own = boxes_of(found, protocol, dataset, OWN)
    boxes = evaluate_boxes(
        dataset.annotations, own.image_ids, own.xywh, own.scores,
        num_joints=dataset.skeleton.num_joints, images=ids, **options,
    )  # fmt: skip
    work = _work(found)
    result = {
        **poses.to_dict(),
        "box_source": OWN,
        "boxes": len(own),
        "skipped_images": len(ids) - len(found["index"]),
        "box_ap": boxes.to_dict(),
        **image_work(work),
        **joints_of(dataset),
    }
    own_matches = {f"{BOX}{name}": array for name, array in boxes.matches.to_arrays().items()}
    return result, {**poses.matches.to_arrays(), **own_matches, **work}


def _work(found: Pass) -> dict[str, np.ndarray]:
    """What each image cost in macs, and how many persons were found on it."""
    if not len(found["index"]):
        return {}
    return {
        "work_macs": found["macs"].sum(axis=1),
        "work_fixed": found["macs_without_persons"],
        "work_each": found["macs_per_person"],
        "work_persons": found["trace_persons"],
    }


def image_work(work: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """`persons_per_image` and `cost`: gmacs of an image, of its part that does not depend on the persons, and of one
    person: mean, sd, 5th and 95th percentile over the images of the very forwards that made the predictions.

    A prediction is one forward of one image. `work`: the arrays `work_macs`, `work_fixed`, `work_each` and
    `work_persons` (I,), or none of them where no image was looked at.
    """
    if "work_macs" not in work:
        return {"persons_per_image": {}, "cost": {}}
    parts = {
        **dict.fromkeys(("gmacs_per_forward", "gmacs_per_prediction", "gmacs_per_image"), work["work_macs"]),
        "gmacs_without_persons": work["work_fixed"],
        "gmacs_per_person": work["work_each"],
    }
    return {
        "persons_per_image": described(work["work_persons"].astype(np.float64)),
        "cost": {name: described(macs / 1e9) for name, macs in parts.items()},
    }
