"""What a run trains on, and in which order: the interface of training data, seeded batches, the shares of processes.

What a sample becomes depends on (seed, epoch, sample) and on nothing else, so workers, processes, pieces of a batch
and a resumed run change nothing.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from harness.data.coco import Dataset
from harness.errors import HarnessError
from harness.method import Variant
from harness.train.recipes import ImageBatch, Recipe, TrainBatch

__all__ = ["DRAW", "SHIFT", "Order", "Piece", "Share", "TrainingData", "generator", "loader", "torch_seed"]

Size = tuple[int, int]  # (height, width) in pixels
Place = tuple[int, int]  # (epoch, index): one sample of a run
DRAW, SHIFT, _ORDER, _TORCH = range(4)  # separate streams of random numbers of one seed


class TrainingData(Protocol):
    """The samples of one epoch: persons as crops (`harness.train.samples`) or whole images (`harness.train.images`).

    The loop knows nothing else of them. `data[epoch, index]` and `collate` run in worker processes (the object is
    copied there), `to_batch` runs in the loop's own. A sample that cannot be made is *returned* as the HarnessError
    that says why, never raised: an exception would cross the worker processes as a traceback.
    """

    noun: str
    """what a sample is, in the plural, for messages: `persons`, `images`"""

    @property
    def ids(self) -> Sequence[int]:
        """The annotation or image id of each sample, for messages."""

    def __len__(self) -> int:
        """Samples in an epoch."""

    def __getitem__(self, place: Place) -> Any:
        """Sample `index` as augmented in `epoch`; its random numbers are those of `generator(seed, DRAW, epoch, index)`
        and nobody else's."""

    def collate(self, samples: Sequence[Any]) -> Any:
        """Samples -> what crosses to the loop's process: tensors on the CPU in (named) tuples and lists, images as
        uint8; or the first HarnessError among them."""

    def to_batch(self, stacked: Any, device: torch.device) -> TrainBatch | ImageBatch:
        """What `collate` gave as the batch that `losses` takes, on `device`, images normalised there."""


def training_data(variant: Variant, recipe: Recipe, dataset: Dataset, input_size: Size, seed: int) -> TrainingData:
    """The samples that a variant is trained on. DataError when `dataset` has none, or an image file is missing."""
    if variant.paradigm == "one-stage":
        from harness.train.images import WholeImages

        return WholeImages(dataset, variant.protocol, recipe, seed=seed)
    from harness.train.samples import PersonCrops

    protocol = variant.protocol.model_copy(update=dataset.protocol)
    return PersonCrops(dataset, protocol, recipe, input_size, seed=seed)


def generator(seed: int, stream: int, *position: int) -> np.random.Generator:
    """The random numbers of one purpose (`stream`) at one place of the run."""
    return np.random.default_rng((seed, stream, *position))


def torch_seed(seed: int, step: int, process: int = 0) -> int:
    """The seed of torch's own random numbers (dropout and the like) at one step of one process."""
    return int(generator(seed, _TORCH, step, *([process] if process else [])).integers(2**63))


class Order(Sampler[list[Place]]):
    """The samples of every optimiser step, from step `start` on; every epoch is a new seeded permutation.

    One stream for all epochs, so that workers need no pause between two of them. The last batch of an epoch holds
    what is left. `steps`: the run's length where it is no whole number of epochs.
    """

    def __init__(
        self, samples: int, batch: int, epochs: int, *, seed: int = 0, start: int = 0, steps: int | None = None
    ) -> None:
        self.samples, self.batch, self.seed, self.start = samples, batch, seed, start
        self.steps_per_epoch = math.ceil(samples / batch)
        self.total = steps or epochs * self.steps_per_epoch

    def __len__(self) -> int:
        return self.total - self.start

    def __iter__(self) -> Iterator[list[Place]]:
        order: np.ndarray | None = None
        for step in range(self.start, self.total):
            epoch, part = divmod(step, self.steps_per_epoch)
            if order is None or part == 0:
                order = generator(self.seed, _ORDER, epoch).permutation(self.samples)
            yield [(epoch, int(i)) for i in order[part * self.batch : (part + 1) * self.batch]]


class Piece(NamedTuple):
    """Samples that one process handles at once.

    A loss of theirs times `weight`, averaged over the processes and summed over the pieces of a step, is the mean
    over all samples of the step. `part`: their share of the samples that all processes handle at the same time.
    """

    places: list[Place]
    weight: float
    part: float


@dataclass(frozen=True)
class Share:
    """How the samples of a step are divided: among `processes`, and in each into `pieces`, one after the other."""

    process: int = 0
    processes: int = 1
    pieces: int = 1

    def split(self, places: Sequence[Place]) -> list[Piece]:
        """The pieces of this process. Every process has the same number of them; one that is left without samples
        repeats the first with weight 0, since all must take part in the exchange of gradients."""
        shares = [list(places[p :: self.processes]) for p in range(self.processes)]
        count = max(1, min(self.pieces, *map(len, shares)))
        return [self._piece(shares, k, count, places) for k in range(count)]

    def _piece(self, shares: list[list[Place]], k: int, count: int, places: Sequence[Place]) -> Piece:
        parts = [share[k * len(share) // count : (k + 1) * len(share) // count] for share in shares]
        own, together = parts[self.process], sum(map(len, parts))
        weight = self.processes * len(own) / len(places)
        return Piece(own or list(places[:1]), weight, max(1, len(own)) / together)


class _Pieces(Sampler[list[Place]]):
    """The pieces of one process, step after step."""

    def __init__(self, order: Order, share: Share) -> None:
        self.order, self.share = order, share

    def __iter__(self) -> Iterator[list[Place]]:
        for places in self.order:
            yield from (piece.places for piece in self.share.split(places))


def loader(
    data: TrainingData, order: Order, *, workers: int, device: torch.device, share: Share = Share()
) -> DataLoader[Any | HarnessError]:
    """What `data.collate` makes of each piece, in order; `workers` processes make them ahead, 0 in this one."""
    return DataLoader(
        data,  # type: ignore[arg-type]
        batch_sampler=_Pieces(order, share),
        num_workers=workers,
        collate_fn=data.collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_prepared,
        prefetch_factor=4 if workers else None,
    )


def _prepared(worker: int) -> None:
    """One thread. Schedulers stop all processes of a job at once: the one that trains finishes its step then, and needs
    the data; a second SIGTERM ends this one."""
    cv2.setNumThreads(0)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(number, signal.SIG_DFL))
