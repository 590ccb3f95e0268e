"""The verb `predict`: photographs in, COCO files and pictures out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from harness.cli.main import app
from harness.data import coco, synthetic
from harness.data.boxes import from_ground_truth
from harness.errors import DataError, SuiteError, UserError, WeightsError
from harness.method import find_variant
from harness.passes.predict import TopDownRunner
from harness.pose.skeletons import CROWDPOSE, MPII
from harness.train import checkpoints

TINY = "simplebaseline_tiny"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two synthetic photographs with annotations, and random weights."""
    folder = tmp_path_factory.mktemp("place")
    synthetic.write(folder / "people", images=2, seed=4)
    torch.manual_seed(0)
    variant = find_variant(TINY)
    built = variant.build(num_joints=17, input_size=variant.input_size)
    built.final_layer.weight.data.mul_(300)
    checkpoints.write(folder / "w.safetensors", built.state_dict())
    return folder


@pytest.fixture
def call(place, tmp_path):
    def predict(*words: str | Path, weights: bool = True):
        files = ["--weights", str(place / "w.safetensors")] if weights else []
        words = [str(w) for w in words]
        return CliRunner().invoke(app, ["predict", TINY, *words, *files, "--out", str(tmp_path / "out")])

    return predict


def annotations(place: Path) -> Path:
    return place / "people/annotations/person_keypoints_val2017.json"


@pytest.mark.parametrize(("named", "told"), [("synthetic_train2017", True), ("train2017", False)])
def test_weights_of_drawn_people_are_said_to_know_nothing_of_photographs(place, tmp_path, named, told):
    state = checkpoints.read(place / "w.safetensors")[0]
    checkpoints.write(tmp_path / "trained.safetensors", state, {"data_name": named})
    words = ["predict", TINY, str(place / "people/val2017"), "--weights", str(tmp_path / "trained.safetensors")]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert done.exit_code == 0 and ("mean little" in done.stderr) is told
    assert "taken as one person" in done.stderr


def test_boxes_of_an_annotation_file_give_one_pose_each(place, tmp_path, call):
    done = call(place / "people/val2017", "--boxes", annotations(place), "--set", "nms=none", "--threshold", "-1000")
    assert done.exit_code == 0, done.output
    written = {name: json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("predictions", "results")}
    truth = json.loads(annotations(place).read_text())
    persons, found = len(truth["annotations"]), written["predictions"]
    assert len(written["results"]) == len(found["annotations"]) == persons
    assert [i["id"] for i in found["images"]] == [i["id"] for i in truth["images"]]
    assert f"{persons} persons on 2 photographs" in done.stdout
    for image in truth["images"]:
        name = Path(image["file_name"]).stem
        before = cv2.imread(str(place / "people/val2017" / image["file_name"]))
        after = cv2.imread(str(tmp_path / "out" / f"{name}.poses.jpg"))
        assert after.shape == before.shape and np.abs(after.astype(int) - before).max() > 50
    found["categories"] = truth["categories"]
    (tmp_path / "again.json").write_text(json.dumps(found))
    assert len(coco.load(tmp_path / "again.json", place).persons) == persons, "it is a COCO file"


def test_the_poses_are_those_of_a_suite_with_the_same_boxes(place, tmp_path, call):
    truth = coco.load(annotations(place), place / "people/val2017")
    clean = from_ground_truth(truth)
    listed = [
        {"image_id": int(i), "category_id": 1, "bbox": b.tolist(), "score": 1.0}
        for i, b in zip(clean.image_ids, clean.xywh)
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(listed))
    done = call(place / "people/val2017", "--boxes", tmp_path / "boxes.json")
    assert done.exit_code == 0, done.output
    suite = tmp_path / "s.yaml"
    suite.write_text(
        "name: s\n"
        "data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}\n"
        f"measure: {{accuracy: {{bootstrap: 0}}, cost: false}}\nmethods: [{{variant: {TINY}}}]\n"
    )
    words = ["--data", f"people={place / 'people'}", "--weights", f"{TINY}={place / 'w.safetensors'}"]
    folders = ["--store", tmp_path / "r", "--report", tmp_path / "p", "--results", tmp_path / "res"]
    done = CliRunner().invoke(app, ["run", str(suite), *words, *map(str, folders)])
    assert done.exit_code == 0, done.output
    ours = json.loads((tmp_path / "out/results.json").read_text())
    theirs = json.loads((tmp_path / "res" / f"{TINY}.json").read_text())
    assert len(ours) == len(theirs) > 2
    for a, b in zip(ours, theirs):
        assert a["image_id"] == b["image_id"] and a["score"] == pytest.approx(b["score"], rel=1e-4)
        assert a["keypoints"] == pytest.approx(b["keypoints"], abs=1e-3)


