"""Training samples of one-stage methods: whole images, mirrored and scaled, with every person on them.

Boxes and joints are continuous coordinates of the scaled image: a pixel's centre lies at its index + 0.5 where the
protocol's `resizing` is detectron2's.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from harness.data.coco import Dataset, Person
from harness.data.images import Scaling, scaled
from harness.data.normaliser import Normaliser
from harness.data.reading import read_image
from harness.errors import DataError, HarnessError
from harness.method import PoseProtocol
from harness.pose.skeletons import Skeleton
from harness.train.recipes import ImageAugmentation, ImageBatch, Recipe
from harness.train.stream import DRAW, generator

__all__ = ["ImageSample", "WholeImages", "moved_persons"]

Size = tuple[int, int]  # (height, width) in pixels
CACHE_BYTES = 2 << 30  # a set whose decoded images fit is decoded once, not every epoch


class ImageSample(NamedTuple):
    """One augmented image (h, w, 3) RGB in 0..255 and its persons: boxes (n, 4) x1 y1 x2 y2, joints (n, K, 2), visible
    (n, K) in 0..2; `crowd` (m, 4) boxes of crowd regions. All float32 but the image, which may be uint8."""

    image: np.ndarray
    boxes: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    crowd: np.ndarray


class Collated(NamedTuple):
    """Samples as tensors on the CPU, one entry of each list for an image."""

    images: list[Tensor]
    boxes: list[Tensor]
    joints: list[Tensor]
    visible: list[Tensor]
    crowd: list[Tensor]


class WholeImages(TorchDataset[ImageSample | HarnessError]):
    """The images of `dataset` with at least one labelled joint; item (epoch, index) is one as augmented in that epoch.

    A person without labelled joints on them is a box to be found; a crowd is none. DataError when no image is left or
    an image file is missing.
    """

    noun = "images"

    def __init__(
        self,
        dataset: Dataset,
        protocol: PoseProtocol,
        recipe: Recipe,
        *,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        assert isinstance(recipe.augmentation, ImageAugmentation)
        self.augmentation, self.protocol, self.seed = recipe.augmentation, protocol, seed
        self.skeleton, self._folder = dataset.skeleton, dataset.image_folder
        self._persons: dict[int, list[Person]] = {}
        for person in dataset.persons:
            self._persons.setdefault(person.image_id, []).append(person)
        self.images = [image for image in dataset.images if _is_labelled(self._persons.get(image.id, []))]
        self.ids = [image.id for image in self.images]
        if not self.images:
            raise DataError(
                "no image can be trained on",
                where=dataset.name or str(self._folder),
                expected="images with a person who has at least one labelled joint and is no crowd",
            )
        self._cache: dict[int, np.ndarray] = {}
        self._normalisers: dict[torch.device, Normaliser] = {}
        self._prepare(cache_bytes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: tuple[int, int]) -> ImageSample | HarnessError:
        try:
            return self.sample(*place)
        except HarnessError as error:
            return error

    def __getstate__(self) -> dict[str, object]:
        # where workers are not forked, each reads for itself
        return {**self.__dict__, "_cache": {}, "_normalisers": {}}

    def sample(self, epoch: int, index: int) -> ImageSample:
        """Image `index` as augmented in `epoch`: first whether it is mirrored is drawn, then its shorter side."""
        rng, how, info = generator(self.seed, DRAW, epoch, index), self.augmentation, self.images[index]
        mirror = bool(rng.random() < how.flip)
        scaling = Scaling(int(rng.choice(how.short_sides)), how.longest, self.protocol.resizing)
        image = scaled(self._read(index), scaling)
        if mirror:
            image = np.ascontiguousarray(image[:, ::-1])
        persons, size = self._persons[info.id], (info.height, info.width)
        own = [p for p in persons if not p.iscrowd]
        boxes, points = moved_persons(own, size, image.shape[:2], self.skeleton, scaling.centre, mirror=mirror)
        crowd, _ = moved_persons(
            [p for p in persons if p.iscrowd], size, image.shape[:2], self.skeleton, scaling.centre, mirror=mirror
        )
        return ImageSample(image, boxes, points[..., :2], points[..., 2], crowd)

    def collate(self, samples: Sequence[ImageSample | HarnessError]) -> Collated | HarnessError:
        """The samples as lists of tensors, or the first error among them."""
        rows: list[ImageSample] = []
        for sample in samples:
            if isinstance(sample, HarnessError):
                return sample
            rows.append(sample)
        return Collated(*([torch.from_numpy(np.ascontiguousarray(v)) for v in values] for values in zip(*rows)))

    def to_batch(self, stacked: Collated, device: torch.device) -> ImageBatch:
        """`stacked` on `device`, images normalised there."""
        if device not in self._normalisers:
            self._normalisers[device] = Normaliser(self.protocol, device)
        normalise = self._normalisers[device]
        images = [normalise(image.numpy()[None])[0] for image in stacked.images]
        rest = ([value.to(device, non_blocking=True) for value in values] for values in stacked[1:])
        return ImageBatch(images, *rest)

    def _read(self, index: int) -> np.ndarray:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        info = self.images[index]
        return read_image(self._folder / info.file, (info.width, info.height))

    def _prepare(self, cache_bytes: int) -> None:
        """Check that every image file is there; decode them all at once if they fit into `cache_bytes`."""
        paths = [self._folder / image.file for image in self.images]
        missing = [p for p in paths if not p.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} image files are missing",
                where=str(missing[0]),
                hint="`paretopose data check ROOT` lists what is wrong with a data set",
            )
        if sum(image.width * image.height * 3 for image in self.images) <= cache_bytes:
            with ThreadPoolExecutor(4) as pool:
                self._cache = dict(enumerate(pool.map(self._read, range(len(self.images)))))


def _is_labelled(persons: Sequence[Person]) -> bool:
    return any((person.keypoints[:, 2] > 0).any() for person in persons if not person.iscrowd)


def moved_persons(
    persons: Sequence[Person],
    before: Size,
    after: tuple[int, ...],
    skeleton: Skeleton,
    centre: float,
    *,
    mirror: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) x1 y1 x2 y2 and keypoints (n, K, 3) of `persons` on an image of size `before`, scaled to `after`.

    `centre`: where in a pixel its joint lies, 0.5 or 0. Boxes are cut at the image's edges, and persons whose box has
    no extent left are dropped; joints outside the image count as not labelled.
    """
    height, width = after[:2]
    factor = np.array([width / before[1], height / before[0]])
    corners = np.array([[x, y, x + w, y + h] for x, y, w, h in (p.bbox for p in persons)]).reshape(-1, 4)
    boxes = corners * np.tile(factor, 2)
    points = np.array([p.keypoints for p in persons]).reshape(-1, skeleton.num_joints, 3)
    joints, seen = (points[..., :2] + centre) * factor, points[..., 2]
    if mirror:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
        joints[..., 0] = width - joints[..., 0]
        joints, seen = joints[:, skeleton.flip_order], seen[:, skeleton.flip_order]
    boxes = np.clip(boxes, 0, np.array([width, height, width, height]))
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 1e-5).all(axis=1)
    inside = ((joints >= 0) & (joints <= np.array([width, height]))).all(axis=-1)
    seen = np.where(inside, seen, 0)
    joints = np.where(seen[..., None] > 0, joints, 0)
    moved = np.concatenate([joints, seen[..., None]], axis=-1)
    return boxes[kept].astype(np.float32), moved[kept].astype(np.float32)
