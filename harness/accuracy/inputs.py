"""COCO-format dicts -> checked arrays, in the order in which pycocotools takes persons and poses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np

from harness.accuracy.checks import (
    Faults,
    annotation_faults,
    category_of,
    check_layout,
    kind_of,
    pictures_of,
    result_faults,
)  # fmt: skip
from harness.errors import DataError

__all__ = ["Detections", "GroundTruth"]

MAX_DETECTIONS = 20  # per image, best scores first (COCO keypoint protocol)
_CROWDPOSE_AREA = 0.53  # CrowdPose has no area: its evaluator takes this part of the box


@dataclass(frozen=True)
class GroundTruth:
    """Persons of all images, ordered by image id and then as in the file.

    image_ids: (I,) sorted; image: (N,) index into image_ids; keypoints: (N, K, 3) x, y, visibility;
    bbox: (N, 4) xywh; area: (N,) square pixels; crowd, ignore: (N,) bool; crowd_index: (I,) or None.
    `records` and `pictures` are the normalised dicts in the same order, for the judge.
    """

    image_ids: np.ndarray
    image: np.ndarray
    keypoints: np.ndarray
    bbox: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    ignore: np.ndarray
    category: int
    crowd_index: np.ndarray | None = None
    records: list[dict[str, Any]] = field(default_factory=list, repr=False)
    pictures: list[dict[str, Any]] = field(default_factory=list, repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_coco(
        cls,
        gt: Mapping[str, Any],
        *,
        num_joints: int,
        evaluator: str = "coco",
        image_ids: Iterable[Any] | None = None,
        where: str = "annotations",
    ) -> GroundTruth:
        """Checks a COCO annotation dict and makes arrays of it. Raises DataError that lists all faults."""
        check_layout(gt, where)
        category, notes = category_of(gt, where), []
        pictures = pictures_of(gt, image_ids, evaluator, where)
        wanted = {p["id"]: i for i, p in enumerate(pictures)}
        known = {p.get("id") for p in gt["images"] if isinstance(p, Mapping)}
        faults, kept = Faults(where), []  # type: tuple[Faults, list[dict[str, Any]]]
        seen: set[Any] = set()
        for n, a in enumerate(gt["annotations"]):
            wrong = list(annotation_faults(n, a, known, seen, num_joints, evaluator, category))
            faults.extend(wrong)
            if not wrong and a["image_id"] in wanted and a.get("category_id", category) == category:
                kept.append(_normalised(a, evaluator))
        faults.check(f"COCO keypoint annotations with {num_joints} joints")
        if any(a["id"] == 0 for a in kept):
            notes.append("annotation ids start at 0, which pycocotools counts as missed: the judge gets other ids")
        if gt["annotations"] and any("num_keypoints" not in a for a in gt["annotations"]):
            notes.append("num_keypoints is missing in places: counted from the visibilities")
        kept.sort(key=lambda a: wanted[a["image_id"]])
        return cls._arrays(pictures, kept, wanted, num_joints, category, evaluator, tuple(notes))

    @classmethod
    def _arrays(
        cls, pictures: list[dict[str, Any]], kept: list[dict[str, Any]], wanted: dict[Any, int],
        num_joints: int, category: int, evaluator: str, notes: tuple[str, ...],
    ) -> GroundTruth:  # fmt: skip
        crowd = np.array([bool(a["iscrowd"]) for a in kept], dtype=bool)
        empty = np.array([a["num_keypoints"] == 0 for a in kept], dtype=bool)
        return cls(
            image_ids=np.array([p["id"] for p in pictures]),
            image=np.array([wanted[a["image_id"]] for a in kept], dtype=np.int64),
            keypoints=_flat([a["keypoints"] for a in kept]).reshape(-1, num_joints, 3),
            bbox=_flat([a["bbox"] for a in kept]).reshape(-1, 4),
            area=np.array([a["area"] for a in kept], dtype=np.float64),
            crowd=crowd,
            ignore=crowd | empty,
            category=category,
            crowd_index=np.array([p["crowdIndex"] for p in pictures]) if evaluator == "crowdpose" else None,
            records=kept,
            pictures=pictures,
            notes=notes,
        )

    @cached_property
    def visible_first(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) number of visible joints, and (N, K) indices of the joints, visible ones first, in their order."""
        visible = self.keypoints[..., 2] > 0
        return visible.sum(axis=1), np.argsort(~visible, axis=1, kind="stable")


