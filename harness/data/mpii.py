"""MPII's annotations as HRNet's JSON lists have them: one entry for each person, in MATLAB's pixels.

Coordinates in the file count from 1; here, as everywhere, from 0. A person's box is a square of 200 x scale pixels
around the center, which moves down by 15 x scale; `box_padding` (1.25) then enlarges it (HRNet's published protocol).
PCKh needs head sizes, which the JSON lacks: `heads` names the mat file that has them (`harness.data.mpii_heads`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from harness.data.annotation_file import check_links, parse_json
from harness.data.coco import Dataset, ImageInfo, Person
from harness.data.crowdpose import AREA_PER_BOX
from harness.data.mpii_heads import read_heads
from harness.data.reading import header_size
from harness.errors import DataError
from harness.foreign.json_text import is_number
from harness.foreign.places import climbs_out
from harness.pose.skeletons import MPII

__all__ = ["PROTOCOL", "Entry", "entry_faults", "entry_of", "load"]

PROTOCOL = {"box_cleaning": "none", "rescore": False, "nms": "none"}
"""PCKh asks for one pose of each annotated person, from the box that center and scale give"""
PIXELS_PER_SCALE = 200.0
_SHIFT = 15.0  # pixels per scale, by which the center of a box lies below that of the file
_KEYS = ("image", "center", "scale", "joints", "joints_vis")


class Entry(NamedTuple):
    """A person of the file, in pixels that count from 1: center (2,), joints (16, 2), visible (16,) bool."""

    image: str
    center: np.ndarray
    scale: float
    joints: np.ndarray
    visible: np.ndarray


def load(
    annotation_file: str | Path,
    image_folder: str | Path,
    *,
    heads: str | Path | None = None,
    name: str = "",
    root: Path | None = None,
) -> Dataset:
    """Reads a list of persons; of the images only headers are read, as the list has no sizes (0 x 0: not there).

    Ids of images and persons are their places in the file, from 1. With `heads`, persons have head sizes, and where
    that file holds joints these are the ones that count, as in MPII's evaluation. Links lead nowhere out
    of `root`, by default the image folder. Raises DataError with the entry.
    """
    path, folder = Path(annotation_file), Path(image_folder)
    entries = _entries(parse_json(path, "annotation file"), path)
    check_links([entry.image for entry in entries], folder, root or folder)
    files = {file: number for number, file in enumerate(dict.fromkeys(e.image for e in entries), start=1)}
    images = tuple(_image(number, file, folder) for file, number in files.items())
    persons = [_person(number, entry, files[entry.image]) for number, entry in enumerate(entries, start=1)]
    if heads is not None:
        persons = _with_heads(persons, entries, Path(heads), path)
    annotations = {
        "images": [{"id": i.id, "file_name": i.file, "width": i.width, "height": i.height} for i in images],
        "annotations": [_annotation(person) for person in persons],
        "categories": [{"id": 1, "name": "person", "keypoints": list(MPII.joints)}],
    }
    return Dataset(name or path.stem, folder, images, tuple(persons), MPII, annotations, protocol=PROTOCOL)


def _entries(content: Any, path: Path) -> list[Entry]:
    if not isinstance(content, list):
        raise DataError("not a list of persons", where=str(path), expected=f"a list of {{{', '.join(_KEYS)}}}")
    for number, entry in enumerate(content):
        faults = entry_faults(entry)
        if faults:
            raise DataError(
                "; ".join(faults),
                where=f"{path}, entry {number}",
                expected=f"{', '.join(_KEYS)} of an MPII person, as HRNet's JSON files have them",
                hint="a list of detections or results is given as boxes or predictions, not as annotations",
            )
    return [entry_of(entry) for entry in content]


def entry_faults(entry: Any) -> list[str]:
    """What is wrong with one element of the list; nothing when it can be read."""
    if not isinstance(entry, dict):
        return [f"it is {type(entry).__name__}, not an object"]
    lacking = [key for key in _KEYS if key not in entry]
    if lacking:
        return [f"no {', '.join(lacking)}"]
    faults = []
    file, scale, count = entry["image"], entry["scale"], MPII.num_joints
    if not isinstance(file, str) or not file or climbs_out(file):
        faults.append(f"image is {file!r}, not a path inside the image folder")
    if not _numbers(entry["center"], 2) or entry["center"][0] == -1:
        faults.append(f"center is {entry['center']!r}, not two numbers")
    if not is_number(scale) or scale <= 0:
        faults.append(f"scale is {scale!r}, not a positive number")
    joints, visible = entry["joints"], entry["joints_vis"]
    for key, rows in (("joints", joints), ("joints_vis", visible)):
        if not isinstance(rows, list) or len(rows) != count:
            faults.append(f"{key} has {len(rows) if isinstance(rows, list) else 'no'} rows, not {count}")
    if not faults and not all(_numbers(row, 2) for row in joints):
        faults.append("joints that are not two numbers")
    if not faults and not all(v in (0, 1) for v in visible):
        faults.append("joints_vis that are neither 0 nor 1")
    return faults


def entry_of(entry: dict[str, Any]) -> Entry:
    """An element without faults, as arrays."""
    center, joints = (np.array(entry[key], dtype=np.float64) for key in ("center", "joints"))
    return Entry(entry["image"], center, float(entry["scale"]), joints, np.array(entry["joints_vis"], dtype=bool))


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(map(is_number, value))


def _image(number: int, file: str, folder: Path) -> ImageInfo:
    path = folder / file
    width, height = header_size(path) if path.is_file() else (0, 0)
    return ImageInfo(number, file, width, height)


def _person(number: int, entry: Entry, image_id: int) -> Person:
    side = PIXELS_PER_SCALE * entry.scale
    x, y = (entry.center + np.array([0.0, _SHIFT * entry.scale]) - 1.0 - side / 2).tolist()
    keypoints = _keypoints(entry.joints, entry.visible)
    box = (x, y, side, side)
    return Person(number, image_id, box, AREA_PER_BOX * side**2, keypoints, False, int(entry.visible.sum()))


def _keypoints(joints: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """(16, 3) float64: x, y from 0, and 2 where the joint is labelled; zeros elsewhere."""
    return np.where(visible[:, None], np.column_stack([joints - 1.0, np.full(len(joints), 2.0)]), 0.0)


def _with_heads(persons: Sequence[Person], entries: Sequence[Entry], heads: Path, path: Path) -> list[Person]:
    found = read_heads(heads, [(e.image, e.center) for e in entries])
    if found.joints is None or found.visible is None:
        return [replace(p, head_size=float(size)) for p, size in zip(persons, found.sizes, strict=True)]
    _check_same_persons(entries, found.joints, found.visible, heads, path)
    rows = zip(persons, found.sizes, found.joints, found.visible, strict=True)
    return [
        replace(p, head_size=float(size), keypoints=_keypoints(joints, seen), num_keypoints=int(seen.sum()))
        for p, size, joints, seen in rows
    ]


def _check_same_persons(
    entries: Sequence[Entry], joints: np.ndarray, visible: np.ndarray, heads: Path, path: Path
) -> None:
    """DataError for a mat file of other persons, or of the same in another order."""
    for number, entry in enumerate(entries):
        both = entry.visible & visible[number]
        apart = np.linalg.norm(entry.joints[both] - joints[number][both], axis=1)
        if len(apart) and np.median(apart) > 2:
            raise DataError(
                f"entry {number} of {path.name} and person {number + 1} of {heads.name} are {np.median(apart):.0f} px "
                "apart: they are not the same person",
                where=str(heads),
                expected="the mat file of the same split, persons in the same order",
            )


def _annotation(person: Person) -> dict[str, Any]:
    return {
        "id": person.id,
        "image_id": person.image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": list(person.bbox),
        "area": person.area,
        "num_keypoints": person.num_keypoints,
        "keypoints": person.keypoints.ravel().tolist(),
    }
