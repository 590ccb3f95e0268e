"""What is wrong with a data set, all of it, before hours are spent on it.

Reading (`coco.load`) stops at what would break; here all that makes AP wrong or -1 is looked for and listed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.data.annotation_file import person_category, read_annotations, skeleton_of
from harness.data.check_images import Fault, image_files
from harness.data.check_mpii import check_mpii
from harness.data.crowdpose import AREA_PER_BOX, counted_joints, without_crowd_index
from harness.data.sets import is_list
from harness.errors import DataError
from harness.foreign.json_text import is_number
from harness.foreign.places import climbs_out
from harness.pose.skeletons import CROWDPOSE, Skeleton

__all__ = ["Fault", "check", "find_sets"]

Entry = dict[str, Any]
Progress = Callable[[int, int], None]
_LAYOUTS = (
    "annotations/person_keypoints_*.json",
    "person_keypoints*.json",
    "annotations/*crowdpose*.json",
    "annot/*.json",
)
_EDGE = 1.0  # pixels that rounding may put a box or joint outside its image


def check(
    root_or_annotation: str | Path,
    image_folder: str | Path | None = None,
    progress: Progress | None = None,
    heads: str | Path | None = None,
) -> list[Fault]:
    """All faults of a data set: of a folder (see `find_sets`), or of one annotation file with its images.

    `heads`: MPII's mat file of head boxes; `gt_NAME.mat` beside NAME.json is found without it. `progress` is called
    with (images looked at, images in all) of each set. Image files are read, but not decoded when header and end are
    right. Raises DataError only when there is no data set to look at.
    """
    sets = find_sets(Path(root_or_annotation), None if image_folder is None else Path(image_folder))
    given = None if heads is None else Path(heads)
    return [fault for file, folder in sets for fault in _check_any(file, folder, given, progress)]


def find_sets(root: Path, image_folder: Path | None = None) -> list[tuple[Path, Path]]:
    """(annotation file, image folder) pairs of a data root.

    COCO: annotations/person_keypoints_NAME.json with NAME/; flat: person_keypoints*.json with images/. CrowdPose:
    annotations/*crowdpose*.json with images/. MPII: annot/NAME.json with images/.
    """
    if root.is_file():
        return [(root, image_folder or _folder_of(root))]
    files = next((found for pattern in _LAYOUTS if (found := sorted(root.glob(pattern)))), [])
    if not files:
        raise DataError(
            "no data set here" if root.is_dir() else "this folder does not exist",
            where=str(root),
            expected="annotations/person_keypoints_val2017.json and val2017/, "
            "or person_keypoints_NAME.json and images/, or annotations/crowdpose_NAME.json or annot/NAME.json (MPII)",
            hint="name the two with --annotations FILE --images DIR",
        )
    return [(file, image_folder or _folder_of(file)) for file in files]


def _folder_of(file: Path) -> Path:
    if not file.name.startswith("person_keypoints") and file.parent.name in ("annotations", "annot"):
        return file.parent.parent / "images"
    split = file.parent.parent / file.stem.removeprefix("person_keypoints_")
    return split if file.parent.name == "annotations" else file.parent / "images"


def _check_any(file: Path, folder: Path, heads: Path | None, progress: Progress | None) -> Iterator[Fault]:
    if is_list(file):
        beside = file.with_name(f"gt_{file.stem}.mat")
        return check_mpii(file, folder, heads or (beside if beside.is_file() else None), progress)
    return _check_set(file, folder, progress)


def _check_set(file: Path, folder: Path, progress: Progress | None) -> Iterator[Fault]:
    try:
        raw = read_annotations(file)
        category = person_category(raw, file)
        skeleton = skeleton_of(category, file)
    except DataError as error:
        yield Fault("annotation file", error.where, error.what, error.hint or error.expected)
        return
    images = {entry["id"]: entry for entry in raw["images"] if isinstance(entry.get("id"), int)}
    yield from _image_entries(raw["images"], file)
    yield from image_files(list(images.values()), folder, progress)
    known = [entry.get("id") for entry in raw["categories"]]
    persons = [entry for entry in raw["annotations"] if entry.get("category_id") == category["id"]]
    yield from _doubles([entry.get("id") for entry in persons], "double annotation id", file)
    for entry in raw["annotations"]:
        if entry.get("category_id") not in known:
            what = f"category_id {entry.get('category_id')!r} is not among the categories"
            yield Fault("category", _at(file, entry), what, "use the id of the person category")
    for identity in without_crowd_index(raw["images"]) if skeleton is CROWDPOSE else ():
        hint = "easy, medium and hard are told by it: take CrowdPose's own annotation file"
        yield Fault("crowdIndex", f"{file.name}, image {identity}", "crowdIndex is missing", hint)
    for entry in persons:
        yield from _annotation(entry, images, skeleton, file)
    if not any(_labelled(entry) for entry in persons):
        what = "no person with a labelled keypoint"
        yield Fault("no persons", str(file), what, "AP is undefined without ground truth")


def _at(file: Path, entry: Entry, kind: str = "annotation") -> str:
    return f"{file.name}, {kind} {entry.get('id')}"


def _doubles(ids: list[Any], kind: str, file: Path) -> Iterator[Fault]:
    for identity, count in Counter(map(repr, ids)).items():
        if count > 1:
            yield Fault(
                kind,
                f"{file.name}, id {identity}",
                f"id {identity} is there {count} times",
                "make ids unique",
            )


def _image_entries(entries: list[Entry], file: Path) -> Iterator[Fault]:
    yield from _doubles([entry.get("id") for entry in entries], "double image id", file)
    for entry in entries:
        where = _at(file, entry, "image")
        if not isinstance(entry.get("id"), int):
            yield Fault("image entry", where, f"id is {entry.get('id')!r}", "use a whole number")
        size = (entry.get("width"), entry.get("height"))
        if not all(isinstance(side, int) and side > 0 for side in size):
            yield Fault("image entry", where, f"width and height are {size}", "write the size of the file")
        name = entry.get("file_name")
        if not isinstance(name, str) or not name or climbs_out(name):
            yield Fault("image entry", where, f"file_name is {name!r}", "use a path inside the image folder")


def _annotation(entry: Entry, images: dict[Any, Entry], skeleton: Skeleton, file: Path) -> Iterator[Fault]:
    where = _at(file, entry)
    image_id = entry.get("image_id")
    image = images.get(image_id, {}) if isinstance(image_id, int) else {}
    if not image:
        what = f"image_id {image_id!r} is not among the images"
        yield Fault("unknown image", where, what, "id of an annotation and id of its image were mixed up?")
    size = (image.get("width"), image.get("height"))
    known_size = size if all(map(is_number, size)) else (math.inf, math.inf)
    yield from _keypoints(entry, skeleton, known_size, where)
    yield from _box(entry, known_size, where)
    yield from _area(entry, skeleton, where)
    yield from _crowd(entry, where)


def _keypoints(entry: Entry, skeleton: Skeleton, size: tuple[Any, Any], where: str) -> Iterator[Fault]:
    values, expected = entry.get("keypoints"), 3 * skeleton.num_joints
    if not isinstance(values, list):
        yield Fault("no keypoints", where, "annotation has no keypoints", f"write {expected} numbers, 0 if unlabelled")
        return
    if len(values) != expected or not all(map(is_number, values)):
        what = f"{len(values)} keypoint values, or values that are no numbers"
        yield Fault("keypoint count", where, what, f"{expected} numbers: x, y, visibility of each joint")
        return
    joints = list(zip(skeleton.joints, values[0::3], values[1::3], values[2::3]))
    strange = [f"{name} {v}" for name, _, _, v in joints if v not in (0, 1, 2)]
    if strange:
        hint = "0 not labelled, 1 hidden, 2 visible"
        yield Fault("visibility", where, f"visibility of {', '.join(strange)}", hint)
    outside = [f"{name} ({x}, {y})" for name, x, y, v in joints if v > 0 and _is_outside(x, y, size)]
    if outside:
        what = f"outside the image of {size[0]}x{size[1]}: {', '.join(outside)}"
        yield Fault("keypoint outside", where, what, "correct it, or set its visibility to 0")
    labelled, said = _labelled(entry), entry.get("num_keypoints")
    body = counted_joints([v > 0 for *_, v in joints]) if skeleton is CROWDPOSE else labelled
    if said not in (labelled, body):
        what = f"num_keypoints is {said}, {labelled} have visibility above 0"
        yield Fault("num_keypoints", where, what, "evaluation ignores persons with num_keypoints 0")


def _labelled(entry: Entry) -> int:
    values = entry.get("keypoints")
    return sum(is_number(v) and v > 0 for v in values[2::3]) if isinstance(values, list) else 0


def _is_outside(x: float, y: float, size: tuple[Any, Any]) -> bool:
    return not (-_EDGE <= x <= size[0] + _EDGE and -_EDGE <= y <= size[1] + _EDGE)


def _box(entry: Entry, size: tuple[Any, Any], where: str) -> Iterator[Fault]:
    box = entry.get("bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(map(is_number, box))):
        yield Fault("box", where, f"bbox is {box!r}", "bbox is [x, y, width, height]")
        return
    x, y, w, h = box
    if w <= 0 or h <= 0:
        yield Fault("box", where, f"box of {w} x {h} pixels", "bbox is [x, y, width, height]")
    elif _is_outside(x, y, size) or _is_outside(x + w, y + h, size):
        what = f"box {box} leaves the image of {size[0]}x{size[1]}"
        yield Fault("box", where, what, "bbox is [x, y, width, height], not two corners")


def _area(entry: Entry, skeleton: Skeleton, where: str) -> Iterator[Fault]:
    area = entry.get("area")
    if area is None and skeleton is CROWDPOSE:
        return
    if area is None or not is_number(area) or area <= 0:
        hint = f"OKS divides by it; without masks take {AREA_PER_BOX} x width x height of the box"
        yield Fault("area", where, "area is missing" if area is None else f"area is {area}", hint)


def _crowd(entry: Entry, where: str) -> Iterator[Fault]:
    crowd = entry.get("iscrowd")
    if crowd not in (0, 1):
        what = "iscrowd is missing" if crowd is None else f"iscrowd is {crowd!r}"
        yield Fault("iscrowd", where, what, "0 for a person, 1 for a region of many")
    elif crowd == 1 and _labelled(entry):
        yield Fault("iscrowd", where, "a crowd region has labelled keypoints", "a single person has iscrowd 0")
