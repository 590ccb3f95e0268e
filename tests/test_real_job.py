"""A published network on photographs: the AP that the published protocol gives for it."""

from __future__ import annotations

import pytest

from harness.records.store import Store
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources

SUITE = """name: real
data:
  name: coco_val188
  root: shared
  annotations: coco_val188/person_keypoints_coco_val188.json
  images: coco_val188/images
measure: {accuracy: {bootstrap: 50}, cost: true}
methods:
  - {variant: onnx, sweep: {flip: [true, false]}}
"""


@pytest.mark.slow
def test_a_published_network_has_its_accuracy_on_a_sample_of_coco(shared, tmp_path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "real.yaml"
    path.write_text(SUITE)
    suite, marked = load_suite(path)
    sources = Sources({"shared": shared / "data"}, {"onnx": shared / "weights/ultralight_simplepose.onnx"})
    store = Store(tmp_path / "records")
    rows = run_suite(suite, store, sources, Options(fail_fast=True), Progress(), marked)["rows"]
    found = [store.by_id("accuracy", row["records"]["accuracy"]).result["stats"]["AP"]["value"] for row in rows]
    assert 0.512 <= found[0] <= 0.515, "with flip test"
    assert found[1] == pytest.approx(0.4982, abs=1e-4)
