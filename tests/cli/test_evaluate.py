from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.accuracy.anatomy import ERRORS
from harness.accuracy.ap import STAT_NAMES
from harness.accuracy.evaluation import SCHEMA
from harness.pose.skeletons import COCO

JOINTS = 17


def _world(images: int = 35) -> dict:
    rng, annotations = np.random.default_rng(0), []
    for i in range(images):
        points = np.c_[rng.uniform(0, 200, (JOINTS, 2)), np.full(JOINTS, 2)]
        annotations.append(
            {
                "id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "num_keypoints": JOINTS,
                "bbox": [0, 0, 200, 200], "area": 20_000.0, "keypoints": points.ravel().tolist(),
            }
        )  # fmt: skip
    pictures = [{"id": i, "width": 200, "height": 200} for i in range(images)]
    return {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def _results(gt: dict, noise: float) -> list[dict]:
    rng, results = np.random.default_rng(1), []
    for a in gt["annotations"]:
        points = np.array(a["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.normal(0, noise, (JOINTS, 2))
        results.append(
            {
                "image_id": a["image_id"], "category_id": 1, "score": float(rng.random()),
                "keypoints": points.ravel().tolist(),
            }
        )  # fmt: skip
    return results


@pytest.fixture
def files(tmp_path):
    gt = _world()
    contents = {"gt": gt, "good": _results(gt, 4.0), "bad": _results(gt, 14.0), "half": _results(gt, 4.0)[:30]}
    paths = {}
    for name, content in contents.items():
        paths[name] = str(tmp_path / f"{name}.json")
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return paths


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "harness", "evaluate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_table_shows_all_ten_statistics_and_the_judge(files):
    done = _run("--gt", files["gt"], "--pred", files["good"], "--bootstrap", "50")
    assert done.returncode == 0, done.stderr
    for name in ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl", "pycocotools"):
        assert name in done.stdout
    assert "n/a" in done.stdout  # every person is large
    assert "no person of medium size" in done.stdout


def test_json_carries_the_schema_and_intervals_that_hold_the_value(files):
    done = _run("--gt", files["gt"], "--pred", files["good"], "--bootstrap", "50", "--json")
    answer = json.loads(done.stdout)
    assert answer["schema"] == SCHEMA
    assert answer["images"] == answer["persons"] == answer["detections"] == 35
    low, high = answer["stats"]["AP"]["interval"]["percentile"]
    assert 0 < low < answer["stats"]["AP"]["value"] < high < 1
    assert answer["stats"]["APm"] == {"value": None, "interval": None, "reason": answer["stats"]["APm"]["reason"]}
    assert answer["judge"]["name"] == "pycocotools"
    assert answer["judge"]["largest_difference"] <= 1e-9


def test_against_another_file_gives_a_paired_difference(files):
    done = _run("--gt", files["gt"], "--pred", files["good"], "--against", files["bad"], "--bootstrap", "99", "--json")
    (other,) = json.loads(done.stdout)["against"]
    found = other["comparison"]["differences"]["AP"]
    assert found["value"] > 0.1
    assert found["interval"]["percentile"][0] > 0
    assert found["p"] == found["p_holm"] == pytest.approx(0.01)


def test_several_against_are_corrected_together(files):
    command = ["--gt", files["gt"], "--pred", files["good"], "--bootstrap", "99", "--json"]
    done = _run(*command, "--against", files["bad"], "--against", files["good"])
    first, second = json.loads(done.stdout)["against"]
    assert first["comparison"]["differences"]["AP"]["p_holm"] == pytest.approx(0.02)
    assert second["comparison"]["differences"]["AP"]["p_holm"] == 1
    shown = _run(*command[:-1], "--against", files["bad"], "--no-judge")
    assert "good.json minus bad.json" in shown.stdout
    assert "not judged" in shown.stdout
    same = _run(*command[:-1], "--against", files["good"], "--no-judge")
    assert f"{files['good']}minus{files['good']}" in "".join(same.stdout.split())  # a long title goes on


def test_against_over_other_images_is_refused_unless_missing_means_empty(files):
    command = ["--gt", files["gt"], "--pred", files["good"], "--against", files["half"], "--bootstrap", "20"]
    refused = _run(*command)
    assert refused.returncode == 3
    assert "5 only in the first: 30, 31, 32, 33, 34" in refused.stderr
    assert refused.stdout == ""
    assert _run(*command, "--missing-as-empty").returncode == 0


def test_bad_input_ends_with_code_three_and_one_message(files, tmp_path):
    (tmp_path / "cut.json").write_text('[{"image_id": 1,')
    done = _run("--gt", files["gt"], "--pred", str(tmp_path / "cut.json"))
    assert done.returncode == 3
    assert "ends too early" in done.stderr
    assert "Traceback" not in done.stderr
    unknown = _run("--gt", files["gt"], "--pred", files["good"], "--evaluator", "crowdpos")
    assert unknown.returncode == 3
    assert "did you mean crowdpose" in unknown.stderr


@pytest.fixture(scope="module")
def detailed(tmp_path_factory) -> dict:
    """The whole answer: both flags, against a worse file and against itself."""
    folder, gt = tmp_path_factory.mktemp("detailed"), _world()
    for name, content in {"gt": gt, "good": _results(gt, 4.0), "bad": _results(gt, 14.0)}.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    good, bad = str(folder / "good.json"), str(folder / "bad.json")
    command = ["--gt", str(folder / "gt.json"), "--pred", good, "--against", bad, "--against", good]
    done = _run(*command, "--bootstrap", "20", "--breakdown", "--anatomy", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_where_ap_is_lost_is_told_with_paired_differences(detailed):
    worse, itself = detailed["against"]
    for key in ("breakdown", "anatomy"):
        assert detailed[key]["resamples"] == 20
        assert key in worse["comparison"]
    miss = worse["comparison"]["anatomy"]["errors"]["miss"]["alone"]
    low, high = miss["interval"]["percentile"]
    assert low <= miss["value"] <= high < 0  # the worse file loses more by it
    for row in itself["comparison"]["anatomy"]["errors"].values():
        assert row["alone"]["value"] == row["step"]["value"] == 0
        assert row["alone"]["interval"]["percentile"] == [0, 0]
    assert worse["comparison"]["breakdown"]["keypoint"]["nose"]["value"] > 0
    assert detailed["breakdown"]["size"]["medium"]["reason"] == "no person of this kind"


def _keys(value) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(_keys, value))
    return set(value).union(*map(_keys, value.values())) if isinstance(value, dict) else set()


def test_every_key_that_is_printed_is_in_the_document(detailed):
    page = (Path(__file__).parents[2] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    printed = _keys(detailed) - set(COCO.joints)
    assert sorted(key for key in printed if f"`{key}`" not in page) == []
    assert f"`{SCHEMA}`" in page
    assert all(f"`{name}`" in page for names in STAT_NAMES.values() for name in names)


def test_the_tables_of_where_ap_is_lost_name_every_part_and_error(files):
    done = _run(
        "--gt", files["gt"], "--pred", files["good"], "--against", files["bad"], "--bootstrap", "20", "--no-judge",
        "--breakdown", "--anatomy",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for text in ("left_wrist", "three or more others", "cut by the edge", *ERRORS, "one after the other"):
        assert text in done.stdout
    assert "good.json minus bad.json: cost of each error" in done.stdout


def test_nobody_to_be_found_is_all_null_with_reasons_and_no_failure(files, tmp_path):
    empty = {**_world(), "annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    (tmp_path / "none.json").write_text("[]")
    pred = ["--pred", str(tmp_path / "none.json"), "--against", files["good"], "--missing-as-empty"]
    command = ["--gt", str(tmp_path / "empty.json"), *pred, "--bootstrap", "10", "--breakdown", "--anatomy"]
    done = _run(*command, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rows = [*answer["stats"].values(), *answer["breakdown"]["keypoint"].values(), answer["anatomy"]["ap"]]
    rows += answer["against"][0]["comparison"]["differences"].values()
    assert all(row["value"] is None and row["reason"] for row in rows)
    shown = _run(*command)
    assert shown.returncode == 0, shown.stderr
    assert "n/a" in shown.stdout


def test_faulty_results_are_listed_together(files, tmp_path):
    good = _results(_world(), 4.0)
    results = [*good, {**good[0], "image_id": 999}, {**good[1], "score": float("nan")}]
    (tmp_path / "faulty.json").write_text(json.dumps(results))
    done = _run("--gt", files["gt"], "--pred", str(tmp_path / "faulty.json"))
    assert done.returncode == 3
    assert "image 999 is not in the annotations" in " ".join(done.stderr.split())
    assert "score is nan" in " ".join(done.stderr.split())


def test_few_images_and_poses_given_twice_are_remarked(tmp_path):
    gt = _world(5)
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "twice.json").write_text(json.dumps(_results(gt, 4.0) * 2))
    done = _run("--gt", str(tmp_path / "gt.json"), "--pred", str(tmp_path / "twice.json"), "--bootstrap", "20")
    assert done.returncode == 0, done.stderr
    assert "only 5 images" in done.stdout
    assert "5 poses occur twice" in done.stdout


def test_the_verb_starts_without_torch():
    code = "import sys, harness.cli.evaluate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_poses_of_mpii_are_scored_by_pckh_with_the_head_boxes_of_a_mat_file(tmp_path):
    from scipy.io import savemat

    joints = np.random.default_rng(0).uniform(50, 400, (6, 16, 2))
    people = [
        {"image": f"{n // 2}.jpg", "center": [200.0, 200.0], "scale": 2.0, "joints": j.tolist(), "joints_vis": [1] * 16}
        for n, j in enumerate(joints)
    ]
    (tmp_path / "valid.json").write_text(json.dumps(people))
    boxes = np.zeros((2, 2, 6))
    boxes[1] = 50.0
    savemat(tmp_path / "gt.mat", {"headboxes_src": boxes})
    moved = joints + np.array([0.4 * 0.6 * 50 * np.sqrt(2), 0])  # 0.4 of the head size to the right
    savemat(tmp_path / "pred.mat", {"preds": moved})
    call = ("--gt", str(tmp_path / "valid.json"), "--pred", str(tmp_path / "pred.mat"))
    without = _run(*call)
    assert without.returncode == 3 and "--heads FILE.mat" in without.stderr
    done = _run(*call, "--heads", str(tmp_path / "gt.mat"), "--bootstrap", "20", "--json")
    answer = json.loads(done.stdout)
    assert answer["evaluator"] == "mpii" and answer["judge"] is None
    assert answer["stats"]["PCKh@0.5"]["value"] == 1 and answer["stats"]["PCKh@0.1"]["value"] == 0


def test_annotations_with_a_crowd_index_are_evaluated_as_crowdpose(tmp_path):
    gt = _world(3)
    for image in gt["images"]:
        image["crowdIndex"] = 0.5
    for entry in gt["annotations"]:
        entry["keypoints"] = entry["keypoints"][:42]
    results = [{**r, "keypoints": r["keypoints"][:42]} for r in _results(_world(3), 2.0)]
    (tmp_path / "gt.json").write_text(json.dumps(gt))
    (tmp_path / "pred.json").write_text(json.dumps(results))
    done = _run("--gt", str(tmp_path / "gt.json"), "--pred", str(tmp_path / "pred.json"), "--bootstrap", "0", "--json")
    assert json.loads(done.stdout)["judge"]["name"] == "xtcocotools", done.stderr
