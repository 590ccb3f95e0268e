"""Time against pycocotools: 5,000 images, 11,000 persons, 100,000 detections, judge off. Ratios are printed."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pycocotools import coco as pycoco
from pycocotools.cocoeval import COCOeval

from harness.accuracy.ap import summarise
from harness.accuracy.bootstrap import intervals
from harness.accuracy.evaluate import evaluate
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import match
from harness.pose.skeletons import COCO

pytestmark = pytest.mark.benchmark_suite


def _truth(images: int, persons: int, rng: np.random.Generator) -> dict:
    size = rng.uniform(30, 300, persons)
    points = rng.uniform(100, 500, (persons, 1, 2)) + rng.normal(0, 0.25, (persons, 17, 2)) * size[:, None, None]
    seen = rng.choice([0, 1, 2], (persons, 17, 1), p=[0.35, 0.15, 0.5])
    seen[:, 0] = 2
    image = np.sort(rng.integers(images, size=persons))
    corner = points.min(axis=1)
    annotations = [
        {
            "id": i + 1, "image_id": int(image[i]), "category_id": 1, "iscrowd": 0,
            "num_keypoints": int((seen[i] > 0).sum()), "bbox": [*corner[i].tolist(), size[i], size[i]],
            "area": float(size[i] ** 2 * 0.53), "keypoints": np.c_[points[i], seen[i]].ravel().tolist(),
        }
        for i in range(persons)
    ]  # fmt: skip
    pictures = [{"id": i} for i in range(images)]
    return {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _results(gt: dict, count: int, rng: np.random.Generator) -> list[dict]:
    """One pose near each person, the rest elsewhere and with lower scores, as from a detector without threshold."""
    persons = gt["annotations"]
    results = []
    for i in range(count):
        near = i < len(persons)
        a = persons[i if near else rng.integers(len(persons))]
        noise = (rng.choice([0.01, 0.02, 0.04, 0.1]) if near else 0.3) * a["bbox"][2]
        points = np.array(a["keypoints"]).reshape(17, 3)
        points[:, :2] += rng.normal(0, noise, (17, 2))
        image = a["image_id"] if near else int(rng.integers(len(gt["images"])))
        score = float(rng.beta(5, 2) if near else rng.beta(2, 5))
        results.append({"image_id": image, "category_id": 1, "keypoints": points.ravel().tolist(), "score": score})
    return results


def _world(scale: float) -> tuple[dict, list[dict]]:
    rng = np.random.default_rng(0)
    gt = _truth(int(5_000 * scale), int(11_000 * scale), rng)
    return gt, _results(gt, int(100_000 * scale), rng)


def _arrays(world: tuple[dict, list[dict]]) -> tuple[GroundTruth, Detections]:
    truth = GroundTruth.from_coco(world[0], num_joints=17)
    return truth, Detections.from_results(world[1], truth)


def _seconds(work: Callable[[], object], repeats: int = 1) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.fixture(scope="module")
def world() -> tuple[dict, list[dict]]:
    return _world(1.0)


@pytest.fixture(scope="module")
def pycocotools_seconds(world) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycoco.COCO()
        truth.dataset = world[0]
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(world[1]), "keypoints")
        return _seconds(lambda: (run.evaluate(), run.accumulate()), repeats=2)


def test_plain_ap_takes_at_most_three_tenths_of_pycocotools(world, pycocotools_seconds, capsys):
    truth, found = _arrays(world)
    ours = _seconds(lambda: summarise(match(truth, found, COCO.sigmas)), repeats=3)
    ratio = ours / pycocotools_seconds
    with capsys.disabled():
        print(f"\nAP: {ours:.3f} s, pycocotools {pycocotools_seconds:.2f} s, ratio {ratio:.3f} (limit 0.3)")
    assert ratio <= 0.3


def test_a_thousand_resamples_take_at_most_one_and_a_half_times_pycocotools(world, pycocotools_seconds, capsys):
    truth, found = _arrays(world)
    ours = _seconds(lambda: intervals(match(truth, found, COCO.sigmas), 1000))
    ratio = ours / pycocotools_seconds
    with capsys.disabled():
        print(f"\nintervals: {ours:.2f} s, pycocotools {pycocotools_seconds:.2f} s, ratio {ratio:.2f} (limit 1.5)")
    assert ratio <= 1.5


def test_time_grows_with_the_number_of_detections(world, capsys):
    seconds = {}
    for scale in (1.0, 3.0):
        truth, found = _arrays(world if scale == 1.0 else _world(scale))
        seconds[scale] = _seconds(lambda t=truth, f=found: intervals(match(t, f, COCO.sigmas), 100), repeats=2)
    growth = seconds[3.0] / seconds[1.0]
    with capsys.disabled():
        print(f"\nthree times the detections: {growth:.2f} times the time")
    assert growth <= 3 * 1.5


def _million() -> None:
    """Run in a process of its own, whose peak of memory is then that of this work."""
    truth, found = _arrays(_world(10.0))
    start = time.perf_counter()
    intervals(match(truth, found, COCO.sigmas), 20)
    print(time.perf_counter() - start, _peak_gib())


def _from_file(path: str, images: int) -> None:
    """The same for results in a file, read by `evaluate`, judged on a sample when more than 200,000 are kept."""
    gt = _truth(images, 2 * images, np.random.default_rng(0))
    before, start = _peak_gib(), time.perf_counter()
    evaluation = evaluate(gt, path, bootstrap=0, judge=False)
    print(time.perf_counter() - start, _peak_gib() - before, len(evaluation.poses.score))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _child(*arguments: object) -> list[float]:
    command = [sys.executable, __file__, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def _write_results(path: Path, count: int, images: int) -> None:
    """`count` results over all images, from a thousand different poses."""
    rng = np.random.default_rng(1)
    poses = [json.dumps(rng.uniform(0, 600, 51).round(2).tolist()) for _ in range(1000)]
    with path.open("w") as file:
        for i in range(count):
            score = (i * 7919 % count) / count
            file.write("[" if i == 0 else ",\n")
            file.write(
                f'{{"image_id": {i % images}, "category_id": 1, "keypoints": {poses[i % 1000]}, "score": {score}}}'
            )
        file.write("]")


def test_a_million_detections_fit_in_four_gigabytes(capsys):
    seconds, gigabytes = _child()
    with capsys.disabled():
        print(f"\n1,000,000 detections: {seconds:.1f} s with 20 resamples, peak {gigabytes:.2f} GiB (limit 4)")
    assert gigabytes <= 4


@pytest.mark.parametrize(("images", "kept"), [(5_000, 100_000), (50_000, 1_000_000)])
def test_a_file_of_a_million_detections_takes_memory_for_those_kept_only(tmp_path, capsys, images, kept):
    _write_results(tmp_path / "results.json", 1_000_000, images)
    seconds, gigabytes, left = _child(tmp_path / "results.json", images)
    with capsys.disabled():
        print(f"\nfile of 1,000,000 on {images:,} images: {seconds:.0f} s, {gigabytes:.2f} GiB more, {left:,.0f} kept")
    assert left == kept
    assert gigabytes * 2**30 <= 200e6 + kept * 500


if __name__ == "__main__":
    _from_file(sys.argv[1], int(sys.argv[2])) if len(sys.argv) > 1 else _million()
