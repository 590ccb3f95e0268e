"""The system record of a run: which rows it is made of."""

from __future__ import annotations

from harness.method import find_variant
from harness.records.store import Store
from harness.run.rows import Row
from harness.run.systems import system_record
from harness.suite.cells import expand
from harness.suite.schema import load_suite

SUITE = """name: small
data: {name: synthetic, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {cost: true}
train: {recipe: quick, from: quickstart, data: synthetic}
seeds: [3, 1]
methods:
  - {variant: maskrcnn_tiny}
  - {variant: hrnet_tiny, sweep: {train.epochs: [0, 2]}}
"""


def test_of_rows_that_differ_in_their_seed_the_first_stands_for_the_system(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE)
    suite, marked = load_suite(path)
    rows = [Row(cell, find_variant(cell.variant)) for cell in expand(suite, marked)]
    record = system_record(suite, rows, Store(tmp_path / "store"), None)
    labels = [row["label"] for row in record.result["rows"]]
    assert labels == [
        f"{name} seed 3" for name in ("maskrcnn_tiny", "hrnet_tiny train.epochs=0", "hrnet_tiny train.epochs=2")
    ]
    assert len(rows) == 6 and len(record.result["crossings"]) == 2
