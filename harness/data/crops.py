"""Boxes -> centres and scales -> affine crops, and the reader that decodes every image once.

Numbers follow HRNet's top-down protocol (Sun et al., CVPR 2019) and, for `udp`, unbiased data processing
(Huang et al., CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from typing import Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike

from harness.data.ahead import in_order
from harness.data.boxes import Boxes
from harness.data.coco import Dataset, ImageInfo
from harness.data.reading import read_image
from harness.errors import DataError

__all__ = [
    "PIXEL_STD",
    "CropBatch",
    "CropStream",
    "ImageCrops",
    "affine",
    "affines",
    "batches",
    "center_scale",
    "iter_crops",
    "read_image",
    "warp",
]

PIXEL_STD = 200.0  # image pixels per unit of scale
Size = tuple[int, int]  # (height, width)
_CROPS_AT_ONCE = 256  # of one image in memory
_CROPS_AHEAD = 1024  # that are cut before somebody takes them: 150 MB at 256x192
_FROM_RGBA = {False: cv2.COLOR_RGBA2RGB, True: cv2.COLOR_RGBA2BGR}


def center_scale(xywh: ArrayLike, input_size: Size, padding: float = 1.25) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (N, 4) or (4,) in pixels -> centers (N, 2) in pixels, scales (N, 2) in units of 200 px, float32.

    The shorter side grows to the aspect of `input_size` (height, width), then both grow by `padding`.
    Source: the top-down protocol published with HRNet; float32 rounding comes before the padding, as there.
    """
    boxes = np.asarray(xywh, dtype=np.float64)
    x, y, w, h = np.moveaxis(boxes, -1, 0)
    aspect = input_size[1] / input_size[0]
    wide = np.stack([np.maximum(w, h * aspect), np.maximum(h, w / aspect)], axis=-1)
    centers = np.stack([x + w * 0.5, y + h * 0.5], axis=-1).astype(np.float32)
    return centers, (wide / PIXEL_STD).astype(np.float32) * np.float32(padding)


def affine(
    center: ArrayLike,
    scale: ArrayLike,
    rotation: float,
    size: Size,
    *,
    udp: bool = False,
    inverse: bool = False,
) -> np.ndarray:
    """Matrix (2, 3) float64 from image pixels to crop pixels; from crop to image with `inverse`.

    center (2,) px, scale (2,) in units of 200 px, rotation in degrees, size (height, width) of the crop.
    The biased transform takes its extent from the width alone and maps w px on W; UDP maps w px on W - 1.
    Source: the top-down protocol published with HRNet.
    """
    matrix = affines(np.asarray(center)[None], np.asarray(scale)[None], rotation, size, udp=udp, inverse=inverse)
    return np.asarray(matrix[0])


def affines(
    centers: ArrayLike,
    scales: ArrayLike,
    rotation: float,
    size: Size,
    *,
    udp: bool = False,
    inverse: bool = False,
) -> np.ndarray:
    """The matrices (N, 2, 3) of N crops: centers and scales (N, 2), all else as in `affine`."""
    corners = np.asarray(centers, dtype=np.float32)
    extents = np.asarray(scales, dtype=np.float32) * np.float32(PIXEL_STD)
    sound = (extents > 0).all(axis=-1) & np.isfinite(extents).all(axis=-1) & np.isfinite(corners).all(axis=-1)
    if not sound.all():
        bad = int(sound.argmin())
        what = f"no crop of center {corners[bad].tolist()} and scale {np.asarray(scales)[bad].tolist()}"
        raise DataError(what, expected="a finite center and a positive finite scale", hint="look at the box")
    if udp:
        found = list(_udp_affines(corners, extents, rotation, size))
        return np.array([cv2.invertAffineTransform(m) for m in found] if inverse else found).reshape(-1, 2, 3)
    sources, target = _three_points(corners, extents, rotation), _middle_points(size)
    solve = cv2.getAffineTransform
    return np.array([solve(target, s) if inverse else solve(s, target) for s in sources]).reshape(-1, 2, 3)


