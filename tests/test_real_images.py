"""Photographs from JPEG to AP and to drawn pictures for both paradigms, with random weights: the path, no figure."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from harness.cli.main import app
from harness.method import find_variant
from harness.records.store import Store
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

SUITE = """name: photographs
data:
  name: coco_val188
  root: shared
  annotations: coco_val188/person_keypoints_coco_val188.json
  images: coco_val188/images
  where: {gt: complete}
  limit: 12
  boxes: {from: maskrcnn_tiny}
measure: {accuracy: {bootstrap: 20}, cost: true, latency: {scope: end-to-end, batch: [4], rounds: 3, seconds: 20}}
methods:
  - {variant: maskrcnn_tiny}
  - {variant: simplebaseline_tiny, protocol: {flip: false}}
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for name in ("maskrcnn_tiny", "simplebaseline_tiny"):
        torch.manual_seed(0)
        variant = find_variant(name)
        network = variant.build(num_joints=17, input_size=variant.input_size)
        checkpoints.write(folder / f"{name}.safetensors", network.state_dict())
    return {name: folder / f"{name}.safetensors" for name in ("maskrcnn_tiny", "simplebaseline_tiny")}


@pytest.mark.slow
def test_photographs_go_through_both_paradigms_to_an_ap(shared, weights, tmp_path):
    path = tmp_path / "photographs.yaml"
    path.write_text(SUITE)
    suite, marked = load_suite(path)
    sources = Sources({"shared": shared / "data"}, weights)
    store, options = Store(tmp_path / "records"), Options(fail_fast=True, results=tmp_path / "results")
    manifest = run_suite(suite, store, sources, options, Progress(), marked)
    one, two = manifest["rows"]
    first, second = (store.by_id("accuracy", row["records"]["accuracy"]).result for row in (one, two))
    assert first["images"] == second["images"] == 12 and first["judge"] and first["box_ap"]["judge"]
    assert first["boxes"] == second["boxes"] > 0, "the top-down row has the boxes of the one-stage row"
    assert 0 <= first["stats"]["AP"]["value"] < 0.1, "random weights find nobody"
    timed = store.by_id("latency", one["records"]["latency_b4"]).result
    assert timed["pose_difference_px"] <= 0.1
    assert len(store.by_id("system", manifest["system"]).result["crossings"]) == 1
    assert len(list((tmp_path / "results").iterdir())) == 2


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["maskrcnn_tiny", "simplebaseline_tiny"])
def test_photographs_become_drawn_pictures(shared, weights, tmp_path, variant):
    content = json.loads((shared / "data/coco_val188/person_keypoints_coco_val188.json").read_text())
    names = [i["file_name"] for i in content["images"] if i.get("gt") == "complete"][:3]
    files = [str(shared / "data/coco_val188/images" / name) for name in names]
    boxes = ["--boxes", str(shared / "data/coco_val188/person_keypoints_coco_val188.json")]
    words = [
        "predict",
        variant,
        *files,
        "--weights",
        str(weights[variant]),
        "--out",
        str(tmp_path),
        "--threshold",
        "-9",
    ]
    given = ["--person-threshold", "0"] if variant == "maskrcnn_tiny" else boxes
    done = CliRunner().invoke(app, [*words, *given])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "predictions.json").read_text())
    assert len(found["images"]) == 3 and len(list(tmp_path.glob("*.poses.jpg"))) == 3
    keypoints = np.array([a["keypoints"] for a in found["annotations"]])
    assert len(keypoints) and np.isfinite(keypoints).all()
