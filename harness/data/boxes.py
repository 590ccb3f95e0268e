"""Person boxes for the top-down methods: from the ground truth, or from a detector's result file.

A detection file is what every COCO detector writes: a JSON list of
{"image_id": 139, "category_id": 1, "bbox": [x, y, width, height], "score": 0.98}.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.annotation_file import parse_json
from harness.data.coco import Dataset, ImageInfo, Person
from harness.errors import DataError, unknown_name
from harness.foreign.json_text import is_number

__all__ = ["CLEANINGS", "Boxes", "at_least", "from_file", "from_ground_truth"]

Box = tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Boxes:
    """N boxes, by image in dataset order. `ids` are annotation ids, -1 for detections."""

    image_ids: np.ndarray  # (N,) int64
    xywh: np.ndarray  # (N, 4) float64, image pixels
    scores: np.ndarray  # (N,) float64
    ids: np.ndarray  # (N,) int64
    source: str  # for people and records: ground truth and its cleaning, or file and its digest

    def __len__(self) -> int:
        return len(self.image_ids)

    def take(self, rows: Any) -> Boxes:
        """The boxes of `rows`: indices, a slice or a mask."""
        return Boxes(self.image_ids[rows], self.xywh[rows], self.scores[rows], self.ids[rows], self.source)


def from_ground_truth(dataset: Dataset, cleaning: str = "hrnet") -> Boxes:
    """Boxes of all persons with at least one labelled joint that are no crowd region; score 1.

    `cleaning`: "hrnet" (official code and mmpose 0.x), "mmpose1" or "none".
    Source: the top-down protocol published with HRNet.
    Boxes without any extent after cleaning are dropped.
    """
    if cleaning not in CLEANINGS:
        what, hint = unknown_name("box cleaning", cleaning, CLEANINGS)
        raise DataError(what, hint=hint)
    clean, images = CLEANINGS[cleaning], {image.id: image for image in dataset.images}
    rows: list[tuple[int, Box, float, int]] = []
    for person in dataset.persons:
        if person.iscrowd or not person.num_keypoints or not (person.keypoints[:, 2] > 0).any():
            continue
        box = clean(person, images[person.image_id])
        if box is not None and max(box[2:]) > 0:
            rows.append((person.image_id, box, 1.0, person.id))
    return _boxes(rows, dataset, f"ground-truth ({cleaning})")


def _clean_hrnet(person: Person, image: ImageInfo) -> Box | None:
    # QUIRK: width and height lose one pixel; the published figures with ground-truth boxes have it
    x, y, w, h = person.bbox
    x1, y1 = max(0.0, x), max(0.0, y)
    x2 = min(image.width - 1.0, x1 + max(0.0, w - 1))
    y2 = min(image.height - 1.0, y1 + max(0.0, h - 1))
    if person.area <= 0 or x2 < x1 or y2 < y1:
        return None
    return x1, y1, x2 - x1, y2 - y1


def _clean_mmpose1(person: Person, image: ImageInfo) -> Box:
    x, y, w, h = person.bbox
    x1, x2 = (min(max(edge, 0.0), image.width - 1.0) for edge in (x, x + w))
    y1, y2 = (min(max(edge, 0.0), image.height - 1.0) for edge in (y, y + h))
    return x1, y1, x2 - x1, y2 - y1


def _as_annotated(person: Person, image: ImageInfo) -> Box:
    return person.bbox


CLEANINGS: dict[str, Callable[[Person, ImageInfo], Box | None]] = {
    "hrnet": _clean_hrnet,
    "mmpose1": _clean_mmpose1,
    "none": _as_annotated,
}


def from_file(path: str | Path, dataset: Dataset, threshold: float = 0.0) -> Boxes:
    """Boxes of a COCO detection file, raw: person entries (category 1) with score >= `threshold`.

    Boxes of images that a restriction of the dataset left out are passed over. Raises DataError for a file
    that is no such list, for entries without finite numbers, and for image ids that nobody annotated.
    """
    path = Path(path)
    entries = parse_json(path, "detection file")
    if not isinstance(entries, list):
        raise DataError(
            "not a detection file",
            where=str(path),
            expected='a list of {"image_id", "category_id", "bbox": [x, y, width, height], "score"}',
            hint="boxes of an annotation file are asked for with 'ground-truth'",
        )
    rows = [row for number, entry in enumerate(entries) if (row := _row(entry, number, path)) is not None]
    known = {image.id for image in dataset.images}
    _check_known({row[0] for row in rows} - known - dataset.omitted, path)
    kept = [row for row in rows if row[0] in known and row[2] >= threshold]
    return _boxes(kept, dataset, _file_source(path, threshold))


def at_least(boxes: Boxes, threshold: float) -> Boxes:
    """The boxes with a score of `threshold` or more."""
    return replace(boxes.take(boxes.scores >= threshold), source=boxes.source + _limit(threshold))


def _limit(threshold: float) -> str:
    return f" score >= {threshold:g}" if threshold > 0 else ""


def _row(entry: Any, number: int, path: Path) -> tuple[int, Box, float, int] | None:
    """(image id, box, score, -1), or None for another category."""
    where = f"{path}, entry {number}"
    keys = ("image_id", "category_id", "bbox", "score")
    lacking = [key for key in keys if not isinstance(entry, dict) or key not in entry]
    if lacking:
        raise DataError(f"entry {number} has no {', '.join(lacking)}", where=where, expected=", ".join(keys))
    if entry["category_id"] != 1:
        return None
    image_id, box, score = entry["image_id"], entry["bbox"], entry["score"]
    if not isinstance(image_id, int):
        raise DataError(f"image_id is {image_id!r}", where=where, expected="a whole number")
    if not (isinstance(box, list) and len(box) == 4 and all(is_number(v) for v in (*box, score))):
        expected = "four finite numbers in bbox and a finite score"
        raise DataError(f"bbox is {box!r} and score {score!r}", where=where, expected=expected)
    if min(box[2:]) < 0 or max(box[2:]) == 0:
        what = f"box of {box[2]} x {box[3]} pixels"
        raise DataError(what, where=where, expected="a size above 0", hint="bbox is [x, y, width, height]")
    return image_id, (box[0], box[1], box[2], box[3]), score, -1


def _check_known(unknown: set[int], path: Path) -> None:
    if unknown:
        some = ", ".join(str(image_id) for image_id in sorted(unknown)[:10])
        more = " ..." if len(unknown) > 10 else ""
        raise DataError(
            f"{len(unknown)} image ids are not in the annotation file: {some}{more}",
            where=str(path),
            expected="detections on the images of this dataset",
            hint="are boxes and annotations of the same split?",
        )


def _file_source(path: Path, threshold: float) -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return f"{path.name} sha256:{digest}" + _limit(threshold)


def _boxes(rows: Sequence[tuple[int, Box, float, int]], dataset: Dataset, source: str) -> Boxes:
    position = {image.id: at for at, image in enumerate(dataset.images)}
    ordered = sorted(rows, key=lambda row: position[row[0]])  # stable: file order within an image
    return Boxes(
        image_ids=np.array([row[0] for row in ordered], dtype=np.int64),
        xywh=np.array([row[1] for row in ordered], dtype=np.float64).reshape(-1, 4),
        scores=np.array([row[2] for row in ordered], dtype=np.float64),
        ids=np.array([row[3] for row in ordered], dtype=np.int64),
        source=source,
    )
