"""What can be wrong with annotation and result files; all faults of a file are told, not only the first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import DataError
from harness.foreign.json_text import loads

__all__ = [
    "Faults", "annotation_faults", "category_of", "check_layout", "differing_images", "evaluator_of",
    "keypoint_faults", "kind_of", "parse_json", "pictures_of", "read_json", "result_faults",
]  # fmt: skip

_LISTED = 20


def read_json(path: str | Path) -> Any:
    """The content of a JSON file. Raises DataError when it is missing, empty or cut short."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=str(path), expected="a JSON file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), expected="a UTF-8 JSON file") from error
    return parse_json(text, path)


def parse_json(text: str, path: Path) -> Any:
    """The value of a JSON text. Raises DataError when it is empty, no JSON or cut short."""
    try:
        return loads(text, constants=True)  # nan is listed as a fault, with the entry that holds it
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        raise DataError(
            "the JSON ends too early" if cut else f"not valid JSON: {error.msg}",
            where=f"{path}:{error.lineno}",
            expected="one complete JSON document",
            hint="the program that wrote it may have been stopped: write the file again" if cut else "",
        ) from error
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=str(path), expected="one complete JSON document") from None


def evaluator_of(gt: Any) -> str:
    """What annotations are evaluated by: a list of persons is MPII's, images with a crowd index are CrowdPose's."""
    if isinstance(gt, list):
        return "mpii"
    images = gt.get("images") if isinstance(gt, Mapping) else None
    crowded = isinstance(images, list) and any(isinstance(i, Mapping) and "crowdIndex" in i for i in images)
    return "crowdpose" if crowded else "coco"


class Faults:
    """Collects what is wrong with one file and raises it all at once."""

    def __init__(self, where: str) -> None:
        self.where, self.lines, self.count = where, [], 0  # type: tuple[str, list[str], int]

    def add(self, fault: str) -> None:
        self.count += 1
        if len(self.lines) < _LISTED:
            self.lines.append(fault)

    def extend(self, faults: Iterable[str]) -> None:
        for fault in faults:
            self.add(fault)

    def check(self, expected: str, hint: str = "") -> None:
        if not self.count:
            return
        what = self.lines[0] if self.count == 1 else f"{self.count} faults"
        if self.count > 1:
            what += "".join(f"\n  - {line}" for line in self.lines)
            what += f"\n  - and {self.count - _LISTED} more" if self.count > _LISTED else ""
        raise DataError(what, where=self.where, expected=expected, hint=hint)


def differing_images(a: Iterable[Any], b: Iterable[Any]) -> str:
    """Empty when both name the same images, else which are in one only (the first twenty of each)."""
    left, right = set(a), set(b)
    parts = []
    for name, only in (("first", left - right), ("second", right - left)):
        if only:
            listed = ", ".join(str(i) for i in sorted(only)[:_LISTED])
            parts.append(f"{len(only)} only in the {name}: {listed}{' ...' if len(only) > _LISTED else ''}")
    return "; ".join(parts)


def kind_of(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "a text"}
    return names.get(type(value), type(value).__name__)


def check_layout(gt: Mapping[str, Any], where: str) -> None:
    if not isinstance(gt, Mapping):
        raise DataError(f"the file holds {kind_of(gt)}", where=where, expected="a COCO annotation object")
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(gt.get(key), list)]
    if missing:
        raise DataError(
            f"no list of {' and of '.join(missing)}",
            where=where,
            expected="a COCO annotation file with images, annotations and categories",
        )
    if not gt["images"]:
        raise DataError("the list of images is empty", where=where, expected="at least one image")


def category_of(gt: Mapping[str, Any], where: str) -> int:
    """The id of the one category that is evaluated: the only one, or the one named person."""
    categories = [c if isinstance(c, Mapping) else {} for c in gt["categories"]]
    people = [c for c in categories if c.get("name") == "person"] if len(categories) > 1 else categories
    if len(people) == 1 and isinstance(people[0].get("id"), Integral | str):
        return people[0]["id"]
    names = ", ".join(str(c.get("name")) for c in categories) or "none"
    raise DataError(
        f"cannot tell which category is meant: {names}",
        where=where,
        expected="one category, or one named person",
    )


