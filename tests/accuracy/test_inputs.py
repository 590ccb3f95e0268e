from __future__ import annotations

import copy

import numpy as np
import pytest

from harness.accuracy.checks import read_json
from harness.accuracy.evaluate import evaluate
from harness.accuracy.inputs import Detections, GroundTruth
from harness.errors import DataError


@pytest.fixture
def world(made_up, jittered):
    gt = made_up(12, 1)
    return gt, jittered(gt, 1)


def _changed(rows, n, **fields):
    rows = copy.deepcopy(rows)
    for key, value in fields.items():
        if value is None:
            rows[n].pop(key)
        else:
            rows[n][key] = value
    return rows


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_id": 999}, "image 999 is not in the annotations"),
        ({"image_id": "1"}, "image '1' is not in the annotations"),
        ({"image_id": []}, r"image \[\] is not in the annotations"),
        ({"score": float("nan")}, "score is nan"),
        ({"score": None}, "score is None"),
        ({"score": "high"}, "score is 'high'"),
        ({"keypoints": [1.0] * 42}, "42 keypoint numbers, not 51"),
        ({"keypoints": [float("inf")] * 51}, "keypoints that are not finite"),
        ({"keypoints": None}, "no keypoints"),
        ({"category_id": 7}, "category 7, not 1"),
        ({"category_id": None}, "category None, not 1"),
        ({"keypoints": ["1"] * 51}, "keypoints that are not finite numbers"),
        ({"score": 10**400}, "score is 1000"),
        ({"score": True}, "score is True"),
    ],
)
def test_a_faulty_result_is_named_with_what_is_wrong(world, fields, message):
    gt, results = world
    with pytest.raises(DataError, match=f"result 3.*{message}"):
        evaluate(gt, _changed(results, 3, **fields), bootstrap=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"area": None}, "no area"),
        ({"area": 0.0, "iscrowd": 0, "num_keypoints": 3}, "area is 0.0"),
        ({"area": float("nan")}, "area is nan"),
        ({"keypoints": None}, "no keypoints"),
        ({"keypoints": [0] * 48}, "48 keypoint numbers, not 51"),
        ({"image_id": 999}, "image 999 is not in the list of images"),
        ({"bbox": [1, 2, 3]}, "not four numbers"),
        ({"id": None}, "no id"),
        ({"id": [1]}, r"id is \[1\]"),
        ({"image_id": [1]}, r"image \[1\] is not in the list"),
        ({"keypoints": ["1"] * 51}, "keypoints that are not finite numbers"),
        ({"area": 10**400}, "area is 1000"),
    ],
)
def test_a_faulty_annotation_is_named_with_what_is_wrong(world, fields, message):
    gt, results = world
    with pytest.raises(DataError, match=message):
        evaluate({**gt, "annotations": _changed(gt["annotations"], 2, **fields)}, results, bootstrap=0)


@pytest.mark.parametrize("categories", [[3], [3, 4], [{"id": [1]}], [{"name": "person"}]])
def test_categories_that_are_none_are_refused(world, categories):
    with pytest.raises(DataError, match="which category"):
        evaluate({**world[0], "categories": categories}, world[1], bootstrap=0)


def test_messages_name_the_annotations_as_the_caller_does(world):
    gt, results = world
    with pytest.raises(DataError, match=r"truth\.json: "):
        evaluate({**gt, "annotations": [3]}, results, bootstrap=0, gt_name="truth.json")


def test_duplicate_annotation_and_image_ids_are_refused(world):
    gt, results = world
    with pytest.raises(DataError, match="the id occurs twice"):
        evaluate({**gt, "annotations": gt["annotations"] + gt["annotations"][:1]}, results, bootstrap=0)
    with pytest.raises(DataError, match="image id 1 occurs twice"):
        evaluate({**gt, "images": gt["images"] + gt["images"][:1]}, results, bootstrap=0)


def test_all_faults_are_counted_and_the_first_twenty_listed(world):
    gt, results = world
    bad = [{**r, "score": float("nan")} for r in results * 3]
    with pytest.raises(DataError) as caught:
        evaluate(gt, bad, bootstrap=0)
    text = str(caught.value)
    assert f"{len(bad)} faults" in text
    assert text.count("score is nan") == 20
    assert f"and {len(bad) - 20} more" in text


def test_a_box_in_the_first_result_only_is_refused(world):
    gt, results = world
    with pytest.raises(DataError, match="though the first result has one"):
        evaluate(gt, _changed(results, 0, bbox=[0, 0, 5, 5]), bootstrap=0)


