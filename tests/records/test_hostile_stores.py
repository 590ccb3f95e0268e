"""Stores that somebody else filled: no record leads out of ours, and what is no record is told by name."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from harness.errors import UserError
from harness.provenance import content_id
from harness.records.frame import load
from harness.records.merge import merge
from harness.records.store import Record, Store, record_id

KEY = {"variant": "x", "input_size": [64, 48]}


def _signed(store: Store, kind: str, key: dict, result: dict) -> Record:
    """A record with every digest right, as somebody who means harm would make it."""
    return Record(id=record_id(kind, key), kind=kind, key=key, result=result, info={}, digest=content_id(result))


def test_a_kind_that_is_a_path_writes_nothing_outside_our_store(tmp_path):
    theirs = Store(tmp_path / "theirs" / "deep")
    record = _signed(theirs, "../../planted", KEY, {"macs": 1})
    for place in (theirs.folder / "records" / "x.json", theirs.folder.parent / f"planted-{record.id}.json"):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(record.model_dump_json())
    ours = Store(tmp_path / "ours" / "deep")
    done = merge(ours, Store(theirs.folder, read_only=True))
    assert done.damaged == ["x.json"] and not done.records
    assert not list((tmp_path / "ours").rglob("*planted*"))


def test_a_record_counts_under_its_own_name_only(tmp_path):
    store = Store(tmp_path)
    path = store._path("cost", store.put(Record.make("cost", KEY, {"macs": 7})).id)
    path.rename(path.with_name("cost-0123456789abcdef.json"))
    assert not list(store.records()) and store.quarantined == ["cost-0123456789abcdef.json"]


@pytest.mark.parametrize("identity", ["../../../elsewhere", "", "x" * 16, "0123456789ABCDEF", "0123456789abcdef/"])
def test_an_id_that_is_a_path_is_none(tmp_path, identity):
    (tmp_path / "elsewhere.json").write_text("{}")
    assert Store(tmp_path / "a" / "b").by_id("cost", identity) is None
    assert (tmp_path / "elsewhere.json").is_file()


def test_a_link_in_the_other_store_is_refused_by_name(tmp_path):
    theirs, secret = Store(tmp_path / "theirs"), tmp_path / "secret"
    theirs.put(Record.make("cost", KEY, {"macs": 7}))
    secret.write_text("private")
    (theirs.folder / "trained" / "one").mkdir(parents=True)
    (theirs.folder / "trained" / "one" / "w.safetensors").symlink_to(secret)
    with pytest.raises(UserError, match=r"w\.safetensors: the other store holds a link"):
        merge(Store(tmp_path / "ours"), Store(theirs.folder, read_only=True))
    assert "private" not in "".join(p.read_text() for p in (tmp_path / "ours").rglob("*") if p.is_file())


def test_a_pipe_among_the_records_is_not_waited_for(tmp_path):
    (tmp_path / "records").mkdir()
    os.mkfifo(tmp_path / "records" / "cost-0123456789abcdef.json")
    assert not list(Store(tmp_path).records())


def test_a_signed_record_of_another_shape_is_told_by_name(tmp_path):
    store = Store(tmp_path)
    record = store.put(_signed(store, "accuracy", KEY, {"stats": {"AP": {"value": 0.5, "interval": {"bca": "ab c"}}}}))
    with pytest.raises(UserError, match=rf"accuracy-{record.id}: the record does not hold what its kind holds"):
        load(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"schema_version": 1, "schema_version": 1}', '{"schema_version": NaN}']
)
def test_a_json_bomb_among_the_records_is_set_aside(tmp_path, text):
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "cost-0123456789abcdef.json").write_text(text)
    store = Store(tmp_path)
    assert not list(store.records()) and store.quarantined


def test_the_blocks_of_a_pass_are_its_own(tmp_path):
    from harness.passes.replay import load_pass

    np.savez(tmp_path / "elsewhere.npz", index=np.arange(3))
    (tmp_path / "pass").mkdir()
    (tmp_path / "pass" / "complete.json").write_text(json.dumps({"blocks": ["../elsewhere.npz"]}))
    assert load_pass(tmp_path / "pass") is None
