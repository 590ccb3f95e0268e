"""A suite with one-stage rows from end to end: accuracy of poses and boxes, cost of an image, boxes for the others."""

from __future__ import annotations

import json

import pytest
import torch

from harness.data import coco
from harness.errors import MeasurementError, SuiteError
from harness.method import find_variant
from harness.passes import predict_images
from harness.records.store import Store
from harness.run.plan import plan_suite
from harness.run.recompute import recompute
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

TINY = "simplebaseline_tiny"
HEAD = """name: whole
data: {name: dots, root: dots, annotations: annotations/person_keypoints_val2017.json, images: val2017%s}
measure: {accuracy: {bootstrap: 20}, cost: true%s}
methods:
"""
FINDER, BOTH = (
    "  - {variant: finder}\n",
    f"  - {{variant: finder}}\n  - {{variant: {TINY}, protocol: {{flip: false}}}}\n",
)
FROM = ", boxes: {from: finder}"
TIMED = ", latency: {scope: %s, batch: [1], rounds: 8, seconds: 20}"


class Bench:
    """A store, and what a suite is run with; `forwards` counts the images of every forward."""

    def __init__(self, folder, dots, weights, forwards) -> None:
        self.folder, self.dots, self.weights, self.forwards = folder, dots, weights, forwards

    def suite(self, methods, data="", measure="", report=""):
        path = self.folder / "suite.yaml"
        path.write_text(HEAD % (data, measure) + methods + report)
        return load_suite(path)

    def sources(self, *names):
        files = {name: self.weights / f"{name}.safetensors" for name in names}
        return Sources({"dots": self.dots}, files)

    def run(self, methods, data="", measure="", report="", weights=("finder", TINY), **options):
        suite, marked = self.suite(methods, data, measure, report)
        wanted = [name for name in weights if name in methods]
        self.forwards.clear()
        store = Store(self.folder / "records")
        return run_suite(suite, store, self.sources(*wanted), Options(workers=0, **options), Progress(), marked)

    def result(self, row, name="accuracy"):
        store = Store(self.folder / "records")
        return store.by_id(name.partition("_")[0], row["records"][name]).result


@pytest.fixture(scope="module")
def dots(one_stage, tmp_path_factory):
    root = tmp_path_factory.mktemp("dots")
    one_stage.write(root, images=8)
    return root


