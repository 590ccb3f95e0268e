"""What the instrument adds to a one-stage network: everything outside it, for each image."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.cost.statistics import quantile
from harness.data import coco
from harness.method import find_variant
from harness.passes.predict_images import OneStageRunner, run_image_pass

pytestmark = pytest.mark.benchmark_suite
IMAGES, REPETITIONS, LIMIT = 3, 4, 0.10


@pytest.fixture(scope="module")
def photographs(shared: Path) -> coco.Dataset:
    folder = shared / "data/coco_val188"
    file = folder / "person_keypoints_coco_val188.json"
    return coco.limit(coco.load(file, folder / "images", where={"gt": "complete"}), IMAGES)


def test_everything_outside_the_network_takes_a_tenth_of_the_time_of_an_image(photographs, tmp_path, capsys):
    variant = find_variant("maskrcnn_r50")
    torch.manual_seed(0)
    runner = OneStageRunner(variant.build(num_joints=17, input_size=variant.input_size), variant.protocol)
    predict, inside = runner._predict, []

    def timed(images: list[torch.Tensor], settings: dict) -> object:
        began = time.perf_counter()
        answer = predict(images, settings)
        inside.append(time.perf_counter() - began)
        return answer

    runner._predict = timed
    shares = []
    for repetition in range(REPETITIONS):
        inside.clear()
        began = time.perf_counter()
        run_image_pass(runner, {"score_threshold": 1.0}, tmp_path / str(repetition), photographs)
        shares.append(1 - sum(inside) / (time.perf_counter() - began))
    middle = quantile(shares[1:], 0.5)
    with capsys.disabled():
        span = f"range {min(shares[1:]):.3f} to {max(shares[1:]):.3f}, n={middle.n}"
        print(f"\noutside the network, share of an image's time: {np.median(shares[1:]):.3f} ({span}; at most {LIMIT})")
    assert np.median(shares[1:]) <= LIMIT
