"""The annotation file itself: JSON, its three lists, the person category and the joint set it implies."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.foreign.json_text import loads
from harness.foreign.places import linked_out
from harness.pose.skeletons import COCO, CROWDPOSE, MPII, Skeleton

__all__ = ["check_links", "parse_json", "person_category", "read_annotations", "skeleton_of"]

_BY_JOINTS = {skeleton.num_joints: skeleton for skeleton in (COCO, CROWDPOSE, MPII)}


def read_annotations(path: Path) -> dict[str, Any]:
    """A COCO annotation file: lists images, annotations, categories in a dict, segmentations dropped.

    A file of images alone, such as image_info_test-dev2017.json, has no annotations: the list is empty then.
    """
    content = parse_json(path, "annotation file")
    if isinstance(content, dict) and "images" in content and "categories" in content:
        content.setdefault("annotations", [])
    keys = ("images", "annotations", "categories")
    lacking = [key for key in keys if not isinstance(content, dict) or not isinstance(content.get(key), list)]
    if lacking:
        raise DataError(
            f"no list {', '.join(lacking)} in it",
            where=str(path),
            expected="a COCO keypoint file: an object with the lists images, annotations and categories",
            hint="a list of detections or results is given as boxes or predictions, not as annotations",
        )
    strange = [key for key in keys if not all(isinstance(entry, dict) for entry in content[key])]
    if strange:
        raise DataError(f"{strange[0]} holds something else than objects", where=str(path))
    return content


def parse_json(path: Path, kind: str) -> Any:
    """The content of a JSON file. Raises DataError, with the position, when missing, truncated or no JSON."""
    try:
        # polygons are most of COCO's train file in memory, and nothing here reads them
        return loads(path.read_bytes(), constants=True, without={"segmentation"})
    except FileNotFoundError:
        raise _missing_file(path, kind) from None
    except OSError as error:
        raise DataError(f"{kind} cannot be read: {error.strerror}", where=str(path)) from None
    except json.JSONDecodeError as error:
        position = f"line {error.lineno}, column {error.colno}, character {error.pos} of {len(error.doc)}"
        cut = error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated")
        what = f"{kind} {'ends too early: it is truncated' if cut else 'is not JSON'} ({error.msg}; {position})"
        raise DataError(what, where=f"{path}:{error.lineno}", hint="copy or download the file again") from None
    except ValueError as error:
        raise DataError(f"{kind} is not JSON ({error})", where=str(path)) from None


def _missing_file(path: Path, kind: str) -> DataError:
    folder = path.parent
    near = sorted(entry.name for entry in folder.glob("*.json"))[:10] if folder.is_dir() else []
    hint = f"there are: {', '.join(near)}" if near else "check the path"
    if not folder.is_dir():
        hint = f"the folder {folder} does not exist either"
    return DataError(f"{kind} is missing", where=str(path), hint=hint)


def person_category(raw: dict[str, Any], path: Path) -> dict[str, Any]:
    """The category named person, or else the only one with keypoints. Raises DataError when there is none."""
    named = [c for c in raw["categories"] if str(c.get("name", "")).lower() == "person"]
    with_joints = [c for c in raw["categories"] if c.get("keypoints")]
    found = named or (with_joints if len(with_joints) == 1 else [])
    if not found:
        names = ", ".join(str(c.get("name")) for c in raw["categories"][:10]) or "none at all"
        raise DataError(
            f"no person category; categories are: {names}",
            where=str(path),
            expected='a category {"id": 1, "name": "person", "keypoints": [names of the joints]}',
        )
    if "id" not in found[0]:
        raise DataError("the person category has no id", where=str(path))
    return found[0]


def skeleton_of(category: dict[str, Any], path: Path, annotated: bool = True) -> Skeleton:
    """The joint set with the category's number of joints. Raises DataError if unknown or in another order."""
    if not annotated and not category.get("keypoints"):
        return COCO  # image_info_*.json of COCO's test server names no joints
    names = category.get("keypoints") or []
    if not isinstance(names, list):
        raise DataError("keypoints of the person category are no list", where=str(path), expected="names of joints")
    known = ", ".join(f"{count} ({skeleton.name})" for count, skeleton in sorted(_BY_JOINTS.items()))
    if len(names) not in _BY_JOINTS:
        what = f"the person category names {len(names)} keypoints"
        hint = "" if names else "instances_*.json holds boxes only; use the person_keypoints_*.json beside it"
        raise DataError(what, where=str(path), expected=f"one of {known}", hint=hint)
    skeleton = _BY_JOINTS[len(names)]
    for ours, theirs in zip(skeleton.joints, names):
        spelled_alike = str(theirs).lower().replace(" ", "_").replace("-", "_")
        if spelled_alike != ours and spelled_alike in skeleton.joints:
            raise DataError(
                f"the person category has {theirs} where the joint set {skeleton.name} has {ours}",
                where=str(path),
                expected=", ".join(skeleton.joints),
                hint="put the keypoints into this order, or name the joint set that the file really uses",
            )
    return skeleton


def check_links(files: Iterable[str], folder: Path, root: Path) -> None:
    """DataError for the first of the image `files` in `folder` that a link leads out of `root`."""
    if (name := linked_out(folder, files, root)) is not None:
        hint = "copy what it points to, or name a root that holds both"
        raise DataError("the image is a link to a place outside the data root", where=str(folder / name), hint=hint)
