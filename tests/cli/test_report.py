"""The verb `report`: which run it takes, what it prints, how it refuses."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.cli.report import find_manifest
from harness.errors import SuiteError, UserError
from harness.records.store import Record, Store


def manifest(store: Store, name: str, created: str) -> dict:
    record = store.put(Record.make("cost", {"variant": name}, {"gmacs": 1.5, "params": 10, "params_inference": 10}))
    cell = {"variant": name, "input_size": [256, 192]}
    row = {"label": name, "cell": cell, "records": {"cost": record.id}, "reasons": {"accuracy": "no weights"}}
    made = {"suite": {"name": name}, "created": created, "command": "x", "rows": [row]}
    store.write_run(name, made)
    return made


@pytest.fixture
def store(tmp_path: Path) -> Store:
    keep = Store(tmp_path / "records")
    manifest(keep, "older", "2026-01-01T00:00:00Z")
    manifest(keep, "newer", "2026-02-01T00:00:00Z")
    return keep


@pytest.fixture
def call(tmp_path: Path, store: Store):
    def run(*arguments: str):
        places = ["--store", str(store.folder), "--out", str(tmp_path / "out")]
        return CliRunner().invoke(app, ["report", *arguments, *places])

    return run


def test_without_a_target_the_latest_run_is_reported(call, tmp_path):
    done = call()
    assert done.exit_code == 0 and "newer" in done.stdout and "no weights" in done.stdout
    assert {p.name for p in (tmp_path / "out" / "newer").iterdir()} == {"report.md", "table.csv", "table.tex"}


@pytest.mark.parametrize("kind", ["name", "suite", "manifest"])
def test_a_run_is_found_by_suite_name_suite_file_or_manifest(store, tmp_path, kind):
    suite = tmp_path / "any.yaml"
    suite.write_text("name: older\nmethods: []\n")
    target = {"name": "older", "suite": str(suite), "manifest": str(store.folder / "runs" / "older.json")}[kind]
    assert find_manifest(store, target)["suite"]["name"] == "older"


def test_stdout_is_the_asked_format_alone(call):
    assert next(csv.DictReader(io.StringIO(call("older", "--format", "csv").stdout)))["gmacs"] == "1.5"
    assert call("older", "--format", "latex").stdout.startswith(r"\documentclass")
    assert "| older |" in call("older", "--format", "markdown").stdout
    for option in (["--json"], ["--format", "json"]):
        found = json.loads(call("older", *option).stdout)
        assert found["table"]["rows"][0]["gmacs"] == {"value": 1.5}
        assert [Path(f).name for f in found["files"]] == ["report.md", "table.csv", "table.tex"]


def test_an_unknown_suite_names_the_near_one(store):
    with pytest.raises(UserError) as caught:
        find_manifest(store, "oldr")
    assert "older" in caught.value.hint


def test_an_empty_store_says_what_to_run(tmp_path):
    for target in (None, "any"):
        with pytest.raises(UserError) as caught:
            find_manifest(Store(tmp_path / "none"), target)
        assert "paretopose run" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["[]", "{", "{}", '{"suite": {"name": "../../x"}, "rows": []}', '{"suite": {"name": 3}, "rows": []}']
)
def test_a_file_that_is_no_manifest_is_refused(store, tmp_path, text):
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"m\.json"):
        find_manifest(store, str(path))


@pytest.mark.parametrize("text", ["- 1", "a: [", "title: x", "name: !!python/object/apply:os.system ['true']"])
def test_a_file_that_is_no_suite_is_refused(store, tmp_path, text):
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"s\.yaml:(1:)? (no suite file|not YAML|a suite is a mapping|a value of type)"):
        find_manifest(store, str(path))


@pytest.mark.parametrize("name", ["../newer", "runs/newer", "", "."])
def test_a_name_never_leaves_the_folder_of_runs(store, name):
    with pytest.raises(UserError):
        find_manifest(store, name)


def test_a_report_onto_a_file_is_refused_with_the_place(store, tmp_path):
    place = tmp_path / "taken"
    place.write_text("mine")
    done = CliRunner().invoke(app, ["report", "older", "--store", str(store.folder), "--out", str(place)])
    assert isinstance(done.exception, UserError) and "--out" in done.exception.hint
    assert str(place) in str(done.exception) and place.read_text() == "mine"


@pytest.mark.parametrize(("version", "way_out"), [(0, "run the suite again"), (99, "update paretopose")])
def test_a_run_of_another_schema_version_is_refused_with_the_way_out(call, store, version, way_out):
    file = store.folder / "runs" / "older.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "schema_version": version}))
    error = call("older").exception
    assert isinstance(error, UserError) and f"schema version {version}" in str(error) and error.hint == way_out


def test_a_half_written_record_is_a_reason_and_not_an_end(call, store):
    (record,) = [file for file in (store.folder / "records").iterdir() if "older" in file.read_text()]
    record.write_text(record.read_text()[:-40])
    done = call("older", "--format", "markdown")
    assert done.exit_code == 0 and "the store has no record" in done.stdout


def test_what_a_suite_file_says_of_its_report_is_taken_as_it_is_now(store, tmp_path):
    suite = tmp_path / "any.yaml"
    suite.write_text("name: older\nreport: {title: Another}\nmethods: []\n")
    assert find_manifest(store, str(suite))["suite"]["report"]["title"] == "Another"
    suite.write_text("name: older\nreport: {titel: Another}\nmethods: []\n")
    with pytest.raises(SuiteError, match="titel"):
        find_manifest(store, str(suite))
