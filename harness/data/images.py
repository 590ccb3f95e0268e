"""Whole images for one-stage networks: decoded, scaled as the protocol says, and the way back to the file's pixels.

Sizes are (height, width); boxes x1 y1 x2 y2, continuous: an image of w pixels reaches from 0 to w.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from harness.data.ahead import in_order
from harness.data.coco import Dataset, ImageInfo
from harness.data.reading import read_image
from harness.errors import DataError

__all__ = ["Scaling", "WholeImage", "iter_images", "scaled", "to_original"]

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True)
class Scaling:
    """How an image becomes the network's input: `shortest` edge, but no more than `longest`; `way`: whose rounding,
    filter and place of a joint in its pixel.

    `detectron2` rounds the size to the nearest and filters with a support that grows when it scales down (Pillow's
    bilinear, on uint8); annotated joints lie in the middle of their pixel. `torchvision` rounds down, interpolates
    between the four nearest pixels, on float32, and takes joints as they are annotated.
    """

    shortest: int = 800
    longest: int = 1333
    way: Literal["detectron2", "torchvision"] = "detectron2"

    @property
    def centre(self) -> float:
        """What the network's joints have more than the annotated ones, in pixels of the file."""
        return 0.5 if self.way == "detectron2" else 0.0

    def size_of(self, size: Size) -> Size:
        """The size that an image of `size` is scaled to; a side is at least one pixel."""
        factor = min(self.shortest / min(size), self.longest / max(size))
        if self.way == "torchvision":
            height, width = (math.floor(side * factor) for side in size)
        else:
            height, width = (int(side * factor + 0.5) for side in size)
        return max(1, height), max(1, width)


@dataclass(frozen=True)
class WholeImage:
    """One image as the network gets it, before normalisation.

    `index` in the dataset; `pixels` (h, w, 3) RGB, uint8 or float32 in 0..255; `original`: size of the file.
    """

    index: int
    info: ImageInfo
    pixels: np.ndarray
    original: Size


def scaled(image: np.ndarray, how: Scaling) -> np.ndarray:
    """image (H, W, 3) uint8 -> (h, w, 3) RGB in 0..255: uint8, or float32 where the filter works on floats."""
    before = (image.shape[0], image.shape[1])
    height, width = how.size_of(before)
    if how.way == "torchvision":
        return _between_four(image, (height, width))
    if before == (height, width):
        return image
    from PIL import Image

    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _between_four(image: np.ndarray, size: Size) -> np.ndarray:
    """Bilinear between the four nearest pixels, in float32. Only the rows that are needed become floats: a picture of
    64 megapixels would fill a gigabyte."""
    above, below, down = _neighbours(image.shape[0], size[0])
    before, behind, right = _neighbours(image.shape[1], size[1])
    rows = _mixed(image[above], image[below], down[:, None, None])
    return _mixed(rows[:, before], rows[:, behind], right[None, :, None])


def _neighbours(count: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For `wanted` pixels over `count`: the pixel before each centre, the one behind, and the weight of the latter."""
    place = np.maximum((np.arange(wanted) + 0.5) * (count / wanted) - 0.5, 0)
    low = np.minimum(place.astype(np.int64), count - 1)
    return low, np.minimum(low + 1, count - 1), (place - low).astype(np.float32)


def _mixed(first: np.ndarray, second: np.ndarray, weight: np.ndarray) -> np.ndarray:
    first = first.astype(np.float32)
    second = second.astype(np.float32)
    second -= first
    second *= weight
    second += first
    return second


def to_original(
    boxes: np.ndarray, keypoints: np.ndarray, size: Size, original: Size, centre: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) and keypoints (n, K, 3) in pixels of an image of `size` -> those of the file of size `original`.

    Boxes are cut at the image's edges; the third array (n,) bool tells which still have an extent. Keypoints may lie
    outside; `centre` is taken from them. float32.
    """
    across, up = original[1] / size[1], original[0] / size[0]
    moved = boxes * np.array([across, up, across, up])
    moved = np.clip(moved, 0, np.array([original[1], original[0]] * 2))
    points = keypoints * np.array([across, up, 1.0]) - np.array([centre, centre, 0.0])
    alive = (moved[:, 2] > moved[:, 0]) & (moved[:, 3] > moved[:, 1])
    return moved.astype(np.float32), points.astype(np.float32), alive


def iter_images(
    dataset: Dataset,
    indices: Sequence[int],
    how: Scaling,
    *,
    workers: int = 2,
    missing: Literal["error", "skip"] = "error",
) -> Generator[WholeImage]:
    """The images `indices` of the dataset, read and scaled, in that order; `workers` threads read ahead.

    Raises DataError, with the image named, for a file that cannot be read or has another size than annotated;
    `missing="skip"` passes over files that do not exist.
    """
    read = partial(_read, dataset=dataset, how=how, skip=missing == "skip")
    return (image for image in in_order(read, indices, workers) if image is not None)


def _read(index: int, *, dataset: Dataset, how: Scaling, skip: bool) -> WholeImage | None:
    info = dataset.images[index]
    path = dataset.image_folder / info.file
    try:
        image = read_image(path, (info.width, info.height))
    except DataError as error:
        if skip and not path.exists():
            return None
        where = f"image {info.id}, {error.where or path}"
        raise DataError(error.what, where=where, expected=error.expected, hint=error.hint) from None
    return WholeImage(index, info, scaled(image, how), (info.height, info.width))
