"""A synthetic COCO set: seeded pictures of articulated people, for training and measuring without downloads.

Poses come from the statistics of real people (pose_statistics.py). People are dressed and drawn from far to
near (synthetic_draw.py) into a cluttered scene (synthetic_scene.py). A map of what each pixel shows is drawn
with them, so that area, box and visibility state what can be seen, and not what was meant.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.progress import Progress

from harness.data.apart import program
from harness.data.synthetic_canvas import Canvas
from harness.data.synthetic_draw import OWNERS, PERSON_STRIDE, draw_person
from harness.data.synthetic_outfit import sample_outfit
from harness.data.synthetic_pose import FAR_SIDE, Figure, sample_figure
from harness.data.synthetic_scene import background, draw_occluder, photograph
from harness.errors import DataError, UserError, unknown_name
from harness.pose.skeletons import COCO

__all__ = ["PERSONS_PER_PICTURE", "SPLITS", "SYNTHETIC", "render", "write"]

SPLITS = ("val", "train", "test")
DESCRIPTION = "paretopose synthetic people"
SYNTHETIC = {"train": (2500, 1), "val": (300, 1)}
"""The built-in set: number of pictures and seed of each split."""
PERSONS_PER_PICTURE = 2.5
"""annotated persons of a picture, about: some of `_CROWD` are hidden"""
# picture numbers of a split start here, so that two splits of one seed share no picture
_PER_SPLIT = 1_000_000
_SIZES = (
    (240, 320),
    (270, 360),
    (300, 400),
    (360, 480),
    (320, 320),
    (360, 270),
    (400, 300),
)  # (height, width)
_CROWD = (0.15, 0.36, 0.28, 0.15, 0.06)  # shares of 1, 2, ... people
_CROWDING = 0.22  # chance of standing beside, and partly before, somebody
_OCCLUSION = 0.11  # chance of something in front of a person
_MIN_PIXELS = 150  # a person of whom less is seen is not annotated
_MIN_JOINTS = 3
_QUALITY = 90  # of the JPEG files
_PER_PROCESS = 100  # pictures that are worth a process

_Picture = tuple[dict[str, Any], list[dict[str, Any]]]
"""a picture's entry among COCO's images, and those of its persons"""


@dataclass(frozen=True)
class _Placed:
    """A figure in the picture and how generous the annotator is: (17,) uniform draws."""

    figure: Figure
    draws: np.ndarray


def render(index: int, seed: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Picture `index` of the set `seed`: image (H, W, 3) uint8 RGB and its COCO person annotations.

    The same pair gives the same bytes, also where OpenCV has other routines for the processor; pictures do not
    depend on each other.
    """
    with _one_rounding():
        return _render(index, seed)


@contextmanager
def _one_rounding() -> Iterator[None]:
    """Without the routines that OpenCV chooses by the processor: they round otherwise on one with AVX-512, and data of
    another digest is other data to a gate."""
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(before)


def _render(index: int, seed: int) -> tuple[np.ndarray, list[dict[str, Any]]]:
    rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
    height, width = _SIZES[rng.integers(len(_SIZES))]
    canvas = background(rng, height, width)
    people = _place(rng, height, width)
    occluded = set(np.flatnonzero(rng.random(len(people)) < _OCCLUSION).tolist())
    for number, person in enumerate(people):
        draw_person(canvas, rng, person.figure, sample_outfit(rng), number)
        if number in occluded:
            target = person.figure.joints[rng.integers(5, 17)]
            draw_occluder(rng, canvas, target, person.figure.stature)
    annotations = [_annotate(canvas, person, number) for number, person in enumerate(people)]
    image = photograph(rng, canvas.image)
    kept = [a for a in annotations if a is not None]
    for number, annotation in enumerate(kept):
        annotation |= {"id": (index + 1) * 10 + number, "image_id": index + 1, "category_id": 1, "iscrowd": 0}
    return image, kept


def write(folder: Path, *, images: int, seed: int, split: str = "val") -> Path:
    """Writes FOLDER/{split}2017/*.jpg and FOLDER/annotations/person_keypoints_{split}2017.json.

    Returns the annotation file, which is written last: where it is, the set is whole. An older synthetic
    split is replaced. Raises UserError for a bad count, seed or split, DataError where another data set would
    be lost.
    """
    if split not in SPLITS:
        what, hint = unknown_name("split", split, SPLITS)
        raise UserError(what, where="data synth", hint=hint)
    if not 1 <= images <= _PER_SPLIT or seed < 0:
        raise UserError(f"cannot make {images} images with seed {seed}", where="data synth",
                        expected=f"1 to {_PER_SPLIT:,} images and a seed of 0 or more")  # fmt: skip
    folder = Path(folder)
    target, annotation_file = (
        folder / f"{split}2017",
        folder / "annotations" / f"person_keypoints_{split}2017.json",
    )
    _refuse_foreign(target, annotation_file)
    annotation_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".synth-") as scratch:
        made = _write_images(Path(scratch) / "images", images, seed, split)
        draft = Path(scratch) / annotation_file.name
        draft.write_text(json.dumps(made, separators=(",", ":")))
        annotation_file.unlink(missing_ok=True)
        if target.exists():
            shutil.rmtree(target)
        (Path(scratch) / "images").rename(target)
        draft.replace(annotation_file)
    return annotation_file


