"""A stored pass and one choice of select knobs -> accuracy with intervals, exit shares and cost per person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.accuracy.on_dataset import evaluate_on
from harness.data.boxes import Boxes
from harness.data.coco import Dataset
from harness.data.crops import center_scale
from harness.method import PoseProtocol
from harness.passes import replay
from harness.passes.decoding import Decoding
from harness.suite.schema import AccuracySpec, Cell

__all__ = ["cost_summary", "described", "detections", "joints_of", "on_evaluated", "results_on", "score"]


def detections(
    cell: Cell, found: replay.Pass, dataset: Dataset, boxes: Boxes
) -> tuple[list[dict[str, Any]], replay.Selection]:
    """COCO results of a cell from its pass, of the joints that are evaluated, and the selection they come from."""
    threshold = replay.threshold_of(found, cell.select, flip=cell.protocol.flip)
    name = Decoding.of(cell.protocol).name
    chosen = replay.select(found, name, flip=cell.protocol.flip, threshold=threshold)
    _, scales = center_scale(boxes.xywh, cell.input_size, cell.protocol.box_padding)
    return results_on(dataset, found, chosen, boxes, scales, cell.protocol), chosen


def results_on(
    dataset: Dataset,
    found: replay.Pass,
    chosen: replay.Selection,
    boxes: Boxes,
    scales: np.ndarray,
    protocol: PoseProtocol,
) -> list[dict[str, Any]]:
    """COCO results of the joints that the data set is evaluated on; rescoring and NMS see all joints of the network."""
    chart = dataset.joint_map
    skeleton, named = chart.network if chart else dataset.skeleton, dataset.evaluator == "mpii"
    results = replay.to_results(found, chosen, boxes, scales, protocol, skeleton, named=named)
    return on_evaluated(results, dataset)


def on_evaluated(results: list[dict[str, Any]], dataset: Dataset) -> list[dict[str, Any]]:
    """Results with the joints that the data set is evaluated on, in its order."""
    if dataset.joint_map is None:
        return results
    kept = dataset.joint_map.network_rows
    return [{**r, "keypoints": np.reshape(r["keypoints"], (-1, 3))[kept].ravel().tolist()} for r in results]


def score(
    found: replay.Pass,
    results: Sequence[Mapping[str, Any]],
    chosen: replay.Selection,
    dataset: Dataset,
    boxes: Boxes,
    spec: AccuracySpec,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The result of an accuracy record, and the arrays that paired comparisons and `report --verify` need later."""
    evaluation = evaluate_on(
        dataset,
        results,
        bootstrap=spec.bootstrap,
        seed=spec.seed,
        judge=spec.judge,
        absent_as_wrong=len(found["index"]) < len(boxes),  # persons of missing images were passed over
    )
    images = boxes.image_ids[found["index"]]
    result = {
        **evaluation.to_dict(),
        "box_source": boxes.source,
        "boxes": len(boxes.scores),
        "skipped_boxes": len(boxes.scores) - len(found["index"]),
        "skipped_images": len(np.unique(np.delete(boxes.image_ids, found["index"]))),
        "cost": cost_summary(chosen.macs, images, len(dataset.images)),
    }
    result |= joints_of(dataset)
    if "quality" in found:
        result["quality_threshold"] = _number(chosen.threshold)
        result["refined_share"] = float(np.mean(chosen.exits > 0)) if chosen.exits.size else None
    work = {"work_macs": chosen.macs, "work_exits": chosen.exits, "work_image": images}
    return result, evaluation.matches.to_arrays() | work


def joints_of(dataset: Dataset) -> dict[str, Any]:
    """`joints` of an accuracy record: which were evaluated, where a network with other joints was."""
    return {"joints": dataset.joint_map.to_json()} if dataset.joint_map else {}


def _number(threshold: float | None) -> float | str:
    if threshold is None:
        return "of the network itself"
    return threshold if np.isfinite(threshold) else ("always" if threshold > 0 else "never")


def cost_summary(macs: np.ndarray, images: np.ndarray, image_count: int) -> dict[str, Any]:
    """Gmacs per forward, per prediction (a flip test is two forwards) and per image: mean, sd, 5th and 95th percentile.

    `macs` (N, F) int64 of the forwards of N persons, `images` (N,) their image ids.
    """
    if not macs.size:
        return {}
    _, place = np.unique(images, return_inverse=True)
    per_image = np.zeros(image_count)
    per_image[: place.max() + 1] = np.bincount(place, weights=macs.sum(axis=1))
    summary: Mapping[str, np.ndarray] = {
        "gmacs_per_forward": macs.reshape(-1),
        "gmacs_per_prediction": macs.sum(axis=1),
        "gmacs_per_image": per_image,
    }
    return {name: described(np.asarray(values, dtype=np.float64) / 1e9) for name, values in summary.items()}


def described(values: np.ndarray) -> dict[str, float]:
    """Mean, standard deviation, 5th and 95th percentile."""
    p5, p95 = np.percentile(values, [5, 95])
    return {"mean": float(values.mean()), "sd": float(values.std()), "p5": float(p5), "p95": float(p95)}
