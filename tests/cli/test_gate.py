"""`paretopose gate` on stores with made-up records, and once on a real run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.accuracy.match import THRESHOLDS, Matches
from harness.cli.main import app
from harness.errors import DataError, MeasurementError, UserError
from harness.method import PoseProtocol
from harness.records.store import Record, Store


def _matches(lost: float) -> Matches:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(100), 2)
    oks = np.where(rng.random(200) < lost, 0.0, np.linspace(1, 0.4, 200))
    status = np.repeat((oks[:, None] >= THRESHOLDS).astype(np.uint8)[:, None], 3, axis=1)
    positives = np.tile([[2, 0, 2]], (100, 1))
    return Matches("coco", ("all", "medium", "large"), np.arange(100), image, -np.arange(200.0), status, positives)


def _latency(store: Store, label: str, ms: float, reference: float | None) -> str:
    samples = [{"round": i, "wall_ms": ms, "cpu_ms": ms, "starved": False} for i in range(40)]
    result = {
        "median": {"value": ms},
        "ratio": None if reference is None else {"value": ms / reference},
        "samples": samples,
        "settings": {"threads": 1},
        "reference": "ref",
        "machine": {"cpu": "A CPU"},
    }
    key = {"variant": label, "execution": {"batch": 1, "device": "cpu", "scope": "network"}}
    return store.put(Record.make("latency", key, result)).id


def _row(store: Store, label: str, ms: float, reference: float | None, lost: float, macs: int, data: str) -> dict:
    protocol = PoseProtocol().model_dump(mode="json")
    accuracy = Record.make(
        "accuracy",
        {"variant": label, "data": {"name": data}, "protocol": protocol, "input_size": [128, 96]},
        {"evaluator": "coco", "stats": {"AP": {"value": 0.5}}},
    )
    cost = store.put(Record.make("cost", {"variant": label}, {"macs": macs, "params_inference": 5}))
    records = {
        "accuracy": store.put(accuracy, _matches(lost).to_arrays()).id,
        "cost": cost.id,
        "latency_b1": _latency(store, label, ms, reference),
    }
    return {"label": label, "cell": {"variant": label, "seed": 0}, "records": records, "reasons": {}}


def _run(
    folder: Path, *, ms: float = 3.0, lost: float = 0.0, macs: int = 100, data: str = "set", labels=("ref", "net")
) -> Path:
    """A store with a run of suite `s`: a reference at 2 ms and one network."""
    store = Store(folder)
    rows = []
    for i, label in enumerate(labels):
        rows.append(_row(store, label, ms if i else 2.0, 2.0 if i else None, lost if i else 0.0, macs, data))
    store.write_run("s", {"schema_version": 1, "suite": {"name": "s"}, "created": "now", "rows": rows})
    return folder


def gate(*arguments: object):
    return CliRunner().invoke(app, ["gate", *map(str, arguments)])


@pytest.fixture
def baseline(tmp_path) -> Path:
    path = tmp_path / "b.json"
    assert gate(path, "s", "--store", _run(tmp_path / "first")).exit_code == 0
    return path


def test_without_a_baseline_the_candidate_is_recorded_and_not_judged(tmp_path):
    path = tmp_path / "b.json"
    done = gate(path, "s", "--store", _run(tmp_path / "store"), "--json")
    assert done.exit_code == 0 and path.is_file()
    assert json.loads(done.stdout)["overall"] == "recorded"
    again = tmp_path / "c.json"
    assert gate(again, "s", "--store", tmp_path / "store", "--strict").exit_code == 4


@pytest.mark.parametrize(
    ("change", "code", "metric"),
    [({}, 0, ""), ({"lost": 0.3}, 1, "ap"), ({"macs": 101}, 1, "cost"), ({"ms": 3.6}, 1, "latency_b1")],
)
def test_each_metric_has_its_verdict_and_the_exit_code_follows(tmp_path, baseline, change, code, metric):
    done = gate(baseline, "s", "--store", _run(tmp_path / "second", **change), "--json")
    assert done.exit_code == code, done.output
    answer = json.loads(done.stdout)
    assert answer["exit_code"] == code
    failed = {v["metric"] for v in answer["verdicts"] if v["verdict"] == "regression"}
    assert failed == ({metric} if metric else set())


def test_the_summary_and_the_junit_file_are_written(tmp_path, baseline):
    summary, junit = tmp_path / "s.md", tmp_path / "j" / "gate.xml"
    summary.write_text("before\n")
    done = gate(baseline, "s", "--store", _run(tmp_path / "n", lost=0.3), "--summary", summary, "--junit", junit)
    assert done.exit_code == 1
    assert summary.read_text().startswith("before\n") and "❌ regression" in summary.read_text()
    assert 'failures="1"' in junit.read_text()


def test_other_data_is_refused_with_the_field(tmp_path, baseline):
    done = gate(baseline, "s", "--store", _run(tmp_path / "other", data="another"))
    assert isinstance(done.exception, DataError) and "data.name: set -> another" in str(done.exception)


def test_a_lost_configuration_is_exit_2(tmp_path, baseline):
    assert gate(baseline, "s", "--store", _run(tmp_path / "less", labels=("ref",))).exit_code == 2


def test_bad_input_says_what_is_wrong(tmp_path, baseline):
    store = tmp_path / "first"
    for content, text in (
        ("{", "JSON"),
        ("[]", "no baseline file"),
        ('{"kind": "x", "schema_version": 9}', "version 9"),
    ):
        (tmp_path / "bad.json").write_text(content)
        found = gate(tmp_path / "bad.json", "s", "--store", store).exception
        assert isinstance(found, UserError) and text in str(found)
    assert isinstance(gate(baseline, "t", "--store", store).exception, UserError)
    assert "--confirm" in str(gate(baseline, baseline, "--confirm", "--store", store).exception)
    empty = Store(tmp_path / "empty")
    empty.write_run("s", {"schema_version": 1, "suite": {"name": "s"}, "rows": []})
    assert isinstance(gate(tmp_path / "new.json", "s", "--store", empty.folder).exception, MeasurementError)


def test_a_time_whose_reference_was_measured_anew_is_not_paired_with_it(tmp_path, baseline):
    folder = _run(tmp_path / "mixed")
    _latency(Store(folder), "ref", 2.4, None)
    done = gate(baseline, "s", "--store", folder, "--json")
    assert done.exit_code == 2
    assert "other rounds" in json.loads(done.stdout)["verdicts"][-1]["note"]


def test_two_runs_can_be_compared_without_a_baseline_file(tmp_path):
    first = _run(tmp_path / "store") / "runs" / "s.json"
    assert gate(first, "s", "--store", tmp_path / "store").exit_code == 0


def test_judging_needs_no_torch(tmp_path, baseline):
    code = (
        "import sys\nfrom harness.cli.main import app\n"
        f"try:\n    app(['gate', {str(baseline)!r}, 's', '--store', {str(tmp_path / 'first')!r}])\n"
        "except SystemExit as end:\n    assert end.code == 0\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SUITE = """name: mini