@pytest.fixture(scope="module")
def weights(one_stage, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    checkpoints.write(folder / "finder.safetensors", one_stage.ColourFinder().state_dict())
    variant = find_variant(TINY)
    network = variant.build(num_joints=17, input_size=variant.input_size)
    network.final_layer.weight.data.mul_(300)
    checkpoints.write(folder / f"{TINY}.safetensors", network.state_dict())
    return folder


@pytest.fixture
def bench(one_stage, dots, weights, tmp_path, monkeypatch):
    one_stage.register(monkeypatch)
    forwards = []
    process = predict_images.OneStageRunner.process
    monkeypatch.setattr(
        predict_images.OneStageRunner,
        "process",
        lambda self, images, settings: forwards.append(len(images)) or process(self, images, settings),
    )
    return Bench(tmp_path, dots, weights, forwards)


def test_poses_and_boxes_of_a_one_stage_row_have_their_ap_and_are_measured_once(bench):
    (row,) = bench.run(FINDER)["rows"]
    assert row["paradigm"] == "one-stage" and not row["reasons"] and set(row["records"]) == {"accuracy", "cost"}
    result = bench.result(row)
    assert result["stats"]["AP"]["value"] > 0.9 and result["judge"]["largest_difference"] <= 1e-9
    boxes = result["box_ap"]
    assert boxes["stats"]["AP"]["value"] > 0.5 and boxes["judge"]["largest_difference"] <= 1e-9
    assert boxes["stats"]["AP"]["interval"]["percentile"][0] <= boxes["stats"]["AP"]["value"]
    assert result["box_source"] == "own" and result["boxes"] == 12 and result["skipped_images"] == 0
    assert sum(bench.forwards) == 8
    (again,) = bench.run(FINDER)["rows"]
    assert bench.forwards == [] and again["records"] == row["records"]


def test_the_cost_of_an_image_has_its_spread_over_the_images(bench):
    (row,) = bench.run(FINDER)["rows"]
    found, counted = bench.result(row)["cost"], bench.result(row, "cost")
    fixed, each = 108 * 96 * 128, 17 * 8
    assert found["gmacs_per_image"]["mean"] == pytest.approx((fixed + 1.5 * each) / 1e9)
    assert found["gmacs_per_image"]["p95"] > found["gmacs_per_image"]["p5"]
    assert found["gmacs_without_persons"]["sd"] == 0 and found["gmacs_per_person"]["mean"] == each / 1e9
    assert (counted["macs_without_persons"], counted["macs_per_person"]) == (fixed, each)
    assert counted["macs"] == counted["closed_form"] == fixed, "a picture of noise has nobody on it"


def test_another_threshold_scores_the_stored_pass_again(bench):
    (first,) = bench.run(FINDER)["rows"]
    (second,) = bench.run("  - {variant: finder, protocol: {box_score_threshold: 0.75, max_persons: 50}}\n")["rows"]
    assert bench.forwards == [] and second["records"]["accuracy"] != first["records"]["accuracy"]
    assert bench.result(second)["boxes"] == 10, "the third person of an image scores 0.7"
    (third,) = bench.run("  - {variant: finder, protocol: {max_persons: 1}}\n")["rows"]
    assert bench.result(third)["boxes"] == 6


def test_another_size_is_another_pass(bench):
    (first,) = bench.run(FINDER)["rows"]
    (second,) = bench.run("  - {variant: finder, protocol: {shortest_edge: 192, longest_edge: 256}}\n")["rows"]
    assert sum(bench.forwards) == 8
    costs = [bench.result(row)["cost"]["gmacs_without_persons"]["mean"] for row in (first, second)]
    assert costs[1] == pytest.approx(4 * costs[0])


def test_top_down_rows_take_the_boxes_that_a_one_stage_row_found(bench):
    rows = bench.run(BOTH, FROM)["rows"]
    assert not any(row["reasons"] for row in rows)
    result = bench.result(rows[1])
    assert result["boxes"] == 12 and result["box_source"].startswith("finder, pass ")
    again = bench.run(BOTH, FROM)["rows"]
    assert [row["records"] for row in again] == [row["records"] for row in rows] and bench.forwards == []
    lost = BOTH.replace("{variant: finder}", "{variant: finder, set: {lost: 5}}")
    assert bench.result(bench.run(lost, FROM)["rows"][1])["boxes"] == 6, "other boxes are other records"


def test_boxes_of_a_row_without_weights_are_missed_by_name(bench):
    rows = bench.run(BOTH, FROM, TIMED % "network", weights=(TINY,))["rows"]
    assert rows[0]["reasons"]["accuracy"] == "no weights"
    assert "come from finder" in rows[1]["reasons"]["accuracy"] and "no weights" in rows[1]["reasons"]["accuracy"]
    assert {"cost", "latency_b1"} <= set(rows[1]["records"]), rows[1]["reasons"]


@pytest.mark.parametrize(
    ("methods", "data", "report", "message"),
    [
        (BOTH, ", boxes: {from: hrnet_tiny}", "", "finds no boxes"),
        (f"  - {{variant: {TINY}}}\n", FROM, "", "has no such row"),
        (BOTH, ", boxes: {of: finder}", "", "of"),
        ("  - {variant: finder, sweep: {flip: [true, false]}}\n", "", "", "flip has no meaning"),
        ("  - {variant: finder, protocol: {decoder: dark}}\n", "", "", "decoder has no meaning"),
        (f"  - {{variant: {TINY}, protocol: {{shortest_edge: 100}}}}\n", "", "", "shortest_edge has no meaning"),
        (BOTH, "", f"report: {{detector: {TINY}}}\n", "no one-stage row"),
        (FINDER, "", "report: {detector: finder_of_all}\n", "unknown method"),
    ],
)
def test_wrong_suites_are_refused_with_the_reason(bench, methods, data, report, message):
    with pytest.raises(SuiteError, match=message) as caught:
        bench.run(methods, data, report=report)
    assert "suite.yaml" in str(caught.value)


def test_a_plan_knows_what_waits_for_boxes_and_counts_images(bench):
    suite, marked = bench.suite(BOTH, FROM)
    plan = plan_suite(suite, Store(bench.folder / "records"), bench.sources("finder", TINY), marked)
    states = [cell.state["accuracy"] for cell in plan.cells]
    assert states == ["to do", "to do, after the boxes of finder"] and plan.passes == 2
    assert [cell.shared_pass for cell in plan.cells] == [1, 2]
    bench.run(BOTH, FROM)
    plan = plan_suite(suite, Store(bench.folder / "records"), bench.sources("finder", TINY), marked)
    assert [cell.state["accuracy"] for cell in plan.cells] == ["cached", "cached"]


def test_results_are_written_for_both_paradigms(bench, tmp_path):
    bench.run(BOTH, FROM, results=tmp_path / "results")
    found = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "results").iterdir()}
    assert len(found) == 2 and all(len(results) > 0 for results in found.values())
    finder = next(results for name, results in found.items() if name.startswith("finder"))
    truth = coco.load(bench.dots / "annotations/person_keypoints_val2017.json", bench.dots / "val2017")
    assert sorted(r["image_id"] for r in finder) == sorted(p.image_id for p in truth.persons)


