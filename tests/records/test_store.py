"""The store: atomic, content-addressed, suspicious of damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from harness.errors import UserError
from harness.records.store import Record, Store, load_arrays, save_arrays

KEY = {"variant": "x", "input_size": [256, 192]}


def test_a_record_comes_back_by_its_key_and_not_by_another(tmp_path):
    store = Store(tmp_path)
    store.put(Record.make("cost", KEY, {"macs": 7}))
    assert store.get("cost", KEY).result == {"macs": 7}
    assert store.get("cost", {**KEY, "variant": "y"}) is None
    assert store.get("latency", KEY) is None


def test_the_id_depends_on_the_key_alone(tmp_path):
    first, second = Record.make("cost", KEY, {"macs": 7}), Record.make("cost", dict(reversed(KEY.items())), {"macs": 8})
    assert first.id == second.id


@pytest.mark.parametrize("damage", [b"", b'{"half":', b"\x00\x01", b"{}"])
def test_a_damaged_record_is_set_aside_and_reported(tmp_path, damage):
    store = Store(tmp_path)
    record = store.put(Record.make("cost", KEY, {"macs": 7}))
    path = tmp_path / "records" / f"cost-{record.id}.json"
    path.write_bytes(damage)
    assert store.get("cost", KEY) is None
    assert store.quarantined == [path.name] and (tmp_path / "quarantine" / path.name).exists() and not path.exists()


def test_a_changed_figure_in_a_record_is_noticed(tmp_path):
    store = Store(tmp_path)
    record = store.put(Record.make("cost", KEY, {"macs": 7}))
    path = tmp_path / "records" / f"cost-{record.id}.json"
    content = json.loads(path.read_text())
    content["result"]["macs"] = 8
    path.write_text(json.dumps(content))
    assert store.get("cost", KEY) is None and store.quarantined


def test_a_record_of_a_newer_schema_is_refused_with_the_way_out(tmp_path):
    store = Store(tmp_path)
    record = store.put(Record.make("cost", KEY, {"macs": 7}))
    path = tmp_path / "records" / f"cost-{record.id}.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UserError, match="schema version 99"):
        store.get("cost", KEY)


def test_arrays_come_back_and_damage_reads_as_missing(tmp_path):
    path = tmp_path / "a.npz"
    save_arrays(path, {"x": np.arange(1000.0)})
    assert np.array_equal(load_arrays(path)["x"], np.arange(1000.0))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))
    assert load_arrays(path) is None
    path.write_bytes(bytes(data[:100]))
    assert load_arrays(path) is None


def test_an_archive_without_arrays_is_as_sound_as_any(tmp_path):
    store = Store(tmp_path)
    record = store.put(Record.make("accuracy", KEY, {}), {})
    assert store.arrays(record.id) == {} and store.has_sound_arrays(record.id) and not store.quarantined


def test_a_pickled_array_is_refused_by_name_and_not_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.array([os.getpid], dtype=object))
    with pytest.raises(UserError, match=r"a\.npz: x\.npy: refused: .* wants to use posix\.getpid"):
        load_arrays(path)


def test_an_unwritable_folder_is_reported_before_anything_runs(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match="cannot write records"):
        Store(blocked / "records").check_writable()


def test_a_full_disk_is_reported_before_anything_runs(tmp_path):
    with pytest.raises(UserError, match="MB are free"):
        Store(tmp_path).check_writable(need_mb=1e12)


_WRITER = """
import sys
from pathlib import Path
from harness.records.store import Record, Store
store = Store(Path(sys.argv[1]))
i = 0
while True:
    store.put(Record.make("cost", {"i": i}, {"macs": list(range(2000))}))
    i += 1
    print(i, flush=True)
"""


def test_a_kill_in_mid_write_leaves_whole_records_only(tmp_path):
    for pause in (0.01, 0.03, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": "."},
        )
        process.stdout.readline()
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.wait()
    store = Store(tmp_path)
    records = list(store.records())
    assert records and not store.quarantined
    assert all(r.result["macs"] == list(range(2000)) for r in records)


def test_a_read_only_store_leaves_damaged_records_where_they_are(tmp_path):
    record = Store(tmp_path).put(Record.make("cost", KEY, {"macs": 7}))
    path = tmp_path / "records" / f"cost-{record.id}.json"
    path.write_bytes(b"half")
    store = Store(tmp_path, read_only=True)
    assert store.get("cost", KEY) is None and store.quarantined == [path.name] and path.read_bytes() == b"half"


def test_a_record_of_an_older_schema_is_passed_over_and_counted(tmp_path):
    store = Store(tmp_path)
    record = store.put(Record.make("cost", KEY, {"macs": 7}))
    path = tmp_path / "records" / f"cost-{record.id}.json"
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 0'))
    assert store.get("cost", KEY) is None and store.outdated == [path.name] and path.is_file()
    assert "older schema version" in store.remarks()[0] and "paretopose run" in store.remarks()[0]


def test_an_array_file_of_python_objects_in_the_place_of_a_records_own_is_set_aside(tmp_path):
    store = Store(tmp_path)
    record = store.put(Record.make("accuracy", KEY, {"ap": 0.5}), {"x": np.arange(3)})
    np.savez(tmp_path / "arrays" / f"{record.id}.npz", x=np.array([{"a": 1}], dtype=object))
    assert store.arrays(record.id) is None and store.quarantined == [f"{record.id}.npz"]
