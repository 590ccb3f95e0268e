"""Photographs -> poses and drawn pictures, without a suite."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from harness.data.annotation_file import parse_json
from harness.data.boxes import Boxes
from harness.data.crops import affine, center_scale, warp
from harness.data.images import scaled
from harness.data.reading import image_size, read_image
from harness.errors import DataError, UserError, WeightsError
from harness.passes import replay
from harness.passes.predict import Decoding, PassPlan, TopDownRunner
from harness.passes.predict_images import OneStageRunner
from harness.passes.score_images import person_results
from harness.pictures.token_pictures import check_refines, token_picture
from harness.pose.drawing import draw_poses
from harness.pose.skeletons import COCO
from harness.records.store import write_atomically
from harness.run.rows import Progress, fitted, run_kind, settings_of
from harness.suite.cells import expand
from harness.suite.schema import Cell, MethodSpec, Suite
from harness.suite.sources import Sources
from harness.train.checkpoints import open_variant

__all__ = ["Written", "predict_photographs"]

_JOINT = 0.2  # joints of heatmaps below this score are not drawn
_JOINT_OF_A_MAP = 0.05  # of maps that are read as a distribution over the cells of a region


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
    threshold: float | None,
    device: str,
    progress: Progress,
    tokens: bool = False,
    person_threshold: float = 0.5,
) -> Written:
    """Predict, draw, write predictions.json (COCO layout), results.json (COCO results) and one picture a photograph.

    A one-stage network finds the persons itself; those below `person_threshold` are in the files and not drawn.
    `threshold` of the joints that are drawn; None: what suits the network's scores.
    With `tokens` a second picture of each shows which regions of each person were refined, and what that changed.
    """
    runner, cell, trained_on = _runner(method, assignments, weights, device)
    whole = isinstance(runner, OneStageRunner)
    if whole and boxes is not None:
        raise UserError(f"{method} finds the persons itself", where=f"--boxes {boxes}", hint="leave --boxes out")
    for remark in _remarks(trained_on, alone=not whole and boxes is None):
        progress.say(f"{method} {remark}")
    if threshold is None:
        threshold = _JOINT_OF_A_MAP if whole else _JOINT
    if tokens:
        check_refines(runner.predictor, method)
    sizes = [image_size(path)[::-1] for path in files]
    by_file, ids = _boxes(boxes, files, sizes)
    names = _picture_names(files)
    results: list[dict[str, Any]] = []
    pictures: list[Path] = []
    out.mkdir(parents=True, exist_ok=True)
    with progress.task(f"{method}: {len(files)} photographs", len(files)) as advance:
        for path, image_id, name in zip(files, ids, names):
            image = read_image(path)
            if isinstance(runner, OneStageRunner):
                found = _everybody(runner, cell, image, image_id)
            else:
                found = _persons(runner, cell, image, by_file[path], image_id)
            results += found
            shown = [f for f in found if f["score"] >= person_threshold] if whole else found
            pictures.append(_draw(image, shown, out / name, threshold))
            if tokens and not isinstance(runner, OneStageRunner) and len(by_file[path]):
                drawn = token_picture(runner, cell, image, by_file[path][:, :4], threshold)
                pictures.append(_save(drawn, out / name.replace(".poses.", ".tokens.")))
            advance(1)
    coco = _coco(files, ids, sizes, results)
    write_atomically(out / "predictions.json", json.dumps(coco).encode())
    write_atomically(out / "results.json", json.dumps(_submitted(results, cell)).encode())
    return Written(out / "predictions.json", coco, pictures)


def _remarks(trained_on: str, *, alone: bool) -> Iterator[str]:
    """What a user should know of the poses. `alone`: a network that finds nobody has got no boxes."""
    if trained_on.startswith("synthetic"):
        yield "was trained on the built-in drawn people: its poses on photographs mean little"
    if alone:
        yield "finds nobody itself: without --boxes each photograph is taken as one person"


def _submitted(results: Sequence[Mapping[str, Any]], cell: Cell) -> list[dict[str, Any]]:
    """The results as a result file holds them: with boxes only where the protocol says so."""
    bare = () if cell.protocol.results_with_bbox else ("bbox",)
    return [{name: value for name, value in result.items() if name not in bare} for result in results]


def _runner(
    method: str, assignments: Sequence[str], weights: Path | None, device: str
) -> tuple[TopDownRunner | OneStageRunner, Cell, str]:
    """The network with its weights, its cell (what the settings leave open follows the weights), and the name of the
    data that it was trained on, where the file tells."""
    cell = _cell(method, assignments)
    weights = weights or Sources().weights_of(cell, "quickstart")
    if weights is None:
        raise WeightsError(f"{method} has no weights here", hint="give --weights FILE")
    if not weights.is_file():
        raise WeightsError("there is no such weights file", where=str(weights))
    row = fitted(cell, weights)
    cell, kind = row.cell, run_kind(row.cell)
    joints = {} if row.variant.open_file is not None else {"num_joints": COCO.num_joints}
    network, report = open_variant(row.variant, weights, input_size=cell.input_size, **joints, **cell.build)
    trained_on = report.trained_on if report else ""
    if row.variant.paradigm == "one-stage":
        return OneStageRunner(network, cell.protocol, device=device, **kind), cell, trained_on
    return TopDownRunner(network, cell.protocol, COCO, device=device, **kind), cell, trained_on


def _picture_names(files: Sequence[Path]) -> list[str]:
    """NAME.poses.jpg; numbered where two photographs have the same name."""
    stems = [path.stem for path in files]
    return [f"{s}.{n}.poses.jpg" if stems.count(s) > 1 else f"{s}.poses.jpg" for n, s in enumerate(stems, 1)]


def _cell(method: str, assignments: Sequence[str]) -> Cell:
    """One cell of that method, with `k=v` settings of knobs and protocol fields."""

    from harness.method import PoseProtocol
    from harness.suite.file import named_value, parse_value

    pairs = [named_value(a, "--set", "NAME=VALUE, for example flip=false") for a in assignments]
    values = {name: parse_value(text, f"--set {name}") for name, text in pairs}
    protocol = {
        k.removeprefix("protocol."): v
        for k, v in values.items()
        if k.removeprefix("protocol.") in PoseProtocol.model_fields
    }
    knobs = {k: v for k, v in values.items() if k.removeprefix("protocol.") not in protocol}
    line = MethodSpec(variant=method, set=knobs, protocol=protocol)
    return expand(Suite(name="predict", methods=(line,)))[0]


def _boxes(
    source: Path | None, files: Sequence[Path], sizes: Sequence[tuple[int, ...]]
) -> tuple[dict[Path, np.ndarray], list[int]]:
    """Boxes with scores (n, 5) by photograph, and image ids; a photograph as one box without a boxes file."""
    if source is None:
        whole = {p: np.array([[0, 0, w, h, 1.0]]) for p, (h, w) in zip(files, sizes)}
        return whole, list(range(1, len(files) + 1))
    entries, images = _entries(parse_json(source, "boxes file"), source)
    if images:
        ids = [images.get(p.name, -1) for p in files]
        if -1 in ids:
            lost = [p.name for p, i in zip(files, ids) if i < 0]
            raise DataError(
                f"{len(lost)} photographs are not in the boxes file: {', '.join(lost[:5])}", where=str(source)
            )
    else:
        ids = [_number(p) for p in files]
    table: dict[Path, np.ndarray] = {}
    for path, image_id in zip(files, ids):
        rows = [[*e["bbox"], e.get("score", 1.0)] for e in entries if e["image_id"] == image_id]
        table[path] = np.array(rows, dtype=np.float64).reshape(-1, 5)
    return table, ids


def _entries(content: Any, source: Path) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """Person entries of an annotation or detection file, and image ids by file name (annotation files)."""
    images: dict[str, int] = {}
    try:
        listed = content["annotations"] if isinstance(content, dict) else content
        if isinstance(content, dict):
            images = {Path(i["file_name"]).name: i["id"] for i in content["images"]}
        persons = [e for e in listed if e.get("category_id", 1) == 1 and not e.get("iscrowd") and e.get("bbox")]
        for entry in persons:
            np.array([entry["image_id"], entry.get("score", 1.0), *entry["bbox"]], dtype=np.float64).reshape(6)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"no person boxes can be read: {type(error).__name__} {error}",
            where=str(source),
            expected="a COCO annotation file, or a list of {image_id, category_id, bbox, score}",
        ) from None
    return persons, images


def _number(path: Path) -> int:
    """The image id in a file name: its last number (000000000139, COCO_val2014_000000000139)."""
    numbers = re.findall(r"\d+", path.stem)
    if not numbers:
        raise DataError(
            "the boxes file names images by id and this file name holds no number", where=path.name,
            hint="give a COCO annotation file, which holds file names",
        )  # fmt: skip
    return int(numbers[-1])


def _persons(
    runner: TopDownRunner, cell: Cell, image: np.ndarray, rows: np.ndarray, image_id: int
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
    settings = {**settings_of(cell), **cell.select}
    plan = PassPlan(settings, (Decoding.of(cell.protocol),), cell.protocol.flip, all_exits=False)
    arrays = runner.process(crops, centers, scales, [plan])[0]
    found = {"index": np.arange(len(rows)), **arrays}
    chosen = replay.select(found, plan.decodings[0].name, flip=plan.flip)
    return replay.to_results(found, chosen, boxes, scales, cell.protocol, COCO)


def _everybody(runner: OneStageRunner, cell: Cell, image: np.ndarray, image_id: int) -> list[dict[str, Any]]:
    """COCO results, with boxes, of everybody whom a one-stage network finds on a photograph."""
    pixels = scaled(image, runner.scaling)
    output = runner.forward(runner.ready([pixels]), {**settings_of(cell), **cell.select})[0]
    persons = runner.persons(output, (pixels.shape[0], pixels.shape[1]), (image.shape[0], image.shape[1]))
    found = {"image": np.zeros(len(persons.scores), dtype=np.int64), "boxes": persons.boxes, "scores": persons.scores}
    boxed = cell.protocol.model_copy(update={"results_with_bbox": True})
    return person_results({**found, "keypoints": persons.keypoints}, boxed, [image_id])


def _draw(image: np.ndarray, found: Sequence[Mapping[str, Any]], path: Path, threshold: float) -> Path:
    keypoints = np.array([f["keypoints"] for f in found], dtype=np.float32).reshape(-1, 17, 3)
    boxes = [f["bbox"] for f in found if "bbox" in f]
    return _save(draw_poses(image, keypoints, COCO, score_threshold=threshold, boxes=boxes), path)


def _save(drawn: np.ndarray, path: Path) -> Path:
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
    images = [{"id": i, "file_name": p.name, "width": w, "height": h} for p, i, (h, w) in zip(files, ids, sizes)]
    annotations = []
    for number, result in enumerate(results, 1):
        points = np.array(result["keypoints"]).reshape(-1, 3)
        low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
        box = result.get("bbox") or [float(v) for v in (*low, *(high - low))]
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
