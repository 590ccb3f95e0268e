"""Training samples of top-down methods: a data set's persons as augmented crops with targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.data.augment import draw, frozen_shift, mirrored, moved_joints
from harness.data.boxes import from_ground_truth
from harness.data.coco import Dataset
from harness.data.crops import affine, warp
from harness.errors import DataError, HarnessError
from harness.method import PoseProtocol
from harness.pose.codecs import CODECS
from harness.pose.targets import encode
from harness.train.decoded import CACHE_BYTES, DecodedImages, sound
from harness.train.recipes import Augmentation, Recipe, TrainBatch
from harness.train.stream import DRAW, SHIFT, generator

__all__ = ["PersonCrops", "Stacked"]

Size = tuple[int, int]  # (height, width) in pixels


class Sample(NamedTuple):
    """One augmented person: crop (H, W, 3) uint8, joints (K, 2) in its pixels, visible (K,)."""

    image: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    center: np.ndarray
    scale: np.ndarray


class Stacked(NamedTuple):
    """B samples as tensors on the CPU; `images` (B, H, W, 3) uint8 RGB."""

    images: Tensor
    target: Tensor | tuple[Tensor, Tensor]
    weight: Tensor
    joints: Tensor
    visible: Tensor
    centers: Tensor
    scales: Tensor


class PersonCrops(DecodedImages):
    """The labelled persons of `dataset`; item (epoch, index) is that person as augmented in that epoch.

    Left out: crowds, persons without a labelled joint, boxes that cleaning leaves empty. DataError when nobody is
    left or an image file is missing.
    """

    noun = "persons"

    def __init__(
        self,
        dataset: Dataset,
        protocol: PoseProtocol,
        recipe: Recipe,
        input_size: Size,
        *,
        seed: int = 0,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        assert isinstance(recipe.augmentation, Augmentation)
        self.augmentation, self.target = recipe.augmentation, recipe.target
        self.skeleton, self.input_size, self.seed = dataset.skeleton, input_size, seed
        self.padding, self.udp = protocol.box_padding, CODECS[protocol.codec].udp
        self._images = {image.id: image for image in dataset.images}
        boxes = from_ground_truth(dataset, cleaning=protocol.box_cleaning)
        if not len(boxes):
            raise DataError(
                "no person can be trained on",
                where=dataset.name or str(dataset.image_folder),
                expected="persons with at least one labelled joint, not crowds, with a box inside the image",
            )
        by_id = {person.id: person for person in dataset.persons}
        self.persons = [by_id[int(i)] for i in boxes.ids]
        self.ids = [person.id for person in self.persons]
        shifts = (generator(seed, SHIFT, i) for i in range(len(boxes)))
        self._boxes = [frozen_shift(rng, box, self.augmentation) for rng, box in zip(shifts, boxes.xywh)]
        used = sorted({person.image_id for person in self.persons})
        super().__init__(dataset.image_folder, [self._images[i] for i in used], protocol, cache_bytes)

    def __len__(self) -> int:
        return len(self.persons)

    def sample(self, epoch: int, index: int) -> Sample:
        """Person `index` as augmented in `epoch`."""
        person, skeleton = self.persons[index], self.skeleton
        info = self._images[person.image_id]
        how = draw(
            generator(self.seed, DRAW, epoch, index),
            self._boxes[index],
            person.keypoints,
            self.augmentation,
            skeleton,
            input_size=self.input_size,
            image_width=info.width,
            padding=self.padding,
        )
        matrix = affine(how.center, how.scale, how.rotation, self.input_size, udp=self.udp)
        if how.flip:
            matrix = mirrored(matrix, info.width)
        moved = moved_joints(person.keypoints, matrix, skeleton, how.flip)
        joints, visible = moved[:, :2].astype(np.float32), moved[:, 2].astype(np.float32)
        image = warp(self._read(info), matrix, self.input_size)
        return Sample(image, joints, visible, how.center, how.scale)

    def collate(self, samples: Sequence[Sample | HarnessError]) -> Stacked | HarnessError:
        """The samples as one batch with its targets, or the first error among them."""
        rows = sound(samples)
        if isinstance(rows, HarnessError):
            return rows
        images, joints, visible, centers, scales = (np.stack(values) for values in zip(*rows))
        spec, (height, width) = self.target, self.input_size
        target, weight = encode(
            spec.encoder,
            joints,
            visible,
            input_size=self.input_size,
            heatmap_size=(height // spec.stride, width // spec.stride),
            sigma=spec.sigma,
            dialect=self.augmentation.dialect,
        )
        pair = (torch.from_numpy(target[0]), torch.from_numpy(target[1])) if isinstance(target, tuple) else None
        arrays = [torch.from_numpy(a) for a in (weight, joints, visible, centers, scales)]
        return Stacked._make((torch.from_numpy(images), pair or torch.from_numpy(target), *arrays))

    def to_batch(self, stacked: Stacked, device: torch.device) -> TrainBatch:
        """`stacked` on `device`, images normalised there."""
        target, *rest = (_move(t, device) for t in stacked[1:])
        images = self._normaliser(device)(stacked.images.numpy()).contiguous(memory_format=torch.channels_last)
        return TrainBatch(images, target, *rest)  # type: ignore[arg-type]


def _move(value: Tensor | tuple[Tensor, Tensor], device: torch.device) -> Tensor | tuple[Tensor, Tensor]:
    if isinstance(value, tuple):
        return value[0].to(device, non_blocking=True), value[1].to(device, non_blocking=True)
    return value.to(device, non_blocking=True)
