from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import boxes, coco
from harness.errors import DataError
from harness.pose.skeletons import COCO


def _dataset(folder, rows, size=(100, 80)):
    """rows: (image id, bbox, changes of the annotation)."""
    joints = [10, 10, 2] + [0] * 48
    entries = [
        {"id": number, "image_id": image_id, "category_id": 1, "iscrowd": 0, "num_keypoints": 1, "bbox": box,
         "area": 50.0, "keypoints": joints, **changes}
        for number, (image_id, box, changes) in enumerate(rows, start=1)
    ]  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.jpg", "width": size[0], "height": size[1]} for i in (9, 2, 5)]
    category = {"id": 1, "name": "person", "keypoints": list(COCO.joints)}
    path = folder / "gt.json"
    path.write_text(json.dumps({"images": images, "annotations": entries, "categories": [category]}))
    return coco.load(path, folder)


@pytest.mark.parametrize(
    ("cleaning", "box", "expected"),
    [
        ("hrnet", [10, 20, 30, 40], [10, 20, 29, 39]),
        ("hrnet", [-5, -5, 30, 40], [0, 0, 29, 39]),  # the corner moves, the size stays
        ("hrnet", [90, 70, 30, 40], [90, 70, 9, 9]),
        ("hrnet", [10, 20, 0.5, 40], [10, 20, 0, 39]),
        ("mmpose1", [10, 20, 30, 40], [10, 20, 30, 40]),
        ("mmpose1", [-5, -5, 30, 40], [0, 0, 25, 35]),
        ("mmpose1", [90, 70, 30, 40], [90, 70, 9, 9]),
        ("none", [-5, 70, 30, 40], [-5, 70, 30, 40]),
    ],
)
def test_ground_truth_boxes_are_cleaned_as_the_named_code_does(tmp_path, cleaning, box, expected):
    found = boxes.from_ground_truth(_dataset(tmp_path, [(2, box, {})]), cleaning)
    np.testing.assert_allclose(found.xywh, [expected])
    assert found.source == f"ground-truth ({cleaning})"
    assert found.scores.tolist() == [1.0] and found.ids.tolist() == [1] and found.image_ids.tolist() == [2]


def test_crowds_and_persons_without_joints_and_boxes_outside_are_left_out(tmp_path):
    rows = [
        (2, [1, 1, 9, 9], {"iscrowd": 1}),
        (2, [1, 1, 9, 9], {"num_keypoints": 0}),
        (2, [1, 1, 9, 9], {"keypoints": [0] * 51}),
        (2, [1, 1, 9, 9], {"area": 0}),
        (2, [200, 1, 9, 9], {}),
        (2, [1, 1, 1, 1], {}),
        (2, [1, 1, 9, 9], {}),
    ]
    assert boxes.from_ground_truth(_dataset(tmp_path, rows)).ids.tolist() == [7]


def test_boxes_come_by_image_in_dataset_order_then_file_order(tmp_path):
    rows = [(5, [1, 1, 9, 9], {}), (9, [2, 1, 9, 9], {}), (5, [3, 1, 9, 9], {}), (2, [4, 1, 9, 9], {})]
    found = boxes.from_ground_truth(_dataset(tmp_path, rows))
    assert found.image_ids.tolist() == [9, 2, 5, 5] and found.ids.tolist() == [2, 4, 1, 3]


def test_an_unknown_cleaning_suggests_a_near_one(tmp_path):
    with pytest.raises(DataError, match=r"unknown box cleaning 'hrnett'\n.*did you mean hrnet"):
        boxes.from_ground_truth(_dataset(tmp_path, []), "hrnett")


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.floats(-150, 150)] * 2, *[st.floats(0, 200)] * 2), st.sampled_from(["hrnet", "mmpose1"]))
def test_cleaned_boxes_lie_inside_the_image(tmp_path_factory, box, cleaning):
    dataset = _dataset(tmp_path_factory.mktemp("boxes"), [(2, list(box), {})])
    for x, y, w, h in boxes.from_ground_truth(dataset, cleaning).xywh:
        assert 0 <= x <= x + w <= 99 and 0 <= y <= y + h <= 79


