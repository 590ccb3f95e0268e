"""Thresholds that nobody ran, from stored passes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.pictures.cases import cases_of
from harness.records.store import Store
from harness.run.stored import open_row
from harness.run.thresholds import replay_thresholds
from harness.suite.sources import Sources


@pytest.fixture
def opened(two_exits):
    store = Store(two_exits / "records")
    manifest = json.loads((store.folder / "runs" / "two.json").read_text())
    return store, manifest["rows"], Sources({"people": two_exits / "people"})


def test_a_replayed_threshold_equals_what_its_exits_cost(opened):
    store, rows, sources = opened
    done = replay_thresholds(rows, store, sources)
    assert done.rows and not done.reasons
    for row in done.rows:
        record = store.by_id("accuracy", row["records"]["accuracy"])
        share = record.result["refined_share"]
        assert record.result["cost"]["gmacs_per_forward"]["mean"] == pytest.approx(1.0 + 2.0 * share)
        assert record.key["select"]["quality_threshold"] == record.result["quality_threshold"]


def test_the_kept_thresholds_are_a_front_with_intervals(opened):
    store, rows, sources = opened
    records = [store.by_id("accuracy", r["records"]["accuracy"]) for r in replay_thresholds(rows, store, sources).rows]
    gmacs = [r.result["cost"]["gmacs_per_forward"]["mean"] for r in records]
    aps = [r.result["stats"]["AP"]["value"] for r in records]
    assert gmacs == sorted(gmacs) and aps == sorted(aps) and len(set(aps)) == len(aps)
    assert all(r.result["stats"]["AP"]["interval"] for r in records)


def test_the_first_exit_is_as_good_for_those_whom_it_answers_well(opened):
    store, rows, sources = opened
    done = replay_thresholds(rows, store, sources)
    full = store.by_id("accuracy", rows[0]["records"]["accuracy"])
    best = store.by_id("accuracy", done.rows[-1]["records"]["accuracy"])
    assert best.result["stats"]["AP"]["value"] == pytest.approx(full.result["stats"]["AP"]["value"], abs=0.02)
    assert best.result["cost"]["gmacs_per_forward"]["mean"] < 2.5 < 3.0


def test_a_second_replay_reads_the_records_of_the_first(opened):
    store, rows, sources = opened
    first = replay_thresholds(rows, store, sources).rows
    before = {p.name: p.stat().st_mtime_ns for p in (store.folder / "records").iterdir()}
    assert replay_thresholds(rows, store, sources).rows == first
    assert {p.name: p.stat().st_mtime_ns for p in (store.folder / "records").iterdir()} == before


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "records/passes/feed/complete.json").unlink(), "not stored here"),
        (
            lambda folder: next((folder / "people/val2017").iterdir()).write_bytes(b"other"),
            "not those that were scored",
        ),
    ],
)
def test_a_pass_that_cannot_be_replayed_says_why(two_exits, opened, damage, reason):
    store, rows, sources = opened
    damage(two_exits)
    done = replay_thresholds(rows, store, sources)
    assert not done.rows and reason in done.reasons["two_exits"]


def test_images_that_are_not_here_are_asked_for(opened):
    store, rows, _ = opened
    assert "--data people=PATH" in replay_thresholds(rows, store, Sources()).reasons["two_exits"]


def test_the_worst_cases_are_worse_than_the_best_and_small(opened):
    store, rows, sources = opened
    rows[0]["records"]["accuracy"] = replay_thresholds(rows, store, sources).rows[0]["records"]["accuracy"]
    rows[0]["cell"]["select"]["quality_threshold"] = "never"
    cases = cases_of(open_row(rows[0], store, sources))
    by_kind = {kind: [c.oks for c in cases if c.kind == kind] for kind in ("worst", "middle", "best")}
    assert max(by_kind["worst"]) < by_kind["middle"][0] <= min(by_kind["best"])
    assert all(c.jpeg.startswith(b"\xff\xd8") and len(c.jpeg) < 40_000 for c in cases)
    assert len({c.caption for c in cases}) == len(cases) == 6


def test_the_pictures_are_the_same_bytes_twice(opened):
    store, rows, sources = opened
    stored = open_row(rows[0], store, sources)
    assert cases_of(stored) == cases_of(stored)


def test_the_oks_of_a_case_is_that_of_its_pose(opened):
    """By hand: exp(-d^2 / (2 s^2 k^2)) over the labelled joints, k twice the sigma."""
    store, rows, sources = opened
    stored = open_row(rows[0], store, sources)
    case = cases_of(stored)[-1]
    person = next(p for p in stored.dataset.persons if case.caption.endswith(f"person {p.id}"))
    row = stored.boxes.ids.tolist().index(person.id)
    pose = stored.predictions["keypoints:quarter-hrnet-0:1"][row, :, :2].astype(np.float64)
    seen = person.keypoints[:, 2] > 0
    squared = ((pose - person.keypoints[:, :2]) ** 2).sum(axis=1)[seen]
    k = 2 * np.asarray(stored.dataset.skeleton.sigmas)[seen]
    assert case.oks == pytest.approx(np.exp(-squared / (2 * person.area * k**2)).mean(), abs=1e-6)