def test_the_network_gets_full_batches_across_photographs(place, call, monkeypatch):
    process, seen = TopDownRunner.process, []
    monkeypatch.setattr(
        TopDownRunner, "process", lambda self, crops, *rest: seen.append(len(crops)) or process(self, crops, *rest)
    )
    persons = len(json.loads(annotations(place).read_text())["annotations"])
    done = call(place / "people/val2017", "--boxes", annotations(place), "--batch", "2", "--workers", "3")
    assert done.exit_code == 0, done.output
    assert persons > 3 and seen == [2] * (persons // 2) + [1] * (persons % 2)


def test_the_number_of_workers_changes_no_byte_of_what_is_written(place, tmp_path, call):
    written = []
    for workers in ("0", "1", "5"):
        done = call(place / "people/val2017", "--boxes", annotations(place), "--workers", workers)
        assert done.exit_code == 0, done.output
        written.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert len(written[0]) == 4 and written[0] == written[1] == written[2]


def test_the_same_photograph_twice_and_one_without_persons_each_get_their_picture(place, tmp_path, call):
    first, second = sorted((place / "people/val2017").iterdir())
    truth = json.loads(annotations(place).read_text())
    alone = [a for a in truth["annotations"] if a["image_id"] == truth["images"][0]["id"]]
    (tmp_path / "boxes.json").write_text(json.dumps({**truth, "annotations": alone}))
    done = call(second, first, first, "--boxes", tmp_path / "boxes.json", "--set", "nms=none")
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    ids = [i["id"] for i in truth["images"]]
    assert [i["id"] for i in found["images"]] == [ids[1], ids[0], ids[0]]
    assert [a["image_id"] for a in found["annotations"]] == [ids[0]] * 2 * len(alone)
    assert len(list((tmp_path / "out").glob("*.poses.jpg"))) == 3


def test_without_boxes_a_photograph_is_one_person(place, tmp_path, call):
    done = call(*sorted((place / "people/val2017").iterdir()), "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [a["image_id"] for a in content["annotations"]] == [1, 2]
    assert all(len(a["keypoints"]) == 51 for a in content["annotations"])


def test_two_photographs_of_one_name_give_two_pictures(place, tmp_path, call):
    first, second = sorted((place / "people/val2017").iterdir())
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(second, other / first.name)
    done = call(first, other / first.name, "--json")
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out").glob("*.poses.jpg"))) == 2
    sizes = [(i["width"], i["height"]) for i in json.loads(done.stdout)["images"]]
    assert sizes == [cv2.imread(str(p)).shape[1::-1] for p in (first, second)]


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        (["no/such/photograph.jpg"], UserError, "no such photograph"),
        (["PICTURES", "--boxes", "no/boxes.json"], DataError, "no such boxes file"),
        (["PICTURES", "--boxes", "PLACE/w.safetensors"], DataError, "not JSON"),
        (["PICTURES", "--boxes", "PLACE/odd.json"], DataError, "no person boxes can be read"),
        (["PICTURES", "--boxes", "PLACE/empty.json"], DataError, "not in the boxes file"),
        (["PLACE/broken.jpg"], DataError, "broken.jpg"),
        (["PICTURES", "--set", "flip"], SuiteError, "NAME=VALUE"),
        (["PICTURES", "--set", "flop=true"], SuiteError, "flop"),
        (["PICTURES", "--weights", "no/weights.pth"], WeightsError, "no such weights file"),
    ],
)
def test_wrong_input_is_refused_with_its_name(place, call, words, kind, message):
    (place / "broken.jpg").write_bytes(b"\xff\xd8 no picture")
    (place / "odd.json").write_text('[{"image_id": 1, "bbox": [1, 2]}]')
    (place / "empty.json").write_text('{"images": [{"id": 1, "file_name": "x.jpg"}], "annotations": []}')
    places = {"PICTURES": str(place / "people/val2017")}
    done = call(*(places.get(w, w.replace("PLACE", str(place))) for w in words), weights="--weights" not in words)
    assert isinstance(done.exception, kind) and message in str(done.exception)


def test_a_variant_without_weights_asks_for_them(place):
    done = CliRunner().invoke(app, ["predict", "simplebaseline_r50", str(place / "people/val2017")])
    assert isinstance(done.exception, WeightsError) and "--weights" in done.exception.hint


@pytest.mark.parametrize("skeleton", [CROWDPOSE, MPII], ids=lambda s: s.name)
def test_the_joints_and_limbs_are_those_of_the_weights(place, tmp_path, skeleton):
    variant = find_variant(TINY)
    torch.manual_seed(0)
    network = variant.build(num_joints=skeleton.num_joints, input_size=variant.input_size)
    network.final_layer.weight.data.mul_(300)
    checkpoints.write(tmp_path / "w.safetensors", network.state_dict())
    words = ["predict", TINY, str(place / "people/val2017"), "--weights", str(tmp_path / "w.safetensors")]
    done = CliRunner().invoke(app, [*words, "--threshold", "-1000", "--out", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert written["categories"][0]["keypoints"] == list(skeleton.joints)
    assert {len(a["keypoints"]) for a in written["annotations"]} == {3 * skeleton.num_joints}
    for drawn in (tmp_path / "out").glob("*.jpg"):
        before = cv2.imread(str(place / "people/val2017" / f"{drawn.name.partition('.')[0]}.jpg"))
        assert np.abs(cv2.imread(str(drawn)).astype(int) - before).max() > 50
