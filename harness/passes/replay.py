"""Select knobs answered from a stored pass: threshold, decoder and flip choose among poses that were decoded already.

Torch-free. The arrays of a pass: `index` (N,) row of each person box; `keypoints:DECODING:OUTCOME` (N, K, 3) with
OUTCOME `0`, `1` (exit without flip test) or `0+1` (exit of the plain + exit of the mirrored forward); `quality` and
`quality_mirrored` (N,), `default_threshold` (N,) the network's own, or `quality_rival` and `quality_rival_mirrored`
(N,) where it knows no threshold and compares two numbers; `macs` and `macs_mirrored` (N, E) by exit; `trace_*` what
the forward did.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.boxes import Boxes
from harness.errors import MeasurementError, SuiteError
from harness.foreign.json_text import loads
from harness.method import PoseProtocol
from harness.pose.nms import oks_nms, rescore, soft_oks_nms
from harness.pose.skeletons import Skeleton
from harness.records.store import load_arrays, write_atomically

__all__ = [
    "Selection",
    "load_pass",
    "margins",
    "notes_of",
    "resolve_threshold",
    "seal_pass",
    "select",
    "threshold_of",
    "to_results",
]

Pass = dict[str, np.ndarray]
COMPLETE = "complete.json"
_BLOCK = re.compile(r"block-\w+\.npz")


@dataclass(frozen=True)
class Selection:
    """What a choice of select knobs gives: poses, and what they cost.

    `keypoints` (N, K, 3); `exits` (N, F) exit taken by each of the F forwards (1, or 2 with flip test);
    `macs` (N, F) multiply-accumulates of each; `threshold` the quality threshold that was applied, if any.
    """

    keypoints: np.ndarray
    exits: np.ndarray
    macs: np.ndarray
    threshold: float | None = None


def load_pass(folder: Path) -> Pass | None:
    """All blocks of a pass, or None when it is not complete. Persons of skipped images are absent (see `index`)."""
    try:
        expected = loads((folder / COMPLETE).read_bytes())["blocks"]
        if not all(_BLOCK.fullmatch(name) for name in expected):  # names, and no places elsewhere
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    blocks = [load_arrays(folder / name) for name in expected]
    sound = [b for b in blocks if b is not None]
    if len(sound) < len(blocks):
        return None
    if not sound:
        return {"index": np.zeros(0, dtype=np.int64), "macs": np.zeros((0, 1), dtype=np.int64)}
    return {name: np.concatenate([b[name] for b in sound]) for name in sound[0]}


def seal_pass(folder: Path, about: dict[str, Any], blocks: Sequence[str] | None = None) -> None:
    """Mark a pass of these `blocks` as complete, of all that are there by default: it is read now, not computed."""
    names = sorted(p.name for p in folder.glob("block-*.npz")) if blocks is None else list(blocks)
    write_atomically(folder / COMPLETE, json.dumps({**about, "blocks": names}, indent=1).encode())


def notes_of(folder: Path) -> list[str]:
    """What the pass says about its weights: interpolated, or not to be told for sure."""
    try:
        return [str(note) for note in loads((folder / COMPLETE).read_bytes())["notes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def threshold_of(found: Pass, knobs: Mapping[str, Any], *, flip: bool) -> float | None:
    """The quality threshold that the select `knobs` (`quality_threshold`, `exit_rate`) mean for this pass.

    None where there is none: a network without quality, or one that compares two numbers of its own (it takes
    `always` and `never` and no number). Raises MeasurementError for an exit rate there.
    """
    if "quality" not in found:
        return None
    rate, rival = knobs.get("exit_rate"), "quality_rival" in found
    if rate is not None:
        if rival:
            raise MeasurementError(
                f"exit_rate {rate:g} needs a threshold, and this network compares two qualities with each other",
                hint="quality_threshold: always or never, or a network that predicts one quality",
            )
        return _leaving(np.concatenate([found[f"quality{suffix}"] for suffix in _forwards(flip)]), rate)
    given = knobs.get("quality_threshold")
    return None if rival and given not in _WORDS else resolve_threshold(found, given)


_WORDS = {"always": float("inf"), "never": float("-inf")}


def _leaving(qualities: np.ndarray, rate: float) -> float:
    """The largest threshold at which at least the share `rate` of the forwards leaves; +inf where none has to.

    Forwards of equal quality leave together, so that the share reached may be larger.
    """
    count = math.ceil(round(rate * len(qualities), 9))  # 0.7 of 10 are 7, whatever the product's last digit
    return float(np.sort(qualities)[-count]) if count else float("inf")


def resolve_threshold(found: Pass, quality_threshold: Any) -> float:
    """The threshold as a number: `always` is +inf (refine everybody), `never` -inf, None the network's own."""
    if quality_threshold is None and len(found.get("default_threshold", ())):
        return float(found["default_threshold"][0])
    value = _WORDS.get(quality_threshold, quality_threshold)
    if isinstance(value, str) or value is None or value != value:
        raise SuiteError(f"quality_threshold is {quality_threshold!r}", expected="a number, 'always' or 'never'")
    return float(value)


