"""A plan: what it counts, and that it touches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.data.stand_in import stand_in
from harness.data.synthetic import SYNTHETIC
from harness.records.store import Store
from harness.run.plan import Plan, plan_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources

HEAD = """name: planned
data: {name: synthetic}
weights: quickstart
measure: {accuracy: {bootstrap: 20}, cost: true, latency: {rounds: 10}}
"""
TINY = HEAD + "methods: [{variant: simplebaseline_tiny}]\n"


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """plan(suite text, *assignments) in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def go(text: str = TINY, *assignments: str) -> Plan:
        path = tmp_path / "suite.yaml"
        path.write_text(text)
        suite, marked = load_suite(path, assignments)
        return plan_suite(suite, Store(Path("records")), Sources(), marked)

    return go


def test_a_plan_draws_nothing_writes_nothing_and_counts_the_people_to_be_drawn(plan, tmp_path):
    found = plan()
    assert [p.name for p in tmp_path.iterdir()] == ["suite.yaml"]
    assert found.pictures == {"val": 300} and found.passes == 1 and 600 < found.persons < 900
    assert set(found.cells[0].state.values()) == {"to do"}
    assert set(found.forecast.minutes) == {"people", "cost", "accuracy", "latency"}
    assert all(minutes > 0 for minutes in found.forecast.minutes.values()) and found.forecast.megabytes > 5
    assert plan(TINY, "data.limit=30").persons == pytest.approx(found.persons / 10, rel=0.2)


def test_a_set_that_is_there_is_not_drawn_again(plan, monkeypatch):
    monkeypatch.setattr("harness.suite.sources._load", lambda *place: stand_in("val"))
    Path("results/data/synthetic-val-300-1").mkdir(parents=True)
    found = plan()
    assert found.pictures == {} and "people" not in found.forecast.minutes and found.passes == 1


def test_trainings_count_by_epochs_and_their_images_are_to_be_drawn_too(plan, tmp_path):
    text = TINY.replace("weights: quickstart", "train: {recipe: quick, epochs: 2}\nseeds: [0, 1]")
    short, long = plan(text), plan(text, "train.epochs=20")
    assert short.trainings == 2 and short.pictures == {"train": 2500, "val": 300}
    assert {cell.state["accuracy"] for cell in short.cells} == {"to do, after its training"}
    assert long.forecast.minutes["training"] == pytest.approx(10 * short.forecast.minutes["training"])
    assert "accuracy" in short.forecast.minutes and short.forecast.megabytes > plan().forecast.megabytes
    assert [p.name for p in tmp_path.iterdir()] == ["suite.yaml"]


def test_the_built_in_people_are_drawn_where_only_times_are_taken(plan):
    found = plan(TINY.replace("{name: synthetic}", "{name: other, root: people}"))
    assert found.cells[0].state["accuracy"] == "no data (--data people=PATH)"
    assert found.cells[0].state["latency"] == "to do" and found.pictures == {"val": 300}
    assert "accuracy" not in found.forecast.minutes


def test_work_that_depends_on_the_image_is_named_and_an_exit_rate_waits_for_its_persons(plan):
    found = plan(HEAD + "methods: [{variant: sharpose_tiny, sweep: {exit_rate: [0.2, 0.8]}}]\n")
    assert found.forecast.uncounted == ("sharpose_tiny",)
    assert [set(cell.state.values()) for cell in found.cells] == [{"to do"}] * 2
    assert [cell.shared_pass for cell in found.cells] == [1, 1]


def test_more_persons_methods_and_batches_take_longer(plan):
    one = plan().forecast
    two = plan(TINY.replace("simplebaseline_tiny}", "simplebaseline_tiny}, {variant: hrnet_tiny}")).forecast
    flipped, batches = plan(TINY, "protocol.flip=false").forecast, plan(TINY, "measure.latency.batch=[1, 8]").forecast
    for part in ("cost", "accuracy", "latency"):
        assert two.minutes[part] > one.minutes[part]
    assert flipped.minutes["accuracy"] < one.minutes["accuracy"]
    assert one.minutes["latency"] < batches.minutes["latency"] and two.megabytes > one.megabytes


def test_the_stand_in_has_the_size_of_the_set_and_no_file():
    for split, (images, _) in SYNTHETIC.items():
        found = stand_in(split)
        assert len(found.images) == images and len(found.persons) == round(2.5 * images)
        assert not any((found.image_folder / image.file).exists() for image in found.images)
