"""Records as one pandas table."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

import harness
import harness.records.frame as frames
from harness.errors import UserError
from harness.records.store import Record, Store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    store = Store(tmp_path / "results" / "records")
    network = {"variant": "hrnet_w32", "input_size": [256, 192], "build": {"style": "a"}, "settings": {"alpha": 0.3}}
    interval = {"bca": [0.7, 0.8], "percentile": [0.71, 0.79]}
    accuracy = {
        "stats": {
            "AP": {"value": 0.75, "interval": interval},
            "APm": {"value": None, "interval": None, "reason": "none"},
        },
        "images": 3,
        "judge": {"name": "pycocotools"},
        "box_source": "ground-truth (hrnet)",
        "cost": {
            "gmacs_per_forward": {"mean": 7.0, "sd": 1.0, "p5": 5.0, "p95": 9.0},
            "gmacs_per_image": {"mean": 20.0},
        },
    }
    key = {**network, "protocol": {"flip": True, "decoder": "dark", "codec": "udp"}, "data": {"name": "d"}}
    store.put(Record.make("accuracy", key, accuracy))
    cost = {"gmacs": 7.5, "gflops": 15.0, "params": 2_000_000, "params_inference": None}
    store.put(Record.make("cost", network, cost))
    median = {"value": 12.0, "low": 11.0, "high": 13.0}
    execution = {
        "device": "cpu",
        "batch": 4,
        "dtype": "float32",
        "runtime": "eager",
        "scope": "network",
        "threads": None,
    }
    result = {
        "median": median,
        "execution": execution,
        "settings": {"threads": 2},
        "machine": {"cpu": "c"},
        "ratio": None,
    }
    store.put(Record.make("latency", {**network, "execution": {"batch": 4}, "machine": "m1"}, result))
    return tmp_path / "results"


def test_there_is_one_row_for_each_record_with_the_network_in_columns(folder):
    frame = harness.load(folder)
    assert list(frame["kind"]) == ["accuracy", "cost", "latency"]
    assert (
        set(frame["variant"]) == {"hrnet_w32"}
        and set(frame["input_height"]) == {256}
        and set(frame["input_width"]) == {192}
    )
    assert set(frame["knob_alpha"]) == {0.3} and set(frame["knob_style"]) == {"a"} and "knob_batch" not in frame


def test_numbers_of_the_three_kinds_are_where_the_documentation_says(folder):
    accuracy, cost, latency = (row for _, row in harness.load(folder).iterrows())
    assert (accuracy["ap"], accuracy["ap_low"], accuracy["ap_high"]) == (0.75, 0.7, 0.8)
    assert (accuracy["gmacs"], accuracy["gmacs_p95"], accuracy["gflops"], accuracy["gmacs_per_image"]) == (
        7.0,
        9.0,
        14.0,
        20.0,
    )
    assert (accuracy["decoder"], accuracy["flip"], accuracy["boxes"]) == ("dark", True, "ground-truth (hrnet)")
    assert accuracy["apm"] != accuracy["apm"]
    assert (cost["gmacs"], cost["params_m"]) == (7.5, 2.0) and cost["params_inference_m"] != cost["params_inference_m"]
    assert (latency["latency_ms"], latency["latency_high_ms"], latency["batch"], latency["threads"]) == (
        12.0,
        13.0,
        4,
        2,
    )
    assert latency["machine"] == "m1"


def test_the_store_may_be_named_itself_or_by_the_folder_around_it(folder):
    frames = [harness.load(place) for place in (folder, folder / "records", folder / "records" / "records")]
    assert all(frame.equals(frames[0]) for frame in frames)


def test_a_store_without_records_is_an_empty_table_and_no_store_is_an_error(tmp_path):
    (tmp_path / "records").mkdir()
    frame = harness.load(tmp_path)
    assert frame.empty and "variant" in frame
    with pytest.raises(UserError, match="no records"):
        harness.load(tmp_path / "nowhere" / "at" / "all")


def test_every_column_is_documented(folder):
    text = frames.__doc__
    known = set(re.findall(r"[a-z_0-9]+", text))
    for column in harness.load(folder):
        base = re.sub(r"^(ap[a-z0-9]*|ar[a-z0-9]*)(_low|_high)$", r"\1", column)
        assert base in known or column.startswith("knob_"), column


def test_a_damaged_record_is_passed_over_with_a_warning(folder):
    broken = next((folder / "records" / "records").glob("cost-*.json"))
    broken.write_text(broken.read_text()[:80])
    with pytest.warns(UserWarning, match=broken.name):
        frame = harness.load(folder)
    assert list(frame["kind"]) == ["accuracy", "latency"]


def test_records_of_an_older_schema_are_passed_over_and_stay(folder):
    old = next((folder / "records" / "records").glob("cost-*.json"))
    old.write_text(old.read_text().replace('"schema_version": 1', '"schema_version": 0'))
    with pytest.warns(UserWarning, match="1 records of an older schema version"):
        assert len(harness.load(folder)) == 2
    assert old.is_file()


def test_a_record_shows_its_figures_in_a_notebook_and_hides_no_field(folder):
    shown = {r.kind: r._repr_html_() for r in Store(folder / "records").records()}
    assert (
        "accuracy of hrnet_w32" in shown["accuracy"] and ">ap_low<" in shown["accuracy"] and "0.75" in shown["accuracy"]
    )
    assert "latency_ms" in shown["latency"] and "what determines it" in shown["latency"]
    ElementTree.fromstring(shown["accuracy"])


def test_a_hostile_name_in_a_notebook_is_text():
    name = "<script>alert('x')</script>&\""
    record = Record.make("cost", {"variant": name, name: name}, {name: name, "gmacs": 1.0})
    shown = record._repr_html_()
    assert "<script" not in shown and "&lt;script&gt;" in shown
    ElementTree.fromstring(shown)


def test_a_record_with_thousands_of_samples_stays_small_in_a_notebook():
    samples = [{"round": i, "wall_ms": 1.5} for i in range(5000)]
    assert len(Record.make("latency", {"variant": "x"}, {"samples": samples})._repr_html_()) < 5000
