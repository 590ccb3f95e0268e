"""A made-up set as large as COCO's validation set, and the whole pipeline on it around a network that costs nothing.

`python coco_size.py FOLDER draw COUNT...` makes the set and its parts of the first COUNT images;
`python coco_size.py FOLDER COUNT` runs a suite on such a part and prints, as JSON, seconds by stage and the most memory
that was ever in use.
"""

from __future__ import annotations

import json
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from harness import method
from harness.accuracy import bootstrap, evaluate
from harness.accuracy.inputs import Detections, GroundTruth
from harness.data import crops
from harness.data.normaliser import Normaliser
from harness.method import TopDownOutput, Variant
from harness.passes import predict, replay
from harness.passes.blocks import BlockWriter
from harness.pose.skeletons import COCO
from harness.records.store import Store
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.run.session import Session
from harness.suite.schema import Suite
from harness.suite.sources import Sources

__all__ = ["Stages", "draw", "measured", "write_part"]

SIZES = ((480, 640), (640, 480), (427, 640), (640, 427), (375, 500), (612, 612))  # height, width
PICTURES = 48  # that differ; the other files are links to them
# a person that is its own mirror image, as the network says the same of the mirrored crop; x, y in 0..1 of the box
HALF = [(0.5, 0.08), (0.45, 0.06), (0.4, 0.08), (0.32, 0.22), (0.25, 0.37), (0.22, 0.5), (0.4, 0.52), (0.38, 0.74),
        (0.38, 0.95)]  # fmt: skip
POSE = np.array([HALF[0], *(p for x, y in HALF[1:] for p in ((1 - x, y), (x, y)))])  # COCO's order: left, right


def draw(folder: Path, images: int) -> None:
    """FOLDER/images: `images` JPEGs of COCO's sizes and about 150 kB; whole.json: all of their persons and boxes."""
    rng, place = np.random.default_rng(0), folder / "images"
    place.mkdir(parents=True)
    pictures, persons, boxes = [], [], []
    for n in range(images):
        height, width = SIZES[n % PICTURES % len(SIZES)]
        file = place / f"{n:012d}.jpg"
        if n < PICTURES:
            cv2.imwrite(str(file), _picture(rng, height, width), [cv2.IMWRITE_JPEG_QUALITY, 86])
        else:
            file.hardlink_to(place / f"{n % PICTURES:012d}.jpg")
        pictures.append({"id": n + 1, "file_name": file.name, "width": width, "height": height})
        people = [_person(rng, height, width) for _ in range(3 if n % 5 == 0 else 2)]
        persons += [{"image_id": n + 1, **person} for person in people]
        boxes += [{"image_id": n + 1, **box} for box in _boxes(rng, people, 20 if n % 5 == 0 else 21, height, width)]
    whole = {"images": pictures, "annotations": [{"id": n, **p} for n, p in enumerate(persons, 1)], "boxes": boxes}
    (folder / "whole.json").write_text(json.dumps(whole))


