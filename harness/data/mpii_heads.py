"""Head sizes of MPII's persons from MATLAB files: that of a split, or MPII's whole release."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.accuracy.pck import head_sizes
from harness.data.mat_file import read_arrays
from harness.errors import DataError

__all__ = ["Heads", "read_heads"]

_NEAR = 2.0  # pixels between the center of a person in the JSON and in the release
_EXPECTED = "headboxes_src (2, 2, N) of a split's gt file, or RELEASE of mpii_human_pose_v1_u12_1.mat"
_SPLIT = ("headboxes_src", "pos_gt_src", "jnt_missing")
Place = tuple[str, np.ndarray]  # file name of the image, center (2,) in pixels from 1


@dataclass(frozen=True)
class Heads:
    """sizes: (N,) pixels, in the order of the persons asked for; joints (N, 16, 2) in pixels from 1 and visible
    (N, 16) bool where the file has them."""

    sizes: np.ndarray
    joints: np.ndarray | None = None
    visible: np.ndarray | None = None


def read_heads(path: Path, persons: Sequence[Place]) -> Heads:
    """The head sizes of `persons`. Raises DataError for a file that is no mat file, of other persons, or without
    head boxes.

    In a split's file (`headboxes_src`, and `pos_gt_src`, `jnt_missing` where it has them) persons are told by their
    place; in the release by image and center.
    """
    try:
        found = read_arrays(path, (*_SPLIT, "RELEASE"))
    except DataError as error:
        raise DataError(error.what, where=error.where, expected=error.expected or _EXPECTED, hint=error.hint) from None
    if "headboxes_src" in found:
        return _of_split(path, found, len(persons))
    if "RELEASE.head" in found:
        return _of_release(path, found, persons)
    raise DataError(f"no head boxes in it: it holds {', '.join(found)}", where=str(path), expected=_EXPECTED)


# -- the file of a split -------------------------------------------------------------------------------------------


def _of_split(path: Path, found: Mapping[str, np.ndarray], count: int) -> Heads:
    boxes = _array(found["headboxes_src"], "headboxes_src", (2, 2, -1), count, path)  # corner, axis, person
    sizes = head_sizes(boxes.transpose(2, 0, 1).reshape(-1, 4))
    _check_sizes(sizes, path)
    if not all(name in found for name in _SPLIT):
        return Heads(sizes)
    joints = _array(found["pos_gt_src"], "pos_gt_src", (16, 2, -1), count, path).transpose(2, 0, 1)
    missing = _array(found["jnt_missing"], "jnt_missing", (16, -1), count, path).T
    return Heads(sizes, joints, missing == 0)


def _array(value: Any, name: str, shape: tuple[int, ...], count: int, path: Path) -> np.ndarray:
    """float64 array whose last axis is the persons. DataError for another shape or another number of them."""
    expected = f"{name} ({', '.join(map(str, shape[:-1]))}, {count}), as the JSON file has {count} persons"
    try:
        array = np.asarray(value, dtype=np.float64)
        persons = array.reshape(shape).shape[-1] if array.ndim <= len(shape) else -1
    except (TypeError, ValueError):
        persons = -1
    if persons != count or array.shape[: len(shape) - 1] != shape[:-1]:
        shown = "x".join(map(str, np.shape(value)))
        hint = "are both of the same split?"
        raise DataError(f"{name} is {shown}", where=str(path), expected=expected, hint=hint)
    return array.reshape(shape)


def _check_sizes(sizes: np.ndarray, path: Path) -> None:
    bad = np.flatnonzero(~(np.isfinite(sizes) & (sizes > 0)))
    if len(bad):
        what = f"the head box of person {bad[0] + 1} has no extent"
        raise DataError(what, where=str(path), expected="two different corners", hint=f"{len(bad)} persons have none")


# -- the release ---------------------------------------------------------------------------------------------------


def _of_release(path: Path, found: Mapping[str, np.ndarray], persons: Sequence[Place]) -> Heads:
    wanted = {name for name, _ in persons}
    known: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for name, center, head in zip(*(found[f"RELEASE.{part}"] for part in ("image", "center", "head")), strict=True):
        if str(name) in wanted:
            known.setdefault(str(name), []).append((center, head))
    boxes = [_nearest(number, place, known.get(place[0], []), path) for number, place in enumerate(persons)]
    sizes = head_sizes(np.array(boxes, dtype=np.float64).reshape(-1, 4))
    _check_sizes(sizes, path)
    return Heads(sizes)


def _nearest(number: int, place: Place, known: Sequence[tuple[np.ndarray, np.ndarray]], path: Path) -> np.ndarray:
    name, center = place
    apart = [float(np.linalg.norm(at - center)) for at, _ in known]
    if not apart or min(apart) > _NEAR:
        raise DataError(
            f"no head box for entry {number}: {name} has {len(known)} persons with one, none at {center.tolist()}",
            where=str(path),
            expected="the release that the JSON file was made of",
        )
    return known[int(np.argmin(apart))][1]
