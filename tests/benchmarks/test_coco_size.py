"""As large as COCO's validation set: 5,000 images, 104,000 boxes, 11,000 persons, none of them a photograph.

What the instrument needs for them when the network costs nothing: time by stage, its growth with the images, memory.
Times are CPU seconds of the process, all threads together, as others work on the machine; wall time is beside them.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.data import coco
from harness.data.boxes import from_file
from harness.data.crops import affine, center_scale, iter_crops, read_image, warp

pytestmark = pytest.mark.benchmark_suite
SCRIPT = Path(__file__).with_name("coco_size.py")
COUNTS = (500, 1000, 2500, 5000)
SUBSET = 100  # images that are read once per box; all of them would take minutes each time
MOST_GB = 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("coco_size")
    parts = (str(n) for n in (SUBSET, *COUNTS))
    subprocess.run([sys.executable, str(SCRIPT), str(place), "draw", *parts], check=True)
    yield place
    shutil.rmtree(place)


def clocks(call: Callable[[], object]) -> np.ndarray:
    """Wall and CPU seconds of one call."""
    began = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - began[0], time.process_time() - began[1]])


def test_a_picture_is_read_once_for_its_21_boxes(folder, capsys):
    dataset = coco.load(folder / f"{SUBSET}.json", folder / "images")
    boxes, size = from_file(folder / f"boxes-{SUBSET}.json", dataset), (256, 192)
    files = {image.id: dataset.image_folder / image.file for image in dataset.images}

    def once_per_box() -> None:
        centers, scales = center_scale(boxes.xywh, size)
        for image_id, center, scale in zip(boxes.image_ids.tolist(), centers, scales):
            warp(read_image(files[image_id]), affine(center, scale, 0.0, size), size)

    def ours() -> None:
        for _ in iter_crops(dataset, boxes, input_size=size, udp=False, workers=2):
            pass

    rounds = []
    for n in range(5):
        times = {call: clocks(call) for call in ((once_per_box, ours) if n % 2 else (ours, once_per_box))}
        rounds.append([*times[once_per_box], *times[ours]])
    table = np.array(rounds)
    ratios = table[:, :2] / table[:, 2:]
    with capsys.disabled():
        print(f"\nreading {SUBSET} images for {len(boxes)} crops, one decode per box / ours, median of {len(rounds)}:")
        for name, column, seconds in zip(("wall", "CPU"), ratios.T, table[:, 2:].T):
            spread = f"{column.min():.1f} to {column.max():.1f}"
            print(
                f"  {name} {np.median(column):.1f} ({spread}); ours {1e3 * np.median(seconds) / SUBSET:.1f} ms an image"
            )
        print(f"  load {os.getloadavg()[0]:.1f}; at least 8")
    assert np.median(ratios[:, 0]) >= 8


@pytest.fixture(scope="module")
def runs(folder):
    """What each count of images took, each in a process of its own."""
    found = []
    for count in COUNTS:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), str(folder), str(count)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout) | {"load": os.getloadavg()[0]})
        shutil.rmtree(folder / f"records-{count}")
    return found


def test_the_whole_pipeline_is_linear_and_below_three_gigabytes(runs, capsys):
    whole = runs[-1]
    images, cpu = np.array([r["images"] for r in runs]), np.array([r["cpu"] for r in runs])
    lower, upper = ((cpu[b] - cpu[a]) / (images[b] - images[a]) for a, b in ((0, -2), (-2, -1)))
    with capsys.disabled():
        print()
        for r in runs:
            told = f"CPU {r['cpu']:.1f} s, wall {r['wall']:.1f} s, peak {r['peak_gb']:.2f} GB, load {r['load']:.1f}"
            print(f"{r['images']:5} images, {r['boxes']:6} boxes: {told}, AP {r['ap']:.3f}, judged {r['judged']}")
        names = sorted(whole["stages"], key=lambda name: -whole["stages"][name][1])
        print("CPU seconds by stage (wall for the last)")
        for name in names:
            columns = "".join(f"{r['stages'].get(name, [0, 0])[1]:9.2f}" for r in runs)
            print(f"  {name:34}{columns}{whole['stages'][name][0]:9.2f}")
        ratio = f"ratio {upper / lower:.3f}, 0.9 to 1.1"
        print(f"CPU ms an image: {1e3 * lower:.2f} below {images[-2]} images, {1e3 * upper:.2f} above ({ratio})")
    assert whole["boxes"] == 104_000 and whole["judged"] > 11_000
    assert max(r["peak_gb"] for r in runs) < MOST_GB
    assert 0.9 <= upper / lower <= 1.1
