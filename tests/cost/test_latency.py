"""The latency protocol on a scripted clock: nothing here depends on how fast this machine is."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from harness.cost.latency import Execution, Stopwatch, measure
from harness.cost.machine import machine, machine_id
from harness.cost.memory import peak_memory
from harness.errors import MeasurementError


class _Clock(Stopwatch):
    """Time moves only when a scripted call moves it."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.log: list[str] = []

    def read(self) -> tuple[float, float]:
        return self.wall, self.cpu

    def call(self, name, times_ms, busy=lambda turn: 1.0):
        """A call whose nth run takes `times_ms(n)` and keeps `busy(n)` cores at work."""
        turns = iter(range(10**6))

        def run() -> None:
            turn = next(turns)
            self.log.append(name)
            self.wall += times_ms(turn) / 1e3
            self.cpu += times_ms(turn) * busy(turn) / 1e3

        return run


_ONE = Execution(threads=1, rounds=20, seconds=1e9)


def test_medians_and_ratios_of_scripted_calls():
    clock = _Clock()
    calls = {"a": clock.call("a", lambda n: 10.0), "b": clock.call("b", lambda n: 25.0)}
    found = measure(calls, _ONE, stopwatch=clock)
    assert found["a"].median.value == pytest.approx(10)
    assert found["b"].ratio.value == pytest.approx(2.5)
    assert found["a"].ratio is None
    assert [s.wall_ms for s in found["b"].samples] == pytest.approx([25.0] * 20)


def test_rounds_are_interleaved_and_reversed_every_other_time():
    clock = _Clock()
    measure(
        {n: clock.call(n, lambda n: 1.0) for n in "abc"}, Execution(threads=1, rounds=4, seconds=1e9), stopwatch=clock
    )
    assert "".join(clock.log[-12:]) == "abccbaabccba"


def test_a_drifting_machine_leaves_the_ratio_alone():
    clock = _Clock()
    slower = lambda n: 1 + 0.2 * n  # noqa: E731
    calls = {"a": clock.call("a", lambda n: 10 * slower(n)), "b": clock.call("b", lambda n: 20 * slower(n))}
    found = measure(calls, Execution(threads=1, rounds=20, warmup_least=1, warmup_most=5, seconds=1e9), stopwatch=clock)
    assert found["b"].ratio.value == pytest.approx(2.0, rel=1e-9)
    assert not found["a"].warmed_up


@pytest.mark.parametrize("seed", range(3))
def test_a_call_against_itself_has_a_ratio_of_one_inside_its_interval(seed):
    rng, clock = np.random.default_rng(seed), _Clock()
    noisy = lambda n: 10 * rng.lognormal(sigma=0.2)  # noqa: E731
    found = measure({"a": clock.call("a", noisy), "again": clock.call("b", noisy)}, _ONE, stopwatch=clock)
    ratio = found["again"].ratio
    assert ratio.low <= 1 <= ratio.high
    assert ratio.value == pytest.approx(1, abs=0.15)


def test_starved_samples_are_rejected_counted_and_replaced():
    clock = _Clock()
    starved = lambda n: n % 4 == 3  # noqa: E731
    calls = {
        "a": clock.call("a", lambda n: 100.0 if starved(n) else 10.0, lambda n: 0.1 if starved(n) else 1.0),
        "b": clock.call("b", lambda n: 20.0),
    }
    found = measure(calls, _ONE, stopwatch=clock)
    assert found["a"].median.value == pytest.approx(10)
    assert found["a"].median.high == pytest.approx(10)
    assert found["a"].rejected > 0
    assert found["a"].median.n == 20
    assert len(found["a"].samples) == 20 + found["a"].rejected
    assert found["b"].ratio.value == pytest.approx(2)


def test_with_two_threads_the_call_itself_says_how_many_cores_it_can_use():
    clock = _Clock()
    half = clock.call("a", lambda n: 10.0, lambda n: 1.2)  # a network with little to share out
    cut = clock.call("b", lambda n: 10.0, lambda n: 0.9 if n % 5 == 0 else 1.9)
    found = measure({"a": half, "b": cut}, Execution(threads=2, rounds=20, seconds=1e9), stopwatch=clock)
    assert found["a"].rejected == 0
    assert found["b"].rejected > 0


def test_all_samples_starved_gives_a_median_without_interval_and_says_why():
    clock = _Clock()
    found = measure({"a": clock.call("a", lambda n: 10.0, lambda n: 0.2)}, _ONE, stopwatch=clock)
    assert found["a"].median_ms == pytest.approx(10.0) and found["a"].median.low is None
    assert "starved" in found["a"].median.reason


def test_tail_quantiles_need_the_samples_that_carry_them():
    clock = _Clock()
    few = measure({"a": clock.call("a", lambda n: 1.0)}, Execution(threads=1, rounds=30, seconds=1e9), stopwatch=clock)[
        "a"
    ]
    assert few.p90.value is None and "36" in few.p90.reason
    many = measure(
        {"a": clock.call("a", lambda n: 1.0)}, Execution(threads=1, rounds=400, seconds=1e9), stopwatch=clock
    )["a"]
    assert many.p90.value == many.p99.value == pytest.approx(1)


def test_warm_up_calls_are_no_samples():
    clock = _Clock()
    found = measure({"a": clock.call("a", lambda n: 500.0 * 0.5**n + 10)}, _ONE, stopwatch=clock)["a"]
    assert found.warmed_up and found.warmup >= 12
    assert found.median.high < 11


def test_the_time_budget_bounds_warm_up_and_rounds():
    clock = _Clock()
    execution = Execution(threads=1, rounds=1000, seconds=10)
    found = measure({"a": clock.call("a", lambda n: 1000.0)}, execution, stopwatch=clock)["a"]
    assert clock.wall <= 12
    assert 3 <= len(found.samples) < 10


def test_a_real_call_is_timed_and_everything_is_recorded():
    layer = torch.nn.Conv2d(3, 8, 3)
    image = torch.rand(1, 3, 32, 32)
    before = torch.get_num_threads()
    execution = Execution(threads=1, rounds=3, warmup_most=3, scope="network")
    found = measure({"conv": lambda: layer(image)}, execution)["conv"]
    assert all(s.wall_ms > 0 for s in found.samples)
    record = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert record["settings"]["threads"] == 1
    assert record["execution"]["scope"] == "network"
    assert torch.get_num_threads() == before


def test_nothing_to_time_and_a_missing_device_are_errors():
    with pytest.raises(MeasurementError):
        measure({}, _ONE)
    if not torch.cuda.is_available():
        with pytest.raises(MeasurementError, match="cuda"):
            measure({"a": lambda: None}, Execution(device="cuda"))
    with pytest.raises(MeasurementError, match="rounds"):
        Execution(rounds=0)


def test_the_machine_id_depends_on_stable_facts_only():
    facts = machine()
    assert facts["cores"] >= facts["affinity"] >= 1
    assert machine_id() == machine_id(facts) == machine_id(dict(reversed(facts.items())))
    assert machine_id({**facts, "cpu": "another"}) != machine_id(facts)


def test_peak_memory_rises_with_a_large_allocation_or_says_why_not():
    found = peak_memory(lambda: torch.ones(64 * 2**20 // 4).sum())
    assert found.peak_bytes is None or found.peak_bytes > found.held_bytes
    again = peak_memory(lambda: None)
    assert again.peak_bytes is None or again.peak_bytes - again.held_bytes < 2**20
    assert again.peak_bytes is not None or again.reason
