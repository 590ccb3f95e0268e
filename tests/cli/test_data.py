from __future__ import annotations

import json
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from harness.pose.skeletons import COCO


def _run(*arguments):
    command = [sys.executable, "-m", "harness", "data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "7.jpg"), np.full((48, 64, 3), 99, np.uint8))
    entry = {
        "id": 1, "image_id": 7, "category_id": 1, "iscrowd": 0, "num_keypoints": 1, "area": 300.0,
        "bbox": [5, 6, 20, 30], "keypoints": [10, 12, 2] + [0] * 48,
    }  # fmt: skip
    content = {
        "images": [{"id": 7, "file_name": "7.jpg", "width": 64, "height": 48}],
        "annotations": [entry],
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO.joints)}],
    }
    (tmp_path / "person_keypoints_tiny.json").write_text(json.dumps(content))
    return tmp_path


def test_a_sound_set_exits_with_0(folder):
    done = _run("check", folder)
    assert done.returncode == 0 and done.stdout.startswith("no faults: ")


def test_faults_exit_with_3_and_are_shown_with_place_and_count(folder):
    (folder / "images" / "7.jpg").unlink()
    done = _run("check", folder)
    assert done.returncode == 3
    assert "missing image" in done.stdout and "image 7, 7.jpg" in done.stdout and "1 faults" in done.stdout


def test_json_on_stdout_holds_every_fault_and_nothing_else(folder):
    (folder / "images" / "7.jpg").unlink()
    done = _run("check", folder, "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 3 and answer["counts"] == {"missing image": 1}
    assert answer["faults"][0]["where"] == "image 7, 7.jpg" and answer["schema"] == 1


def test_a_file_and_its_image_folder_can_be_named(folder):
    shutil.move(folder / "images", folder / "pictures")
    file = folder / "person_keypoints_tiny.json"
    assert _run("check", "--annotations", file, "--images", folder / "pictures").returncode == 0
    assert _run("check", "--annotations", file).returncode == 3


@pytest.mark.parametrize("arguments", [[], ["x", "--annotations", "y"], ["/no/such/folder"]])
def test_wrong_arguments_are_explained_without_a_traceback(arguments):
    done = _run("check", *arguments)
    assert done.returncode == 3 and done.stdout == ""
    assert done.stderr.startswith("error: ") and "expected: " in done.stderr and "Traceback" not in done.stderr


def test_a_synthetic_set_passes_the_check(tmp_path):
    made = _run("synth", tmp_path / "set", "--images", 3, "--seed", 5, "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["images"] == 3
    assert _run("check", tmp_path / "set").stdout.startswith("no faults: ")