def _place(rng: np.random.Generator, height: int, width: int) -> list[_Placed]:
    """Figures at their places, the far ones first. Some crowd beside an earlier one, some are cut off."""
    placed: list[tuple[float, np.ndarray, Figure]] = []
    for _ in range(1 + rng.choice(len(_CROWD), p=_CROWD)):
        if placed and rng.random() < _CROWDING:
            other, beside, _ = placed[rng.integers(len(placed))]
            stature = other * rng.uniform(0.85, 1.15)
            apart = rng.choice([-1, 1]) * rng.uniform(0.2, 0.5), rng.normal(0, 0.04)
            figure, place = sample_figure(rng, stature), beside + stature * np.array(apart)
        else:
            stature = height * _relative_stature(rng)
            figure = sample_figure(rng, stature)
            place = _free_place(rng, figure, height, width)
        placed.append((stature, place, figure.moved(place)))
    placed.sort(key=lambda entry: entry[0])
    return [_Placed(figure, rng.random(COCO.num_joints)) for _, _, figure in placed]


def _relative_stature(rng: np.random.Generator) -> float:
    """Stature in image heights: people of COCO's medium size, large ones, and close-ups that do not fit."""
    low, high = ((0.32, 0.5), (0.5, 0.95), (0.95, 1.5))[rng.choice(3, p=[0.38, 0.52, 0.1])]
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _free_place(rng: np.random.Generator, figure: Figure, height: int, width: int) -> np.ndarray:
    """Middle of the hips, such that the head is in the picture and most of the body, where it fits, too."""
    low, high = figure.joints.min(0) - 2 * figure.radius, figure.joints.max(0) + figure.radius
    place = np.empty(2)
    for axis, size, edge in ((0, width, 0.12), (1, height, 0.03)):
        start, end = -low[axis], size - high[axis]
        if axis == 1 and start > end:
            start, end = start - 0.02 * size, start + 0.06 * size  # the legs are cut off, not the head
        spill = edge * figure.stature
        share = rng.random() if axis == 0 else max(rng.random(2))  # people stand below rather than hang above
        place[axis] = min(start, end) - spill + share * (abs(end - start) + 2 * spill)
    return place


def _annotate(canvas: Canvas, person: _Placed, number: int) -> dict[str, Any] | None:
    """What an annotator writes about the person; None where too little of it is seen."""
    first = 1 + PERSON_STRIDE * number
    seen = (canvas.codes >= first) & (canvas.codes < first + PERSON_STRIDE)
    area = int(seen.sum())
    if area < _MIN_PIXELS:
        return None
    visible = _visibility(canvas, person, first)
    if (visible > 0).sum() < _MIN_JOINTS:
        visible[:] = 0
    points = np.round(person.figure.joints, 1) * (visible > 0)[:, None]
    keypoints = np.concatenate([points, visible[:, None]], axis=1)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    x, y = int(columns[0]), int(rows[0])
    return {
        "keypoints": [int(v) if v == int(v) else v for v in keypoints.ravel().tolist()],
        "num_keypoints": int((visible > 0).sum()),
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": area,
        "segmentation": [],
    }


def _visibility(canvas: Canvas, person: _Placed, first: int) -> np.ndarray:
    """(17,) int: 2 seen, 1 hidden but guessed, 0 outside the picture or too well hidden to be guessed."""
    inside, own, by_itself = _shown(canvas, person.figure, first)
    behind = np.concatenate([person.figure.face_depth < FAR_SIDE, np.zeros(12, bool)])
    seen = inside & own & ~behind
    neighbour = np.zeros(COCO.num_joints, bool)  # a joint next to one that is seen can be guessed
    for a, b in COCO.limbs:
        neighbour[a] |= seen[b]
        neighbour[b] |= seen[a]
    chance = np.where(behind, 0.05, np.where(by_itself, 0.7, np.where(neighbour, 0.5, 0.0)))
    return np.where(seen, 2, (inside & (person.draws < chance)).astype(int))


