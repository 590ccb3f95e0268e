"""AP of a network while it trains: the instrument's own pass, decoding and matching, on ground-truth boxes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from harness.accuracy.evaluate import evaluate
from harness.data.boxes import from_ground_truth
from harness.data.coco import Dataset
from harness.data.crops import center_scale
from harness.errors import DataError, NonFiniteOutput
from harness.method import PoseProtocol, Variant
from harness.passes import replay
from harness.passes.decoding import Decoding
from harness.passes.predict import PassPlan, TopDownRunner, run_passes
from harness.passes.predict_images import OneStageRunner, run_image_pass
from harness.passes.score_images import person_results

__all__ = ["validator"]

_STATS = {"ap": "AP", "ap50": "AP50", "ar": "AR"}


def validator(
    variant: Variant, dataset: Dataset, *, device: str = "cpu", batch: int = 32, workers: int = 0
) -> Callable[[nn.Module], Mapping[str, float]]:
    """`validate(network)` -> ap, ap50 and ar in 0..1 under the variant's published test-time protocol.

    Every person leaves at the last exit. A network that writes nan scores 0. DataError for a set without persons.
    """
    if not dataset.persons:
        raise DataError("nobody to validate on", where=dataset.name)
    found = _one_stage if variant.paradigm == "one-stage" else _top_down

    def validate(network: nn.Module) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory() as folder:
            try:
                results = found(network, variant.protocol, dataset, Path(folder), device, batch, workers)
            except NonFiniteOutput:
                return dict.fromkeys(_STATS, 0.0)
        kind = "crowdpose" if dataset.skeleton.name == "crowdpose" else "coco"
        ids = [image.id for image in dataset.images]
        scored = evaluate(dataset.annotations, results, evaluator=kind, bootstrap=0, judge=False, image_ids=ids)
        return {name: float(scored.stats[stat]) for name, stat in _STATS.items()}

    return validate


def _top_down(
    network: Any, protocol: PoseProtocol, dataset: Dataset, folder: Path, device: str, batch: int, workers: int
) -> list[dict[str, Any]]:
    boxes = from_ground_truth(dataset, cleaning=protocol.box_cleaning)
    how = Decoding.of(protocol)
    runner = TopDownRunner(network, protocol, dataset.skeleton, device=device)
    plan = PassPlan({}, (how,), protocol.flip, all_exits=False)
    run_passes(runner, [plan], [folder], dataset, boxes, batch=batch, workers=max(1, workers))
    passed = _sealed(folder)
    chosen = replay.select(passed, how.name, flip=protocol.flip, threshold=float("inf"))
    _, scales = center_scale(boxes.xywh, network.input_size, protocol.box_padding)
    return replay.to_results(passed, chosen, boxes, scales, protocol, dataset.skeleton)


def _one_stage(
    network: Any, protocol: PoseProtocol, dataset: Dataset, folder: Path, device: str, batch: int, workers: int
) -> list[dict[str, Any]]:
    runner = OneStageRunner(network, protocol, device=device)
    run_image_pass(runner, {}, folder, dataset, workers=max(1, workers))
    return person_results(_sealed(folder), protocol, [image.id for image in dataset.images])


def _sealed(folder: Path) -> replay.Pass:
    replay.seal_pass(folder, {})
    found = replay.load_pass(folder)
    assert found is not None
    return found
