"""Poses drawn on pictures: limbs coloured by side, thick where the person is large."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.errors import DataError
from harness.pose.skeletons import COCO, Skeleton

__all__ = ["SIDE_COLOURS", "dim_regions", "draw_poses", "on_top_of_each_other", "side_by_side"]

Image = NDArray[np.uint8]
Colour = tuple[int, int, int]

# Okabe and Ito's blue and orange, and white: told apart under every common colour blindness
SIDE_COLOURS: dict[str, Colour] = {"left": (86, 180, 233), "right": (230, 159, 0), "centre": (245, 245, 245)}
_BOX, _DARK, _LIGHT = (255, 255, 255), (25, 25, 25), (255, 255, 255)
_SUBPIXEL = 4  # cv2 takes coordinates in 1/16 pixel: small people stay straight


def draw_poses(
    image: Image,
    keypoints: ArrayLike,
    skeleton: Skeleton = COCO,
    *,
    score_threshold: float = 0.2,
    boxes: ArrayLike | None = None,
    caption: str = "",
) -> Image:
    """A copy of `image` (H, W, 3) uint8 RGB with the poses on it.

    `keypoints` (P, K, 3): x, y in pixels and a score (or a visibility: 0 is not drawn); joints at or below
    `score_threshold` and limbs that end in one are left out. `boxes` (P, 4) xywh. `caption` is put in the upper left
    corner. Left is blue, right orange, the middle white: the person's own sides.

    Raises DataError if the picture or the keypoints have another shape.
    """
    people = np.asarray(keypoints, dtype=np.float64)
    if not people.size:
        people = people.reshape(0, skeleton.num_joints, 3)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"cannot draw on {image.dtype} of shape {image.shape}", expected="uint8 (H, W, 3) RGB")
    if people.shape[1:] != (skeleton.num_joints, 3):
        raise DataError(f"keypoints of shape {people.shape}", expected=f"(P, {skeleton.num_joints}, 3)")
    canvas = np.ascontiguousarray(image).copy()
    for x, y, w, h in np.asarray(boxes if boxes is not None else (), dtype=np.float64).reshape(-1, 4):
        _box(canvas, (x, y), (x + w, y + h))
    shown = (people[..., 2] > score_threshold) & np.isfinite(people).all(axis=-1)
    extents = [min(_extent(p[s]), max(image.shape)) for p, s in zip(people, shown)]
    for n in np.argsort(extents)[::-1]:  # the small ones, far away, on top
        _person(canvas, people[n], shown[n], extents[n], skeleton)
    if caption:
        _caption(canvas, caption)
    return canvas


def side_by_side(images: Sequence[Image], *, gap: int = 8) -> Image:
    """Pictures (H, W, 3) in a row, `gap` white pixels between them; lower ones are filled up with white."""
    if not images:
        raise DataError("no pictures to put side by side")
    height = max(i.shape[0] for i in images)
    row: list[Image] = []
    for number, image in enumerate(images):
        if number:
            row.append(np.full((height, gap, 3), 255, dtype=np.uint8))
        row.append(np.pad(image, ((0, height - image.shape[0]), (0, 0), (0, 0)), constant_values=255))
    return np.concatenate(row, axis=1)


def on_top_of_each_other(images: Sequence[Image], *, gap: int = 8) -> Image:
    """Pictures (H, W, 3) in a column, `gap` white pixels between them; narrower ones are filled up with white."""
    turned = side_by_side([np.swapaxes(i, 0, 1) for i in images], gap=gap)
    return np.ascontiguousarray(np.swapaxes(turned, 0, 1))


def dim_regions(image: Image, seen: ArrayLike) -> Image:
    """A copy of `image` (H, W, 3) in which the cells of the grid `seen` (rows, columns) bool that are False are dark,
    those that are True framed."""
    cells = np.asarray(seen, dtype=bool)
    down, across = (
        np.linspace(0, side, n + 1).round().astype(int).tolist() for side, n in zip(image.shape, cells.shape)
    )
    canvas = image.copy()
    for row, column in np.ndindex(cells.shape):
        top, bottom, left, right = down[row], down[row + 1], across[column], across[column + 1]
        if cells[row, column]:
            cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), _LIGHT, 1)
        else:
            canvas[top:bottom, left:right] //= 4
    return canvas


def _extent(joints: NDArray[np.float64]) -> float:
    """Size of a person in pixels: the longer side of what is shown of it."""
    return float(np.ptp(joints[:, :2], axis=0).max()) if len(joints) else 0.0


def _side(skeleton: Skeleton, *joints: int) -> str:
    """The side of a joint or limb; one that joins the middle to a side counts to the side."""
    names = {skeleton.joints[j].split("_")[0] for j in joints} & {"left", "right"}
    return names.pop() if len(names) == 1 else "centre"


def _person(
    canvas: Image, person: NDArray[np.float64], shown: NDArray[np.bool_], extent: float, skeleton: Skeleton
) -> None:
    width = max(2, round(extent / 70))
    limbs = [(a, b) for a, b in skeleton.limbs if shown[a] and shown[b]]
    rim = width // 2 if extent > 80 else 0  # shows on any background, but would cover a small person
    for colour, grow in ((_DARK, rim), (None, 0))[0 if rim else 1 :]:
        for a, b in limbs:
            tint, thick = colour or SIDE_COLOURS[_side(skeleton, a, b)], width + 2 * grow
            cv2.line(canvas, _fixed(person[a]), _fixed(person[b]), tint, thick, cv2.LINE_AA, _SUBPIXEL)
    for joint in np.flatnonzero(shown).tolist():
        _joint(canvas, person[joint], SIDE_COLOURS[_side(skeleton, joint)], width)


def _joint(canvas: Image, point: NDArray[np.float64], colour: Colour, width: int) -> None:
    radius = width + 0.2
    for tint, size in ((_DARK, radius + max(0.5, width / 3)), (colour, radius)):
        cv2.circle(canvas, _fixed(point), round(size * (1 << _SUBPIXEL)), tint, -1, cv2.LINE_AA, _SUBPIXEL)


def _fixed(point: ArrayLike) -> tuple[int, int]:
    """A point in cv2's fixed-point pixels, kept within what its 32-bit integers can hold."""
    x, y = np.clip(np.asarray(point)[:2], -1e5, 1e5) * (1 << _SUBPIXEL)
    return round(float(x)), round(float(y))


def _box(canvas: Image, corner: tuple[float, float], opposite: tuple[float, float]) -> None:
    width = max(1, round(max(canvas.shape[:2]) / 600))
    for colour, thickness in ((_DARK, width + 1), (_BOX, width)):
        cv2.rectangle(canvas, _fixed(corner), _fixed(opposite), colour, thickness, cv2.LINE_AA, _SUBPIXEL)


def _caption(canvas: Image, text: str) -> None:
    """White on dark, as high as a thirtieth of the picture, smaller if the text would not fit."""
    font, wanted = cv2.FONT_HERSHEY_SIMPLEX, max(10.0, canvas.shape[0] / 30)
    scale = wanted / 22  # at scale 1 the font's capitals are 22 px high
    (w, h), _ = cv2.getTextSize(text, font, scale, 1)
    if w + h > canvas.shape[1]:
        scale *= canvas.shape[1] / (w + h)
        (w, h), _ = cv2.getTextSize(text, font, scale, 1)
    pad = max(2, h // 2)
    cv2.rectangle(canvas, (0, 0), (w + 2 * pad, h + 2 * pad), _DARK, -1)
    cv2.putText(canvas, text, (pad, h + pad), font, scale, _LIGHT, max(1, round(scale * 1.5)), cv2.LINE_AA)
