"""A suite from end to end on a few synthetic pictures: what is measured, what is kept, what a failure leaves."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.data import synthetic
from harness.errors import NonFiniteOutput, SuiteError
from harness.method import find_variant
from harness.passes import predict
from harness.pose.skeletons import CROWDPOSE
from harness.records.store import Store
from harness.run.plan import plan_suite
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import Suite, load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

TINY = "simplebaseline_tiny"
HEAD = """name: small
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {accuracy: {bootstrap: 20}, cost: true}
"""
ONE = HEAD + f"methods:\n  - {{variant: {TINY}}}\n"


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """Twelve pictures."""
    root = tmp_path_factory.mktemp("people")
    synthetic.write(root, images=12, seed=3)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """weights/VARIANT.safetensors of two random networks, scaled so that maps have a peak above the score threshold."""
    folder = tmp_path_factory.mktemp("weights")
    for seed, name in enumerate((TINY, "hrnet_tiny")):
        torch.manual_seed(seed)
        variant = find_variant(name)
        network = variant.build(num_joints=17, input_size=variant.input_size)
        with torch.no_grad():
            network.final_layer.weight.mul_(300)
        checkpoints.write(folder / f"{name}.safetensors", network.state_dict())
    return folder


@dataclass
class Bench:
    """A store and what a suite is run with; `forwards` counts forward passes."""

    folder: Path
    people: Path
    weights: Path
    forwards: list[int]

    @property
    def store(self) -> Store:
        return Store(self.folder / "records")

    def suite(self, text: str = ONE, *assignments: str) -> tuple[Suite, Any]:
        path = self.folder / "suite.yaml"
        path.write_text(text)
        return load_suite(path, assignments)

    def sources(self, data: bool = True, **weights: Path) -> Sources:
        files = weights or {TINY: self.weights / f"{TINY}.safetensors"}
        return Sources({"people": self.people} if data else {}, files)

    def run(self, text: str = ONE, *assignments: str, sources: Sources | None = None, **options: Any) -> dict[str, Any]:
        suite, marked = self.suite(text, *assignments)
        self.forwards.clear()
        return run_suite(
            suite, self.store, sources or self.sources(), Options(workers=0, **options), Progress(), marked
        )

    def result(self, row: dict[str, Any], kind: str = "accuracy") -> dict[str, Any]:
        path = self.folder / "records" / "records" / f"{kind.split('_')[0]}-{row['records'][kind]}.json"
        return json.loads(path.read_text())["result"]

    def blocks(self) -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in sorted((self.folder / "records/passes").rglob("block-*.npz"))}


@pytest.fixture
def bench(tmp_path, people, weights, monkeypatch) -> Bench:
    forwards: list[int] = []
    process = predict.TopDownRunner.process
    monkeypatch.setattr(
        predict.TopDownRunner,
        "process",
        lambda self, crops, *rest: forwards.append(len(crops)) or process(self, crops, *rest),
    )
    return Bench(tmp_path, people, weights, forwards)


def test_a_suite_is_measured_once_and_then_read(bench):
    (row,) = bench.run()["rows"]
    assert set(row["records"]) == {"accuracy", "cost"} and not row["reasons"]
    persons = sum(bench.forwards)
    result = bench.result(row)
    assert persons == result["boxes"] > 12 and result["images"] == 12 and result["judge"]
    macs = bench.result(row, "cost")["macs"]
    assert result["cost"]["gmacs_per_prediction"]["mean"] == pytest.approx(2 * macs / 1e9)
    records = {p: p.stat().st_mtime_ns for p in (bench.folder / "records/records").iterdir()}
    (again,) = bench.run()["rows"]
    assert bench.forwards == [] and again["records"] == row["records"]
    assert {p: p.stat().st_mtime_ns for p in records} == records


def test_the_batch_and_the_workers_move_no_accuracy(bench, tmp_path):
    (row,) = bench.run()["rows"]
    one = bench.result(row)
    bench.folder = tmp_path / "other"
    bench.folder.mkdir()
    (row,) = bench.run(batch=5)["rows"]
    other = bench.result(row)
    assert max(bench.forwards) == 5
    assert [v["value"] for v in one["stats"].values()] == pytest.approx(
        [v["value"] for v in other["stats"].values()], abs=1e-6
    )


def test_another_nms_threshold_scores_the_stored_pass_again(bench):
    (first,) = bench.run()["rows"]
    (second,) = bench.run(ONE, "protocol.nms_threshold=0.05")["rows"]
    assert bench.forwards == [] and second["records"]["accuracy"] != first["records"]["accuracy"]
    assert second["records"]["cost"] == first["records"]["cost"]
    assert bench.result(second)["detections"] < bench.result(first)["detections"]


def test_a_change_of_one_line_finds_the_pass_that_all_lines_shared(bench):
    lines = (
        "methods:\n  - {variant: %s, protocol: {nms_threshold: %g}}\n  - {variant: %s, protocol: {decoder: argmax}}\n"
    )
    bench.run(HEAD + lines % (TINY, 0.9, TINY))
    assert len({Path(b).parent for b in bench.blocks()}) == 1
    rows = bench.run(HEAD + lines % (TINY, 0.3, TINY))["rows"]
    assert bench.forwards == [] and all("accuracy" in row["records"] for row in rows)


def test_decoders_and_flip_share_a_pass_and_differ_in_their_records(bench):
    text = (
        HEAD + f"methods:\n  - {{variant: {TINY}, sweep: {{decoder: [argmax, quarter, dark], flip: [true, false]}}}}\n"
    )
    rows = bench.run(text)["rows"]
    assert sum(bench.forwards) == bench.result(rows[0])["boxes"]
    assert len({row["records"]["accuracy"] for row in rows}) == 6
    assert len({row["records"]["cost"] for row in rows}) == 1
    costs = [bench.result(row)["cost"]["gmacs_per_prediction"]["mean"] for row in rows[:2]]
    assert costs[0] == pytest.approx(2 * costs[1])


def test_other_weights_run_again(bench, tmp_path):
    (first,) = bench.run()["rows"]
    state = {n: v * 1.01 for n, v in checkpoints.read(bench.weights / f"{TINY}.safetensors")[0].items()}
    checkpoints.write(tmp_path / "w.safetensors", state)
    (second,) = bench.run(sources=bench.sources(**{TINY: tmp_path / "w.safetensors"}))["rows"]
    assert bench.forwards and second["records"]["accuracy"] != first["records"]["accuracy"]
    assert second["records"]["cost"] == first["records"]["cost"]


def test_a_row_without_weights_has_cost_and_latency(bench):
    text = ONE + "  - {variant: hrnet_tiny}\n"
    timed = "measure.latency={batch: [1], rounds: 3, seconds: 2}"
    rows = bench.run(text, timed)["rows"]
    assert rows[1]["reasons"] == {"accuracy": "no weights"} and set(rows[1]["records"]) == {"cost", "latency_b1"}
    assert set(rows[0]["records"]) == {"accuracy", "cost", "latency_b1"}
    result = bench.result(rows[1], "latency_b1")
    assert result["reference"] == TINY
    again = bench.run(text, timed)["rows"]
    assert [r["records"] for r in again] == [r["records"] for r in rows]


def test_the_joints_of_the_data_set_are_those_of_the_network(bench, tmp_path):
    pytest.importorskip("xtcocotools")
    bench.people = copy_of(bench.people, tmp_path / "copy")
    path = bench.people / "annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["crowdIndex"] = 0.2
    for entry in content["annotations"]:
        entry["keypoints"] = entry["keypoints"][: 3 * CROWDPOSE.num_joints]
        entry["num_keypoints"] = sum(v > 0 for v in entry["keypoints"][2::3])
    content["categories"] = [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE.joints)}]
    path.unlink()
    path.write_text(json.dumps(content))
    variant = find_variant(TINY)
    torch.manual_seed(0)
    network = variant.build(num_joints=CROWDPOSE.num_joints, input_size=variant.input_size)
    checkpoints.write(tmp_path / "w14.safetensors", network.state_dict())
    (row,) = bench.run(sources=bench.sources(**{TINY: tmp_path / "w14.safetensors"}))["rows"]
    assert bench.result(row)["evaluator"] == "crowdpose" and not row["reasons"]
    (other,) = bench.run(sources=bench.sources())["rows"]
    assert "17 joints, asked for 14" in other["reasons"]["accuracy"]
    assert other["records"] == {"cost": row["records"]["cost"]}


def test_pictures_without_persons_have_no_accuracy(bench, tmp_path):
    bench.people = copy_of(bench.people, tmp_path / "copy")
    path = bench.people / "annotations/person_keypoints_val2017.json"
    content = json.loads(path.read_text())
    path.unlink()
    path.write_text(json.dumps({**content, "annotations": []}))
    (row,) = bench.run(results=tmp_path / "out")["rows"]
    assert row["reasons"] == {"accuracy": "no ground truth"} and bench.forwards == []
    assert json.loads((tmp_path / "out" / f"{TINY}.json").read_text()) == []


def test_a_row_without_data_says_so(bench):
    (row,) = bench.run(sources=bench.sources(data=False))["rows"]
    assert row["reasons"]["accuracy"].startswith("no data") and "--data people=PATH" in row["reasons"]["accuracy"]
    assert "cost" in row["records"]


def failing(bench: Bench, tmp_path: Path) -> Sources:
    """hrnet_tiny is handed the weights of simplebaseline_tiny."""
    own = bench.weights / f"{TINY}.safetensors"
    return bench.sources(**{TINY: own, "hrnet_tiny": own})


BOTH = HEAD + f"methods:\n  - {{variant: hrnet_tiny}}\n  - {{variant: {TINY}}}\n"


def test_a_cell_that_fails_says_why_and_the_others_go_on(bench, tmp_path):
    timed = "measure.latency={batch: [1], rounds: 3, seconds: 2}"
    bad, good = bench.run(BOTH, timed, sources=failing(bench, tmp_path))["rows"]
    assert set(good["records"]) == {"accuracy", "cost", "latency_b1"} and not good["reasons"]
    assert bench.result(good, "latency_b1")["reference"] == TINY
    assert "no key layout of hrnet_tiny" in bad["reasons"]["accuracy"]
    assert set(bad["records"]) == {"cost"}, "the cost needs no weights"


def test_the_first_failure_ends_a_run_that_is_to_fail_fast(bench, tmp_path):
    with pytest.raises(Exception, match="no key layout of hrnet_tiny"):
        bench.run(BOTH, sources=failing(bench, tmp_path), fail_fast=True)
    manifest = json.loads((bench.folder / "records/runs/small.json").read_text())
    assert set(manifest["rows"][0]["records"]) == {"cost"}


def test_an_unreadable_weights_file_is_the_reason_of_its_row(bench, tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"not weights at all")
    sources = bench.sources(**{TINY: bench.weights / f"{TINY}.safetensors", "hrnet_tiny": tmp_path / "w.safetensors"})
    bad, good = bench.run(BOTH, sources=sources)["rows"]
    assert "w.safetensors" in bad["reasons"]["accuracy"] and "cost" in bad["records"]
    assert "accuracy" in good["records"]


def test_a_network_that_answers_nan_names_image_and_person(bench, tmp_path):
    state = checkpoints.read(bench.weights / f"{TINY}.safetensors")[0]
    state["final_layer.bias"] = torch.full_like(state["final_layer.bias"], float("nan"))
    checkpoints.write(tmp_path / "nan.safetensors", state)
    sources = bench.sources(**{TINY: tmp_path / "nan.safetensors"})
    (row,) = bench.run(sources=sources)["rows"]
    annotations = json.loads((bench.people / "annotations/person_keypoints_val2017.json").read_text())["annotations"]
    labelled = next(a for a in annotations if a["num_keypoints"])
    for part in ("nan", f"image {labelled['image_id']}", f"annotation {labelled['id']}"):
        assert part in row["reasons"]["accuracy"]
    with pytest.raises(NonFiniteOutput):
        bench.run(sources=sources, fail_fast=True)


def test_names_that_no_cell_uses_are_refused_with_suggestions(bench):
    file = bench.weights / f"{TINY}.safetensors"
    with pytest.raises(SuiteError, match="poeple") as caught:
        bench.run(sources=Sources({"poeple": bench.people}, {}))
    assert "people" in caught.value.hint
    with pytest.raises(SuiteError, match="simplebaseline_tny") as caught:
        bench.run(sources=Sources({"people": bench.people}, {"simplebaseline_tny": file}))
    assert TINY in caught.value.hint
    with pytest.raises(SuiteError, match="no such variant"):
        bench.run(sources=Sources({"people": bench.people}, {"hrnet_tiny": file}))


@pytest.mark.parametrize("damage", ["cut", "other number"])
def test_a_damaged_record_is_set_aside_and_measured_again(bench, damage):
    (row,) = bench.run()["rows"]
    path = bench.folder / "records/records" / f"accuracy-{row['records']['accuracy']}.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2] if damage == "cut" else text.replace('"images": 12', '"images": 13'))
    suite, marked = bench.suite()
    store = bench.store
    again = run_suite(suite, store, bench.sources(), Options(workers=0), Progress(), marked)["rows"]
    assert store.quarantined == [path.name] and (store.folder / "quarantine" / path.name).is_file()
    assert again[0]["records"] == row["records"] and path.read_text() != ""
    assert json.loads(path.read_text())["result"] == json.loads(text)["result"]


def test_a_damaged_block_is_computed_again_and_no_other(bench, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 8)
    (row,) = bench.run()["rows"]
    before = bench.blocks()
    first = next(iter(before))
    Path(first).write_bytes(b"damaged")
    bench.run(ONE, "protocol.nms_threshold=0.5")
    after = bench.blocks()
    assert bench.forwards == [8] and {p for p in before if before[p] != after[p]} == {first}
    assert row["records"]


def copy_of(people: Path, folder: Path) -> Path:
    """The data set with links for its files, so that one can be exchanged."""
    for path in people.rglob("*.*"):
        place = folder / path.relative_to(people)
        place.parent.mkdir(parents=True, exist_ok=True)
        os.link(path, place)
    return folder


def test_a_cut_picture_in_the_middle_is_named_and_what_was_done_before_is_kept(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 8)
    bench.people = copy_of(bench.people, tmp_path / "copy")
    picture = sorted((bench.people / "val2017").iterdir())[6]
    data = picture.read_bytes()
    picture.unlink()
    picture.write_bytes(data[: len(data) // 2])
    (row,) = bench.run()["rows"]
    assert picture.name in row["reasons"]["accuracy"] and "cost" in row["records"]
    assert bench.blocks()


def test_missing_pictures_are_an_error_or_counted(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 8)
    bench.people = copy_of(bench.people, tmp_path / "copy")
    gone = sorted((bench.people / "val2017").iterdir())[2]
    image_id = int(gone.stem)
    gone.unlink()
    (row,) = bench.run()["rows"]
    assert gone.name in row["reasons"]["accuracy"]
    (row,) = bench.run(ONE, "data.missing=skip")["rows"]
    annotations = json.loads((bench.people / "annotations/person_keypoints_val2017.json").read_text())["annotations"]
    persons = sum(a["image_id"] == image_id and a["num_keypoints"] > 0 for a in annotations)
    assert bench.result(row)["skipped_boxes"] == persons > 0 and bench.result(row)["skipped_images"] == 1
    indices = np.concatenate([np.load(b)["index"] for b in bench.blocks()])
    assert len(set(indices.tolist())) == len(indices) == bench.result(row)["boxes"] - persons


def test_a_plan_tells_what_is_there_and_which_cells_share_a_pass(bench):
    text = (
        HEAD
        + f"""methods:
  - {{variant: {TINY}, sweep: {{decoder: [argmax, quarter]}}}}
  - {{variant: hrnet_tiny}}
