"""Training samples of top-down methods: a data set's persons as augmented crops with targets, batched in seeded order.

What a sample becomes depends on (seed, epoch, sample) and on nothing else, so workers, batches and a resumed run
change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from harness.data.augment import draw, frozen_shift, mirrored, moved_joints
from harness.data.boxes import from_ground_truth
from harness.data.coco import Dataset
from harness.data.crops import affine, warp
from harness.data.reading import read_image
from harness.errors import DataError, HarnessError
from harness.method import PoseProtocol
from harness.pose.codecs import CODECS
from harness.pose.targets import encode
from harness.predict import Normaliser
from harness.train.recipes import Recipe, TrainBatch

__all__ = ["Order", "PersonCrops", "Stacked", "generator", "loader", "to_batch"]

Size = tuple[int, int]  # (height, width) in pixels
CACHE_BYTES = 2 << 30  # a set whose decoded images fit is decoded once, not every epoch
_DRAW, _SHIFT, _ORDER, _TORCH = range(4)  # separate streams of random numbers of one seed


def generator(seed: int, stream: int, *position: int) -> np.random.Generator:
    """The random numbers of one purpose (`stream`) at one place of the run."""
    return np.random.default_rng((seed, stream, *position))


def torch_seed(seed: int, step: int) -> int:
    """The seed of torch's own random numbers (dropout and the like) at one step."""
    return int(generator(seed, _TORCH, step).integers(2**63))


class Sample(NamedTuple):
    """One augmented person: crop (H, W, 3) uint8, joints (K, 2) in its pixels, visible (K,), annotation id."""

    image: np.ndarray
    joints: np.ndarray
    visible: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    person: int


class Stacked(NamedTuple):
    """B samples as tensors on the CPU; `images` (B, H, W, 3) uint8 RGB, `persons` (B,) annotation ids."""

    images: Tensor
    target: Tensor | tuple[Tensor, Tensor]
    weight: Tensor
    joints: Tensor
    visible: Tensor
    centers: Tensor
    scales: Tensor
    persons: Tensor


