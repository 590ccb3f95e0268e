"""Records as one pandas table."""

from __future__ import annotations

from pathlib import Path

import pytest

import harness
from harness.errors import UserError
from harness.store import Record, Store


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
