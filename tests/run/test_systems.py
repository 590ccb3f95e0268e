"""The system record of a run: which rows it is made of."""

from __future__ import annotations

from harness.method import find_variant
from harness.records.store import Store
from harness.run.rows import Row
from harness.run.systems import system_record
from harness.suite.cells import expand
from harness.suite.schema import load_suite

OTHER_FILES = """name: small
data: {name: synthetic, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {cost: true}
methods:
  - {variant: maskrcnn_tiny}
  - {variant: hrnet_tiny, weights: one.pth}
  - {variant: hrnet_tiny, weights: other.pth}
"""
SUITE = """name: small
data: {name: synthetic, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {cost: true}
train: {recipe: quick, from: quickstart, data: synthetic}
seeds: [3, 1]
methods:
  - {variant: maskrcnn_tiny}
  - {variant: hrnet_tiny, sweep: {train.epochs: [0, 2]}}
"""


def record_of(folder, text):
    path = folder / "suite.yaml"
    path.write_text(text)
    suite, marked = load_suite(path)
    rows = [Row(cell, find_variant(cell.variant)) for cell in expand(suite, marked)]
    return len(rows), system_record(suite, rows, Store(folder / "store"), None)


def test_of_rows_that_differ_in_their_seed_one_stands_for_the_system(tmp_path):
    rows, record = record_of(tmp_path, SUITE)
    networks = ("maskrcnn_tiny", "hrnet_tiny train.epochs=0", "hrnet_tiny train.epochs=2")
    assert [row["label"] for row in record.result["rows"]] == [f"{name} seed 3" for name in networks]
    assert rows == 6 and len(record.result["crossings"]) == 2


def test_rows_of_other_weights_are_systems_of_their_own(tmp_path):
    rows, record = record_of(tmp_path, OTHER_FILES)
    assert [row["label"] for row in record.result["rows"]] == ["maskrcnn_tiny", "hrnet_tiny", "hrnet_tiny"]
    assert rows == 3 and len(record.result["crossings"]) == 2
