"""Photographs -> poses and drawn pictures, without a suite."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from harness.data.ahead import in_order
from harness.data.reading import read_image
from harness.errors import UserError, WeightsError
from harness.passes.predict import TopDownRunner
from harness.passes.predict_images import OneStageRunner
from harness.passes.results import image_results, top_down_results
from harness.pictures.album import Album, open_album
from harness.pictures.token_pictures import check_refines, token_picture
from harness.pose.drawing import draw_poses
from harness.pose.skeletons import Skeleton, with_joints
from harness.records.store import write_atomically
from harness.run.joints import network_skeleton
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
    batch: int = 16,
    workers: int = 2,
) -> Written:
    """Predict, draw, write predictions.json (COCO layout), results.json (COCO results) and one picture a photograph.

    A one-stage network finds the persons itself; those below `person_threshold` are in the files and not drawn.
    `threshold` of the joints that are drawn; None: what suits the network's scores.
    With `tokens` a second picture of each shows which regions of each person were refined, and what that changed.
    `workers` threads read, cut and draw; the network gets `batch` persons, or images of one size, at a time.
    """
    runner, cell, trained_on, skeleton = _runner(method, assignments, weights, device)
    whole = isinstance(runner, OneStageRunner)
    if whole and boxes is not None:
        raise UserError(f"{method} finds the persons itself", where=f"--boxes {boxes}", hint="leave --boxes out")
    for remark in _remarks(trained_on, alone=not whole and boxes is None):
        progress.say(f"{method} {remark}")
    if tokens:
        check_refines(runner.predictor, method)
    album = open_album(files, boxes, workers)
    found = _predicted(runner, cell, album, progress, batch, workers)
    out.mkdir(parents=True, exist_ok=True)
    coco = _coco(album, found, skeleton)
    write_atomically(out / "predictions.json", json.dumps(coco).encode())
    write_atomically(out / "results.json", json.dumps(_submitted(found, cell)).encode())
    if threshold is None:
        threshold = _JOINT_OF_A_MAP if whole else _JOINT
    shown = [[f for f in of_one if not whole or f["score"] >= person_threshold] for of_one in found]
    places = [out / name for name in _picture_names(files)]
    draw = partial(_draw, threshold=threshold, skeleton=skeleton)
    pictures = in_order(draw, zip(files, shown, places), workers)
    with progress.task("pictures", len(files)) as advance, closing(pictures) as drawn:
        for _ in drawn:
            advance(1)
    regions = (
        _draw_regions(runner, cell, album, places, threshold) if tokens and isinstance(runner, TopDownRunner) else []
    )
    return Written(out / "predictions.json", coco, places + regions)


def _remarks(trained_on: str, *, alone: bool) -> Iterator[str]:
    """What a user should know of the poses. `alone`: a network that finds nobody has got no boxes."""
    if trained_on.startswith("synthetic"):
        yield "was trained on the built-in drawn people: its poses on photographs mean little"
    if alone:
        yield "finds nobody itself: without --boxes each photograph is taken as one person"


def _predicted(
    runner: TopDownRunner | OneStageRunner, cell: Cell, album: Album, progress: Progress, batch: int, workers: int
) -> list[list[dict[str, Any]]]:
    """COCO results by photograph; those of a one-stage network with boxes."""
    settings = {**settings_of(cell), **cell.select}
    whole = isinstance(runner, OneStageRunner)
    count, what = (len(album.ids), "photographs") if whole else (len(album.boxes), "persons")
    with progress.task(f"{cell.variant}: {count} {what}", count) as advance:
        how: dict[str, Any] = {"batch": batch, "workers": workers, "advance": advance}
        if isinstance(runner, OneStageRunner):
            boxed = cell.protocol.model_copy(update={"results_with_bbox": True})
            results = image_results(runner, settings, album.dataset, boxed, **how)
        else:
            results = top_down_results(runner, settings, album.dataset, album.boxes, **how)
    found: list[list[dict[str, Any]]] = [[] for _ in album.ids]
    for result in results:
        number = result["image_id"] - 1
        found[number].append({**result, "image_id": album.ids[number]})
    return found


def _submitted(found: Sequence[Sequence[Mapping[str, Any]]], cell: Cell) -> list[dict[str, Any]]:
    """The results as a result file holds them: with boxes only where the protocol says so."""
    bare = () if cell.protocol.results_with_bbox else ("bbox",)
    return [{name: value for name, value in result.items() if name not in bare} for result in chain(*found)]


def _runner(
    method: str, assignments: Sequence[str], weights: Path | None, device: str
) -> tuple[TopDownRunner | OneStageRunner, Cell, str, Skeleton]:
    """The network with its weights, its cell (what the settings leave open follows the weights), the name of the data
    that it was trained on, where the file tells, and its joints."""
    cell = _cell(method, assignments)
    weights = weights or Sources().weights_of(cell, "quickstart")
    if weights is None:
        raise WeightsError(f"{method} has no weights here", hint="give --weights FILE")
    if not weights.is_file():
        raise WeightsError("there is no such weights file", where=str(weights))
    row = fitted(cell, weights)
    cell, kind = row.cell, run_kind(row.cell)
    network, report = open_variant(row.variant, weights, input_size=cell.input_size, **cell.build)
    trained_on = report.trained_on if report else ""
    skeleton = network_skeleton(row, None)
    if with_joints(skeleton.num_joints) is None:
        what, expected = f"the network writes {skeleton.num_joints} joints", "17 (COCO), 14 (CrowdPose) or 16 (MPII)"
        raise WeightsError(what, where=str(weights), expected=expected)
    if row.variant.paradigm == "one-stage":
        return OneStageRunner(network, cell.protocol, device=device, **kind), cell, trained_on, skeleton
    return TopDownRunner(network, cell.protocol, skeleton, device=device, **kind), cell, trained_on, skeleton


def _picture_names(files: Sequence[Path]) -> list[str]:
    """NAME.poses.jpg; numbered where two photographs have the same name."""
    stems = [path.stem for path in files]
    times = Counter(stems)
    return [f"{s}.{n}.poses.jpg" if times[s] > 1 else f"{s}.poses.jpg" for n, s in enumerate(stems, 1)]


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


def _draw(job: tuple[Path, Sequence[Mapping[str, Any]], Path], threshold: float, skeleton: Skeleton) -> Path:
    """Draws the results of a photograph and writes the picture."""
    photograph, found, place = job
    keypoints = np.array([f["keypoints"] for f in found], dtype=np.float32).reshape(-1, skeleton.num_joints, 3)
    boxes = [f["bbox"] for f in found if "bbox" in f]
    drawn = draw_poses(read_image(photograph), keypoints, skeleton, score_threshold=threshold, boxes=boxes)
    return _save(drawn, place)


def _draw_regions(
    runner: TopDownRunner, cell: Cell, album: Album, places: Sequence[Path], threshold: float
) -> list[Path]:
    """A picture of the refined regions of each photograph with persons, beside the one of its poses."""
    pictures = []
    for photograph, place in zip(album.dataset.images, places):
        boxes = album.boxes.xywh[album.boxes.image_ids == photograph.id]
        if len(boxes):
            drawn = token_picture(runner, cell, read_image(Path(photograph.file)), boxes, threshold)
            pictures.append(_save(drawn, place.with_name(place.name.replace(".poses.", ".tokens."))))
    return pictures


def _save(drawn: np.ndarray, path: Path) -> Path:
    done, data = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 92])
    assert done
    write_atomically(path, data.tobytes())
    return path


def _coco(album: Album, found: Sequence[Sequence[Mapping[str, Any]]], skeleton: Skeleton) -> dict[str, Any]:
    images = [
        {"id": image_id, "file_name": Path(i.file).name, "width": i.width, "height": i.height}
        for i, image_id in zip(album.dataset.images, album.ids)
    ]
    annotations = []
    for number, result in enumerate(chain(*found), 1):
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
        "keypoints": list(skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }
    return {"images": images, "annotations": annotations, "categories": [category]}