def _three_points(centers: np.ndarray, extents: np.ndarray, rotation: float) -> np.ndarray:
    """Centre, middle of the upper edge, and the corner that completes a right angle: (N, 3, 2) float32."""
    angle = np.deg2rad(rotation)
    arm = -0.5 * extents[:, 0].astype(np.float64)
    return _right_angles(centers, np.stack([-arm * np.sin(angle), arm * np.cos(angle)], axis=-1))


def _middle_points(size: Size) -> np.ndarray:
    """The same three points of the crop, (3, 2) float32."""
    height, width = size
    return _right_angles(np.array([[width * 0.5, height * 0.5]]), np.array([[0.0, -0.5 * width]]))[0]


def _right_angles(corners: np.ndarray, arms: np.ndarray) -> np.ndarray:
    points = np.empty((len(corners), 3, 2), dtype=np.float32)
    points[:, 0], points[:, 1] = corners, corners + arms
    difference = points[:, 0] - points[:, 1]
    points[:, 2] = points[:, 1] + np.stack([-difference[:, 1], difference[:, 0]], axis=-1)
    return points


def _udp_affines(centers: np.ndarray, extents: np.ndarray, rotation: float, size: Size) -> np.ndarray:
    angle = np.deg2rad(rotation)
    cos, sin = np.cos(angle), np.sin(angle)
    (cx, cy), (w, h) = centers.astype(np.float64).T, extents.astype(np.float64).T
    sx, sy = (size[1] - 1) / w, (size[0] - 1) / h
    rows = (
        (cos * sx, -sin * sx, sx * (-cx * cos + cy * sin + w / 2)),
        (sin * sy, cos * sy, sy * (-cx * sin - cy * cos + h / 2)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=1)


def warp(image: np.ndarray, matrix: np.ndarray, size: Size, out: np.ndarray | None = None) -> np.ndarray:
    """image (h, w, C) uint8 through matrix (2, 3) -> (H, W, C) uint8: bilinear, black outside the image.

    `out` is a contiguous array to write into.
    """
    return cv2.warpAffine(
        image,
        matrix,
        (size[1], size[0]),
        dst=out,
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0),
    )


class ImageCrops(NamedTuple):
    """The crops of one image; `indices` point into the boxes that were asked for."""

    image_id: int
    indices: np.ndarray  # (n,) int64
    crops: np.ndarray  # (n, H, W, 3) uint8
    centers: np.ndarray  # (n, 2) float32
    scales: np.ndarray  # (n, 2) float32


class CropBatch(NamedTuple):
    """Crops of one or several images; `indices` point into the boxes that were asked for."""

    indices: np.ndarray  # (b,) int64
    crops: np.ndarray  # (b, H, W, 3) uint8
    centers: np.ndarray  # (b, 2) float32
    scales: np.ndarray  # (b, 2) float32


class CropStream(Iterator[ImageCrops]):
    """Iterator over ImageCrops in dataset order; `skipped` collects ids of images whose file is missing.

    `close` ends the work of its threads; so does dropping it, where no traceback holds on to it.
    """

    def __init__(self, results: Generator[ImageCrops | int]) -> None:
        self.skipped: list[int] = []
        self._results = results

    def __next__(self) -> ImageCrops:
        for result in self._results:
            if isinstance(result, ImageCrops):
                return result
            self.skipped.append(result)
        raise StopIteration

    def close(self) -> None:
        self._results.close()


class _Job(NamedTuple):
    image: ImageInfo
    indices: np.ndarray
    centers: np.ndarray
    scales: np.ndarray