def _forwards(flip: bool) -> tuple[str, ...]:
    """What the arrays of each forward end in."""
    return ("", "_mirrored") if flip else ("",)


def margins(found: Pass, threshold: float | None, *, flip: bool) -> np.ndarray:
    """(N, F) quality minus what it is compared with, for each of the F forwards: refined where it is below zero."""
    columns = []
    for suffix in _forwards(flip):
        limit = found.get(f"quality_rival{suffix}", np.inf) if threshold is None else threshold
        columns.append(found[f"quality{suffix}"] - limit)
    return np.stack(columns, axis=1)


def select(found: Pass, decoding: str, *, flip: bool, threshold: float | None = None) -> Selection:
    """Poses and cost under one setting of the select knobs; `threshold` as `threshold_of` gives it.

    A forward refines where its quality is strictly below; without a quality everybody takes the last exit.
    """
    count, names = len(found["index"]), _forwards(flip)
    exits = np.zeros((count, len(names)), dtype=np.int64)
    if not count:
        return Selection(np.zeros((0, 0, 3), dtype=np.float32), exits, exits, threshold)
    exits += found["macs"].shape[1] - 1
    if "quality" in found:
        exits[~(margins(found, threshold, flip=flip) < 0)] = 0
    keypoints = np.full((count, *_shape(found, decoding)), np.nan, dtype=np.float32)
    for outcome in np.unique(exits, axis=0):
        rows = (exits == outcome).all(axis=1)
        keypoints[rows] = _poses(found, decoding, outcome)[rows]
    macs = [np.take_along_axis(found[f"macs{s}"], exits[:, [c]], axis=1) for c, s in enumerate(names)]
    return Selection(keypoints, exits, np.concatenate(macs, axis=1), threshold)


def _shape(found: Pass, decoding: str) -> tuple[int, ...]:
    shape = next((v.shape[1:] for k, v in found.items() if k.startswith(f"keypoints:{decoding}:")), None)
    if shape is None:
        raise MeasurementError(
            f"the stored pass has no poses decoded by {decoding}", hint="delete the pass and run again"
        )
    return shape


def _poses(found: Pass, decoding: str, outcome: np.ndarray) -> np.ndarray:
    return found[f"keypoints:{decoding}:{'+'.join(map(str, outcome))}"]


def to_results(
    found: Pass,
    chosen: Selection,
    boxes: Boxes,
    scales: np.ndarray,
    protocol: PoseProtocol,
    skeleton: Skeleton,
    *,
    named: bool = False,
) -> list[dict[str, Any]]:
    """COCO result records: rescored, after NMS, images in order of their boxes; `named`: with the annotation that each
    pose is of, `person`.

    `scales` (N, 2) of the crops in units of 200 px: NMS measures OKS with the padded box area (HRNet protocol G5).
    """
    rows = found["index"]
    if not len(rows):
        return []
    scores = boxes.scores[rows]
    if protocol.rescore:
        scores = rescore(chosen.keypoints[..., 2], scores, protocol.joint_score_threshold)
    areas = np.prod(scales[rows].astype(np.float64) * 200, axis=1)
    images = boxes.image_ids[rows]
    order = np.argsort(images, kind="stable")
    results: list[dict[str, Any]] = []
    for group in np.split(order, np.flatnonzero(np.diff(images[order])) + 1):
        for row in group[_keep(chosen.keypoints[group], scores[group], areas[group], protocol, skeleton)]:
            results.append(_result(int(images[row]), chosen.keypoints[row], float(scores[row])))
            if named:
                results[-1]["person"] = int(boxes.ids[rows[row]])
            if protocol.results_with_bbox:
                results[-1]["bbox"] = boxes.xywh[rows[row]].tolist()
    return results


def _keep(
    keypoints: np.ndarray, scores: np.ndarray, areas: np.ndarray, protocol: PoseProtocol, skeleton: Skeleton
) -> np.ndarray:
    if protocol.nms == "none":
        return np.arange(len(scores))
    nms = oks_nms if protocol.nms == "oks" else soft_oks_nms
    return np.asarray(nms(keypoints, scores, areas, protocol.nms_threshold, skeleton.sigmas), dtype=np.int64)


def _result(image_id: int, keypoints: np.ndarray, score: float) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "category_id": 1,
        "keypoints": keypoints.reshape(-1).tolist(),
        "score": score,
    }
