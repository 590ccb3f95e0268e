"""Head sizes of MPII's persons from MATLAB files: that of a split, or MPII's whole release.

Plain numbers and structures are read; a mat file cannot make scipy run anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.accuracy.pck import head_sizes
from harness.errors import DataError

__all__ = ["Heads", "read_heads", "read_mat"]

_MOST_NUMBERS = 50_000_000  # of one variable; more is taken for a decompression bomb
_NEAR = 2.0  # pixels between the center of a person in the JSON and in the release
_EXPECTED = "headboxes_src (2, 2, N) of a split's gt file, or RELEASE of mpii_human_pose_v1_u12_1.mat"
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
    shapes = _variables(path)
    if "headboxes_src" in shapes:
        return _of_split(path, shapes, len(persons))
    if "RELEASE" in shapes:
        return _of_release(path, persons)
    named = ", ".join(sorted(shapes)[:10]) or "nothing"
    raise DataError(f"no head boxes in it: it holds {named}", where=str(path), expected=_EXPECTED)


def _variables(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name. DataError for what cannot be read, or is too large to be true."""
    from scipy.io import whosmat

    if not path.is_file():
        raise DataError("there is no such mat file", where=str(path), expected=_EXPECTED)
    try:
        found = {name: tuple(shape) for name, shape, _ in whosmat(str(path))}
    except NotImplementedError:
        hint = "save it again with -v7"
        raise DataError("a mat file of version 7.3", where=str(path), expected="version 5 to 7", hint=hint) from None
    except Exception as error:  # a damaged file raises almost anything
        raise _damaged(path, error) from None
    for name, shape in found.items():
        if np.prod(shape, dtype=np.float64) > _MOST_NUMBERS:
            raise DataError(f"{name} promises {'x'.join(map(str, shape))} numbers, which is refused", where=str(path))
    return found


def read_mat(path: Path, name: str) -> Any:
    """One variable of a mat file. DataError for what is no mat file, or has none of that name."""
    shapes = _variables(path)
    if name not in shapes:
        named = ", ".join(sorted(shapes)[:10]) or "nothing"
        raise DataError(f"no {name} in it: it holds {named}", where=str(path), expected=f"a mat file with {name}")
    return _load(path, [name])[name]


def _load(path: Path, names: Sequence[str], **how: Any) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(str(path), variable_names=list(names), **how)
    except Exception as error:  # a damaged file raises almost anything
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> DataError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    hint = "copy or download the file again"
    return DataError(f"the file is damaged or no mat file ({reason})", where=str(path), hint=hint)


# -- the file of a split -------------------------------------------------------------------------------------------


def _of_split(path: Path, shapes: dict[str, tuple[int, ...]], count: int) -> Heads:
    own = [name for name in ("headboxes_src", "pos_gt_src", "jnt_missing") if name in shapes]
    found = _load(path, own)
    boxes = _array(found["headboxes_src"], "headboxes_src", (2, 2, -1), count, path)  # corner, axis, person
    sizes = head_sizes(boxes.transpose(2, 0, 1).reshape(-1, 4))
    _check_sizes(sizes, path)
    if len(own) < 3:
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


def _of_release(path: Path, persons: Sequence[Place]) -> Heads:
    release = _load(path, ["RELEASE"], struct_as_record=False, squeeze_me=True)["RELEASE"]
    wanted = {name for name, _ in persons}
    known: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for image in _listed(getattr(release, "annolist", ())):
        name = str(getattr(getattr(image, "image", None), "name", ""))
        if name in wanted:
            known[name] = list(_rectangles(image))
    boxes = [_nearest(number, place, known.get(place[0], []), path) for number, place in enumerate(persons)]
    sizes = head_sizes(np.array(boxes, dtype=np.float64).reshape(-1, 4))
    _check_sizes(sizes, path)
    return Heads(sizes)


def _listed(value: Any) -> Iterator[Any]:
    """The elements of what MATLAB had as a list: squeezing leaves a single one bare."""
    yield from np.atleast_1d(np.asarray(value, dtype=object)).ravel()


def _rectangles(image: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(center (2,), head box (4,)) of the persons of an image who have both."""
    for person in _listed(getattr(image, "annorect", ())):
        at = getattr(person, "objpos", None)
        center = _plain([getattr(at, name, None) for name in ("x", "y")])
        box = _plain([getattr(person, name, None) for name in ("x1", "y1", "x2", "y2")])
        if center is not None and box is not None:
            yield center, box


def _plain(values: Sequence[Any]) -> np.ndarray | None:
    """Finite numbers as an array; None where one is missing, empty or no number."""
    try:
        array = np.array([float(np.asarray(v).item()) for v in values])
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None


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