"""
    )

    def plan():
        suite, marked = bench.suite(text, "measure.latency={rounds: 3, seconds: 2}")
        return plan_suite(suite, bench.store, bench.sources(), marked)

    before = plan()
    assert [c.state["accuracy"] for c in before.cells] == ["to do", "to do", "no weights"]
    assert [c.shared_pass for c in before.cells] == [1, 1, None]
    assert before.passes == 1 and before.persons > 12
    assert set(before.forecast.minutes) == {"cost", "accuracy", "latency"} and 0 < before.minutes < 1
    bench.run(text, "measure.latency={rounds: 3, seconds: 2}")
    after = plan()
    assert [c.state for c in after.cells[:2]] == [dict.fromkeys(("cost", "accuracy", "latency"), "cached")] * 2
    assert after.cells[2].state == {"cost": "cached", "accuracy": "no weights", "latency": "cached"}
    assert (after.passes, after.persons, after.minutes) == (0, 0, 0)


def test_result_files_for_the_test_server_are_those_that_were_scored(bench, tmp_path):
    from harness.accuracy.evaluate import evaluate

    text = HEAD + f"methods:\n  - {{variant: {TINY}, sweep: {{protocol.nms: [oks, none]}}}}\n"
    rows = bench.run(text)["rows"]
    rows = bench.run(text, results=tmp_path / "out")["rows"]
    assert bench.forwards == [] and not any(row["reasons"] for row in rows)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{TINY}_nms={n}.json" for n in ("none", "oks")]
    for row, name in zip(rows, ("oks", "none")):
        file = tmp_path / "out" / f"{TINY}_nms={name}.json"
        found = evaluate(bench.people / "annotations/person_keypoints_val2017.json", file, bootstrap=0)
        assert found.stats["AP"] == pytest.approx(bench.result(row)["stats"]["AP"]["value"], abs=1e-12)


def test_pictures_without_annotations_give_results_and_no_accuracy(bench, tmp_path):
    bench.people = copy_of(bench.people, tmp_path / "copy")
    full = json.loads((bench.people / "annotations/person_keypoints_val2017.json").read_text())
    boxes = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9} for a in full["annotations"]
    ]
    (bench.people / "boxes.json").write_text(json.dumps(boxes))
    bare = {
        "info": {},
        "images": full["images"],
        "categories": [{"id": 1, "name": "person", "supercategory": "person"}],
    }
    (bench.people / "annotations/image_info.json").write_text(json.dumps(bare))
    settings = ("data.annotations=annotations/image_info.json", "data.boxes=boxes.json", "protocol.nms=none")
    (row,) = bench.run(ONE, *settings)["rows"]
    assert row["reasons"]["accuracy"] == "no ground truth" and bench.forwards == []
    (row,) = bench.run(ONE, *settings, results=tmp_path / "out")["rows"]
    assert row["reasons"] == {"accuracy": "no ground truth"} and set(row["records"]) == {"cost"}
    results = json.loads((tmp_path / "out" / f"{TINY}.json").read_text())
    assert len(results) == len(boxes) and {len(r["keypoints"]) for r in results} == {51}
    (row,) = bench.run(ONE, *settings, results=tmp_path / "again")["rows"]
    assert bench.forwards == [] and json.loads((tmp_path / "again" / f"{TINY}.json").read_text()) == results
