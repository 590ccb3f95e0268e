"""Annotation files in COCO's keypoint format, read once into small frozen values.

Reading stops at the first thing that would make a number wrong later; `harness.data.check` lists all of them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.annotation_file import check_links, person_category, read_annotations, skeleton_of
from harness.data.crowdpose import AREA_PER_BOX
from harness.errors import DataError
from harness.foreign.places import climbs_out
from harness.pose.joint_map import JointMap
from harness.pose.skeletons import CROWDPOSE, Skeleton

__all__ = [
    "Dataset",
    "ImageInfo",
    "Person",
    "limit",
    "load",
    "restrict",
    "subset",
]


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """One image: `file` is relative to the image folder, sizes are pixels."""

    id: int
    file: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, eq=False)
class Person:
    """One annotated person: bbox (x, y, w, h) in pixels, keypoints (K, 3) float64: x, y, visibility 0..2.

    `head_size`: pixels, of MPII, where head boxes were given.
    """

    id: int
    image_id: int
    bbox: tuple[float, float, float, float]
    area: float
    keypoints: np.ndarray
    iscrowd: bool
    num_keypoints: int
    head_size: float | None = None


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images and persons in file order. `annotations` is the COCO dict for a judge, without segmentations.

    `omitted` are the ids of images of the annotation file that a restriction left out. `joint_map`: where a network
    with other joints is evaluated; `skeleton` and `persons` then have the evaluated joints only. `protocol`: fields
    of the test-time protocol that the set's own evaluation prescribes.
    """

    name: str
    image_folder: Path
    images: tuple[ImageInfo, ...]
    persons: tuple[Person, ...]
    skeleton: Skeleton
    annotations: dict[str, Any] = field(repr=False)
    omitted: frozenset[int] = field(default=frozenset(), repr=False)
    joint_map: JointMap | None = field(default=None, repr=False)
    protocol: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def evaluator(self) -> str:
        """`coco` and `crowdpose`: AP; `mpii`: PCKh."""
        return self.skeleton.name

    @cached_property
    def file_sizes(self) -> dict[int, int]:
        """Bytes of each image file by image id, 0 where there is none; as they were when they were first asked for."""
        return {image.id: _file_size(self.image_folder / image.file) for image in self.images}

    def changed_files(self) -> list[ImageInfo]:
        """Images whose files are there, but not as `file_sizes` has them."""
        now = ((image, _file_size(self.image_folder / image.file)) for image in self.images)
        return [image for image, size in now if size not in (0, self.file_sizes[image.id])]

    def without_files(self, image_ids: Iterable[int]) -> Dataset:
        """The same data set where the files of these images are not there."""
        found = replace(self)
        found.__dict__["file_sizes"] = {**self.file_sizes, **dict.fromkeys(image_ids, 0)}
        return found

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of joint set, persons and images (id, name, size in pixels and bytes; 0 bytes if absent)."""
        digest = hashlib.sha256(repr((self.skeleton.name, self.skeleton.joints)).encode())
        for image in self.images:
            digest.update(repr((image.id, image.file, image.width, image.height)).encode())
            digest.update(str(self.file_sizes[image.id]).encode())
        ids = [(p.id, p.image_id, p.iscrowd, p.num_keypoints) for p in self.persons]
        digest.update(np.array(ids, dtype="<i8").tobytes())
        digest.update(np.array([(*p.bbox, p.area) for p in self.persons], dtype="<f8").tobytes())
        for person in self.persons:
            digest.update(person.keypoints.astype("<f8").tobytes())
            if person.head_size is not None:
                digest.update(np.float64(person.head_size).tobytes())
        # what is easy, medium and hard
        crowded = [entry.get("crowdIndex") for entry in self.annotations.get("images", ())]
        if any(index is not None for index in crowded):
            digest.update(repr(crowded).encode())
        return digest.hexdigest()


def load(
    annotation_file: str | Path,
    image_folder: str | Path,
    *,
    skeleton: Skeleton | None = None,
    name: str = "",
    where: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> Dataset:
    """Reads a COCO keypoint file; images are not opened. Links among them may lead anywhere below `root`, by default
    the image folder, and nowhere else.

    `skeleton` None: from the number of joints of the person category (17 COCO, 14 CrowdPose, 16 MPII).
    `where` keeps images whose field has that value, e.g. {"gt": "complete"}. Raises DataError, with file and
    annotation id, for everything that is missing, double, contradictory or outside the image folder.
    """
    path = Path(annotation_file)
    raw = read_annotations(path)
    category = person_category(raw, path)
    joints = skeleton or skeleton_of(category, path, bool(raw["annotations"]))
    _check_joint_count(category, joints, path)
    images = _images(raw["images"], path)
    check_links((image.file for image in images), Path(image_folder), root or Path(image_folder))
    entries = [a for a in raw["annotations"] if _get(a, "category_id", path) == category["id"]]
    persons = _persons(entries, {image.id for image in images}, joints, path)
    for entry, person in zip(entries, persons):
        # the judges read these three, custom sets omit them
        entry["num_keypoints"], entry["iscrowd"] = person.num_keypoints, int(person.iscrowd)
        entry["area"] = person.area
    annotations = {**raw, "annotations": entries}
    dataset = Dataset(name or path.stem, Path(image_folder), images, tuple(persons), joints, annotations)
    return restrict(dataset, where) if where else dataset


def subset(dataset: Dataset, image_ids: Iterable[int]) -> Dataset:
    """The dataset with these images only, still in its own order. Raises DataError for unknown ids."""
    wanted = set(image_ids)
    unknown = sorted(wanted - {image.id for image in dataset.images})
    if unknown:
        raise DataError(f"{len(unknown)} image ids are not in the dataset: {unknown[:10]}", where=dataset.name)
    raw = dataset.annotations
    kept = {
        "images": [image for image in raw["images"] if image["id"] in wanted],
        "annotations": [entry for entry in raw["annotations"] if entry["image_id"] in wanted],
    }
    return replace(
        dataset,
        images=tuple(image for image in dataset.images if image.id in wanted),
        persons=tuple(person for person in dataset.persons if person.image_id in wanted),
        annotations={**raw, **kept},
        omitted=dataset.omitted | {image.id for image in dataset.images if image.id not in wanted},
    )


def limit(dataset: Dataset, count: int) -> Dataset:
    """The first `count` images of the dataset."""
    if count < 1:
        raise DataError(f"a limit of {count} images leaves nothing", expected="at least 1")
    return subset(dataset, [image.id for image in dataset.images[:count]])


def restrict(dataset: Dataset, where: Mapping[str, Any]) -> Dataset:
    """The images whose annotation fields equal those of `where`. Raises DataError when none does."""
    raw = dataset.annotations["images"]
    ids = [image["id"] for image in raw if all(image.get(key) == value for key, value in where.items())]
    if not ids:
        seen = {key: sorted({str(image.get(key)) for image in raw})[:10] for key in where}
        raise DataError(f"no image has {dict(where)}", where=dataset.name, expected=f"one of {seen}")
    return subset(dataset, ids)


def _check_joint_count(category: dict[str, Any], skeleton: Skeleton, path: Path) -> None:
    count = len(category.get("keypoints") or skeleton.joints)
    if count != skeleton.num_joints:
        what = f"the person category names {count} keypoints"
        raise DataError(what, where=str(path), expected=f"{skeleton.num_joints} ({skeleton.name})")


def _get(entry: dict[str, Any], key: str, path: Path) -> Any:
    if key not in entry:
        raise DataError(f"entry {entry.get('id', '?')} has no '{key}'", where=str(path))
    return entry[key]


def _images(entries: list[dict[str, Any]], path: Path) -> tuple[ImageInfo, ...]:
    images: dict[int, ImageInfo] = {}
    for entry in entries:
        image = _image(entry, path)
        if image.id in images:
            raise DataError(f"image id {image.id} is there twice", where=str(path), hint="ids must be unique")
        images[image.id] = image
    return tuple(images.values())


def _image(entry: dict[str, Any], path: Path) -> ImageInfo:
    values = tuple(_get(entry, key, path) for key in ("id", "file_name", "width", "height"))
    identity, file, width, height = values
    if not (all(_is_whole(v) for v in (identity, width, height)) and isinstance(file, str) and file):
        what = f"image entry with id, file_name, width, height = {values}"
        raise DataError(what, where=str(path), expected="whole numbers and a file name")
    if width < 1 or height < 1:
        raise DataError(f"image {identity} is {width}x{height} pixels", where=str(path), expected="at least 1x1")
    if climbs_out(file):
        what = f"file_name {file!r} of image {identity} leaves the image folder"
        raise DataError(what, where=str(path), expected="a path inside the image folder", hint="remove / and ..")
    return ImageInfo(identity, file, width, height)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _whole_or(value: Any, otherwise: int) -> int:
    return value if _is_whole(value) else otherwise


def _persons(entries: list[dict[str, Any]], image_ids: set[int], skeleton: Skeleton, path: Path) -> list[Person]:
    seen: set[int] = set()
    for entry in entries:
        identity, image_id = _get(entry, "id", path), _get(entry, "image_id", path)
        if not (_is_whole(identity) and _is_whole(image_id)):
            what = f"annotation with id {identity!r} and image_id {image_id!r}"
            raise DataError(what, where=str(path), expected="whole numbers")
        if identity in seen:
            raise DataError(f"annotation id {identity} is there twice", where=str(path), hint="ids must be unique")
        if image_id not in image_ids:
            what = f"annotation {identity} is of image {image_id}, which is not among the images"
            raise DataError(what, where=str(path), hint="id of an annotation and id of its image were mixed up?")
        _check_lengths(entry, skeleton, path)
        seen.add(identity)
    keypoints = _numbers([e["keypoints"] for e in entries], (-1, skeleton.num_joints, 3), entries, path)
    boxes = _numbers([e["bbox"] for e in entries], (-1, 4), entries, path)
    areas = _numbers([_area(e, skeleton, path) for e in entries], (-1,), entries, path)
    counts = (keypoints[:, :, 2] > 0).sum(axis=1).tolist()
    return [
        Person(
            id=entry["id"],
            image_id=entry["image_id"],
            bbox=tuple(box),
            area=area,
            keypoints=joints,
            iscrowd=bool(entry.get("iscrowd", 0)),
            num_keypoints=_whole_or(entry.get("num_keypoints"), count),
        )
        for entry, box, area, joints, count in zip(entries, boxes.tolist(), areas.tolist(), keypoints, counts)
    ]


def _check_lengths(entry: dict[str, Any], skeleton: Skeleton, path: Path) -> None:
    where = f"{path}, annotation {entry['id']}"
    expected = f"{3 * skeleton.num_joints} numbers: x, y, visibility of {skeleton.num_joints} joints"
    joints, box = entry.get("keypoints"), entry.get("bbox")
    if not isinstance(joints, list):
        raise DataError("annotation has no keypoints", where=where, expected=expected)
    if len(joints) != 3 * skeleton.num_joints:
        raise DataError(f"annotation has {len(joints)} keypoint numbers", where=where, expected=expected)
    if not isinstance(box, list) or len(box) != 4:
        raise DataError("annotation has no bbox", where=where, expected="bbox: [x, y, width, height]")


def _area(entry: dict[str, Any], skeleton: Skeleton, path: Path) -> float:
    if entry.get("area") is not None:
        return entry["area"]
    if skeleton is CROWDPOSE:
        return AREA_PER_BOX * entry["bbox"][2] * entry["bbox"][3]
    raise DataError(
        "annotation has no area",
        where=f"{path}, annotation {entry['id']}",
        expected="the area of the person in pixels, which OKS divides by",
        hint=f"without masks, {AREA_PER_BOX} x width x height of the box is the usual estimate",
    )


def _numbers(rows: list[Any], shape: tuple[int, ...], entries: list[dict[str, Any]], path: Path) -> np.ndarray:
    """float64 array of this shape. Raises DataError with the annotation that holds no finite numbers."""
    try:
        array = np.array(rows, dtype=np.float64).reshape(len(rows), *shape[1:])
    except (TypeError, ValueError, OverflowError):
        for row, entry in zip(rows, entries):
            _numbers_of(row, shape[1:], entry, path)
        raise
    finite = np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    if not finite.all():
        raise _no_number(entries[int(finite.argmin())], path)
    return array


def _numbers_of(row: Any, shape: tuple[int, ...], entry: dict[str, Any], path: Path) -> None:
    try:
        sound = np.array(row, dtype=np.float64).shape == ((math.prod(shape),) if shape else ())
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise _no_number(entry, path)


def _no_number(entry: dict[str, Any], path: Path) -> DataError:
    where = f"{path}, annotation {entry['id']}"
    return DataError("keypoints, bbox or area hold something else than finite numbers", where=where)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
