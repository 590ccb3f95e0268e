"""AP or PCKh of a network while it trains: the instrument's own pass, decoding and matching, on ground-truth boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from harness.accuracy.on_dataset import check_scorable, evaluate_on
from harness.accuracy.pck import THRESHOLDS, statistic
from harness.data.boxes import from_ground_truth
from harness.data.coco import Dataset
from harness.errors import DataError, NonFiniteOutput
from harness.method import PoseProtocol, Variant
from harness.passes.predict import TopDownRunner
from harness.passes.predict_images import OneStageRunner
from harness.passes.results import image_results, top_down_results

__all__ = ["validator"]

_STATS = {"ap": "AP", "ap50": "AP50", "ar": "AR"}
_STATS_OF_MPII = {f"pckh@{t:g}": statistic(t) for t in THRESHOLDS}


def validator(
    variant: Variant, dataset: Dataset, *, device: str = "cpu", batch: int = 32, workers: int = 0
) -> Callable[[nn.Module], Mapping[str, float]]:
    """`validate(network)` -> ap, ap50 and ar in 0..1 under the variant's published test-time protocol; on MPII
    pckh@0.5 and pckh@0.1. The first one is what the best weights are chosen by.

    Every person leaves at the last exit. A network that writes nan scores 0. DataError for a set without persons, or
    without what its evaluation needs.
    """
    if not dataset.persons:
        raise DataError("nobody to validate on", where=dataset.name)
    check_scorable(dataset)
    stats = _STATS_OF_MPII if dataset.evaluator == "mpii" else _STATS
    protocol = variant.protocol.model_copy(update=dataset.protocol)
    found = _one_stage if variant.paradigm == "one-stage" else _top_down

    def validate(network: nn.Module) -> Mapping[str, float]:
        try:
            results = found(network, protocol, dataset, device, batch, workers)
        except NonFiniteOutput:
            return dict.fromkeys(stats, 0.0)
        scored = evaluate_on(dataset, results)
        return {name: float(scored.stats[stat]) for name, stat in stats.items()}

    return validate


def _top_down(
    network: Any, protocol: PoseProtocol, dataset: Dataset, device: str, batch: int, workers: int
) -> list[dict[str, Any]]:
    boxes = from_ground_truth(dataset, cleaning=protocol.box_cleaning)
    runner = TopDownRunner(network, protocol, dataset.skeleton, device=device)
    return top_down_results(runner, {}, dataset, boxes, batch=batch, workers=max(1, workers))


def _one_stage(
    network: Any, protocol: PoseProtocol, dataset: Dataset, device: str, batch: int, workers: int
) -> list[dict[str, Any]]:
    runner = OneStageRunner(network, protocol, device=device)
    return image_results(runner, {}, dataset, protocol, workers=max(1, workers))