def iter_crops(
    dataset: Dataset,
    boxes: Boxes,
    *,
    input_size: Size,
    udp: bool,
    padding: float = 1.25,
    workers: int = 2,
    colour: Literal["rgb", "bgr"] = "rgb",
    missing: Literal["error", "skip"] = "error",
) -> CropStream:
    """Crops of all boxes, image by image in dataset order. An image is decoded once (once per 256 boxes where it has
    more), one without boxes never.

    `workers` threads read ahead by at most two images each and 1,024 crops together (OpenCV releases the interpreter
    lock); 0 works in the caller's thread. The crops do not depend on it. Raises DataError, with the image named, for
    boxes of unknown images and unreadable files; `missing="skip"` passes over files that do not exist and lists their
    images in `.skipped`.
    """
    jobs = _jobs(dataset, boxes, input_size, padding)
    cut = partial(_cut, dataset=dataset, size=input_size, udp=udp, bgr=colour == "bgr", skip=missing == "skip")
    return CropStream(in_order(cut, jobs, workers, size=lambda job: len(job.indices), room=_CROPS_AHEAD))


def _jobs(dataset: Dataset, boxes: Boxes, input_size: Size, padding: float) -> list[_Job]:
    position = {image.id: at for at, image in enumerate(dataset.images)}
    unknown = sorted(set(boxes.image_ids.tolist()) - position.keys())
    if unknown:
        what = f"boxes of {len(unknown)} images that the dataset does not have: {unknown[:10]}"
        raise DataError(what, where=boxes.source, hint="take boxes and images from the same set")
    if not len(boxes.image_ids):
        return []
    centers, scales = center_scale(boxes.xywh, input_size, padding)
    places = np.array([position[image_id] for image_id in boxes.image_ids.tolist()])
    order = np.argsort(places, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(places[order])) + 1)
    parts = [g[at : at + _CROPS_AT_ONCE] for g in groups for at in range(0, len(g), _CROPS_AT_ONCE)]
    return [_Job(dataset.images[places[p[0]]], p, centers[p], scales[p]) for p in parts]


def _cut(job: _Job, *, dataset: Dataset, size: Size, udp: bool, bgr: bool, skip: bool) -> ImageCrops | int:
    """All crops of one image, or the image's id when it was skipped."""
    path = dataset.image_folder / job.image.file
    try:
        # OpenCV interpolates four channels more than twice as fast as three, to the same values
        image = cv2.cvtColor(read_image(path, (job.image.width, job.image.height)), cv2.COLOR_RGB2RGBA)
        crops, scratch = np.empty((len(job.indices), *size, 3), np.uint8), np.empty((*size, 4), np.uint8)
        for matrix, crop in zip(affines(job.centers, job.scales, 0.0, size, udp=udp), crops):
            cv2.cvtColor(warp(image, matrix, size, out=scratch), _FROM_RGBA[bgr], dst=crop)
    except DataError as error:
        if skip and not path.exists():
            return job.image.id
        where = f"image {job.image.id}, {error.where or path}"
        raise DataError(error.what, where=where, expected=error.expected, hint=error.hint) from None
    except cv2.error as error:
        raise DataError(f"OpenCV failed: {error}", where=f"image {job.image.id}, {path}") from error
    return ImageCrops(job.image.id, job.indices, crops, job.centers, job.scales)


def batches(stream: Iterable[ImageCrops], size: int) -> Iterator[CropBatch]:
    """Crops regrouped across images into batches of `size`, in order; the last may be smaller.

    Holds one batch and one image; a yielded batch belongs to the caller and is not written again.
    """
    batch, filled = None, 0
    for image in stream:
        taken = 0
        while taken < len(image.indices):
            if batch is None:
                batch, filled = _empty_batch(size, image.crops.shape[1:]), 0
            count = min(size - filled, len(image.indices) - taken)
            for target, source in zip(batch, image[1:]):
                target[filled : filled + count] = source[taken : taken + count]
            filled, taken = filled + count, taken + count
            if filled == size:
                yield batch
                batch = None
    if batch is not None:
        yield CropBatch(*(array[:filled] for array in batch))


def _empty_batch(size: int, shape: tuple[int, ...]) -> CropBatch:
    return CropBatch(
        np.empty(size, np.int64),
        np.empty((size, *shape), np.uint8),
        np.empty((size, 2), np.float32),
        np.empty((size, 2), np.float32),
    )
