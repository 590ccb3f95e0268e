"""Single persons of a scored row: where it is worst, in the middle, best, drawn beside the ground truth. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from harness.accuracy.evaluate import Evaluation, evaluate
from harness.accuracy.match import candidates
from harness.data.crops import read_image
from harness.errors import HarnessError
from harness.passes.score import detections
from harness.pose.drawing import draw_poses, side_by_side
from harness.run.stored import Stored

__all__ = ["Case", "cases_of"]

_KINDS = ("worst", "worst", "worst", "middle", "best", "best")
_HEIGHT, _WIDEST = 200, 220  # pixels of one of the two pictures
_QUALITY = 78


@dataclass(frozen=True)
class Case:
    """A picture (JPEG) of one person: ground truth on the left, prediction on the right."""

    kind: str
    oks: float
    caption: str
    jpeg: bytes


def cases_of(stored: Stored) -> list[Case]:
    """Three of the worst persons, one in the middle and two of the best, by the OKS of the pose that fits them best.

    Persons with half of their joints labelled count, where there are enough; one whose image is not there is left out.
    """
    results, _ = detections(stored.cell, stored.predictions, stored.dataset, stored.boxes)
    dataset = stored.dataset
    # persons are ranked by OKS on MPII too, whose own measure is a share of few joints
    kind = "crowdpose" if dataset.evaluator == "crowdpose" else "coco"
    scored = evaluate(
        dataset.annotations, results, evaluator=kind, bootstrap=0, judge=False,
        image_ids=[image.id for image in dataset.images], sigmas=dataset.skeleton.sigmas,
    )  # fmt: skip
    pose, oks = _best_poses(scored)
    persons = _telling(scored)
    ranked = persons[np.lexsort((persons, oks[persons]))]
    found = []
    for name, person in zip(_KINDS, _picked(len(ranked))):
        at = int(ranked[person])
        picture = _picture(stored, scored, at, int(pose[at]))
        if picture is not None:
            record = scored.truth.records[at]
            caption = f"OKS {oks[at]:.2f}, image {record['image_id']}, person {record['id']}"
            found.append(Case(name, float(oks[at]), caption, picture))
    return found


def _best_poses(scored: Evaluation) -> tuple[np.ndarray, np.ndarray]:
    """For each person the pose that fits it best (-1 for none in its image) and its OKS."""
    d, g, oks = candidates(scored.truth, scored.poses, scored.sigmas, least=0.0)
    order = np.lexsort((d, -oks, g))
    persons, first = np.unique(g[order], return_index=True)
    pose = np.full(len(scored.truth.image), -1)
    best = np.zeros(len(scored.truth.image))
    pose[persons], best[persons] = d[order][first], oks[order][first]
    return pose, best


def _telling(scored: Evaluation) -> np.ndarray:
    """Indices of the persons that count; of those with half of their joints labelled where there are enough."""
    counted = np.flatnonzero(~scored.truth.ignore)
    visible = scored.truth.visible_first[0][counted]
    many = counted[visible >= scored.truth.keypoints.shape[1] / 2]
    return many if len(many) >= 4 * len(_KINDS) else counted


def _picked(count: int) -> Iterator[int]:
    """Ranks of the cases among `count` persons; each person once."""
    wanted = [0, 1, 2, count // 2, count - 2, count - 1]
    return iter(wanted if count >= len(wanted) else range(count))


def _picture(stored: Stored, scored: Evaluation, person: int, pose: int) -> bytes | None:
    record = scored.truth.records[person]
    info = next(image for image in stored.dataset.images if image.id == record["image_id"])
    try:
        image = read_image(stored.dataset.image_folder / info.file, (info.width, info.height))
    except HarnessError:
        return None
    truth = scored.truth.keypoints[person]
    said = np.zeros((0, *truth.shape))
    if pose >= 0:
        said = np.concatenate([scored.poses.xy[pose], np.ones((len(truth), 1))], axis=1)[None]
    crop, matrix = _crop(image, np.asarray(record["bbox"], dtype=np.float64))
    skeleton = stored.dataset.skeleton
    drawn = [draw_poses(crop, _moved(poses, matrix), skeleton, score_threshold=0.0) for poses in (truth[None], said)]
    both = side_by_side(drawn, gap=4)
    done, jpeg = cv2.imencode(".jpg", both[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return jpeg.tobytes() if done else None


def _crop(image: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The person's box with a third around it, scaled to the height of a picture, and the (2, 3) matrix that did it."""
    x, y, w, h = box
    width, height = max(w * 1.35, 24.0), max(h * 1.35, 24.0)
    width = max(width, height * 0.6)
    scale = min(_HEIGHT / height, _WIDEST / width)
    left, top = x + w / 2 - width / 2, y + h / 2 - height / 2
    matrix = np.array([[scale, 0, -scale * left], [0, scale, -scale * top]])
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.warpAffine(image, matrix, size, flags=how, borderValue=(120, 120, 120)), matrix


def _moved(poses: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    moved = poses.astype(np.float64).copy()
    if len(moved):
        moved[..., :2] = poses[..., :2] @ matrix[:, :2].T + matrix[:, 2]
    return moved
