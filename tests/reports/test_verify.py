"""`report --verify`: every derived number once more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.provenance import content_id
from harness.records.store import Record, Store
from harness.run.recompute import recompute


def call(two_exits: Path, *arguments: str):
    places = ["--store", str(two_exits / "records"), "--out", str(two_exits / "out")]
    return CliRunner().invoke(app, ["report", "two", *arguments, *places])


def alter(two_exits: Path, kind: str, change, *, seal: bool = True) -> str:
    """Change the result of a record; with `seal` its digest is made to fit, as a forger would."""
    path = next((two_exits / "records" / "records").glob(f"{kind}-*.json"))
    content = json.loads(path.read_text())
    change(content["result"])
    if seal:
        content["digest"] = content_id(content["result"])
    path.write_text(json.dumps(content))
    return path.stem


def test_an_untouched_report_matches(two_exits):
    assert call(two_exits, "--no-figures").exit_code == 0
    done = call(two_exits, "--verify")
    assert done.exit_code == 0, done.output
    assert "all match" in done.stdout and "no report in" not in done.stdout


def _set(path: str, value):
    *names, last = path.split(".")

    def change(result):
        for name in names:
            result = result[name]
        result[last] = value(result[last])

    return change


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        ("accuracy", "stats.AP.value"),
        ("accuracy", "stats.AR.value"),
        ("accuracy", "stats.AP.interval.sd"),
        ("accuracy", "cost.gmacs_per_forward.mean"),
        ("accuracy", "cost.gmacs_per_image.sd"),
        ("accuracy", "refined_share"),
        ("cost", "gmacs"),
        ("cost", "gflops"),
    ],
)
def test_an_altered_number_of_a_record_is_named(two_exits, kind, field):
    name = alter(two_exits, kind, _set(field, lambda v: v + 0.001))
    done = call(two_exits, "--verify")
    assert done.exit_code == 1
    shown = [line for line in done.stdout.splitlines() if name in line]
    assert shown and any(field.split(".")[0] in line for line in shown)


def test_a_record_whose_digest_does_not_fit_is_a_mismatch(two_exits):
    name = alter(two_exits, "accuracy", _set("stats.AP.value", lambda v: v + 0.1), seal=False)
    done = call(two_exits, "--verify")
    assert done.exit_code == 1 and "damaged or not in the store" in done.stdout and name in done.stderr


@pytest.mark.parametrize("file", ["table.csv", "report.md", "table.tex"])
def test_an_altered_number_of_a_written_file_is_named(two_exits, file):
    call(two_exits, "--no-figures")
    path = two_exits / "out" / "two" / file
    text = path.read_text()
    path.write_text(text.replace("6.0", "5.0", 1))
    assert path.read_text() != text
    done = call(two_exits, "--verify")
    assert done.exit_code == 1 and file in done.stdout


def test_a_mismatch_in_a_table_names_row_and_column(two_exits):
    call(two_exits, "--no-figures")
    path = two_exits / "out" / "two" / "table.csv"
    head, row = path.read_text().splitlines()
    entries = row.split(",")
    entries[head.split(",").index("gflops")] = "5.5"
    path.write_text("\n".join([head, ",".join(entries)]) + "\n")
    found = [c for c in json.loads(call(two_exits, "--verify", "--json").stdout)["checks"] if c["verdict"] == "differs"]
    assert [(c["record"], c["field"], c["written"], c["recomputed"]) for c in found] == [
        ("table.csv, two_exits", "gflops", "5.5", "6.0")
    ]


def test_matches_that_are_gone_are_told_and_no_mismatch(two_exits):
    for path in (two_exits / "records" / "arrays").iterdir():
        path.unlink()
    done = call(two_exits, "--verify")
    assert done.exit_code == 0 and "not verified in 1 record: stats: its matches are not stored" in done.stdout


def latency(wall: list[float], **more) -> dict:
    samples = [{"round": i, "wall_ms": w, "cpu_ms": w, "starved": w > 50} for i, w in enumerate(wall)]
    return {"samples": samples, "passing": {"before": [1], "after": [2]}, "ratio": None, **more}


def test_latency_is_recomputed_from_its_samples_by_hand():
    """Six samples, one starved: the median of 1..5 is 3, the whole range its 95 % interval's best (n too small)."""
    store = Store(Path("nowhere"))
    one = latency([1.0, 2.0, 3.0, 4.0, 5.0, 60.0], median_ms=3.0, rejected=1, cpu_ratio=1.0)
    two = latency([2.0, 4.0, 6.0, 8.0, 10.0, 70.0], median_ms=6.5, ratio={"value": 2.0})
    first, second = Record.make("latency", {"n": 1}, one), Record.make("latency", {"n": 2}, two)
    found = {c.field: c for c in recompute(first, store, [first, second])}
    assert found["median"].recomputed["value"] == 3.0 and found["median_ms"].verdict == "matches"
    assert found["rejected"].verdict == "matches" and found["median"].verdict == "differs"
    other = {c.field: c for c in recompute(second, store, [first, second])}
    assert other["median_ms"].verdict == "differs" and other["median_ms"].recomputed == 6.0
    assert other["ratio"].recomputed["value"] == pytest.approx(2.0)
    assert {c.field: c for c in recompute(second, store)}["ratio"].verdict == "not stored"


def test_persons_of_a_call_divide_its_time():
    result = latency([10.0, 12.0, 14.0], persons_per_call=[1, 2, 7], ms_per_person={"value": 6.0})
    found = {c.field: c for c in recompute(Record.make("latency", {}, result), Store(Path("nowhere")))}
    assert found["ms_per_person"].recomputed["value"] == pytest.approx(np.median([10, 6, 2]))


def test_a_cost_is_recomputed_under_every_convention():
    conventions = {"fvcore": {"count": 2 * 10**9, "giga": 2.0}, "hrnet-readme": {"count": 2**30, "giga": 1.0}}
    ledger = {"operators": [{"macs": 3}, {"macs": 10**9 - 3}]}
    cost = {"macs": 10**9, "gmacs": 1.0, "gflops": 2.0, "closed_form": 10**9, "conventions": conventions}
    cost["ledger"] = ledger
    record = Record.make("cost", {}, cost)
    assert [c.verdict for c in recompute(record, Store(Path("nowhere")))] == ["matches"] * 6
    wrong = Record.make("cost", {}, {**cost, "closed_form": 10**9 + 1})
    assert {c.field for c in recompute(wrong, Store(Path("nowhere"))) if c.verdict == "differs"} == {"closed_form"}
