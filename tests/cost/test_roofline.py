"""Achieved rates against planted peaks, and one real peak."""

from __future__ import annotations

import json

import pytest
import torch

from harness.cost.latency import Execution, measure
from harness.cost.memory import footprint
from harness.cost.roofline import IMPOSSIBLE, Peak, machine_peak, roofline
from harness.cost.utilisation import utilisation


def _peak(gemm: float, convolution: float, dtype: str = "float32") -> Peak:
    return Peak(gemm, convolution, dtype, "cpu", 1)


def test_the_rate_is_work_over_time_and_the_share_is_of_the_larger_peak():
    found = roofline(5e9, 250.0, (_peak(40.0, 80.0),))
    assert found.gmacs_per_second == pytest.approx(20.0)
    assert found.share == pytest.approx(0.25)
    assert not found.warning and not found.reason


@pytest.mark.parametrize(("gmacs", "impossible"), [(10.4, False), (10.6, True)])
def test_faster_than_the_machine_is_a_warning_beyond_five_per_cent(gmacs, impossible):
    assert (roofline(gmacs * 1e9, 1000.0, (_peak(10.0, 6.0),)).warning == IMPOSSIBLE) is impossible


def test_the_share_is_of_the_own_number_format_and_the_warning_of_every_peak():
    slow_format = (_peak(5.0, 2.0, "bfloat16"), _peak(20.0, 10.0))
    found = roofline(10e9, 1000.0, slow_format)
    assert found.share == pytest.approx(2.0) and not found.warning


def test_without_a_count_or_a_time_there_is_no_rate_but_a_reason():
    assert roofline(None, 10.0, (_peak(1, 1),), "there is no cost record").reason == "there is no cost record"
    assert roofline(1e9, None, (_peak(1, 1),)).reason
    assert roofline(1e9, 0.0, (_peak(1, 1),)).share is None


def test_the_machine_is_measured_once_and_keeps_its_threads():
    before = torch.get_num_threads()
    (peak,) = machine_peak("cpu", "float32", 1)
    assert peak.gemm > 0 and peak.convolution > 0 and peak.best == max(peak.gemm, peak.convolution)
    assert machine_peak("cpu", "float32", 1)[0] is peak
    assert torch.get_num_threads() == before


def test_memory_energy_and_rate_stand_beside_a_measurement():
    network, image = torch.nn.Conv2d(3, 64, 3, bias=False), torch.rand(1, 3, 256, 256)
    measured = measure({"conv": lambda: network(image)}, Execution(threads=1, rounds=3, warmup_most=3))["conv"]
    macs = 64 * 3 * 9 * 254 * 254
    found = utilisation(lambda: network(image), measured, network, dtype="float32", macs=macs)
    json.dumps(found, allow_nan=False)
    expected = macs / 1e9 / (measured.median_ms / 1e3)
    assert found["roofline"]["gmacs_per_second"] == pytest.approx(expected)
    assert found["memory"]["weights_bytes"] == 4 * 64 * 3 * 9
    assert (found["energy"]["joules_per_call"] is None) == bool(found["energy"]["reason"])


def test_a_call_needs_its_weights_and_what_it_allocates():
    network = torch.nn.Linear(1000, 1000)
    found = footprint(lambda: torch.ones(64 * 2**20 // 4).sum(), network)
    if found["peak_memory_mb"] is None:
        assert found["memory"]["reason"]
    else:
        assert found["peak_memory_mb"] > 4.0 + 60
    assert footprint(lambda: None, object())["peak_memory_mb"] is None