@pytest.mark.parametrize("scope", ["network", "crop+network+decode", "end-to-end"])
def test_a_one_stage_row_is_timed_and_its_poses_are_the_scored_ones(bench, scope):
    rows = bench.run(BOTH, FROM, TIMED % scope)["rows"]
    assert all(row["records"].get("latency_b1") for row in rows), [row["reasons"] for row in rows]
    result = bench.result(rows[0], "latency_b1")
    assert result["pose_difference_px"] is not None, result["pose_difference_reason"]
    assert result["pose_difference_px"] <= 0.1 and result["pose_difference_persons"] > 2
    assert set(result["persons_per_call"]) <= {1, 2, 3} and len(result["persons_per_call"]) == len(result["samples"])
    assert set(result["gmacs_without_persons_per_call"]) == {108 * 96 * 128 / 1e9}
    assert "whole image" in result["inside_timer"] or "image file" in result["inside_timer"]
    assert result["preparing_ms"] > 0 and bench.result(rows[1], "latency_b1")["preparing_ms"] > 0


def test_what_was_timed_must_be_what_was_scored(bench, monkeypatch):
    from harness.run import timed_images

    persons = timed_images.TimedImages._persons
    bench.run(FINDER)

    def moved(self, shot, output):
        found = persons(self, shot, output)
        found.keypoints[..., 0] += 3
        return found

    monkeypatch.setattr(timed_images.TimedImages, "_persons", moved)
    (row,) = bench.run(FINDER, measure=TIMED % "network")["rows"]
    assert "differ from the scored ones by up to 3 px" in row["reasons"]["latency_b1"]


def test_both_paradigms_give_a_system_record_with_the_crossing(bench):
    manifest = bench.run(BOTH, FROM, TIMED % "network")
    record = Store(bench.folder / "records").by_id("system", manifest["system"])
    one, two = record.result["rows"]
    fixed, each = 108 * 96 * 128 / 1e9, 17 * 8 / 1e9
    assert (one["gmacs"]["fixed"], one["gmacs"]["each"]) == pytest.approx((fixed, each))
    pose = bench.result(manifest["rows"][1], "cost")["gmacs"]
    assert (two["gmacs"]["fixed"], two["gmacs"]["each"]) == pytest.approx((fixed, pose)), "its detector is the finder"
    (pair,) = record.result["crossings"]
    assert pair["gmacs"] == {"verdict": "from", "persons": pytest.approx(0)}
    assert pair["ms"]["resamples"] == 1000 and set(pair["ms"]["shares"]) == {"always", "never", "from", "up to"}
    assert two["ms"]["fixed"] == pytest.approx(one["ms"]["fixed"]) and 0 < two["parts"]["crop_share"] < 1
    assert record.result["persons_per_image"] == 1.5
    assert bench.run(FINDER)["system"] is None


def test_numbers_of_boxes_images_and_systems_come_out_again(bench):
    manifest, store = bench.run(BOTH, FROM, TIMED % "network"), Store(bench.folder / "records")
    system = store.by_id("system", manifest["system"])
    scored = store.by_id("accuracy", manifest["rows"][0]["records"]["accuracy"])
    checks = [*recompute(system, store), *recompute(scored, store)]
    assert {check.verdict for check in checks} == {"matches"}
    fields = {check.field for check in checks}
    assert {"box_ap.stats.AP.interval", "cost", "persons_per_image", "rows.finder.ms"} <= fields
    system.result["crossings"][0]["gmacs"]["persons"] = 7.0
    scored.result["box_ap"]["stats"]["AP"]["value"] = 0.123
    wrong = {c.field for r in (system, scored) for c in recompute(r, store) if c.verdict == "differs"}
    assert wrong == {f"crossings.finder / {manifest['rows'][1]['label']}.gmacs", "box_ap.stats.AP.value"}


def test_without_boxes_of_a_row_the_detector_may_be_a_record(bench):
    first = bench.run(FINDER, measure=TIMED % "network")["rows"][0]["records"]
    report = f"report: {{detector: {{cost: {first['cost']}, latency: {first['latency_b1']}}}}}\n"
    manifest = bench.run(BOTH, measure=TIMED % "network", report=report)
    record = Store(bench.folder / "records").by_id("system", manifest["system"])
    assert record.result["detector"] == {"name": "finder", "gmacs": 108 * 96 * 128 / 1e9}
    assert {check.verdict for check in recompute(record, Store(bench.folder / "records"))} == {"matches"}
    free = bench.run(BOTH, measure=TIMED % "network")
    record = Store(bench.folder / "records").by_id("system", free["system"])
    assert record.result["detector"] is None and record.result["rows"][1]["gmacs"]["fixed"] == 0
    with pytest.raises((SuiteError, MeasurementError), match="no record"):
        bench.run(BOTH, report="report: {detector: {cost: 0123456789abcdef}}\n")
