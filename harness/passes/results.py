"""COCO results of a data set at one go: from a pass in a scratch folder, which nobody needs later."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.data.boxes import Boxes
from harness.data.coco import Dataset
from harness.data.crops import center_scale
from harness.method import PoseProtocol
from harness.passes import replay
from harness.passes.decoding import Decoding
from harness.passes.predict import PassPlan, TopDownRunner, run_passes
from harness.passes.predict_images import OneStageRunner, run_image_pass
from harness.passes.score_images import person_results

__all__ = ["image_results", "top_down_results"]

Results = list[dict[str, Any]]


def top_down_results(
    runner: TopDownRunner, settings: Mapping[str, Any], dataset: Dataset, boxes: Boxes, **how: Any
) -> Results:
    """Results of the poses in `boxes`, by image id; every person leaves where the network lets them.

    `settings`: the method's run knobs, and select knobs that it understands itself; `how`: batch, workers, advance as
    `run_passes` takes them.
    """
    protocol, reading = runner.protocol, Decoding.of(runner.protocol)
    plan = PassPlan(settings, (reading,), protocol.flip, all_exits=False)
    with tempfile.TemporaryDirectory() as folder:
        run_passes(runner, [plan], [Path(folder)], dataset, boxes, **how)
        found = _sealed(Path(folder))
    chosen = replay.select(found, reading.name, flip=protocol.flip, threshold=float("inf"))
    _, scales = center_scale(boxes.xywh, runner.predictor.input_size, protocol.box_padding)
    named = dataset.evaluator == "mpii"
    return replay.to_results(found, chosen, boxes, scales, protocol, runner.skeleton, named=named)


def image_results(
    runner: OneStageRunner, settings: Mapping[str, Any], dataset: Dataset, protocol: PoseProtocol, **how: Any
) -> Results:
    """Results of everybody whom a one-stage network finds, by image; `how`: as `run_image_pass` takes it."""
    with tempfile.TemporaryDirectory() as folder:
        run_image_pass(runner, settings, Path(folder), dataset, **how)
        return person_results(_sealed(Path(folder)), protocol, [image.id for image in dataset.images])


def _sealed(folder: Path) -> replay.Pass:
    replay.seal_pass(folder, {})
    found = replay.load_pass(folder)
    assert found is not None
    return found