def pictures_of(
    gt: Mapping[str, Any], image_ids: Iterable[Any] | None, evaluator: str, where: str
) -> list[dict[str, Any]]:
    """The image records to evaluate, sorted by id."""
    faults, by_id = Faults(where), {}  # type: tuple[Faults, dict[Any, dict[str, Any]]]
    for n, picture in enumerate(gt["images"]):
        key = picture.get("id") if isinstance(picture, Mapping) else None
        if not _is_id(key):
            faults.add(f"images[{n}]: id is {key!r}")
        elif key in by_id:
            faults.add(f"images[{n}]: image id {key} occurs twice")
        elif evaluator == "crowdpose" and not _is_number(picture.get("crowdIndex")):
            faults.add(f"image {key}: no crowdIndex")
        else:
            by_id[key] = dict(picture)
    if len({type(key) for key in by_id}) > 1:
        faults.add("some image ids are numbers and some are texts")
    wanted = set(by_id) if image_ids is None else {i.item() if isinstance(i, np.generic) else i for i in image_ids}
    faults.extend(
        f"image {i} is asked for, but the file has no such image" for i in sorted(wanted - set(by_id), key=str)
    )
    faults.check("images with unique ids" + (" and a crowdIndex" if evaluator == "crowdpose" else ""))
    return [by_id[key] for key in sorted(wanted)]


def _is_number(value: Any) -> bool:
    return _finite([value])


def _finite(values: Sequence[Any]) -> bool:
    """Real numbers that a float64 can hold; no texts, no truth values."""
    if any(kind is bool or not issubclass(kind, Real) for kind in set(map(type, values))):
        return False
    try:
        return bool(np.isfinite(np.fromiter(values, dtype=np.float64, count=len(values))).all())
    except OverflowError:
        return False


def _is_id(value: Any) -> bool:
    return isinstance(value, Integral | str) and not isinstance(value, bool)


def annotation_faults(
    n: int, a: Any, known: set[Any], seen: set[Any], joints: int, evaluator: str, category: int
) -> Iterable[str]:
    if not isinstance(a, Mapping):
        yield f"annotations[{n}] is {kind_of(a)}"
        return
    identity = a.get("id")
    name = f"annotation {identity}" if _is_id(identity) else f"annotations[{n}]"
    if identity is None:
        yield f"{name}: no id"
    elif not _is_id(identity):
        yield f"{name}: id is {identity!r}"
    elif identity in seen:
        yield f"{name}: the id occurs twice"
    else:
        seen.add(identity)
    if not _is_id(a.get("image_id")) or a["image_id"] not in known:
        yield f"{name}: image {a.get('image_id')!r} is not in the list of images"
    if a.get("category_id", category) != category:
        return
    yield from keypoint_faults(name, a.get("keypoints"), joints)
    box = a.get("bbox")
    if not isinstance(box, Sequence) or len(box) != 4 or not _finite(box):
        yield f"{name}: bbox is {box!r}, not four numbers"
    elif evaluator == "coco":
        yield from _area_faults(name, a)


def _area_faults(name: str, a: Mapping[str, Any]) -> Iterable[str]:
    area = a.get("area")
    if area is None:
        yield f"{name}: no area (OKS divides by it)"
    elif not _is_number(area):
        yield f"{name}: area is {area!r}"
    elif area <= 0 and not a.get("iscrowd") and a.get("num_keypoints", 1):
        yield f"{name}: area is {area} (no pose can match it)"


def keypoint_faults(name: str, points: Any, joints: int) -> Iterable[str]:
    """What is wrong with `points`, which should be three finite numbers for each of `joints`."""
    if not isinstance(points, Sequence) or isinstance(points, str):
        yield f"{name}: no keypoints"
    elif len(points) != 3 * joints:
        yield f"{name}: {len(points)} keypoint numbers, not {3 * joints} (three for each of {joints} joints)"
    elif not _finite(points):
        yield f"{name}: keypoints that are not finite numbers"


def result_faults(n: int, r: Any, known: set[Any], joints: int, category: int, boxed: bool) -> Iterable[str]:
    name = f"result {n}"
    if not isinstance(r, Mapping):
        yield f"{name} is {kind_of(r)}"
        return
    image = r.get("image_id")
    if not _is_id(image) or image not in known:
        yield f"{name}: image {image!r} is not in the annotations"
    if r.get("category_id") != category:
        yield f"{name}: category {r.get('category_id')!r}, not {category}"
    if not _is_number(r.get("score")):
        yield f"{name} (image {image}): score is {r.get('score')!r}"
    if boxed and not (isinstance(r.get("bbox"), Sequence) and len(r["bbox"]) == 4 and _finite(r["bbox"])):
        yield f"{name} (image {image}): bbox is {r.get('bbox')!r}, though the first result has one"
    yield from keypoint_faults(f"{name} (image {image})", r.get("keypoints"), joints)
