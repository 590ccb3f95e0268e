"""The verb `train`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import DataError, SuiteError, UserError
from harness.method import variants

METHOD = "simplebaseline_tiny"


def invoke(*arguments):
    done = CliRunner().invoke(app, ["train", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture
def root(tmp_path):
    """A COCO root with six images of one person each."""
    rng = np.random.default_rng(0)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    images, persons = [], []
    for number in range(6):
        cv2.imwrite(str(tmp_path / "train2017" / f"{number}.jpg"), rng.integers(0, 256, (120, 90, 3), dtype=np.uint8))
        images.append({"id": number, "file_name": f"{number}.jpg", "width": 90, "height": 120})
        keypoints = np.column_stack([rng.uniform(20, 70, 17), rng.uniform(20, 100, 17), np.full(17, 2)])
        persons.append({"id": 10 + number, "image_id": number, "category_id": 1, "bbox": [15, 15, 60, 90], "area": 5000,
                        "iscrowd": 0, "num_keypoints": 17, "keypoints": keypoints.ravel().tolist()})  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": ["x"] * 17, "skeleton": []}
    content = {"images": images, "annotations": persons, "categories": [category]}
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text(json.dumps(content))
    return tmp_path


def test_a_dry_run_prints_the_whole_recipe_and_what_departs_from_the_source(tmp_path):
    text = invoke("simplebaseline_r50", "--dry-run").stdout
    for wanted in (
        "epochs",
        "140",
        "90, 120",
        "augmentation.rotation",
        "40.0",
        "Departs from its source",
        "weight decay 0",
    ):
        assert wanted in text


def test_a_dry_run_as_json_holds_the_recipe_at_the_length_asked_for():
    plain = json.loads(invoke("simplebaseline_r50", "--dry-run", "--epochs", "14", "--json").stdout)
    assert (plain["epochs"], plain["milestones"], plain["recipe"]) == (14, [9, 12], "official")
    assert plain["differs"][-1] == "14 epochs in place of 140, milestones in proportion"


def test_a_tiny_network_has_its_quick_recipe_unless_told_and_others_the_official_one():
    plain = json.loads(invoke("hrnet_tiny", "--dry-run", "--json").stdout)
    assert plain["recipe"] == "quick" and not plain["milestones"]
    defaults = {name: next(iter(variant.recipes)) for name, variant in variants().items() if variant.recipes}
    assert defaults == {name: "quick" if name.endswith("_tiny") else "official" for name in defaults}


@pytest.mark.parametrize(("more", "told"), [((), True), (("--init", "trunk.pth"), False)], ids=["without", "with"])
def test_a_dry_run_says_when_the_trunk_of_the_recipe_is_missing(more, told):
    assert ("random weights: --init FILE" in invoke("hrnet_w32", "--dry-run", *more).stderr) == told


def test_training_writes_weights_that_load_again_and_goes_on_when_called_again(root, tmp_path):
    from harness.method import find_variant
    from harness.train import checkpoints

    out = tmp_path / "out"
    arguments = (METHOD, "--data", f"coco={root}", "--recipe", "quick", "--epochs", "2", "--workers", "0")
    made = json.loads(invoke(*arguments, "--out", str(out), "--json").stdout)
    assert (made["epochs"], made["steps"], made["samples"]) == (2, 2, 6)
    path = out / f"{METHOD}.safetensors"
    _, report = checkpoints.open_variant(find_variant(METHOD), path)
    assert report.unexplained == report.missing == ()
    metadata = checkpoints.read(path)[1]
    assert metadata["recipe_name"] == "quick" and metadata["data_name"] == "coco_train2017"
    again = json.loads(invoke(*arguments, "--out", str(out), "--json").stdout)
    assert again["images_per_second"] == 0.0 and again["loss"] == made["loss"]
    started = invoke(*arguments, "--out", str(tmp_path / "next"), "--init", str(path))
    assert "next" in started.stdout
    assert "init" in checkpoints.read(tmp_path / "next" / f"{METHOD}.safetensors")[1]


def test_the_seed_draws_the_weights_that_a_training_starts_from(root, tmp_path, monkeypatch):
    from harness.train import loop

    drawn = []

    def first_weights(network, *_, **options):
        drawn.append(network.final_layer.weight.detach().numpy().copy())
        return loop.TrainResult(weights=options["out"], epochs=0, steps=0, samples=0, loss=0.0, images_per_second=0.0)

    monkeypatch.setattr(loop, "train", first_weights)
    for seed in ("0", "1", "1"):
        invoke(METHOD, "--data", f"coco={root}", "--recipe", "quick", "--seed", seed, "--out", str(tmp_path))
    zero, one, again = drawn
    assert not np.array_equal(zero, one) and np.array_equal(one, again)


def test_an_unknown_recipe_lists_those_there_are():
    with pytest.raises(SuiteError) as caught:
        invoke(METHOD, "--recipe", "oficial", "--dry-run")
    assert "official" in caught.value.hint


def test_a_folder_without_coco_says_what_was_expected(tmp_path):
    with pytest.raises(DataError) as caught:
        invoke(METHOD, "--data", f"coco={tmp_path}")
    assert "annotations/person_keypoints_train2017.json" in caught.value.expected


def test_a_data_argument_of_another_form_is_refused():
    with pytest.raises(SuiteError, match="--data voc"):
        invoke(METHOD, "--data", "voc=/tmp")


def test_knobs_and_fields_are_set_and_stand_in_the_weights(root, tmp_path):
    from harness.train import checkpoints

    out = tmp_path / "out"
    arguments = ("fasterpose_tiny", "--data", f"coco={root}", "--recipe", "quick", "--epochs", "1", "--workers", "0")
    invoke(*arguments, "--set", "head=bilinear", "--set", "batch=2", "--accumulate", "2", "--out", str(out))
    _, facts = checkpoints.read(out / "fasterpose_tiny.safetensors")
    assert json.loads(facts["build"])["head"] == "bilinear" and json.loads(facts["recipe"])["batch"] == 2
    assert facts["init"] == "random weights of seed 0" and facts["steps"] == "3"
    with pytest.raises(UserError, match=r"build.head: bilinear there, project_shuffle now"):
        invoke(*arguments, "--set", "batch=2", "--out", str(out))


@pytest.mark.parametrize("said, wanted", [((), "bfloat16"), (("--precision", "float32"), "float32")])
def test_the_number_format_that_accelerate_was_launched_with_holds_unless_one_is_said(
    root, tmp_path, monkeypatch, said, wanted
):
    from harness.train import checkpoints

    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    arguments = (METHOD, "--data", f"coco={root}", "--recipe", "quick", "--epochs", "1", "--workers", "0")
    invoke(*arguments, *said, "--out", str(tmp_path))
    _, facts = checkpoints.read(tmp_path / f"{METHOD}.safetensors")
    assert facts["precision"] == wanted


def test_a_dry_run_refuses_a_recipe_of_another_input_size_as_a_real_run_does():
    with pytest.raises(UserError, match="for an input of 384x288, the network takes 256x192"):
        invoke("sharpose_b", "--recipe", "official_384x288", "--dry-run")


def test_a_dry_run_lists_the_parameter_groups_and_what_was_set():
    plain = json.loads(invoke("vitpose_tiny", "--recipe", "official", "--dry-run", "--json", "--set", "lr=1e-3").stdout)
    rates = {group["lr"] for group in plain["parameter_groups"]}
    assert max(rates) == 1e-3 and min(rates) == pytest.approx(1e-3 * 0.8**5)
    assert {group["weight_decay"] for group in plain["parameter_groups"]} == {0.0, 0.1}
    assert plain["differs"][-1] == "lr 0.001 in place of 0.0005" and plain["input"]["codec"] == "udp"


@pytest.mark.parametrize("name", ["official", "official_384x288", "mmpose0", "mmpose1"])
def test_the_recipes_of_both_code_lines_are_named(name):
    size = ("--set", "input_size=384x288") if name.endswith("384x288") else ()
    plain = json.loads(invoke("hrnet_w48", "--recipe", name, "--dry-run", "--json", *size).stdout)
    wanted = {
        "official": (1e-3, 128, 0, "hrnet", 2.0),
        "official_384x288": (1e-3, 96, 0, "hrnet", 3.0),
        "mmpose0": (5e-4, 256, 500, "mmpose0", 2.0),
        "mmpose1": (5e-4, 256, 500, "mmpose1", 2.0),
    }
    found = (plain["lr"], plain["batch"], plain["warmup_steps"], plain["augmentation"]["dialect"])
    assert (*found, plain["target"]["sigma"]) == wanted[name]


def test_ap_at_intervals_comes_from_the_validation_split(root, tmp_path):
    shutil.copy(
        root / "annotations/person_keypoints_train2017.json", root / "annotations/person_keypoints_val2017.json"
    )
    shutil.copytree(root / "train2017", root / "val2017")
    arguments = (METHOD, "--data", f"coco={root}", "--recipe", "quick", "--epochs", "2", "--workers", "0")
    made = json.loads(invoke(*arguments, "--validate-every", "1", "--out", str(tmp_path / "out"), "--json").stdout)
    assert made["best"].endswith(".best.safetensors") and 0 <= made["scores"]["ap"] <= 1
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert ["ap" in line for line in lines] == [True, True] and "waiting_share" in lines[0]


def test_a_run_out_of_time_says_that_the_same_command_goes_on(root, tmp_path):
    arguments = (METHOD, "--data", f"coco={root}", "--recipe", "quick", "--epochs", "2", "--workers", "0")
    done = invoke(*arguments, "--minutes", "0", "--out", str(tmp_path / "out"))
    assert "stopped after 1 steps" in done.stdout and "the same command goes on" in done.stdout
    assert "2 epochs" in invoke(*arguments, "--out", str(tmp_path / "out")).stdout


def test_a_recipe_for_another_input_size_is_refused_with_the_way_out(root, tmp_path):
    arguments = ("hrnet_w32", "--data", f"coco={root}", "--set", "input_size=128x96", "--out", str(tmp_path))
    with pytest.raises(UserError, match="for an input of 256x192, the network takes 128x96"):
        invoke(*arguments)


def test_mpii_is_trained_on_in_its_own_layout(tmp_path):
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "0.jpg"), np.full((120, 90, 3), 99, np.uint8))
    joints = np.random.default_rng(0).uniform(10, 80, (16, 2)).tolist()
    person = {"image": "0.jpg", "center": [45, 50], "scale": 0.4, "joints": joints, "joints_vis": [1] * 16}
    (tmp_path / "annot" / "train.json").write_text(json.dumps([person] * 2))
    out = tmp_path / "out"
    done = invoke(
        METHOD, "--data", f"mpii={tmp_path}", "--epochs", "1", "--workers", "0", "--out", str(out), "--json"
    )  # fmt: skip
    assert json.loads(done.stdout)["done"] and (out / f"{METHOD}.safetensors").is_file()
    with pytest.raises(DataError, match="no CrowdPose training set"):
        invoke(METHOD, "--data", f"crowdpose={tmp_path}")


def test_what_the_start_file_does_not_tell_is_said(monkeypatch, capsys):
    from types import SimpleNamespace

    from harness.cli.train import _network
    from harness.method import find_variant
    from harness.train import checkpoints
    from harness.train.settings import settled

    report = checkpoints.LoadReport("mae", notes=("a file does not tell its number of heads",), sha256="0" * 64)
    monkeypatch.setattr(checkpoints, "load_into", lambda *given, **options: report)
    variant = find_variant(METHOD)
    recipe, build, size = settled(variant, variant.recipes["quick"], [])
    settings = SimpleNamespace(recipe=recipe, build=build, input_size=size)
    dataset = SimpleNamespace(skeleton=SimpleNamespace(num_joints=17))
    _network(variant, settings, dataset, 0, Path("mae.pth"), {})
    assert "note: a file does not tell its number of heads" in capsys.readouterr().err