def test_no_results_at_all_are_ap_zero(world):
    found = evaluate(world[0], [], bootstrap=5)
    assert found.stats["AP"] == 0
    assert found.stats["AR"] == 0
    assert found.verdict.detections == 0


def test_annotations_without_anybody_give_no_number_but_a_reason(world):
    gt, _ = world
    found = evaluate({**gt, "annotations": []}, [], bootstrap=5)
    assert np.isnan(found.stats["AP"])
    assert found.to_dict()["stats"]["AP"] == {"value": None, "interval": None, "reason": "no person with keypoints"}


def test_a_size_that_nobody_has_is_null_with_its_reason(world):
    gt, results = world
    tiny = {**gt, "annotations": [{**a, "area": 2000.0} for a in gt["annotations"]]}
    row = evaluate(tiny, results, bootstrap=5).to_dict()["stats"]["APl"]
    assert row["value"] is None
    assert "large size" in row["reason"]


def test_few_images_give_intervals_with_a_warning(world):
    found = evaluate(*world, bootstrap=5)
    assert found.intervals["AP"] is not None
    assert any("only 12 images" in note for note in found.notes)


def test_poses_given_twice_are_noted(world):
    gt, results = world
    assert any(f"{len(results)} poses occur twice" in note for note in evaluate(gt, results * 2, bootstrap=0).notes)


def test_missing_counts_and_crowd_flags_are_filled_in(world):
    gt, results = world
    bare = copy.deepcopy(gt)
    for a in bare["annotations"]:
        a.pop("num_keypoints")
        if not a["iscrowd"]:
            a.pop("iscrowd")
    full, filled = evaluate(gt, results, bootstrap=0), evaluate(bare, results, bootstrap=0)
    assert dict(full.stats) == pytest.approx(dict(filled.stats), abs=0, nan_ok=True)


def test_results_of_images_that_are_not_asked_for_are_left_out(world):
    gt, results = world
    found = evaluate(gt, results, bootstrap=0, image_ids=[2, 3, 4])
    assert found.images == 3
    assert found.detections == sum(r["image_id"] in (2, 3, 4) for r in results)
    with pytest.raises(DataError, match="image 77 is asked for"):
        evaluate(gt, results, bootstrap=0, image_ids=[77])


def test_another_category_is_not_scored(world):
    gt, results = world
    animal = {"id": 10_000, "image_id": 1, "category_id": 2, "bbox": [0, 0, 1, 1], "area": 1, "iscrowd": 0}
    mixed = {
        **gt,
        "annotations": [*gt["annotations"], animal],
        "categories": [*gt["categories"], {"id": 2, "name": "dog"}],
    }
    assert dict(evaluate(mixed, results, bootstrap=0).stats) == dict(evaluate(gt, results, bootstrap=0).stats)


def test_what_is_given_is_not_changed(world):
    before = copy.deepcopy(world)
    evaluate(*world, bootstrap=3)
    assert world == before


@pytest.mark.parametrize("cut", [5, 500])
def test_a_file_that_was_cut_short_is_named_with_its_line(tmp_path, cut):
    path = tmp_path / "results.json"
    path.write_text('[{"image_id": 1, "score": 0.5, "keypoints": [' + "1.0, " * 200)
    path.write_text(path.read_text()[:cut])
    with pytest.raises(DataError, match="ends too early") as caught:
        read_json(path)
    assert "results.json:1" in str(caught.value)


def test_missing_and_wrong_files_are_told_apart(tmp_path, world):
    with pytest.raises(DataError, match="no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("not json")
    with pytest.raises(DataError, match="not valid JSON"):
        read_json(tmp_path / "text.json")
    with pytest.raises(DataError, match="the file holds an object"):
        evaluate(world[0], {"annotations": []}, bootstrap=0)
    with pytest.raises(DataError, match="no list of images and of annotations and of categories"):
        evaluate({}, [], bootstrap=0)


def test_poses_are_ordered_by_image_then_score_then_place_in_the_file(made_up):
    gt = made_up(3, 1)
    truth = GroundTruth.from_coco(gt, num_joints=17)
    points = [[float(i), 0.0, 1.0] * 17 for i in range(4)]
    rows = [(2, 0.5), (1, 0.2), (2, 0.5), (1, 0.9)]
    results = [
        {"image_id": image, "category_id": 1, "score": score, "keypoints": points[i]}
        for i, (image, score) in enumerate(rows)
    ]
    found = Detections.from_results(results, truth)
    assert found.xy[:, 0, 0].tolist() == [3, 1, 0, 2]
