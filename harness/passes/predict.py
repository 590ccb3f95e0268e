"""Crops -> network -> decoder -> persons: the predictions of one pass, or of several that share a coarse stage.

A pass keeps, for every person box, the decoded pose of every outcome that a select knob could ask for later: each
exit, with and without flip test (with flip each of the two forwards may leave at its own exit), each decoder.
Heatmaps are not kept. Results are written in blocks, so that a killed pass goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from harness import stopping
from harness.data.boxes import Boxes
from harness.data.coco import Dataset
from harness.data.crops import CropBatch, batches, iter_crops
from harness.errors import NonFiniteOutput
from harness.method import PoseProtocol, Predictor, TopDownOutput
from harness.passes.blocks import BlockWriter, block_file, take_up
from harness.passes.decoding import Decoding
from harness.passes.memory import Sparing
from harness.passes.runner import Runner, bad_output
from harness.pose.codecs import CODECS
from harness.pose.decoders import decode, non_finite, to_image
from harness.pose.flip import flip_back
from harness.pose.skeletons import Skeleton
from harness.records.store import load_arrays

__all__ = ["Decoding", "PassPlan", "TopDownRunner", "run_passes"]

BLOCK = 256  # persons in one block on disk: what a kill can cost; independent of the batch, which may change
Outcome = tuple[int, ...]  # (exit,) without flip test, (exit, exit of the mirrored forward) with it


@dataclass(frozen=True)
class PassPlan:
    """What one pass computes. `settings` are the method's run knobs; `all_exits` keeps every exit for replay."""

    settings: Mapping[str, Any]
    decodings: tuple[Decoding, ...]
    flip: bool
    all_exits: bool = True


class TopDownRunner(Runner):
    """A top-down network with all that its forward needs around it: what a Runner has, flip, decoding."""

    def __init__(self, predictor: Predictor, protocol: PoseProtocol, skeleton: Skeleton, **how: str) -> None:
        super().__init__(predictor, protocol, **how)
        self.skeleton, self.codec = skeleton, CODECS[protocol.codec]

    def forward_many(self, images: torch.Tensor, settings: Sequence[Mapping[str, Any]]) -> list[TopDownOutput]:
        """One output for each of `settings`; a method that can shares work between them."""
        with torch.inference_mode(), self._number_format():
            if len(settings) > 1 and hasattr(self.predictor, "forward_many") and not self.compiled:
                return self.predictor.forward_many(images, settings)
            return [self._predict(images, s) for s in settings]

    def outcomes(self, plain: TopDownOutput, mirrored: TopDownOutput | None) -> dict[Outcome, np.ndarray]:
        """Heatmaps (B, K, h, w) of each outcome: exits alone, and averaged with the mirrored ones."""
        direct = [e.float() for e in plain.exits]
        maps: dict[Outcome, torch.Tensor] = {(i,): e for i, e in enumerate(direct)}
        if mirrored is not None:
            for j, exit_ in enumerate(mirrored.exits):
                back = flip_back(exit_.float(), self.skeleton, shift=self.codec.shift)
                maps |= {(i, j): (e + back) * 0.5 for i, e in enumerate(direct)}
        return {outcome: m.cpu().numpy() for outcome, m in maps.items()}

    def decode(self, maps: np.ndarray, how: Decoding, centers: np.ndarray, scales: np.ndarray) -> np.ndarray:
        """Heatmaps -> (B, K, 3): x, y in image pixels, score."""
        coords, scores = decode(maps, how.decoder, dialect=how.dialect, blur_kernel=how.blur_kernel, beta=how.beta)
        size = maps.shape[-2:]
        points = to_image(coords, centers, scales, size, udp=self.codec.udp)
        return np.concatenate([points, scores[..., None]], axis=-1).astype(np.float32)

    def process(
        self, crops: np.ndarray, centers: np.ndarray, scales: np.ndarray, plans: Sequence[PassPlan]
    ) -> list[dict[str, np.ndarray]]:
        """The arrays of each plan for one batch of crops; see `Pass` in harness/passes/replay.py for their names."""
        images = self.normalise(crops)
        settings = [{**p.settings, **({"all_exits": True} if p.all_exits else {})} for p in plans]
        plain = self.forward_many(images, settings)
        mirrored: Sequence[TopDownOutput | None] = [None] * len(plans)
        if any(p.flip for p in plans):
            mirrored = self.forward_many(images.flip(-1), settings)
        return [self._arrays(p, a, b if p.flip else None, centers, scales) for p, a, b in zip(plans, plain, mirrored)]

    def _arrays(
        self,
        plan: PassPlan,
        plain: TopDownOutput,
        mirrored: TopDownOutput | None,
        centers: np.ndarray,
        scales: np.ndarray,
    ) -> dict[str, np.ndarray]:
        if not plan.all_exits:
            plain = dataclasses.replace(plain, exits=plain.exits[-1:])
            mirrored = dataclasses.replace(mirrored, exits=mirrored.exits[-1:]) if mirrored else None
        found: dict[str, np.ndarray] = {}
        for outcome, maps in self.outcomes(plain, mirrored).items():
            bad = non_finite(maps)
            if len(bad):
                raise bad_output(f"person {bad[0][0]} of a batch", int(bad[0][0]))
            for how in plan.decodings:
                found[f"keypoints:{how.name}:{'+'.join(map(str, outcome))}"] = self.decode(maps, how, centers, scales)
        for suffix, output in (("", plain), ("_mirrored", mirrored)):
            if output is not None:
                found |= self._cost_arrays(output, suffix, len(centers))
        return found

    def _cost_arrays(self, output: TopDownOutput, suffix: str, count: int) -> dict[str, np.ndarray]:
        """Quality, trace and multiply-accumulates by exit (B, E) of one forward."""
        trace = {name: value.cpu().numpy() for name, value in output.trace.items()}
        traces = [trace]
        if len(output.exits) > 1:
            traces = [self.predictor.trace_at(trace, np.full(count, e)) for e in range(len(output.exits))]
        macs = [np.broadcast_to(np.asarray(self.predictor.macs(t), dtype=np.int64), count) for t in traces]
        found = {f"macs{suffix}": np.stack(macs, axis=1)}
        found |= {f"trace_{name}{suffix}": value for name, value in trace.items()}
        if output.quality is not None:
            found[f"quality{suffix}"] = output.quality.float().cpu().numpy()
            found["default_threshold"] = np.full(count, self.predictor.quality_threshold, dtype=np.float64)
        if output.rival is not None:
            found[f"quality_rival{suffix}"] = output.rival.float().cpu().numpy()
        return found


