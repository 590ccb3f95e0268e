"""Whole images -> one-stage network -> persons in the file's pixels: the predictions of one pass, in blocks.

The arrays of a pass: by image `index` (I,) in the data set, `macs` (I, 1), `macs_without_persons`, `macs_per_person`
and `trace_*` (I,); by person, best first in each image, `image` (P,) index of its image, `boxes` (P, 4) x1 y1 x2 y2,
`scores` (P,), `keypoints` (P, K, 3). Every person that the network gave is kept; thresholds are applied when it is
scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from harness import stopping
from harness.cost.per_image import image_macs
from harness.data.coco import Dataset
from harness.data.images import Scaling, Size, WholeImage, iter_images, to_original
from harness.errors import NonFiniteOutput
from harness.method import OneStageOutput, PoseProtocol, Predictor
from harness.passes.blocks import block_file, part_file
from harness.passes.memory import Sparing
from harness.passes.runner import Runner, bad_output
from harness.records.store import load_arrays, save_arrays

__all__ = ["OneStageRunner", "Persons", "by_size", "run_image_pass"]

BLOCK = 32  # images in one block on disk: what a kill can cost; independent of the batch, which may change
MOST_PIXELS = 1 << 22  # in one forward: four images at 800 x 1333, whose activations fill gigabytes


@dataclass(frozen=True)
class Persons:
    """The persons of one image in the file's pixels, best first: boxes (n, 4) x1 y1 x2 y2, scores (n,), keypoints
    (n, K, 3), all float32; `trace` plain numbers."""

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray
    trace: Mapping[str, int]


class OneStageRunner(Runner):
    """A one-stage network with all that its forward needs around it: what a Runner has, scaling, the way back."""

    def __init__(self, predictor: Predictor, protocol: PoseProtocol, **how: str) -> None:
        super().__init__(predictor, protocol, **how)
        self.scaling = Scaling(protocol.shortest_edge, protocol.longest_edge, protocol.resizing)

    def ready(self, pixels: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """Images (h, w, 3) of different sizes -> normalised (3, h, w) on the device."""
        return [self.normalise(np.ascontiguousarray(image)[None])[0] for image in pixels]

    def forward(self, images: list[torch.Tensor], settings: Mapping[str, Any]) -> list[OneStageOutput]:
        """One output for each image."""
        with torch.inference_mode(), self._number_format():
            outputs: list[OneStageOutput] = self._predict(images, settings)
        return outputs

    def persons(self, output: OneStageOutput, size: Size, original: Size) -> Persons:
        """The persons of an image of `size`, as the network got it, in the pixels of the file of size `original`.

        Raises NonFiniteOutput.
        """
        parts = (output.boxes, output.scores, output.keypoints)
        boxes, scores, keypoints = (part.detach().float().cpu().numpy() for part in parts)
        if not all(np.isfinite(part).all() for part in (boxes, scores, keypoints)):
            raise bad_output("an image")
        boxes, keypoints, alive = to_original(boxes, keypoints, size, original, self.scaling.centre)
        order = np.argsort(-scores, kind="stable")
        kept = order[alive[order]]
        return Persons(boxes[kept], scores[kept], keypoints[kept], output.trace)

    def process(self, images: Sequence[WholeImage], settings: Mapping[str, Any]) -> list[Persons]:
        """The persons of images that go through one forward together. NonFiniteOutput names the image."""
        outputs = self.forward(self.ready([image.pixels for image in images]), settings)
        found = []
        for image, output in zip(images, outputs, strict=True):
            try:
                found.append(self.persons(output, _size(image), image.original))
            except NonFiniteOutput:
                raise bad_output(f"image {image.info.id}") from None
        return found


def _size(image: WholeImage) -> Size:
    return image.pixels.shape[0], image.pixels.shape[1]


def by_size(images: Iterable[WholeImage], batch: int) -> Iterator[list[WholeImage]]:
    """Images of exactly the same size in groups of at most `batch`, so that none is padded for another's sake:
    its result is that of the image alone. What is left comes at the end."""
    waiting: dict[Size, list[WholeImage]] = {}
    for image in images:
        size = _size(image)
        group = waiting.setdefault(size, [])
        group.append(image)
        if len(group) >= max(1, min(batch, MOST_PIXELS // (size[0] * size[1]))):
            yield waiting.pop(size)
    yield from waiting.values()


def run_image_pass(
    runner: OneStageRunner,
    settings: Mapping[str, Any],
    folder: Path,
    dataset: Dataset,
    *,
    batch: int = 1,
    workers: int = 2,
    missing: Literal["error", "skip"] = "error",
    advance: Callable[[int], None] = lambda n: None,
) -> list[str]:
    """Compute the blocks that are missing in `folder`, each written atomically; the names of all.

    Images that `missing="skip"` passes over are absent from the blocks. From where a batch does not fit into memory
    they go in halves. Raises NonFiniteOutput naming the image, DataError for images that cannot be read; Stopped, with
    the last batch kept, when somebody asked for it.
    """
    names, sparing = [], Sparing()
    for start in range(0, len(dataset.images), BLOCK):
        file, part = block_file(folder, start), part_file(folder, start)
        indices = range(start, min(start + BLOCK, len(dataset.images)))
        if load_arrays(file) is None:
            begun = load_arrays(part)
            left = [i for i in indices if begun is None or i not in begun["index"]]
            advance(len(indices) - len(left))
            images = iter_images(dataset, left, runner.scaling, workers=workers, missing=missing)
            found: dict[int, Persons] = {}
            with closing(images):
                for group in by_size(images, batch):
                    for _, persons in sparing.run(partial(_process, runner, settings, group), len(group)):
                        found |= persons
                    advance(len(group))
                    if stopping.asked():
                        save_arrays(part, _joined(runner, begun, found))
                        stopping.check()
            if not found and begun is None:
                continue
            save_arrays(file, _joined(runner, begun, found))
            part.unlink(missing_ok=True)
        else:
            advance(len(indices))
        names.append(file.name)
    return names


def _process(
    runner: OneStageRunner, settings: Mapping[str, Any], group: Sequence[WholeImage], part: slice
) -> dict[int, Persons]:
    """The persons of a part of a group, by index of the image."""
    return dict(zip((image.index for image in group[part]), runner.process(group[part], settings), strict=True))


_BY_PERSON = ("image", "boxes", "scores", "keypoints")


def _joined(
    runner: OneStageRunner, begun: Mapping[str, np.ndarray] | None, found: Mapping[int, Persons]
) -> Mapping[str, np.ndarray]:
    """The arrays of one block, in the order of its images: what a stopped run had, and the persons found since."""
    parts = [part for part in (begun, _arrays(runner, found) if found else None) if part is not None]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    images, persons = (np.argsort(whole[name], kind="stable") for name in ("index", "image"))
    return {name: values[persons if name in _BY_PERSON else images] for name, values in whole.items()}


def _arrays(runner: OneStageRunner, found: Mapping[int, Persons]) -> dict[str, np.ndarray]:
    """The arrays of one block from the persons of its images, by index."""
    traces = [persons.trace for persons in found.values()]
    trace = {name: np.array([int(one[name]) for one in traces], dtype=np.int64) for name in traces[0]}
    macs = image_macs(runner.predictor, trace)
    index = np.array(list(found), dtype=np.int64)
    counts = [len(persons.scores) for persons in found.values()]
    return {
        "index": index,
        "macs": macs.whole[:, None],
        "macs_without_persons": macs.fixed,
        "macs_per_person": macs.each,
        **{f"trace_{name}": values for name, values in trace.items()},
        "image": np.repeat(index, counts),
        **{n: np.concatenate([getattr(p, n) for p in found.values()]) for n in ("boxes", "scores", "keypoints")},
    }
