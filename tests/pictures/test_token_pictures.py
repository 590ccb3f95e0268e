"""The picture of what was refined: `predict --tokens`."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from harness.cli.main import app
from harness.data import synthetic
from harness.errors import UserError
from harness.method import find_variant
from harness.pictures import token_pictures
from harness.train import checkpoints


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """One synthetic photograph with annotations, and random weights of a network with regions and of one without."""
    folder = tmp_path_factory.mktemp("place")
    synthetic.write(folder / "people", images=1, seed=4)
    for name in ("sharpose_tiny", "vitpose_tiny"):
        torch.manual_seed(0)
        network = find_variant(name).build(num_joints=17, input_size=(128, 96))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        checkpoints.write(folder / f"{name}.safetensors", network.state_dict())
    return folder


def call(place: Path, out: Path, *words: str, method: str = "sharpose_tiny"):
    boxes = place / "people/annotations/person_keypoints_val2017.json"
    files = ["--weights", str(place / f"{method}.safetensors"), "--boxes", str(boxes), "--out", str(out)]
    return CliRunner().invoke(app, ["predict", method, str(place / "people/val2017"), "--tokens", *files, *words])


def panels(out: Path, persons: int) -> np.ndarray:
    """(persons, 3, 384, 288, 3) the panels of the only picture, captions cut off."""
    (file,) = out.glob("*.tokens.jpg")
    picture = cv2.imread(str(file))
    assert picture.shape == (persons * (384 + 24 + 8) - 8, 3 * 288 + 16, 3)
    tops = [n * 416 + 24 for n in range(persons)]
    return np.stack([[picture[t : t + 384, x : x + 288] for x in (0, 296, 592)] for t in tops]).astype(int)


def test_each_person_has_a_line_with_coarse_pose_regions_and_answer(place, tmp_path):
    done = call(place, tmp_path, "--set", "quality_threshold=always", "--set", "alpha=0.5", "--threshold", "1e9")
    assert done.exit_code == 0, done.output
    persons = len(json.loads((place / "people/annotations/person_keypoints_val2017.json").read_text())["annotations"])
    found = panels(tmp_path, persons)
    assert np.abs(found[:, 0] - found[:, 2]).max() < 40, "no joint reaches this score: both are the bare crop"
    for line in found:
        tops = [line[1][48 * row, 48 * column + 2 : 48 * column + 46].mean() for row in range(8) for column in range(6)]
        framed = np.array(tops) > 120  # a white frame; what is not refined is dark
        assert framed.sum() == 24, "half of 48 regions"


def test_of_a_person_that_left_early_nothing_is_refined_and_both_poses_are_the_same(place, tmp_path):
    done = call(place, tmp_path, "--set", "quality_threshold=never", "--threshold", "-1e9")
    assert done.exit_code == 0, done.output
    found = panels(tmp_path, len(json.loads((tmp_path / "results.json").read_text())))
    assert np.abs(found[:, 0] - found[:, 2]).mean() < 1
    assert found[:, 1].mean() < 0.3 * found[:, 0].mean()


@pytest.mark.parametrize(
    ("refined", "answer"),
    [([True], "fine"), ([False, False], "coarse"), ([False, True], "one forward fine, one coarse")],
)
def test_the_answer_is_named_after_what_both_forwards_did(refined, answer):
    regions = np.full((8, 6), refined[0])
    assert token_pictures._captions(0.5, regions, refined)[2] == f"answer: {answer}"


def test_a_network_without_regions_is_refused(place, tmp_path):
    done = call(place, tmp_path, method="vitpose_tiny")
    assert isinstance(done.exception, UserError) and "no regions to draw" in str(done.exception)


def test_an_exit_rate_is_refused_where_there_is_no_set_to_choose_from(place, tmp_path):
    done = call(place, tmp_path, "--set", "exit_rate=0.5")
    assert isinstance(done.exception, UserError) and "does not know the others" in str(done.exception)
