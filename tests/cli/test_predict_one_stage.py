"""The verb `predict` with a one-stage network: no boxes are given, they are found."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.data import coco
from harness.errors import UserError
from harness.train import checkpoints


@pytest.fixture(scope="module")
def place(one_stage, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    one_stage.write(folder / "dots", images=4)
    checkpoints.write(folder / "w.safetensors", one_stage.ColourFinder().state_dict())
    return folder


@pytest.fixture
def call(one_stage, place, tmp_path, monkeypatch):
    one_stage.register(monkeypatch)

    def predict(*words: str | Path):
        given = ["predict", "finder", *map(str, words), "--weights", str(place / "w.safetensors")]
        return CliRunner().invoke(app, [*given, "--out", str(tmp_path / "out")])

    return predict


def test_everybody_on_the_photographs_is_found_without_boxes(place, tmp_path, call):
    done = call(place / "dots/val2017")
    assert done.exit_code == 0, done.output
    assert "6 persons on 4 photographs" in done.stdout
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    truth = coco.load(place / "dots/annotations/person_keypoints_val2017.json", place / "dots/val2017")
    assert len(found["annotations"]) == len(truth.persons) == 6, "the first picture has nobody, which is no error"
    for one, person in zip(found["annotations"], truth.persons, strict=True):
        ours = np.array(one["keypoints"]).reshape(-1, 3)
        np.testing.assert_allclose(ours[:, :2], person.keypoints[:, :2], atol=1.0)
        x, _, w, h = one["bbox"]
        assert x <= ours[:, 0].min() and x + w >= ours[:, 0].max() and w * h == pytest.approx(one["area"])
    assert all("bbox" not in result for result in json.loads((tmp_path / "out/results.json").read_text()))


def test_the_drawn_pictures_show_the_boxes_of_sure_persons(place, tmp_path, call):
    picture = sorted((place / "dots/val2017").iterdir())[3]
    call(picture, "--person-threshold", "0.75")
    some = cv2.imread(str(tmp_path / "out" / f"{picture.stem}.poses.jpg"))
    call(picture, "--person-threshold", "0")
    every = cv2.imread(str(tmp_path / "out" / f"{picture.stem}.poses.jpg"))
    assert some.shape == every.shape == cv2.imread(str(picture)).shape
    third = slice(2 * every.shape[1] // 3 + 8, None)
    assert (every[:, third].max(axis=2) > 240).sum() > 2 * (some[:, third].max(axis=2) > 240).sum()


def test_grey_rgba_and_one_pixel_photographs_have_nobody_on_them(tmp_path, call):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "grey.png"), rng.integers(256, size=(60, 80), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "rgba.png"), rng.integers(256, size=(60, 80, 4), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "dot.png"), np.zeros((1, 1, 3), np.uint8))
    done = call(tmp_path / "grey.png", tmp_path / "rgba.png", tmp_path / "dot.png", "--json")
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert content["annotations"] == [] and len(content["images"]) == 3
    assert len(list((tmp_path / "out").glob("*.poses.jpg"))) == 3


def test_boxes_for_a_network_that_finds_them_itself_are_refused(place, call):
    boxes = place / "dots/annotations/person_keypoints_val2017.json"
    done = call(place / "dots/val2017", "--boxes", boxes)
    assert isinstance(done.exception, UserError) and "finds the persons itself" in str(done.exception)
