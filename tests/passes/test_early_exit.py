"""A network with two exits in a suite: thresholds, exit rates, notes of its weights, times at what was scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data import synthetic
from harness.method import find_variant
from harness.passes import replay
from harness.records.store import Store
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

HEAD = """name: exits
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {accuracy: {bootstrap: 0, judge: false}, cost: false}
methods:
"""


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("people")
    synthetic.write(root, images=4, seed=3)
    return root


def _weights(folder: Path, name: str, **knobs: Any) -> Path:
    """Random weights that give every person another quality."""
    torch.manual_seed(0)
    variant = find_variant(name)
    network = variant.build(num_joints=17, input_size=variant.input_size, **knobs)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    path = folder / f"{name}.safetensors"
    checkpoints.write(path, network.state_dict())
    return path


@pytest.fixture
def run(tmp_path, people):
    """run(lines, *assignments) -> (rows of the manifest, their accuracy results, the store)."""

    def go(lines: str, *assignments: str, name: str = "sharpose_tiny", **knobs: Any):
        path = tmp_path / "suite.yaml"
        path.write_text(HEAD + lines)
        suite, marked = load_suite(path, assignments)
        sources, store = Sources({"people": people}, {name: _weights(tmp_path, name, **knobs)}), Store(tmp_path / "s")
        rows = run_suite(suite, store, sources, Options(workers=0), Progress(), marked)["rows"]
        found = [
            store.by_id("accuracy", r["records"]["accuracy"]) if "accuracy" in r["records"] else None for r in rows
        ]
        return rows, [record.result if record else None for record in found], store

    return go


def test_an_exit_rate_is_recorded_as_the_threshold_it_became_with_the_share_it_reached(run):
    lines = "  - {variant: sharpose_tiny, sweep: {exit_rate: [0.0, 0.6, 1.0], flip: [false, true]}}\n"
    rows, results, store = run(lines)
    assert not any(row["reasons"] for row in rows)
    (folder,) = [p.parent for p in (store.folder / "passes").rglob("complete.json")]
    found = replay.load_pass(folder)
    for row, result in zip(rows, results):
        rate, flip = row["cell"]["select"]["exit_rate"], row["cell"]["protocol"]["flip"]
        names = ("quality", "quality_mirrored") if flip else ("quality",)
        qualities = np.concatenate([found[name] for name in names])
        threshold = result["quality_threshold"]
        left = np.mean(qualities >= threshold) if threshold != "always" else 0.0
        assert (threshold == "always") == (rate == 0)
        assert result["refined_share"] == pytest.approx(1 - left, abs=1e-12)
        assert rate <= left < rate + 1.5 / len(qualities), "no two persons have the same quality"


def test_the_threshold_of_an_exit_rate_is_what_is_timed(run):
    lines = "  - {variant: sharpose_tiny, set: {exit_rate: 0.5}}\n"
    (row,), (result,), store = run(lines, "measure.latency={rounds: 3, seconds: 1, threads: 1}")
    timed = store.by_id("latency", row["records"]["latency_b1"])
    assert timed.key["settings"]["quality_threshold"] == result["quality_threshold"]
    assert timed.key["weights"] and timed.result["pose_difference_px"] < 0.1


def test_an_exit_rate_without_scored_persons_is_no_time(run):
    lines = "  - {variant: sharpose_tiny, set: {exit_rate: 0.5}}\n"
    (row,), _, _ = run(lines, "measure.accuracy=false", "measure.latency={rounds: 3, seconds: 1, threads: 1}")
    assert "where persons are scored" in row["reasons"]["latency_b1"]


def test_two_classes_take_no_exit_rate_and_no_number(run):
    lines = (
        "  - {variant: sharpose_tiny, set: {quality: abs}, sweep: {quality_threshold: [null, 0.3, always, never]}}\n"
        "  - {variant: sharpose_tiny, set: {quality: abs, exit_rate: 0.5}}\n"
    )
    rows, results, _ = run(lines, quality="abs")
    assert [r["quality_threshold"] for r in results[:4]] == ["of the network itself"] * 2 + ["always", "never"]
    assert results[0]["refined_share"] == results[1]["refined_share"]
    assert [r["refined_share"] for r in results[2:4]] == [1.0, 0.0]
    assert "compares two qualities" in rows[4]["reasons"]["accuracy"]


def test_a_record_tells_that_positions_were_interpolated(run):
    lines = "  - {variant: vitpose_tiny, set: {input_size: 160x128}}\n"
    _, (result,), _ = run(lines, name="vitpose_tiny")
    note = next(n for n in result["notes"] if "interpolated" in n)
    assert note.endswith("not fine-tuned") and "to 20x16" in note


def test_another_input_size_of_a_head_that_is_tied_to_it_has_a_cost_and_says_why_no_accuracy(run):
    lines = "  - {variant: sharpose_tiny, set: {input_size: 160x128}}\n"
    (row,), _, _ = run(lines, "measure.cost=true")
    assert "SHaRPose cannot be resized" in row["reasons"]["accuracy"]
    assert "cost" in row["records"]
