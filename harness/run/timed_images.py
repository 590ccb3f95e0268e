"""What is inside the timer of a one-stage network: the calls of each scope, over whole images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.cost.per_image import ImageMacs, image_macs
from harness.data.coco import Dataset
from harness.data.images import scaled
from harness.data.reading import read_image
from harness.method import OneStageOutput, PoseProtocol
from harness.passes.predict_images import OneStageRunner, Persons

__all__ = ["Shot", "TimedImages", "image_turns", "inside_image_timer"]

_IMAGES = 8  # that the calls go through, so that a cost that depends on the image is met in its variety


@dataclass(frozen=True)
class Shot:
    """One image: its `index` in the data set, its file, its pixels (H, W, 3) uint8."""

    index: int
    path: Path
    image: np.ndarray

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.image.shape[0], self.image.shape[1]


Turn = tuple[Shot, ...]  # what one call works on: images of one size


def image_turns(dataset: Dataset, batch: int, scope: str) -> list[Turn]:
    """What the calls go through: the first images with annotated persons, in full batches of one size.

    Where no size has enough images for a batch, those of the first image's size are repeated. Without any annotation
    every image counts. A call of scope end-to-end is one image.
    """
    count = 1 if scope == "end-to-end" else batch
    groups: dict[tuple[int, int], list[Shot]] = {}
    found: list[Turn] = []
    for shot in _shots(dataset):
        group = groups.setdefault(shot.size, [])
        group.append(shot)
        if len(group) == count:
            found.append(tuple(groups.pop(shot.size)))
        if len(found) == max(1, _IMAGES // count):
            return found
    if not found and groups:
        group = next(iter(groups.values()))
        found.append(tuple(group[i % len(group)] for i in range(count)))
    return found


def _shots(dataset: Dataset) -> Iterator[Shot]:
    peopled = {person.image_id for person in dataset.persons if not person.iscrowd}
    for index, image in enumerate(dataset.images):
        path = dataset.image_folder / image.file
        if (image.id in peopled or not peopled) and path.exists():
            yield Shot(index, path, read_image(path, (image.width, image.height)))


def inside_image_timer(scope: str, protocol: PoseProtocol, batch: int) -> str:
    """What a call does between two readings of the clock, in words."""
    size = f"shorter side {protocol.shortest_edge}, at most {protocol.longest_edge}"
    if scope == "network":
        return (
            f"one forward of {batch} normalised whole images ({size}): boxes and poses of everybody; no scaling of "
            f"pixels, no way back to the file's pixels"
        )
    work = f"scaling ({size}), normalising, forward with boxes and poses, the way back to the file's pixels"
    if scope == "crop+network+decode":
        return f"{batch} decoded whole images: {work}; no reading of files"
    return f"one image file (in the system's page cache): reading, JPEG or PNG decoding, {work}; its own detector"


class TimedImages:
    """One call of `scope` after the other, through `turns`. Until `restart` it stays with the first turn.

    `persons` of every call since then (regions of the pose head), `found` what the calls gave by image index.
    """

    forwards = 1

    def __init__(
        self, runner: OneStageRunner, scope: str, settings: Mapping[str, Any], found: Sequence[Turn], batch: int
    ) -> None:
        self.runner, self.scope, self.settings, self.batch = runner, scope, dict(settings), batch
        self.persons: list[int] = []
        self._traces: list[list[Mapping[str, int]]] = []
        self._turns, self._moves, self._calls = list(found), False, 0
        self._work = [self._prepared(turn) for turn in self._turns]
        self._last: dict[int, list[Any]] = {}  # outputs of scope network, persons of the others

    def __call__(self) -> object:
        at = self._calls % len(self._turns) if self._moves else 0
        output = self._last[at] = self._work[at]()
        if self._moves:
            self._calls += 1
            self._traces.append([one.trace for one in output])
            self.persons.append(sum(one.trace["persons"] for one in output))
        return output

    def try_all(self) -> None:
        """One call of each turn, so that nothing is done for the first time in a round."""
        for work in self._work:
            work()

    def restart(self) -> None:
        """From the first turn on, and now through all of them."""
        self._moves, self._calls = True, 0
        self.persons.clear()
        self._traces.clear()
        self._last.clear()

    def macs(self) -> list[ImageMacs]:
        """Multiply-accumulates of every call since `restart`, by image of the call."""
        predictor = self.runner.predictor
        return [image_macs(predictor, {n: np.array([t[n] for t in call]) for n in call[0]}) for call in self._traces]

    def found(self, noise: float = 0.0, seed: int = 0) -> dict[int, Persons]:
        """Persons by image index, of the calls since `restart`; with `noise`, a share of the largest input value, what
        the same images give when it is added to them: what rounding can do."""
        persons: dict[int, Persons] = {}
        for at, last in self._last.items():
            outputs = self._shaken(self._turns[at], noise, seed) if noise else last
            for shot, one in zip(self._turns[at], outputs, strict=True):
                persons[shot.index] = one if isinstance(one, Persons) else self._persons(shot, one)
        return persons

    def preparing_ms(self) -> float:
        """Milliseconds of making one image's input of decoded pixels: scaling and normalising, the median turn."""
        spent = []
        for turn in self._turns:
            began = time.perf_counter()
            self._ready([shot.image for shot in turn])
            spent.append(1e3 * (time.perf_counter() - began) / len(turn))
        return float(np.median(spent))

    # -- the work of each scope ----------------------------------------------------------------------------------

    def _prepared(self, turn: Turn) -> Callable[[], Any]:
        if self.scope == "network":
            ready = self._ready([shot.image for shot in turn])
            return lambda: self.runner.forward(ready, self.settings)
        if self.scope == "crop+network+decode":
            return lambda: self._whole(turn, [shot.image for shot in turn])
        return lambda: self._whole(turn, [read_image(shot.path, shot.size[::-1]) for shot in turn])

    def _ready(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        return self.runner.ready([scaled(image, self.runner.scaling) for image in images])

    def _whole(self, turn: Turn, images: Sequence[np.ndarray]) -> list[Persons]:
        outputs = self.runner.forward(self._ready(images), self.settings)
        return [self._persons(shot, output) for shot, output in zip(turn, outputs, strict=True)]

    def _persons(self, shot: Shot, output: OneStageOutput) -> Persons:
        return self.runner.persons(output, self.runner.scaling.size_of(shot.size), shot.size)

    def _shaken(self, turn: Turn, noise: float, seed: int) -> list[OneStageOutput]:
        generator = torch.Generator().manual_seed(seed)
        images = self._ready([shot.image for shot in turn])
        moved = [i + noise * i.abs().max() * torch.randn(i.shape, generator=generator).to(i.device) for i in images]
        return self.runner.forward(moved, self.settings)
