"""A package of its own adds a method: found by name, loaded, measured, without a line changed here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.data import synthetic
from harness.train import checkpoints

PACKAGE = Path(__file__).parent / "outside_package"
PROJECT = PACKAGE.parent.parent
SUITE = """name: outside
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {accuracy: {bootstrap: 20}, cost: true, latency: {rounds: 3, seconds: 2}}
methods:
  - {variant: oneconv}
"""


def call(*words: str, folder: Path, **more: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **more}
    done = subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_method_of_an_installed_package_is_measured(tmp_path):
    source = shutil.copytree(PACKAGE, tmp_path / "source", ignore=shutil.ignore_patterns("__pycache__"))
    site = tmp_path / "site"
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site))
    call(*pip, str(source), folder=tmp_path)
    synthetic.write(tmp_path / "people", images=4, seed=2)
    torch.manual_seed(0)
    own = {"conv.weight": torch.randn(17, 3, 8, 8), "conv.bias": torch.randn(17)}
    checkpoints.write(tmp_path / "w.safetensors", own)
    (tmp_path / "outside.yaml").write_text(SUITE)
    words = ("-m", "harness", "run", "outside.yaml", "--json", "--data", "people=people")
    path = os.pathsep.join([str(site), str(PROJECT)])
    told = call(*words, "--weights", "oneconv=w.safetensors", folder=tmp_path, PYTHONPATH=path)
    (row,) = json.loads(told)["manifest"]["rows"]
    assert row["method"] == "OneConv" and not row["reasons"]
    assert set(row["records"]) == {"accuracy", "cost", "latency_b1"}
    record = tmp_path / "results/records/records" / f"cost-{row['records']['cost']}.json"
    assert json.loads(record.read_text())["result"]["macs"] == 17 * 3 * 64 * 32 * 24
