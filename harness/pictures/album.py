"""Photographs as a data set: their sizes, and the person boxes that a file gives for them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.ahead import in_order
from harness.data.annotation_file import parse_json
from harness.data.boxes import Boxes
from harness.data.coco import Dataset, ImageInfo
from harness.data.reading import image_size
from harness.errors import DataError
from harness.pose.skeletons import COCO

__all__ = ["Album", "open_album"]


@dataclass(frozen=True)
class Album:
    """Photographs without annotations. In `dataset` and `boxes` they are numbered from 1 on, in the order of the files;
    `ids` are those by which others know them."""

    dataset: Dataset
    boxes: Boxes
    ids: list[int]


def open_album(files: Sequence[Path], boxes: Path | None, workers: int) -> Album:
    """The photographs `files` with the boxes of a COCO annotation or detection file; a photograph is one box without.

    `workers` threads look at the files. Raises DataError for one that is no photograph or is not in the boxes file.
    """
    with closing(in_order(image_size, files, workers)) as found:
        sizes = list(found)
    images = tuple(ImageInfo(n, str(path), w, h) for n, (path, (w, h)) in enumerate(zip(files, sizes), 1))
    if boxes is None:
        ids, rows = [image.id for image in images], [[[0, 0, i.width, i.height, 1.0]] for i in images]
    else:
        ids, rows = _given(boxes, files)
    table = np.array([row for of_one in rows for row in of_one], dtype=np.float64).reshape(-1, 5)
    numbers = np.repeat([image.id for image in images], [len(of_one) for of_one in rows])
    given = Boxes(numbers, table[:, :4], table[:, 4], np.full(len(table), -1), str(boxes or "whole photographs"))
    return Album(Dataset("photographs", Path(), images, (), COCO, {}), given, ids)


def _given(source: Path, files: Sequence[Path]) -> tuple[list[int], list[list[list[float]]]]:
    """Image ids, and by photograph the boxes with their scores: x, y, w, h, score."""
    entries, images = _entries(parse_json(source, "boxes file"), source)
    lost = [path.name for path in files if path.name not in images] if images else []
    if lost:
        raise DataError(f"{len(lost)} photographs are not in the boxes file: {', '.join(lost[:5])}", where=str(source))
    ids = [images[path.name] if images else _number(path) for path in files]
    by_image: dict[int, list[list[float]]] = {}
    for entry in entries:
        by_image.setdefault(entry["image_id"], []).append([*entry["bbox"], entry.get("score", 1.0)])
    return ids, [by_image.get(image_id, []) for image_id in ids]


def _entries(content: Any, source: Path) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Person entries of an annotation or detection file, and image ids by file name (annotation files)."""
    images: dict[str, int] = {}
    try:
        listed = content["annotations"] if isinstance(content, dict) else content
        if isinstance(content, dict):
            images = {Path(i["file_name"]).name: i["id"] for i in content["images"]}
        persons = [e for e in listed if e.get("category_id", 1) == 1 and not e.get("iscrowd") and e.get("bbox")]
        for entry in persons:
            np.array([entry["image_id"], entry.get("score", 1.0), *entry["bbox"]], dtype=np.float64).reshape(6)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"no person boxes can be read: {type(error).__name__} {error}",
            where=str(source),
            expected="a COCO annotation file, or a list of {image_id, category_id, bbox, score}",
        ) from None
    return persons, images


def _number(path: Path) -> int:
    """The image id in a file name: its last number (000000000139, COCO_val2014_000000000139)."""
    numbers = re.findall(r"\d+", path.stem)
    if not numbers:
        raise DataError(
            "the boxes file names images by id and this file name holds no number", where=path.name,
            hint="give a COCO annotation file, which holds file names",
        )  # fmt: skip
    return int(numbers[-1])