data: {name: synthetic, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {accuracy: false, cost: true, latency: false}
methods: [{variant: simplebaseline_tiny}, {variant: hrnet_tiny}]
"""


def test_a_real_regression_is_confirmed_and_a_false_one_is_cleared(tmp_path):
    """A baseline that was cheaper stays a regression; a record that is wrong does not survive a second count."""
    (tmp_path / "mini.yaml").write_text(SUITE)
    store = tmp_path / "store"
    arguments = ["run", str(tmp_path / "mini.yaml"), "--store", str(store), "--report", str(tmp_path / "report")]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    path = tmp_path / "b.json"
    assert gate(path, "mini", "--store", store).exit_code == 0
    content = json.loads(path.read_text())
    content["rows"][0]["cost"]["macs"] -= 1
    path.write_text(json.dumps(content))
    done = gate(path, "mini", "--store", store, "--confirm", "--json")
    assert done.exit_code == 1
    verdicts = {(v["label"], v["metric"]): v for v in json.loads(done.stdout)["verdicts"]}
    assert "confirmed" in verdicts["simplebaseline_tiny", "cost"]["note"]

    content["rows"][0]["cost"]["macs"] += 1
    path.write_text(json.dumps(content))
    record = next((store / "records").glob("cost-*.json"))
    found = json.loads(record.read_text())
    Store(store).put(Record.make("cost", found["key"], {**found["result"], "macs": found["result"]["macs"] + 1}))
    done = gate(path, "mini", "--store", store, "--confirm", "--json")
    answer = json.loads(done.stdout)
    cleared = [v for v in answer["verdicts"] if "a second one did not" in v["note"]]
    assert done.exit_code == 0 and [(v["metric"], v["verdict"]) for v in cleared] == [("cost", "pass")]