class PersonCrops(TorchDataset[Sample | HarnessError]):
    """The labelled persons of `dataset`; item (epoch, index) is that person as augmented in that epoch.

    Left out: crowds, persons without a labelled joint, boxes that cleaning leaves empty. DataError when nobody is
    left or an image file is missing. An image that cannot be decoded is *returned* as DataError, since an exception
    would cross the worker processes as a traceback.
    """

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
        self.skeleton, self.recipe, self.input_size, self.seed = dataset.skeleton, recipe, input_size, seed
        self.padding, self.udp = protocol.box_padding, CODECS[protocol.codec].udp
        self._folder = dataset.image_folder
        self._images = {image.id: image for image in dataset.images}
        boxes = from_ground_truth(dataset, cleaning=protocol.box_cleaning)
        if not len(boxes):
            raise DataError(
                "no person can be trained on",
                where=dataset.name or str(self._folder),
                expected="persons with at least one labelled joint, not crowds, with a box inside the image",
            )
        by_id = {person.id: person for person in dataset.persons}
        self.persons = [by_id[int(i)] for i in boxes.ids]
        shift = recipe.augmentation
        self._boxes = [frozen_shift(generator(seed, _SHIFT, i), box, shift) for i, box in enumerate(boxes.xywh)]
        self._cache: dict[int, np.ndarray] = {}
        self._prepare(cache_bytes)

    def __len__(self) -> int:
        return len(self.persons)

    def __getitem__(self, place: tuple[int, int]) -> Sample | HarnessError:
        try:
            return self.sample(*place)
        except HarnessError as error:
            return error

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": {}}  # where workers are not forked, each reads for itself

    def sample(self, epoch: int, index: int) -> Sample:
        """Person `index` as augmented in `epoch`."""
        person, skeleton = self.persons[index], self.skeleton
        info = self._images[person.image_id]
        how = draw(
            generator(self.seed, _DRAW, epoch, index),
            self._boxes[index],
            person.keypoints,
            self.recipe.augmentation,
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
        image = warp(self._read(person.image_id), matrix, self.input_size)
        return Sample(image, joints, visible, how.center, how.scale, person.id)

    def stack(self, samples: Sequence[Sample | HarnessError]) -> Stacked | HarnessError:
        """The samples as one batch with its targets, or the first error among them."""
        rows: list[Sample] = []
        for sample in samples:
            if isinstance(sample, HarnessError):
                return sample
            rows.append(sample)
        images, joints, visible, centers, scales = (np.stack(values) for values in list(zip(*rows))[:5])
        spec, (height, width) = self.recipe.target, self.input_size
        target, weight = encode(
            spec.encoder,
            joints,
            visible,
            input_size=self.input_size,
            heatmap_size=(height // spec.stride, width // spec.stride),
            sigma=spec.sigma,
            dialect=self.recipe.augmentation.dialect,
        )
        pair = (torch.from_numpy(target[0]), torch.from_numpy(target[1])) if isinstance(target, tuple) else None
        arrays = [torch.from_numpy(a) for a in (weight, joints, visible, centers, scales)]
        persons = torch.tensor([row.person for row in rows])
        return Stacked._make((torch.from_numpy(images), pair or torch.from_numpy(target), *arrays, persons))

    def _read(self, image_id: int) -> np.ndarray:
        cached = self._cache.get(image_id)
        if cached is not None:
            return cached
        info = self._images[image_id]
        return read_image(self._folder / info.file, (info.width, info.height))

    def _prepare(self, cache_bytes: int) -> None:
        """Check that every image file is there; decode them all at once if they fit into `cache_bytes`."""
        used = sorted({p.image_id for p in self.persons})
        paths = [self._folder / self._images[i].file for i in used]
        missing = [p for p in paths if not p.is_file()]
        if missing:
            raise DataError(
                f"{len(missing)} of {len(paths)} image files are missing",
                where=str(missing[0]),
                hint="`paretopose data check ROOT` lists what is wrong with a data set",
            )
        if sum(self._images[i].width * self._images[i].height * 3 for i in used) <= cache_bytes:
            with ThreadPoolExecutor(4) as pool:
                self._cache = dict(zip(used, pool.map(self._read, used)))


class Order(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) for a whole run, from step `start` on; every epoch is a new seeded permutation.

    One stream for all epochs, so that workers need no pause between two of them. The last batch of an epoch holds
    what is left.
    """

    def __init__(self, samples: int, batch: int, epochs: int, *, seed: int = 0, start: int = 0) -> None:
        self.samples, self.batch, self.epochs, self.seed, self.start = samples, batch, epochs, seed, start
        self.steps_per_epoch = math.ceil(samples / batch)

    def __len__(self) -> int:
        return self.epochs * self.steps_per_epoch - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order: np.ndarray | None = None
        for step in range(self.start, self.epochs * self.steps_per_epoch):
            epoch, part = divmod(step, self.steps_per_epoch)
            if order is None or part == 0:
                order = generator(self.seed, _ORDER, epoch).permutation(self.samples)
            yield [(epoch, int(i)) for i in order[part * self.batch : (part + 1) * self.batch]]


def loader(
    crops: PersonCrops, order: Order, *, workers: int, device: torch.device
) -> DataLoader[Stacked | HarnessError]:
    """Batches in `order`; `workers` processes make them ahead, 0 makes them in this one."""
    return DataLoader(
        crops,  # type: ignore[arg-type]
        batch_sampler=order,
        num_workers=workers,
        collate_fn=crops.stack,
        pin_memory=device.type == "cuda",
        worker_init_fn=_one_thread,
        prefetch_factor=4 if workers else None,
    )


def to_batch(stacked: Stacked, normalise: Normaliser) -> TrainBatch:
    """`stacked` on the normaliser's device, images normalised there."""
    target, *rest = (_move(t, normalise.device) for t in stacked[1:7])
    images = normalise(stacked.images.numpy()).contiguous(memory_format=torch.channels_last)
    return TrainBatch(images, target, *rest)  # type: ignore[arg-type]


def _move(value: Tensor | tuple[Tensor, Tensor], device: torch.device) -> Tensor | tuple[Tensor, Tensor]:
    if isinstance(value, tuple):
        return value[0].to(device, non_blocking=True), value[1].to(device, non_blocking=True)
    return value.to(device, non_blocking=True)


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
