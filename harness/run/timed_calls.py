"""What is inside the timer: the calls of each scope, over the same persons in the same order for every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.boxes import Boxes
from harness.data.coco import Dataset, ImageInfo
from harness.data.crops import affine, center_scale, read_image, warp
from harness.method import PoseProtocol
from harness.passes.predict import Decoding, TopDownRunner
from harness.passes.replay import Selection, to_results

__all__ = ["Portion", "TimedCall", "Turn", "inside_timer", "turns"]

_PERSONS = 64  # persons that the calls go through, so that a data-dependent cost is met in its variety
_IMAGES = 8  # images, where a call is an image
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Portion:
    """Persons of one image: its file, its pixels (H, W, 3) uint8, which `rows` of all boxes, and these boxes."""

    path: Path
    size: tuple[int, int]  # (width, height)
    image: np.ndarray
    rows: np.ndarray  # (n,) int64
    boxes: Boxes

    def take(self, first: int, last: int) -> Portion:
        """The persons from `first` to `last`."""
        return replace(self, rows=self.rows[first:last], boxes=self.boxes.take(slice(first, last)))


Turn = tuple[Portion, ...]  # what one call works on: a batch, or with end-to-end an image


def turns(dataset: Dataset, boxes: Boxes, batch: int, scope: str) -> list[Turn]:
    """What the calls go through: full batches of the first persons, or the first images with all their persons.

    Images whose file is missing are passed over; where there are fewer persons than one batch they are repeated.
    """
    if scope == "end-to-end":
        return [(portion,) for _, portion in zip(range(_IMAGES), _portions(dataset, boxes))]
    found: list[Turn] = []
    turn: list[Portion] = []
    portions: list[Portion] = []
    for portion in _portions(dataset, boxes):
        portions.append(portion)
        _fill(turn, portion, batch, found)
        if len(found) >= max(1, _PERSONS // batch):
            return found[: max(1, _PERSONS // batch)]
    while portions and not found:
        for portion in portions:
            _fill(turn, portion, batch, found)
    return found


def _fill(turn: list[Portion], portion: Portion, batch: int, found: list[Turn]) -> None:
    """Puts the persons of an image into the open batch; full ones go to `found`."""
    taken = 0
    while taken < len(portion.rows):
        room = batch - sum(len(p.rows) for p in turn)
        turn.append(portion.take(taken, taken + room))
        taken += room
        if sum(len(p.rows) for p in turn) == batch:
            found.append(tuple(turn))
            turn.clear()


def _portions(dataset: Dataset, boxes: Boxes) -> Iterator[Portion]:
    for image in dataset.images:
        rows = np.flatnonzero(boxes.image_ids == image.id)
        path = dataset.image_folder / image.file
        if len(rows) and path.exists():
            yield _portion(image, path, rows, boxes)


def _portion(image: ImageInfo, path: Path, rows: np.ndarray, boxes: Boxes) -> Portion:
    size = (image.width, image.height)
    return Portion(path, size, read_image(path, size), rows, boxes.take(rows))


def inside_timer(scope: str, protocol: PoseProtocol, batch: int) -> str:
    """What a call does between two readings of the clock, in words."""
    if scope == "network":
        return f"one forward of a batch of {batch} normalised crops; no cropping, no flip test, no decoding"
    flip = "forward and its mirrored twin (flip test)" if protocol.flip else "forward"
    work = f"normalising, {flip}, decoding ({protocol.decoder}) to image pixels"
    if scope == "crop+network+decode":
        return f"{batch} persons of decoded images: cropping, {work}; no reading of files, no NMS"
    nms = "no NMS" if protocol.nms == "none" else f"NMS ({protocol.nms})"
    scores = "rescoring, " if protocol.rescore else ""
    return (
        f"one image file (in the system's page cache) with all its person boxes: reading, JPEG or PNG decoding, "
        f"cropping, {work}, in batches of at most {batch}; {scores}{nms}; no person detector"
    )


class TimedCall:
    """One call of `scope` after the other, through `turns`. Until `restart` it stays with the first turn.

    `persons` of every call since then, `poses()` what they gave.
    """

    def __init__(
        self, runner: TopDownRunner, scope: str, settings: Settings, found: Sequence[Turn], batch: int
    ) -> None:
        self.runner, self.scope, self.settings, self.batch = runner, scope, dict(settings), batch
        self.persons: list[int] = []
        self._turns, self._moves = list(found), False
        self._flip = runner.protocol.flip and scope != "network"
        self._work: list[Callable[[], Any]] = [self._prepared(turn) for turn in self._turns]
        self._outputs: dict[int, Any] = {}

    @property
    def forwards(self) -> int:
        """Forward passes of one person."""
        return 2 if self._flip else 1

    def __call__(self) -> object:
        at = len(self.persons) % len(self._turns) if self._moves else 0
        output = self._outputs[at] = self._work[at]()
        if self._moves:
            self.persons.append(sum(len(p.rows) for p in self._turns[at]))
        return output

    def try_all(self) -> None:
        """One call of each kind of turn, so that nothing is done for the first time in a round."""
        kinds = {tuple(len(p.rows) for p in turn): at for at, turn in reversed(list(enumerate(self._turns)))}
        for at in kinds.values() if self.scope == "end-to-end" else [0]:
            self._work[at]()

    def restart(self) -> None:
        """From the first turn on, and now through all of them."""
        self._moves = True
        self.persons.clear()
        self._outputs.clear()

    def poses(self, how: Decoding) -> tuple[np.ndarray, np.ndarray]:
        """(rows (N,) of the boxes, poses (N, K, 3) in image pixels) of the calls since `restart`.

        With scope `network` heatmaps are decoded here, outside of the timer, as `how` says.
        """
        rows = [p.rows for at in self._outputs for p in self._turns[at]]
        found = [self._decoded(self._outputs[at], self._turns[at], how) for at in self._outputs]
        return np.concatenate(rows), np.concatenate(found)

    def wobble(self, how: Decoding, share: float = 1e-5) -> np.ndarray:
        """Pixels (N, K) by which the joints of `poses` move when noise of `share` of a person's highest value is added
        to the heatmaps: what rounding can do to a joint that the network is not sure of."""
        noise, found = np.random.default_rng(0), []
        for at in self._outputs:
            cut = [self._cut(portion, portion.image) for portion in self._turns[at]]
            pixels, *geometry = (np.concatenate(part) for part in zip(*cut))
            maps = self._maps(pixels)
            height = share * np.abs(maps).max(axis=(1, 2, 3), keepdims=True)
            shaken = (maps + height * noise.standard_normal(maps.shape)).astype(maps.dtype)
            both = [self.runner.decode(m, how, *geometry)[..., :2] for m in (maps, shaken)]
            found.append(np.linalg.norm(both[0].astype(np.float64) - both[1], axis=-1))
        return np.concatenate(found)

    def preparing_ms(self) -> float:
        """Milliseconds of making one person's input of decoded pixels: cropping and normalising, the median turn."""
        spent = []
        for turn in self._turns:
            began = time.perf_counter()
            self.runner.normalise(np.concatenate([self._cut(p, p.image)[0] for p in turn]))
            spent.append(1e3 * (time.perf_counter() - began) / sum(len(p.rows) for p in turn))
        return float(np.median(spent))

    # -- the work of each scope ----------------------------------------------------------------------------------

    def _prepared(self, turn: Turn) -> Callable[[], Any]:
        if self.scope == "network":
            ready = self.runner.normalise(np.concatenate([self._cut(p, p.image)[0] for p in turn]))
            return lambda: self.runner.forward_many(ready, [self.settings])[0].exits[-1]
        if self.scope == "crop+network+decode":
            return lambda: self._persons(turn)
        return lambda: self._image(turn[0])

    def _persons(self, turn: Turn) -> np.ndarray:
        cut = [self._cut(portion, portion.image) for portion in turn]
        return self._estimated(*(np.concatenate(part) for part in zip(*cut)))

    def _image(self, portion: Portion) -> tuple[np.ndarray, list[dict[str, Any]]]:
        pixels, centers, scales = self._cut(portion, read_image(portion.path, portion.size))
        count = range(0, len(pixels), self.batch)
        parts = [slice(start, start + self.batch) for start in count]
        poses = np.concatenate([self._estimated(pixels[s], centers[s], scales[s]) for s in parts])
        nothing = np.zeros((len(poses), 1), dtype=np.int64)
        chosen = Selection(poses, nothing, nothing)
        runner = self.runner
        found = {"index": np.arange(len(poses))}
        return poses, to_results(found, chosen, portion.boxes, scales, runner.protocol, runner.skeleton)

    def _cut(self, portion: Portion, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Crops (n, H, W, 3) uint8, centers and scales (n, 2)."""
        size = self.runner.predictor.input_size
        centers, scales = center_scale(portion.boxes.xywh, size, self.runner.protocol.box_padding)
        crops = np.empty((len(centers), *size, 3), dtype=np.uint8)
        for center, scale, crop in zip(centers, scales, crops):
            warp(image, affine(center, scale, 0.0, size, udp=self.runner.codec.udp), size, out=crop)
        return crops, centers, scales

    def _estimated(self, pixels: np.ndarray, centers: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Poses (n, K, 3) of crops; nothing of what a pass keeps besides."""
        return self.runner.decode(self._maps(pixels), Decoding.of(self.runner.protocol), centers, scales)

    def _maps(self, pixels: np.ndarray) -> np.ndarray:
        """Heatmaps (n, K, h, w) that the poses of crops are read from."""
        runner = self.runner
        images = runner.normalise(pixels)
        plain = runner.forward_many(images, [self.settings])[0]
        mirrored = runner.forward_many(images.flip(-1), [self.settings])[0] if self._flip else None
        plain = replace(plain, exits=plain.exits[-1:])
        mirrored = replace(mirrored, exits=mirrored.exits[-1:]) if mirrored else None
        return list(runner.outcomes(plain, mirrored).values())[-1]  # with flip test the averaged maps come last

    def _decoded(self, output: Any, turn: Turn, how: Decoding) -> np.ndarray:
        if self.scope != "network":
            poses: np.ndarray = output if self.scope == "crop+network+decode" else output[0]
            return poses
        boxes = np.concatenate([p.boxes.xywh for p in turn])
        geometry = center_scale(boxes, self.runner.predictor.input_size, self.runner.protocol.box_padding)
        return self.runner.decode(output.float().cpu().numpy(), how, *geometry)
