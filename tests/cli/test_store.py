"""The verbs `store merge` and `store gc`."""

from __future__ import annotations

import json
import os
import threading
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UserError
from harness.records.gc import find_rubbish
from harness.records.merge import merge
from harness.records.store import Record, Store, load_arrays


def record(n: int, macs: int = 1) -> Record:
    return Record.make("cost", {"n": n}, {"macs": macs})


@pytest.fixture
def ours(tmp_path) -> Store:
    store = Store(tmp_path / "ours" / "records")
    store.put(record(1))
    store.put(record(2, macs=2))
    return store


@pytest.fixture
def theirs(tmp_path) -> Store:
    store = Store(tmp_path / "theirs" / "records")
    store.put(record(1), {"x": np.arange(3)})
    store.put(record(2, macs=99), {"x": np.arange(4)})
    store.put(record(3), {"x": np.arange(5)})
    store.write_run("demo", {"suite": {"name": "demo"}, "rows": []})
    for name, seal in (("passes/p1", "complete.json"), ("passes/half", "other"), ("trained/t1", "w.safetensors")):
        (store.folder / name).mkdir(parents=True)
        (store.folder / name / seal).write_bytes(b"sealed")
        (store.folder / name / "block.npz").write_bytes(b"block")
    return store


def call(*arguments: str):
    done = CliRunner().invoke(app, ["store", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def files(store: Store) -> dict[str, bytes]:
    return {str(p.relative_to(store.folder)): p.read_bytes() for p in store.folder.rglob("*") if p.is_file()}


def test_a_merge_brings_records_arrays_runs_passes_and_trainings(ours, theirs):
    there = files(theirs)
    done = json.loads(call("merge", str(theirs.folder.parent), "--store", str(ours.folder), "--json").stdout)
    assert [ours.by_id("cost", record(n).id) is not None for n in (1, 2, 3)] == [True, True, True]
    assert done["records"] == [f"cost-{record(3).id}"] and done["same"] == 1
    assert np.array_equal(ours.arrays(record(1).id)["x"], np.arange(3))  # ours had the record without arrays
    assert np.array_equal(ours.arrays(record(3).id)["x"], np.arange(5))
    assert done["runs"] == ["demo"] and done["folders"] == ["passes/p1", "trained/t1"]
    assert (ours.folder / "passes/p1/block.npz").is_file() and not (ours.folder / "passes/half").exists()
    assert files(theirs) == there


def test_a_conflict_keeps_ours_and_loses_nothing_of_theirs(ours, theirs):
    shown = call("merge", str(theirs.folder), "--store", str(ours.folder)).stdout
    conflict = record(2, macs=99)
    assert ours.by_id("cost", conflict.id).result == {"macs": 2}
    kept = ours.folder / "conflicts" / f"cost-{conflict.id}.{conflict.digest}"
    assert Record.model_validate_json(kept.with_suffix(f".{conflict.digest}.json").read_bytes()).result == {"macs": 99}
    assert np.array_equal(load_arrays(kept.with_suffix(f".{conflict.digest}.npz"))["x"], np.arange(4))
    assert f"conflict cost-{conflict.id}: macs" in shown and ours.arrays(conflict.id) is None


def test_a_second_merge_changes_nothing(ours, theirs):
    call("merge", str(theirs.folder), "--store", str(ours.folder))
    before = files(ours)
    done = json.loads(call("merge", str(theirs.folder), "--store", str(ours.folder), "--json").stdout)
    assert files(ours) == before and not done["records"] and not done["runs"] and done["same"] == 2


def test_a_dry_run_tells_the_same_and_writes_nothing(ours, theirs):
    before = files(ours)
    planned = merge(ours, Store(theirs.folder, read_only=True), dry_run=True)
    assert files(ours) == before
    assert merge(ours, Store(theirs.folder, read_only=True)).to_json() == planned.to_json()


def test_another_run_of_the_same_suite_comes_under_its_own_name(ours, theirs):
    ours.write_run("demo", {"suite": {"name": "demo"}, "rows": [], "created": "here"})
    done = merge(ours, Store(theirs.folder, read_only=True))
    assert len(done.runs) == 1 and done.runs[0].startswith("demo.")
    assert "here" in (ours.folder / "runs" / "demo.json").read_text()
    assert (ours.folder / "runs" / f"{done.runs[0]}.json").read_bytes() == (
        theirs.folder / "runs/demo.json"
    ).read_bytes()


def test_damaged_and_outdated_records_of_the_other_store_stay_there(ours, theirs):
    broken = theirs.folder / "records" / f"cost-{record(3).id}.json"
    broken.write_text(broken.read_text()[:50])
    old = theirs.put(record(4))
    path = theirs.folder / "records" / f"cost-{old.id}.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 0'))
    shown = call("merge", str(theirs.folder), "--store", str(ours.folder)).stdout
    assert broken.name in shown and "1 records of an older schema version" in shown
    assert broken.is_file() and path.is_file() and not (theirs.folder / "quarantine").exists()
    assert ours.by_id("cost", record(3).id) is None


def test_a_newer_record_stops_a_merge_before_anything_is_written(ours, theirs):
    path = theirs.folder / "records" / f"cost-{record(3).id}.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    before = files(ours)
    with pytest.raises(UserError, match="schema version 99"):
        call("merge", str(theirs.folder), "--store", str(ours.folder))
    assert files(ours) == before


def test_a_store_is_not_merged_with_itself_or_with_what_is_none(ours, tmp_path):
    with pytest.raises(UserError, match="with itself"):
        call("merge", str(ours.folder), "--store", str(ours.folder))
    with pytest.raises(UserError, match="no records"):
        call("merge", str(tmp_path / "nothing"), "--store", str(ours.folder))


@pytest.fixture
def littered(theirs) -> Store:
    """A store with everything that may go, two hours old."""
    (theirs.folder / "arrays" / "feedfeedfeedfeed.npz").write_bytes(b"x" * 1000)
    (theirs.folder / "records" / ".cost-1.json.abc.tmp").write_bytes(b"x" * 100)
    (theirs.folder / "quarantine").mkdir()
    (theirs.folder / "quarantine" / "cost-1.json").write_bytes(b"x" * 10)
    for path in theirs.folder.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    return theirs


def test_gc_lists_and_deletes_only_when_told(littered):
    before, records = files(littered), [r.id for r in littered.records()]
    shown = call("gc", "--store", str(littered.folder))
    assert files(littered) == before and "--delete" in shown.stderr
    for why in ("arrays without a record", "killed write", "damaged file"):
        assert why in shown.stdout
    found = json.loads(call("gc", "--store", str(littered.folder), "--delete", "--json").stdout)
    assert found["freed"] == 1110 and [r.id for r in littered.records()] == records
    assert all(littered.arrays(i) is not None for i in records) and (littered.folder / "passes/p1").is_dir()


def test_gc_of_passes_is_asked_for_and_keeps_every_record(littered):
    call("gc", "--store", str(littered.folder), "--passes", "--delete")
    assert not list((littered.folder / "passes").iterdir()) and len(list(littered.records())) == 3
    assert (littered.folder / "trained" / "t1" / "w.safetensors").is_file()


def test_gc_leaves_alone_what_may_be_in_the_making(littered):
    young = littered.folder / "arrays" / "beefbeefbeefbeef.npz"
    young.write_bytes(b"x")
    assert young not in [item.path for item in find_rubbish(littered, passes=True)]


def test_two_processes_may_ask_for_a_writable_folder_at_once(tmp_path):
    store, failures = Store(tmp_path), []

    def ask():
        try:
            for _ in range(100):
                store.check_writable(need_mb=0)
        except UserError as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and not list(tmp_path.iterdir())
