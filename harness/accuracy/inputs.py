"""COCO-format dicts -> checked arrays, in the order in which pycocotools takes persons and poses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, islice
from typing import Any

import numpy as np

from harness.accuracy.best import AT_ONCE, BestPoses, Block
from harness.accuracy.checks import (
    Faults,
    annotation_faults,
    category_of,
    check_layout,
    kind_of,
    pictures_of,
    result_faults,
)  # fmt: skip
from harness.data.crowdpose import AREA_PER_BOX
from harness.errors import DataError

__all__ = ["Detections", "GroundTruth"]


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
    box: (D, 4) xywh of the results, None when they have none; count: results of the images asked for, those beyond
    the 20 best included; notes: what is odd, but allowed.
    """

    image: np.ndarray
    xy: np.ndarray
    score: np.ndarray
    area: np.ndarray
    box: np.ndarray | None
    count: int
    notes: tuple[str, ...] = ()

    @classmethod
    def from_results(
        cls,
        results: Iterable[Mapping[str, Any]],
        gt: GroundTruth,
        *,
        known_images: Iterable[Any] | None = None,
        where: str = "predictions",
    ) -> Detections:
        """Checks COCO results, a list or anything that yields them. `known_images`: ids that may occur though they
        are not evaluated.

        Results are taken 10,000 at a time and kept as arrays of 16 K + 16 bytes for a pose, the 20 best of each
        image. So memory grows with the poses that are kept, not with the number of results.

        Raises DataError that lists all faults.
        """
        if isinstance(results, Mapping | str | bytes) or not isinstance(results, Iterable):
            raise DataError(
                f"the file holds {kind_of(results)}",
                where=where,
                expected="a list of results, each with image_id, category_id, keypoints and score",
            )
        number = {image: i for i, image in enumerate(gt.image_ids.tolist())}
        known = set(number) | set(known_images or ())
        joints = gt.keypoints.shape[1]
        faults, done, boxed = Faults(where), 0, False
        best = BestPoses(joints, boxed=False)
        for block in _blocks(results):
            if not done:
                boxed = isinstance(block[0], Mapping) and _has_box(block[0])
                best = BestPoses(joints, boxed=boxed)
            for n, result in enumerate(block, done):
                faults.extend(result_faults(n, result, known, joints, gt.category, boxed))
            done += len(block)
            if not faults.count:
                best.add(_arrays([r for r in block if r["image_id"] in number], number, joints, boxed))
        faults.check(f"COCO keypoint results with {joints} joints for the images of the annotations")
        return cls._ordered(best, boxed)

    @classmethod
    def _ordered(cls, best: BestPoses, boxed: bool) -> Detections:
        image, score, xy, box = best.ordered()
        if boxed:
            # QUIRK: a box in the *first* result makes pycocotools take the box area for every result;
            # this moves APm and APl (loadRes; hrnet card G8)
            area = box[:, 2:].prod(axis=1)
        else:
            area = np.ptp(xy, axis=1).prod(axis=1) if len(xy) else np.zeros(0)
        return cls(image, xy, score, area, box if boxed else None, best.count, _result_notes(xy, image, boxed))

    def subset(self, keep: np.ndarray) -> Detections:
        """The poses that `keep`, (D,) bool or indices, names."""
        box = None if self.box is None else self.box[keep]
        return replace(
            self, image=self.image[keep], xy=self.xy[keep], score=self.score[keep], area=self.area[keep], box=box
        )

    def to_results(self, gt: GroundTruth) -> list[dict[str, Any]]:
        """COCO results, for a reference evaluator; the third number of a keypoint, which none reads, is 1."""
        points = np.concatenate((self.xy, np.ones((*self.xy.shape[:2], 1))), axis=2).reshape(len(self.xy), -1)
        rows = zip(gt.image_ids[self.image].tolist(), points.tolist(), self.score.tolist(), strict=True)
        results = [
            {"image_id": i, "category_id": gt.category, "keypoints": p, "score": s} for i, p, s in rows
        ]  # fmt: skip
        if self.box is not None:
            for result, box in zip(results, self.box.tolist(), strict=True):
                result["bbox"] = box
        return results


def _blocks(results: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(results)
    while block := list(islice(rest, AT_ONCE)):
        yield block


def _arrays(rows: list[Mapping[str, Any]], number: dict[Any, int], joints: int, boxed: bool) -> Block:
    image = np.array([number[r["image_id"]] for r in rows], dtype=np.int64)
    score = np.array([r["score"] for r in rows], dtype=np.float64)
    # a copy, so that the third numbers are not kept alive by the view
    xy = _flat([r["keypoints"] for r in rows]).reshape(-1, joints, 3)[..., :2].copy()
    box = _flat([r["bbox"] for r in rows]).reshape(-1, 4) if boxed else np.empty((len(rows), 0))
    return image, score, xy, box


def _flat(rows: list[Any]) -> np.ndarray:
    """Rows of numbers, one after the other, float64; several times quicker than np.array on nested lists."""
    return np.fromiter(chain.from_iterable(rows), dtype=np.float64)


def _normalised(a: Mapping[str, Any], evaluator: str) -> dict[str, Any]:
    """The fields that are used, with the defaults that the evaluators would fail without."""
    points = a["keypoints"]
    area = a["area"] if evaluator == "coco" else a["bbox"][2] * a["bbox"][3] * AREA_PER_BOX
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


def _result_notes(xy: np.ndarray, image: np.ndarray, boxed: bool) -> tuple[str, ...]:
    notes = []
    if boxed:
        notes.append("the first result has a bbox: areas of predictions are box areas (this moves APm and APl)")
    order = np.lexsort((xy[:, 0, 1], xy[:, 0, 0], image))
    before, after = order[:-1], order[1:]
    same = image[before] == image[after]
    for j in range(xy.shape[1]):  # joint by joint, as copies of all would fill the memory
        before, after = before[same], after[same]
        same = (xy[before, j] == xy[after, j]).all(axis=1)
    copies = int(same.sum())
    if copies:
        notes.append(f"{copies} poses occur twice in their image; each copy counts as a false positive")
    return tuple(notes)
