"""The fixture `pose_benchmark`, used by a test suite in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from harness.gate_snapshot import Row, Snapshot, Speed

ROOT = Path(__file__).resolve().parent.parent
TEST = """
import time

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
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_a_network_is_timed_by_its_name_and_lands_in_the_files_of_pytest_benchmark(tmp_path):
    code, output = _pytest(tmp_path, "--benchmark-json=out.json")
    assert code == 0, output
    assert "VERDICT None" in output
    assert json.loads((tmp_path / "out.json").read_text())["benchmarks"][0]["stats"]["rounds"] == 20


@pytest.mark.parametrize(("ratio", "code"), [(0.1, 1), (100.0, 0)])
def test_a_stored_run_decides_by_ratio(tmp_path, ratio, code):
    path = _baseline(tmp_path / "b.json", ratio)
    found, output = _pytest(tmp_path, f"--pose-baseline={path}")
    assert found == code, output
    assert ("regression against" in output) == bool(code)


def test_a_row_that_the_baseline_does_not_have_is_not_judged(tmp_path):
    path = tmp_path / "b.json"
    Snapshot(suite="s", created="", revision="", command="", rows=()).write(path)
    code, output = _pytest(tmp_path, f"--pose-baseline={path}")
    assert code == 0 and "verdict='new'" in output


def test_without_pytest_benchmark_the_fixture_says_what_to_install(tmp_path):
    code, output = _pytest(tmp_path, "-p", "no:benchmark")
    assert code == 1 and "pip install pytest-benchmark" in output
