"""The fixture `pose_benchmark`, used by a test suite in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cost.latency import Sample
from harness.errors import UserError
from harness.gate.snapshot import Row, Snapshot, Speed
from harness.pytest_plugin import PoseBenchmark

ROOT = Path(__file__).resolve().parent.parent
TEST = """
def test_it(pose_benchmark):
    verdict = pose_benchmark("hrnet_tiny", rounds=20)
    print("VERDICT", verdict)
"""


def _baseline(path: Path, ratio: float) -> Path:
    """A baseline in which hrnet_tiny takes `ratio` times the time of simplebaseline_tiny."""
    context = {"batch": 1, "threads": 1}
    own = Speed(context=context, reference="simplebaseline_tiny", machine={}, median_ms=3.0, runs=((ratio,) * 40,) * 4)
    reference = own.model_copy(update={"runs": ()})
    rows = (
        Row(label="simplebaseline_tiny", variant="simplebaseline_tiny", speed={"latency_b1": reference}),
        Row(label="hrnet_tiny", variant="hrnet_tiny", speed={"latency_b1": own}),
    )
    Snapshot(suite="s", created="", revision="", command="", rows=rows).write(path)
    return path


def _pytest(folder: Path, *arguments: str) -> tuple[int, str]:
    (folder / "test_it.py").write_text(TEST)
    (folder / "pytest.ini").write_text("[pytest]\n")
    plugin = [] if entry_points(group="pytest11", name="paretopose") else ["-p", "harness.pytest_plugin"]
    command = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", *plugin, *arguments]
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment = {**own, "PYTHONPATH": str(ROOT)}  # a worker of pytest-xdist would switch the benchmark off
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_a_network_is_timed_by_its_name_and_lands_in_the_files_of_pytest_benchmark(tmp_path):
    code, output = _pytest(tmp_path, "--benchmark-json=out.json")
    assert code == 0, output
    assert "VERDICT None" in output
    assert json.loads((tmp_path / "out.json").read_text())["benchmarks"][0]["stats"]["rounds"] == 20


class _Benchmark:
    """What the fixture uses of pytest-benchmark's."""

    def __init__(self) -> None:
        self.extra_info: dict[str, object] = {}

    def pedantic(self, call, *, rounds: int, warmup_rounds: int) -> None:
        call()


def _scripted(reference_ms: float, method_ms: float):
    """A timer that makes every call once and says what the script says."""

    def measure(calls, execution):
        for call in calls.values():
            call()
        times = {"reference": reference_ms, "method": method_ms}
        return {
            name: SimpleNamespace(samples=[Sample(i, ms, ms) for i in range(execution.rounds)])
            for name, ms in times.items()
        }

    return measure


@pytest.mark.parametrize("speed", [1.0, 7.0])
def test_a_stored_run_decides_by_ratio_whatever_the_speed_of_the_machine(tmp_path, monkeypatch, speed):
    monkeypatch.setattr("harness.cost.machine.machine", dict)
    path = str(_baseline(tmp_path / "b.json", 1.5))
    monkeypatch.setattr("harness.cost.latency.measure", _scripted(2 * speed, 3 * speed))
    same = PoseBenchmark(_Benchmark(), path, 0.05)("hrnet_tiny", rounds=20)
    assert same is not None and (same.verdict, same.difference) == ("pass", pytest.approx(0))
    monkeypatch.setattr("harness.cost.latency.measure", _scripted(2 * speed, 3.6 * speed))
    benchmark = _Benchmark()
    with pytest.raises(pytest.fail.Exception, match=r"hrnet_tiny: regression against .* \+20.0 %"):
        PoseBenchmark(benchmark, path, 0.05)("hrnet_tiny", rounds=20)
    assert benchmark.extra_info["paretopose"]["verdict"] == "regression"


def test_a_call_of_your_own_is_compared_with_the_row_that_its_label_names(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.cost.machine.machine", dict)
    monkeypatch.setattr("harness.cost.latency.measure", _scripted(2.0, 3.0))
    made: list[int] = []
    found = PoseBenchmark(_Benchmark(), str(_baseline(tmp_path / "b.json", 1.5)), 0.05)(
        lambda: made.append(1), label="hrnet_tiny", rounds=20
    )
    assert found is not None and found.verdict == "pass" and len(made) == 5


@pytest.mark.parametrize("other", [{"device": "cuda"}, {"scope": "end-to-end"}, {"input_size": [256, 192]}])
def test_a_time_of_another_kind_is_not_compared(tmp_path, other):
    path = _baseline(tmp_path / "b.json", 1.5)
    content = json.loads(path.read_text())
    content["rows"][1]["speed"]["latency_b1"]["context"] |= other
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="another kind"):
        PoseBenchmark(_Benchmark(), str(path), 0.05)("hrnet_tiny", rounds=20)


def test_a_row_that_the_baseline_does_not_have_is_not_judged(tmp_path):
    path = tmp_path / "b.json"
    Snapshot(suite="s", created="", revision="", command="", rows=()).write(path)
    code, output = _pytest(tmp_path, f"--pose-baseline={path}")
    assert code == 0 and "verdict='new'" in output


def test_without_pytest_benchmark_the_fixture_says_what_to_install(tmp_path):
    code, output = _pytest(tmp_path, "-p", "no:benchmark")
    assert code == 1 and "pip install pytest-benchmark" in output