def _detection(image_id=2, **changes):
    return {"image_id": image_id, "category_id": 1, "bbox": [-3, 4, 20.5, 30], "score": 0.5, **changes}


def _read(folder, entries, threshold=0.0, dataset=None):
    path = folder / "detections.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return boxes.from_file(path, dataset or _dataset(folder, []), threshold)


def test_detections_are_used_raw_and_in_order(tmp_path):
    found = _read(tmp_path, [_detection(5, score=0.1), _detection(9), _detection(5, score=0.9)])
    assert found.image_ids.tolist() == [9, 5, 5] and found.scores.tolist() == [0.5, 0.1, 0.9]
    assert found.xywh[0].tolist() == [-3, 4, 20.5, 30] and found.ids.tolist() == [-1, -1, -1]
    assert found.source.startswith("detections.json sha256:")


def test_a_threshold_keeps_scores_at_it_and_other_categories_are_no_persons(tmp_path):
    entries = [_detection(score=0.29), _detection(score=0.3), _detection(category_id=2)]
    found = _read(tmp_path, entries, threshold=0.3)
    assert found.scores.tolist() == [0.3] and "score >= 0.3" in found.source


def test_an_empty_list_gives_no_boxes(tmp_path):
    found = _read(tmp_path, [])
    assert len(found) == 0 and found.xywh.shape == (0, 4) and found.image_ids.dtype == np.int64


def test_boxes_of_images_that_a_limit_left_out_are_passed_over(tmp_path):
    dataset = coco.subset(_dataset(tmp_path, []), [2])
    assert _read(tmp_path, [_detection(9), _detection(2)], dataset=dataset).image_ids.tolist() == [2]


def test_unknown_images_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"2 image ids are not in the annotation file: 77, 88"):
        _read(tmp_path, [_detection(88), _detection(2), _detection(77)])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_detection(bbox=[1, 2, -3, 4]), "box of -3 x 4 pixels"),
        (_detection(bbox=[1, 2, 0, 0]), "box of 0 x 0 pixels"),
        (_detection(bbox=[1, 2, float("nan"), 4]), "four finite numbers"),
        (_detection(bbox=[1, float("inf"), 3, 4]), "four finite numbers"),
        (_detection(bbox=[1, 2, 3]), "four finite numbers"),
        (_detection(bbox=None), "four finite numbers"),
        (_detection(score=float("nan")), "score nan"),
        (_detection(score="high"), "score 'high'"),
        (_detection(image_id="2"), "image_id is '2'"),
        ({"image_id": 2, "bbox": [1, 2, 3, 4]}, "has no category_id, score"),
        ("box", "has no image_id"),
    ],
)
def test_a_broken_entry_is_refused_with_its_number(tmp_path, entry, message):
    with pytest.raises(DataError, match=r"entry 1") as caught:
        _read(tmp_path, [_detection(), entry])
    assert message in str(caught.value)


def test_an_annotation_file_is_not_taken_for_detections(tmp_path):
    with pytest.raises(DataError, match=r"not a detection file"):
        _read(tmp_path, {"annotations": []})


def test_a_truncated_or_missing_detection_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"detection file ends too early: it is truncated"):
        _read(tmp_path, json.dumps([_detection()])[:-20])
    with pytest.raises(DataError, match=r"detection file is missing"):
        boxes.from_file(tmp_path / "no.json", _dataset(tmp_path, []))


def test_a_real_detection_file_is_read(shared):
    folder = shared / "data"
    dataset = coco.load(folder / "coco_val188" / "person_keypoints_coco_val188.json", folder / "coco_val188" / "images")
    found = boxes.from_file(folder / "others" / "coco_mmpose" / "test_coco_det_AP_H_56.json", dataset)
    assert len(found) == 118 and len(set(found.image_ids.tolist())) == 4
    assert len(boxes.from_ground_truth(dataset)) == 593