def _shown(canvas: Canvas, figure: Figure, first: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each joint (17,) bool: it is in the picture, its own limb is on top, any part of the person is."""
    cells = np.floor(np.round(figure.joints, 1)).astype(int)
    inside = np.all((cells >= 0) & (cells < canvas.codes.shape[::-1]), axis=1)
    own, by_itself = np.zeros(len(cells), bool), np.zeros(len(cells), bool)
    for joint in np.flatnonzero(inside):
        x, y = cells[joint]
        patch = canvas.codes[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].astype(int) - first
        own[joint] = np.isin(patch, list(OWNERS[joint])).mean() >= 0.5
        by_itself[joint] = ((patch >= 0) & (patch < PERSON_STRIDE)).mean() > 0.5
    return inside, own, by_itself


def _refuse_foreign(target: Path, annotation_file: Path) -> None:
    """DataError where a split of that name exists which was not made here."""
    if annotation_file.exists():
        ours = DESCRIPTION in annotation_file.read_bytes()[:200].decode("utf-8", "replace")
    else:
        ours = not (target.exists() and any(target.iterdir()))
    if not ours:
        raise DataError("a data set is here that is not a synthetic one", where=str(target),
                        expected="a new folder, or one that `paretopose data synth` made",
                        hint="name another folder; this one stays as it is")  # fmt: skip


def _write_images(folder: Path, images: int, seed: int, split: str) -> dict[str, Any]:
    """Writes the pictures into `folder` and returns the COCO annotations."""
    folder.mkdir()
    made: dict[str, Any] = {
        "info": {"description": DESCRIPTION, "version": "1", "seed": seed, "split": split},
        "licenses": [],
        "categories": [_category()],
        "images": [],
        "annotations": [],
    }
    first = SPLITS.index(split) * _PER_SPLIT
    for picture, persons in _progress(_drawn(folder, range(first, first + images), seed), images):
        made["images"].append(picture)
        made["annotations"] += persons
    return made


def _drawn(folder: Path, indices: range, seed: int) -> Iterator[_Picture]:
    """The pictures in their order, drawn by as many processes as there are CPUs where they are many."""
    count = min(os.cpu_count() or 1, len(indices) // _PER_PROCESS)
    if count < 2:
        yield from (_draw(folder, seed, index) for index in indices)
        return
    parts = [indices[n::count] for n in range(count)]
    with ExitStack() as stack:
        processes = [stack.enter_context(_process(folder, seed, part)) for part in parts]
        for position in range(len(indices)):
            yield _next_of(processes[position % count])


@contextmanager
def _process(folder: Path, seed: int, part: range) -> Iterator[subprocess.Popen[str]]:
    """A program that draws these pictures. It does not outlive the block."""
    how = program("harness.data.synthetic", *map(str, (folder, seed, part.start, part.stop, part.step)))
    with subprocess.Popen(**how, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _next_of(process: subprocess.Popen[str]) -> _Picture:
    assert process.stdout is not None and process.stderr is not None
    line = process.stdout.readline()
    if not line:
        why = process.stderr.read().strip().splitlines() or ["no message"]
        raise DataError(f"the pictures could not be drawn: {why[-1]}", hint="is the disk full?")
    picture, persons = json.loads(line)
    return picture, persons


def _draw_for_another(folder: str, seed: str, *indices: str) -> None:
    """What each of several processes does: draws a range of pictures, prints a line of JSON for each."""
    try:
        for index in range(*map(int, indices)):
            print(json.dumps(_draw(Path(folder), int(seed), index)), flush=True)
    except DataError as error:
        sys.exit(f"{error.where}: {error.what}")


def _draw(folder: Path, seed: int, index: int) -> _Picture:
    """Writes picture `index`; its entries among COCO's images and annotations."""
    image, annotations = render(index, seed)
    name = f"{index + 1:012d}.jpg"
    if not cv2.imwrite(str(folder / name), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
        raise DataError("the picture could not be written", where=str(folder / name), hint="is the disk full?")
    height, width = image.shape[:2]
    return {"id": index + 1, "file_name": name, "height": height, "width": width, "license": 0}, annotations


def _progress(pictures: Iterator[_Picture], total: int, patience_s: float = 2.0) -> Iterator[_Picture]:
    """`pictures`, with a bar on stderr once they have taken longer than `patience_s`."""
    begun = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task("synthetic images", total=total)
    try:
        for picture in pictures:
            yield picture
            bar.advance(task)
            if not bar.live.is_started and time.monotonic() - begun > patience_s:
                bar.start()
    finally:
        bar.stop()


def _category() -> dict[str, Any]:
    """COCO's person category; skeleton indices count from 1."""
    limbs = [[a + 1, b + 1] for a, b in COCO.limbs]
    return {
        "supercategory": "person",
        "id": 1,
        "name": "person",
        "keypoints": list(COCO.joints),
        "skeleton": limbs,
    }


if __name__ == "__main__":
    _draw_for_another(*sys.argv[1:])
