"""Training samples of one-stage methods: whole images, mirrored and scaled, with every person on them.

Boxes and joints are continuous coordinates of the scaled image: a pixel's centre lies at its index + 0.5 where the
protocol's `resizing` is detectron2's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.coco import Dataset, Person
from harness.data.images import Scaling, scaled
from harness.errors import DataError, HarnessError
from harness.method import PoseProtocol
from harness.pose.skeletons import Skeleton
from harness.train.decoded import CACHE_BYTES, DecodedImages, sound
from harness.train.recipes import ImageAugmentation, ImageBatch, Recipe
from harness.train.stream import DRAW, generator

__all__ = ["ImageSample", "WholeImages", "moved_persons"]

Size = tuple[int, int]  # (height, width) in pixels


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


class WholeImages(DecodedImages):
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
        self.augmentation, self.seed = recipe.augmentation, seed
        self.skeleton = dataset.skeleton
        self._persons: dict[int, list[Person]] = {}
        for person in dataset.persons:
            self._persons.setdefault(person.image_id, []).append(person)
        self.images = [image for image in dataset.images if _is_labelled(self._persons.get(image.id, []))]
        self.ids = [image.id for image in self.images]
        if not self.images:
            raise DataError(
                "no image can be trained on",
                where=dataset.name or str(dataset.image_folder),
                expected="images with a person who has at least one labelled joint and is no crowd",
            )
        super().__init__(dataset.image_folder, self.images, protocol, cache_bytes)

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, epoch: int, index: int) -> ImageSample:
        """Image `index` as augmented in `epoch`: first whether it is mirrored is drawn, then its shorter side."""
        rng, how, info = generator(self.seed, DRAW, epoch, index), self.augmentation, self.images[index]
        mirror = bool(rng.random() < how.flip)
        scaling = Scaling(int(rng.choice(how.short_sides)), how.longest, self.protocol.resizing)
        image = scaled(self._read(info), scaling)
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
        rows = sound(samples)
        if isinstance(rows, HarnessError):
            return rows
        return Collated(*([torch.from_numpy(np.ascontiguousarray(v)) for v in values] for values in zip(*rows)))

    def to_batch(self, stacked: Collated, device: torch.device) -> ImageBatch:
        """`stacked` on `device`, images normalised there."""
        normalise = self._normaliser(device)
        images = [normalise(image.numpy()[None])[0] for image in stacked.images]
        rest = ([value.to(device, non_blocking=True) for value in values] for values in stacked[1:])
        return ImageBatch(images, *rest)


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