@dataclass(frozen=True)
class Detections:
    """The 20 best poses of each image, ordered by image, then by falling score, then as in the file.

    image: (D,) index into the ground truth's image_ids; xy: (D, K, 2) pixels; score, area: (D,);
    boxed: area is that of the results' boxes; records: the dicts in file order,
    restricted to the images asked for; notes: what is odd, but allowed.
    """

    image: np.ndarray
    xy: np.ndarray
    score: np.ndarray
    area: np.ndarray
    boxed: bool
    records: Sequence[Mapping[str, Any]] = field(default_factory=list, repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_results(
        cls,
        results: Sequence[Mapping[str, Any]],
        gt: GroundTruth,
        *,
        known_images: Iterable[Any] | None = None,
        where: str = "predictions",
    ) -> Detections:
        """Checks a COCO result list. `known_images`: ids that may occur though they are not evaluated.

        Raises DataError that lists all faults.
        """
        if not isinstance(results, Sequence) or isinstance(results, str | bytes):
            raise DataError(
                f"the file holds {kind_of(results)}",
                where=where,
                expected="a list of results, each with image_id, category_id, keypoints and score",
            )
        number = {image: i for i, image in enumerate(gt.image_ids.tolist())}
        known = set(number) | set(known_images or ())
        joints = gt.keypoints.shape[1]
        boxed = bool(results) and isinstance(results[0], Mapping) and _has_box(results[0])
        faults = Faults(where)
        for n, result in enumerate(results):
            faults.extend(result_faults(n, result, known, joints, gt.category, boxed))
        faults.check(f"COCO keypoint results with {joints} joints for the images of the annotations")
        kept = [r for r in results if r["image_id"] in number]
        return cls._arrays(kept, number, joints, boxed)

    @classmethod
    def _arrays(cls, kept: list[Mapping[str, Any]], number: dict[Any, int], joints: int, boxed: bool) -> Detections:
        xy = _flat([r["keypoints"] for r in kept]).reshape(-1, joints, 3)[..., :2]
        image = np.array([number[r["image_id"]] for r in kept], dtype=np.int64)
        score = np.array([r["score"] for r in kept], dtype=np.float64)
        if boxed:
            # QUIRK: a box in the *first* result makes pycocotools take the box area for every result;
            # this moves APm and APl (loadRes; hrnet card G8)
            area = _flat([r["bbox"] for r in kept]).reshape(-1, 4)[:, 2:].prod(axis=1)
        else:
            area = np.ptp(xy, axis=1).prod(axis=1) if len(xy) else np.zeros(0)
        order = np.lexsort((-score, image))
        order = order[_rank_in_group(image[order]) < MAX_DETECTIONS]
        notes = _result_notes(kept, xy, image, boxed)
        return cls(image[order], xy[order], score[order], area[order], boxed, kept, notes)


def _rank_in_group(sorted_groups: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values."""
    changes = sorted_groups[1:] != sorted_groups[:-1]
    starts = np.flatnonzero(np.r_[len(sorted_groups) > 0, changes])
    return np.arange(len(sorted_groups)) - np.repeat(starts, np.diff(np.r_[starts, len(sorted_groups)]))


def _flat(rows: list[Any]) -> np.ndarray:
    """Rows of numbers, one after the other, float64; several times quicker than np.array on nested lists."""
    return np.fromiter(chain.from_iterable(rows), dtype=np.float64)


def _normalised(a: Mapping[str, Any], evaluator: str) -> dict[str, Any]:
    """The fields that are used, with the defaults that the evaluators would fail without."""
    points = a["keypoints"]
    area = a["area"] if evaluator == "coco" else a["bbox"][2] * a["bbox"][3] * _CROWDPOSE_AREA
    return {
        "id": a["id"],
        "image_id": a["image_id"],
        "keypoints": points,
        "bbox": a["bbox"],
        "area": area,
        "iscrowd": int(bool(a.get("iscrowd", 0))),
        "num_keypoints": a.get("num_keypoints", sum(v > 0 for v in points[2::3])),
    }


def _has_box(result: Mapping[str, Any]) -> bool:
    return "bbox" in result and not (isinstance(result["bbox"], Sequence) and len(result["bbox"]) == 0)


def _result_notes(kept: list[Mapping[str, Any]], xy: np.ndarray, image: np.ndarray, boxed: bool) -> tuple[str, ...]:
    notes = []
    if boxed:
        notes.append("the first result has a bbox: areas of predictions are box areas (this moves APm and APl)")
    order = np.lexsort((xy[:, 0, 1], xy[:, 0, 0], image))
    before, after = order[:-1], order[1:]
    near = (image[before] == image[after]) & (xy[before, 0] == xy[after, 0]).all(axis=1)
    copies = int((xy[before[near]] == xy[after[near]]).all(axis=(1, 2)).sum())
    if copies:
        notes.append(f"{copies} poses occur twice in their image; each copy counts as a false positive")
    return tuple(notes)
