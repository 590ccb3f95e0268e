"""Photographs -> poses and drawn pictures, without a suite."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from harness import replay, suite
from harness.data.boxes import Boxes
from harness.data.crops import affine, center_scale, warp
from harness.data.reading import read_image
from harness.errors import DataError, WeightsError
from harness.method import find_variant
from harness.pose.drawing import draw_poses
from harness.pose.skeletons import COCO
from harness.predict import Decoding, PassPlan, TopDownRunner
from harness.run import Progress
from harness.sources import Sources
from harness.store import write_atomically
from harness.train.checkpoints import open_variant

__all__ = ["Written", "predict_photographs"]


@dataclass(frozen=True)
class Written:
    """What was written: the JSON file, its content, the pictures."""

    file: Path
    coco: dict[str, Any]
    pictures: list[Path]


def predict_photographs(
    method: str,
    files: Sequence[Path],
    *,
    weights: Path | None,
    boxes: Path | None,
    out: Path,
    assignments: Sequence[str],
    threshold: float,
    device: str,
    progress: Progress,
) -> Written:
    """Predict, draw and write predictions.json (COCO layout), results.json (COCO results) and one picture a photograph."""
    cell = _cell(method, assignments)
    variant = find_variant(cell.variant)
    weights = weights or Sources().weights_of(cell, "quickstart")
    if weights is None:
        raise WeightsError(f"{method} has no weights here", hint="give --weights FILE")
    runner = TopDownRunner(
        open_variant(variant, weights, input_size=cell.input_size, **cell.build)[0], cell.protocol, COCO, device=device
    )
    sizes = [read_image(path).shape[:2] for path in files]
    by_file, ids = _boxes(boxes, files, sizes)
    results: list[dict[str, Any]] = []
    pictures: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    with progress.task(f"{method}: {len(files)} photographs", len(files)) as advance:
        for path, image_id in zip(files, ids):
            image = read_image(path)
            found = _persons(runner, cell, image, by_file[path.name], image_id)
            results += found
            pictures.append(_draw(image, found, out / f"{path.stem}.poses.jpg", threshold))
            advance(1)
    coco = _coco(files, ids, sizes, results)
    write_atomically(out / "predictions.json", json.dumps(coco).encode())
    write_atomically(out / "results.json", json.dumps(results).encode())
    return Written(out / "predictions.json", coco, pictures)


def _cell(method: str, assignments: Sequence[str]) -> suite.Cell:
    """One cell of that method, with `k=v` settings of knobs and protocol fields."""
    import yaml

    from harness.method import PoseProtocol

    values = {k: yaml.safe_load(v) for k, _, v in (a.partition("=") for a in assignments)}
    protocol = {
        k.removeprefix("protocol."): v
        for k, v in values.items()
        if k.removeprefix("protocol.") in PoseProtocol.model_fields
    }
    knobs = {k: v for k, v in values.items() if k.removeprefix("protocol.") not in protocol}
    line = suite.MethodSpec(variant=method, set=knobs, protocol=protocol)
    return suite.expand(suite.Suite(name="predict", methods=(line,)))[0]


def _boxes(
    source: Path | None, files: Sequence[Path], sizes: Sequence[tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], list[int]]:
    """Boxes with scores (n, 5) by file name, and image ids; a photograph as one box without a boxes file."""
    if source is None:
        whole = {p.name: np.array([[0, 0, w, h, 1.0]]) for p, (h, w) in zip(files, sizes)}
        return whole, list(range(1, len(files) + 1))
    try:
        content = json.loads(source.read_text())
    except ValueError as error:
        raise DataError(f"not JSON: {error}", where=str(source)) from error
    entries, images = _entries(content)
    if images:
        ids = [images.get(p.name, -1) for p in files]
        if -1 in ids:
            lost = [p.name for p, i in zip(files, ids) if i < 0]
            raise DataError(
                f"{len(lost)} photographs are not in the boxes file: {', '.join(lost[:5])}", where=str(source)
            )
    else:
        ids = [_number(p) for p in files]
    table: dict[str, np.ndarray] = {}
    for path, image_id in zip(files, ids):
        rows = [[*e["bbox"], e.get("score", 1.0)] for e in entries if e["image_id"] == image_id]
        table[path.name] = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table, ids


def _entries(content: Any) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Person entries of an annotation or detection file, and image ids by file name (annotation files)."""
    listed = content["annotations"] if isinstance(content, dict) else content
    persons = [e for e in listed if e.get("category_id", 1) == 1 and not e.get("iscrowd") and "bbox" in e]
    images = (
        {Path(i["file_name"]).name: i["id"] for i in content["images"]} if isinstance(content, dict) else {}
    )
    return persons, images


def _number(path: Path) -> int:
    digits = "".join(c for c in path.stem if c.isdigit())
    if not digits:
        raise DataError(
            "the boxes file names images by id and this file name holds no number", where=path.name,
            hint="give a COCO annotation file, which holds file names",
        )  # fmt: skip
    return int(digits)


def _persons(
    runner: TopDownRunner, cell: suite.Cell, image: np.ndarray, rows: np.ndarray, image_id: int
) -> list[dict[str, Any]]:
    """COCO results of one photograph."""
    if not len(rows):
        return []
    boxes = Boxes(
        image_ids=np.full(len(rows), image_id),
        xywh=rows[:, :4],
        scores=rows[:, 4],
        ids=np.full(len(rows), -1),
        source="given",
    )
    centers, scales = center_scale(boxes.xywh, cell.input_size, cell.protocol.box_padding)
    matrices = [affine(c, s, 0.0, cell.input_size, udp=runner.codec.udp) for c, s in zip(centers, scales)]
    crops = np.stack([warp(image, matrix, cell.input_size) for matrix in matrices])
    settings = {n: v for n, v in {**cell.run, **cell.select}.items() if n not in ("dtype", "runtime")}
    plan = PassPlan(settings, (Decoding.of(cell.protocol),), cell.protocol.flip, all_exits=False)
    arrays = runner.process(crops, centers, scales, [plan])[0]
    found = {"index": np.arange(len(rows)), **arrays}
    chosen = replay.select(found, plan.decodings[0].name, flip=plan.flip)
    return replay.to_results(found, chosen, boxes, scales, cell.protocol, COCO)


def _draw(image: np.ndarray, found: Sequence[Mapping[str, Any]], path: Path, threshold: float) -> Path:
    keypoints = np.array([f["keypoints"] for f in found], dtype=np.float32).reshape(-1, 17, 3)
    drawn = draw_poses(image, keypoints, COCO, score_threshold=threshold)
    done, data = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    write_atomically(path, data.tobytes())
    return path


def _coco(
    files: Sequence[Path],
    ids: Sequence[int],
    sizes: Sequence[tuple[int, ...]],
    results: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    images = [
        {"id": i, "file_name": p.name, "width": w, "height": h} for p, i, (h, w) in zip(files, ids, sizes)
    ]
    annotations = []
    for number, result in enumerate(results, 1):
        points = np.array(result["keypoints"]).reshape(-1, 3)
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        box = [float(v) for v in (*low, *(high - low))]
        annotations.append(
            {
                **result,
                "id": number,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "num_keypoints": len(points),
            }
        )
    category = {
        "id": 1,
        "name": "person",
        "keypoints": list(COCO.joints),
        "skeleton": [[a + 1, b + 1] for a, b in COCO.limbs],
    }
    return {"images": images, "annotations": annotations, "categories": [category]}