def run_passes(
    runner: TopDownRunner,
    plans: Sequence[PassPlan],
    folders: Sequence[Path],
    dataset: Dataset,
    boxes: Boxes,
    *,
    batch: int = 16,
    workers: int = 2,
    missing: Literal["error", "skip"] = "error",
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[str]]:
    """Compute the blocks that are missing in `folders` (one for each plan), each written atomically; names of all.

    The network gets full batches across images and blocks, in halves from where one does not fit into memory. Persons
    of images that `missing="skip"` passes over are absent from the blocks. Raises NonFiniteOutput naming image and
    person; DataError for images that cannot be read; Stopped, with the last batch kept, when somebody asked for it.
    """

    def lacking(start: int) -> list[int]:
        return [n for n, folder in enumerate(folders) if load_arrays(block_file(folder, start)) is None]

    names: list[list[str]] = [[] for _ in folders]
    sparing = Sparing()
    for wanted, stretch in groupby(range(0, len(boxes), BLOCK), key=lacking):
        starts = list(stretch)
        rows = np.arange(starts[0], min(starts[-1] + BLOCK, len(boxes)))
        for n in set(range(len(folders))) - set(wanted):
            names[n] += [block_file(folders[n], start).name for start in starts]
        writers = [BlockWriter(folders[n], BLOCK) for n in wanted]
        left = np.setdiff1d(rows, take_up(writers, starts[0])) if wanted else rows[:0]
        advance(len(rows) - len(left))
        crops = iter_crops(
            dataset,
            boxes.take(left),
            input_size=runner.predictor.input_size,
            udp=runner.codec.udp,
            padding=runner.protocol.box_padding,
            workers=workers,
            missing=missing,
        )
        work = partial(_process, runner, [plans[n] for n in wanted], boxes, left)
        with closing(crops):
            _stretch(work, sparing, writers, batches(crops, batch), left, advance)
        for n, writer in zip(wanted, writers):
            names[n] += writer.written
    return names


def _stretch(
    work: Callable[[CropBatch, slice], list[dict[str, np.ndarray]]],
    sparing: Sparing,
    writers: Sequence[BlockWriter],
    crops: Iterable[CropBatch],
    rows: np.ndarray,
    advance: Callable[[int], None],
) -> None:
    """Consecutive blocks, written for each plan; the crops are of these `rows` of all boxes."""
    for batch in crops:
        for part, results in sparing.run(partial(work, batch), len(batch.indices)):
            for writer, arrays in zip(writers, results):
                writer.add({"index": rows[batch.indices[part]], **arrays})
        advance(len(batch.indices))
        if stopping.asked():
            for writer in writers:
                writer.keep()
            stopping.check()
    for writer in writers:
        writer.close()


def _process(
    runner: TopDownRunner, plans: Sequence[PassPlan], boxes: Boxes, rows: np.ndarray, batch: CropBatch, part: slice
) -> list[dict[str, np.ndarray]]:
    """What the runner makes of a part of a batch; its errors name image, annotation and box."""
    try:
        return runner.process(batch.crops[part], batch.centers[part], batch.scales[part], plans)
    except NonFiniteOutput as bad:
        row = int(rows[batch.indices[part][bad.person]])
        raise bad_output(f"image {boxes.image_ids[row]}, annotation {boxes.ids[row]}, box {row}") from None