def _picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    coarse = rng.integers(256, size=(height // 8, width // 8, 3), dtype=np.uint8)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + rng.normal(0, 14, smooth.shape), 0, 255).astype(np.uint8)


def _person(rng: np.random.Generator, height: int, width: int) -> dict[str, Any]:
    h = rng.uniform(0.2, 0.8) * height
    w = min(0.75 * h, 0.9 * width)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    points = (POSE + rng.normal(0, 0.02, POSE.shape)) * [w, h] + [x, y]
    seen = np.where(rng.random(17) < 0.7, 2.0, 0.0)
    seen[0] = 2
    return {
        "category_id": 1, "iscrowd": 0, "num_keypoints": int((seen > 0).sum()), "bbox": [x, y, w, h],
        "area": 0.53 * w * h, "keypoints": np.c_[points, seen].ravel().tolist(),
    }  # fmt: skip


def _boxes(
    rng: np.random.Generator, people: list[dict[str, Any]], count: int, height: int, width: int
) -> Iterator[dict[str, Any]]:
    """What a detector without a threshold finds: three boxes a person, and many more that are nobody."""
    near = [(person["bbox"], score) for person in people for score in (0.95, 0.8, 0.6)]
    for n in range(count):
        if n < len(near):
            box = np.array(near[n][0]) + rng.normal(0, 0.02, 4) * near[n][0][3]
            score = near[n][1] * rng.uniform(0.8, 1)
        else:
            box, score = np.array(_person(rng, height, width)["bbox"]), rng.beta(1, 8)
        yield {"category_id": 1, "bbox": box.tolist(), "score": float(score)}


def write_part(folder: Path, images: int) -> None:
    """IMAGES.json and boxes-IMAGES.json: the persons and boxes of the first images of whole.json."""
    whole = json.loads((folder / "whole.json").read_text())
    people = [p for p in whole["annotations"] if p["image_id"] <= images]
    person = {"id": 1, "name": "person", "keypoints": list(COCO.joints)}
    content = {"images": whole["images"][:images], "annotations": people, "categories": [person]}
    (folder / f"{images}.json").write_text(json.dumps(content))
    (folder / f"boxes-{images}.json").write_text(json.dumps([b for b in whole["boxes"] if b["image_id"] <= images]))


class Free:
    """Answers with the same maps whatever it sees: a peak for each joint."""

    input_size = (256, 192)

    def __init__(self) -> None:
        y, x = np.mgrid[:64, :48]
        # the crop shows the box and an eighth of it on each side
        centre = (POSE / 1.25 + 0.1) * [48, 64] - 0.5
        squared = (x - centre[:, 0, None, None]) ** 2 + (y - centre[:, 1, None, None]) ** 2
        self._maps = torch.from_numpy(np.exp(-squared / 8).astype(np.float32))

    def predict(self, images: torch.Tensor, settings: dict[str, Any]) -> TopDownOutput:
        return TopDownOutput([self._maps.expand(len(images), -1, -1, -1)])

    def macs(self, trace: dict[str, Any]) -> int:
        return 1


class Stages:
    """Seconds of the main thread by stage, each without the stages inside it, and of the threads that read."""

    def __init__(self) -> None:
        self.wall: Counter[str] = Counter()
        self.cpu: Counter[str] = Counter()
        self._within: list[list[float]] = []
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        began, inside = (time.perf_counter(), time.thread_time()), [0.0, 0.0]
        self._within.append(inside)
        try:
            yield
        finally:
            took = time.perf_counter() - began[0], time.thread_time() - began[1]
            self._within.pop()
            self.wall[stage] += took[0] - inside[0]
            self.cpu[stage] += took[1] - inside[1]
            if self._within:
                self._within[-1][:] = [a + b for a, b in zip(self._within[-1], took)]

    def watch(self, owner: Any, name: str, stage: str) -> None:
        """Count the calls of `owner.name` as `stage`."""
        original = getattr(owner, name)

        def timed(*values: Any, **more: Any) -> Any:
            with self(stage):
                return original(*values, **more)

        bound = isinstance(owner, type) and getattr(original, "__self__", None) is owner
        setattr(owner, name, staticmethod(timed) if bound else timed)

    def watch_threads(self, owner: Any, name: str, stage: str) -> None:
        """The same for what runs in other threads: CPU time alone."""
        original: Callable[..., Any] = getattr(owner, name)

        def timed(*values: Any, **more: Any) -> Any:
            began = time.thread_time()
            try:
                return original(*values, **more)
            finally:
                with self._lock:
                    self.cpu[stage] += time.thread_time() - began

        setattr(owner, name, timed)


WATCHED = (
    (Session, "dataset", "annotations and boxes"),
    (Session, "inputs", "annotations and boxes"),
    (crops.CropStream, "__next__", "waiting for crops"),
    (Normaliser, "__call__", "normalise"),
    (predict.TopDownRunner, "forward_many", "network"),
    (predict.TopDownRunner, "outcomes", "flip, average"),
    (predict.TopDownRunner, "decode", "decode heatmaps"),
    (predict, "non_finite", "look for nan"),
    (BlockWriter, "add", "write blocks"),
    (BlockWriter, "close", "write blocks"),
    (replay, "load_pass", "read blocks"),
    (replay, "select", "select"),
    (replay, "to_results", "rescore, OKS-NMS, results"),
    (GroundTruth, "from_coco", "check truth and results"),
    (Detections, "from_results", "check truth and results"),
    (evaluate, "match", "match"),
    (evaluate, "judged", "judge"),
    (bootstrap, "intervals", "intervals"),
    (Store, "put", "save record"),
)


def measured(folder: Path, images: int) -> dict[str, Any]:
    """One run of a suite on the first images, in this process."""
    stages = Stages()
    for owner, name, stage in WATCHED:
        stages.watch(owner, name, stage)
    stages.watch_threads(crops, "_cut", "reading and cropping, in threads")
    (folder / "free.onnx").write_bytes(b"costs nothing")
    variant = Variant("free", "free", None, open_file=lambda path, **_: Free())
    known = {**method.variants(), "free": variant}
    method.variants = lambda: known  # type: ignore[assignment]
    data = {"name": "made", "root": "made", "annotations": f"{images}.json", "images": "images"}
    suite = Suite.model_validate(
        {"name": "size", "data": {**data, "boxes": f"boxes-{images}.json"}, "measure": {"cost": False},
         "methods": [{"variant": "free"}]}
    )  # fmt: skip
    sources = Sources({"made": folder}, {"free": folder / "free.onnx"})
    store = Store(folder / f"records-{images}")
    began = time.perf_counter(), time.process_time()
    with stages("rest"):
        manifest = run_suite(suite, store, sources, Options(), Progress())
    (row,) = manifest["rows"]
    record = store.by_id("accuracy", row["records"]["accuracy"])
    assert record is not None
    return {
        "images": images,
        "boxes": record.result["boxes"],
        "ap": record.result["stats"]["AP"]["value"],
        "judged": record.result["judge"]["detections"],
        "wall": time.perf_counter() - began[0],
        "cpu": time.process_time() - began[1],
        "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "stages": {stage: [stages.wall[stage], cpu] for stage, cpu in stages.cpu.items()},
    }


def main(folder: Path, *words: str) -> None:
    if words[0] == "draw":
        counts = [int(word) for word in words[1:]]
        draw(folder, max(counts))
        for count in counts:
            write_part(folder, count)
    else:
        print(json.dumps(measured(folder, int(words[0]))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
