"""The verb `explain`: from a record or an entry of a table to all that it came from."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UserError
from harness.records.store import Record, Store

NETWORK = {"variant": "net_<b>", "input_size": [256, 192], "build": {}, "settings": {}}


@pytest.fixture
def store(tmp_path) -> Store:
    keep = Store(tmp_path / "records")
    key = {
        **NETWORK, "weights": "a" * 64, "code": "c0de", "score_code": "5c0e",
        "protocol": {"flip": True, "codec": "udp"},
        "data": {"name": "people", "dataset": "d" * 64, "boxes": "boxes.json", "boxes_digest": "b0b0"},
    }  # fmt: skip
    result = {
        "stats": {"AP": {"value": 0.75, "interval": {"bca": [0.7, 0.8]}}},
        "box_source": "boxes.json",
        "images": 9,
    }
    scored = keep.put(Record.make("accuracy", key, result))
    median = {"value": 5.0, "low": 4.0, "high": 6.0}
    timed = {"median": median, "machine": {"cpu": "A CPU"}, "samples": [{"round": 0}] * 30, "execution": {"batch": 1}}
    latency = keep.put(Record.make("latency", {**NETWORK, "machine": "m1"}, timed))
    cell = {"variant": "net_<b>", "input_size": [256, 192]}
    records = {"accuracy": scored.id, "latency_b1": latency.id}
    row = {"label": "net_<b> a", "cell": cell, "records": records, "reasons": {"cost": "no data"}}
    keep.write_run("demo", {"suite": {"name": "demo"}, "created": "2026", "command": "x", "rows": [row]})
    return keep


def explain(store: Store, *arguments: str) -> str:
    done = CliRunner().invoke(app, ["explain", *arguments, "--store", str(store.folder)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def accuracy_id(store: Store) -> str:
    return next(r.id for r in store.records() if r.kind == "accuracy")


def test_a_record_is_told_down_to_code_weights_data_boxes_protocol_and_command(store):
    identity = accuracy_id(store)
    for name in (identity, identity[:6], f"accuracy-{identity}"):
        origin = json.loads(explain(store, name, "--json"))["origin"]
        assert origin["weights"] == {"weights": "a" * 64}
        assert origin["code"]["score_code"] == "5c0e" and "revision" in origin["code"]
        assert origin["data"]["data.dataset"] == "d" * 64 and origin["boxes"]["data.boxes"] == "boxes.json"
        assert origin["protocol"] == {"protocol.flip": "yes", "protocol.codec": "udp"}
        assert "command" in origin["command"] and "numpy" in str(origin["versions"])


def test_an_entry_of_a_table_leads_to_its_record_and_field(store):
    found = json.loads(explain(store, "net_<b> a", "ap", "--json"))
    assert (found["entry"], found["field"], found["value"]) == ("75.0 [70.0, 80.0]", "stats.AP.value", 0.75)
    assert found["record"] == f"accuracy-{accuracy_id(store)}" and "bootstrap" in found["how"]
    timed = json.loads(explain(store, "net_<b>", "latency_b1_ms", "--json"))
    assert timed["value"] == 5.0 and timed["origin"]["machine"]["machine.cpu"] == "A CPU"


def test_an_ap_says_whether_what_it_was_computed_from_is_stored_here(store):
    identity = accuracy_id(store)
    for target in ([identity], ["net_<b> a", "ap"]):
        assert "matches: not stored here" in explain(store, *target)
    store.put(store.by_id("accuracy", identity), {"scores": np.zeros(1)})
    assert "matches: stored: " in explain(store, identity)
    assert "matches" not in json.loads(explain(store, "net_<b>", "latency_b1_ms", "--json"))


def test_people_read_every_section_and_what_has_none(store):
    shown = explain(store, "net_<b> a", "latency_b1_ms")
    assert "field median.value: 5.0" in shown and "weights\n  not part of this measurement" in shown
    assert "30 entries, in the record" not in shown  # figures are left out where one field was asked for
    assert "samples: 30 entries, in the record" in explain(
        store, next(r.id for r in store.records() if r.kind == "latency")
    )


def test_a_row_alone_lists_what_its_entries_are_made_of(store):
    shown = explain(store, "net_<b> a")
    assert "75.0 [70.0, 80.0]" in shown and f"accuracy-{accuracy_id(store)}, stats.AP.value" in shown
    lines = shown.splitlines()[1:]
    assert len({line.find(" accuracy-") for line in lines if " accuracy-" in line}) == 1 and "–" not in shown


def test_one_field_of_a_record_is_shown_with_its_origin(store):
    found = json.loads(explain(store, accuracy_id(store), "--field", "stats.AP.interval.bca", "--json"))
    assert found["value"] == [0.7, 0.8]
    assert json.loads(explain(store, accuracy_id(store), "--field", "key.protocol.codec", "--json"))["value"] == "udp"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["net_<b> b"], "net_<b> a"),
        (["net_<b> a", "app"], "ap"),
        (["0123456789abcdef"], "known: net_<b> a"),
        (["net_<b> a", "ap", "--field", "stats.AQ"], "AP"),
        (["net_<b> a", "ap", "--run", "dema"], "demo"),
        (["../../etc/passwd"], "known"),
    ],
)
def test_an_unknown_name_gets_the_near_ones(store, arguments, words):
    with pytest.raises(UserError) as caught:
        explain(store, *arguments)
    assert words in caught.value.hint


def test_an_altered_record_is_said_to_be_damaged(store):
    path = next((store.folder / "records").glob("accuracy-*.json"))
    path.write_text(path.read_text().replace("0.75", "0.85"))
    with pytest.raises(UserError, match="set aside"):
        explain(store, path.stem)
