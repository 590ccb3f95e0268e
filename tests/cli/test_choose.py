"""The verb `choose`: a front within a budget, from records."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import MeasurementError, UserError
from harness.records.store import Record, Store

# variant: AP, gmacs, ms on the first machine
FOUND = {"small": (0.60, 1.0, 4.0), "worse": (0.55, 2.0, 3.0), "middle": (0.70, 4.0, 9.0), "large": (0.80, 9.0, 30.0)}


def put(store: Store, variant: str, ap: float, gmacs: float, ms: float, machine: str = "m1", data: str = "d1") -> None:
    network = {"variant": variant, "input_size": [256, 192], "build": {}, "joints": 17, "settings": {}}
    interval = {"bca": [ap - 0.02, ap + 0.02]}
    scored = {"stats": {"AP": {"value": ap, "interval": interval}}, "box_source": "ground-truth", "images": 5}
    where = {"name": "people", "dataset": data, "boxes": "ground-truth"}
    store.put(Record.make("accuracy", {**network, "data": where, "execution": {}, "weights": "w"}, scored))
    store.put(Record.make("cost", network, {"gmacs": gmacs, "params_inference": 10**6, "trace": {}}))
    median = {"value": ms, "low": ms - 0.5, "high": ms + 0.5}
    execution = {"device": "cpu", "batch": 1, "scope": "network"}
    timed = {"median": median, "execution": execution, "settings": {"threads": 1}, "machine": {"cpu": f"CPU {machine}"}}
    store.put(Record.make("latency", {**network, "execution": {"batch": 1}, "machine": machine}, timed))


@pytest.fixture
def store(tmp_path) -> Store:
    keep = Store(tmp_path / "records")
    for variant, numbers in FOUND.items():
        put(keep, variant, *numbers)
    return keep


def choose(store: Store, *arguments: str):
    done = CliRunner().invoke(app, ["choose", *arguments, "--store", str(store.folder)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def labels(store: Store, *arguments: str) -> list[list[str]]:
    return [[b["label"] for b in c["best"]] for c in json.loads(choose(store, *arguments, "--json").stdout)["choices"]]


@pytest.mark.parametrize(
    ("budget", "best"),
    [
        (["--max-gmacs", "5"], ["middle", "small"]),  # `worse` needs more than `small` for less
        (["--max-gmacs", "9"], ["large", "middle", "small"]),  # the limit itself fits
        (["--max-ms", "10"], ["middle", "small", "worse"]),  # over time `worse` is on the front
        (["--max-ms", "10", "--max-gmacs", "3"], ["small", "worse"]),
    ],
)
def test_the_front_within_the_budget_is_named_best_first(store, budget, best):
    assert labels(store, *budget) == [best]


def test_the_answer_has_intervals_and_the_records_it_was_made_of(store):
    answer = json.loads(choose(store, "--max-ms", "10", "--json").stdout)["choices"][0]
    best = answer["best"][0]
    assert best["ap"] == {"value": 70.0, "low": 68.0, "high": 72.0} and best["ms"]["low"] == 8.5
    assert set(best["records"]) == {"accuracy", "cost", "latency_b1"}
    assert (answer["fitting"], answer["over"]) == (3, 1)


def test_people_read_configuration_interval_and_record(store):
    shown = choose(store, "--max-gmacs", "5").stdout
    assert "middle" in shown and "70.0 [68.0, 72.0]" in shown and "large" not in shown


def test_other_data_and_another_machine_are_other_questions(store):
    put(store, "elsewhere", 0.9, 1.0, 1.0, data="d2")
    put(store, "faster", 0.9, 1.0, 1.0, machine="m2")
    answers = json.loads(choose(store, "--max-ms", "10", "--json").stdout)["choices"]
    grounds = {c["ground"]: [b["label"] for b in c["best"]] for c in answers}
    assert len(grounds) == 3 and ["middle", "small", "worse"] in grounds.values()
    assert any("CPU m2" in ground for ground in grounds)
    assert labels(store, "--max-gmacs", "1") == [["faster"], ["elsewhere"]]


def test_a_budget_that_nothing_fits_names_the_least(store):
    with pytest.raises(MeasurementError) as caught:
        choose(store, "--max-gmacs", "0.5")
    assert "no configuration fits 0.5 gmacs" in str(caught.value) and "small at 1 gmacs" in caught.value.hint


def test_what_was_never_timed_there_says_what_to_measure(store):
    with pytest.raises(MeasurementError, match="timed on cuda at batch 8"):
        choose(store, "--max-ms", "5", "--device", "cuda", "--batch", "8")


def test_a_question_without_a_budget_or_without_records_is_refused(store, tmp_path):
    with pytest.raises(UserError, match="no budget"):
        choose(store)
    with pytest.raises(UserError, match="no records"):
        choose(Store(tmp_path / "none"), "--max-gmacs", "5")


def test_damaged_records_are_passed_over_and_counted(store):
    broken = next((store.folder / "records").glob("accuracy-*.json"))
    broken.write_text(broken.read_text()[:100])
    done = choose(store, "--max-gmacs", "9")
    assert f"damaged file set aside: {broken.name}" in done.stderr


def test_a_reason_is_told_once_for_all_rows_that_it_keeps_from_being_replayed(store):
    for i in range(5):
        scored = {"stats": {"AP": {"value": 0.5, "interval": None}}, "quality_threshold": 0.5, "images": 5}
        key = {"variant": f"exits{i}", "input_size": [256, 192], "build": {}, "weights": "w"}
        record = store.put(Record.make("accuracy", key, scored, predictions="0123abcd"))
        row = {"label": f"exits{i}", "cell": {"variant": f"exits{i}"}, "records": {"accuracy": record.id}}
        store.write_run(f"run{i}", {"suite": {"name": f"run{i}"}, "rows": [row]})
    said = choose(store, "--max-gmacs", "5").stderr
    assert said.count("predictions are not stored here") == 1
    assert "exits0, exits1, exits2 and 2 more rows" in said


def test_replayed_thresholds_are_among_the_answers(two_exits):
    store = Store(two_exits / "records")
    data = ["--data", f"people={two_exits / 'people'}"]
    for target in ([], ["two"]):
        best = json.loads(choose(store, *target, "--max-gmacs", "2.6", *data, "--json").stdout)["choices"][0]["best"]
        assert best and all(1.0 <= b["gmacs"]["value"] <= 2.6 for b in best)
        assert all(isinstance(b["quality_threshold"], float) for b in best)
    with pytest.raises(MeasurementError):
        choose(store, "two", "--max-gmacs", "2.6", "--no-replay")


def test_choosing_with_replay_does_not_import_torch(two_exits):
    arguments = ["choose", "two", "--max-gmacs", "2.6", "--store", str(two_exits / "records")]
    arguments += ["--data", f"people={two_exits / 'people'}"]
    code = (
        "import sys\nfrom harness.cli.main import app\n"
        f"app({arguments!r}, standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "quality_threshold=" in done.stdout
