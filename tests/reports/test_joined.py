"""All records of a store as one table: what its rows are called."""

from __future__ import annotations

from harness.records.store import Record, Store
from reports.joined import joined_manifest
from reports.rows import load_rows
from reports.tables import build_table, to_csv


def test_rows_of_one_variant_are_called_by_the_knobs_that_have_a_value(tmp_path):
    store = Store(tmp_path / "records")
    for select in ({"threshold": 0.5, "exit_rate": None}, {"threshold": None, "exit_rate": 0.4}):
        key = {"variant": "exits", "input_size": [128, 96], "build": {}, "settings": {}, "select": select}
        store.put(Record.make("accuracy", key, {"stats": {}}))
    labels = {row["label"] for row in joined_manifest(store, "all")["rows"]}
    assert labels == {"exits threshold=0.5", "exits exit_rate=0.4"}


def test_a_reconstruction_is_called_one_without_its_suite_too(tmp_path):
    store = Store(tmp_path / "store")
    store.put(Record.make("cost", {"variant": "guessed", "input_size": [128, 96], "build": {}, "settings": {}}, {}))
    store.write_run("mine", {"rows": [{"cell": {"variant": "guessed"}, "note": "reconstruction"}]})
    (store.folder / "runs" / "broken.json").write_text('{"rows": [')
    assert [row["note"] for row in joined_manifest(store, "all")["rows"]] == ["reconstruction"]


def test_rows_that_differ_in_a_built_knob_are_no_curve_over_a_threshold(tmp_path):
    store = Store(tmp_path / "records")
    for alpha in (0.25, 0.75):
        key = {"variant": "exits", "input_size": [128, 96], "build": {}, "settings": {"alpha": alpha}}
        key["select"] = {"quality_threshold": "always"}
        store.put(Record.make("accuracy", key, {"stats": {}}))
    key = {"variant": "exits", "input_size": [128, 96], "build": {}, "settings": {}, "select": {"exit_rate": 0.4}}
    store.put(Record.make("accuracy", key, {"stats": {}}))
    swept = [row["cell"]["swept"] for row in joined_manifest(store, "all")["rows"]]
    assert {"alpha": 0.25, "quality_threshold": "always"} in swept and {"exit_rate": 0.4} in swept


def test_rows_scored_on_different_data_say_on_which(tmp_path):
    store = Store(tmp_path / "records")
    for variant, data in (("one", "synthetic"), ("two", "coco_val2017")):
        key = {"variant": variant, "input_size": [128, 96], "build": {}, "settings": {}, "data": {"name": data}}
        store.put(Record.make("accuracy", key, {"stats": {"AP": {"value": 0.5}}}))
    shown = to_csv(build_table(load_rows(store, joined_manifest(store, "all"))))
    assert ",data," in shown and "synthetic" in shown and "coco_val2017" in shown
