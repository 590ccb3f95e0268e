"""What a person costs a one-stage network: time and multiply-accumulates of the keypoint branch by regions."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from harness.cost.macs import count
from harness.method import find_variant

pytestmark = pytest.mark.benchmark_suite
REGIONS = (1, 5, 20, 100)
ROUNDS = 3


def _seconds(branch: torch.nn.Module, features: torch.Tensor) -> float:
    began = time.perf_counter()
    with torch.inference_mode():
        branch.logits(features)
    return time.perf_counter() - began


@pytest.mark.parametrize("name, gmacs", [("maskrcnn_r50", 3.50), ("maskrcnn_refined_r50", 5.08)])
def test_the_keypoint_branch_is_linear_in_persons(name, gmacs, capsys):
    torch.manual_seed(0)
    branch = find_variant(name).build().keypoint.eval()
    inputs = {n: torch.randn(n, 256, 14, 14) for n in REGIONS}
    counted = {n: count(branch.logits, (inputs[n],), network=branch).macs for n in (1, 5)}
    assert counted[5] == 5 * counted[1] == 5 * branch.macs() and round(counted[1] / 1e9, 2) == gmacs
    _seconds(branch, inputs[5])
    rounds = [{n: _seconds(branch, inputs[n]) for n in REGIONS} for _ in range(ROUNDS)]
    seconds = np.array([min(one[n] for one in rounds) for n in REGIONS])  # the least disturbed
    slope, start = np.polyfit(REGIONS, seconds, 1)
    off = np.abs(seconds - (start + slope * np.array(REGIONS))).max() / seconds[-1]
    with capsys.disabled():
        times = ", ".join(f"{n}: {1000 * s:.0f} ms" for n, s in zip(REGIONS, seconds))
        print(f"\n{name}: {times}; {1000 * slope:.1f} ms a person, {gmacs / slope:.1f} gmacs/s, off the line {off:.1%}")
    assert off < 0.1 and 3.5 < seconds[3] / seconds[2] < 6.5
