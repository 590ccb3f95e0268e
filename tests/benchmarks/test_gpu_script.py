"""The script behind `make gpu`: it works without pydantic and without a GPU, and goes on where it stopped."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/benchmarks/gpu.py"
HIDDEN = """
import importlib.machinery, importlib.util, runpy, sys
real = importlib.machinery.PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] == "{package}" else real(name, path, target)
importlib.machinery.PathFinder.find_spec = find_spec
sys.argv = ["gpu.py", *{words!r}]
runpy.run_path("{script}", run_name="__main__")
"""


def _run(package: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The script in an interpreter that does not have `package`."""
    code = HIDDEN.format(package=package, words=list(words), script=SCRIPT)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_the_tiny_networks_are_timed_without_pydantic_and_a_second_call_has_nothing_to_do(tmp_path):
    words = ("--device", "cpu", "--tiny", "--out", str(tmp_path), "--seconds", "0.2")
    done = _run("pydantic", *words)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("gpu-*.json")
    entries = json.loads(file.read_text())["entries"]
    assert len(entries) == 6 and "left" not in done.stdout
    eight = entries["128x96 float32 batch 8"]
    coarse, part, every = (eight[f"sharpose_tiny {how}"] for how in ("coarse only", "62 % leave", "everybody"))
    assert coarse["gmacs"] < part["gmacs"] < every["gmacs"]
    assert part["gmacs"] == pytest.approx((5 * coarse["gmacs"] + 3 * every["gmacs"]) / 8)
    page = file.with_suffix(".md").read_text()
    assert "| sharpose_tiny coarse only |" in page and "None" not in page
    stamp = file.stat().st_mtime_ns
    again = _run("pydantic", *words)
    assert again.returncode == 0 and file.stat().st_mtime_ns == stamp and "..." not in again.stdout


def test_a_missing_package_is_named():
    done = _run("scipy", "--device", "cpu", "--tiny")
    assert done.returncode == 3 and "has no scipy" in done.stdout


def test_without_time_nothing_is_begun_and_what_is_left_is_told(tmp_path):
    done = _run("nothing", "--device", "cpu", "--tiny", "--out", str(tmp_path), "--minutes", "0")
    assert done.returncode == 0, done.stderr
    assert "6 are left: call again" in done.stdout and not list(tmp_path.iterdir())


@pytest.mark.gpu
def test_all_networks_are_timed_on_a_gpu_within_eight_minutes(tmp_path):
    done = subprocess.run([sys.executable, str(SCRIPT), "--out", str(tmp_path)], text=True, timeout=480)
    assert done.returncode == 0
