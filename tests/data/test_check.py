from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from harness.data.check import check
from harness.errors import DataError
from harness.pose.skeletons import COCO, CROWDPOSE


def _content(skeleton=COCO):
    joints = [10, 12, 2, 14, 11, 1] + [0] * (3 * skeleton.num_joints - 6)
    entries = [
        {"id": at, "image_id": image_id, "category_id": 1, "iscrowd": 0, "num_keypoints": 2, "area": 300.0,
         "bbox": [5, 6, 20, 30], "keypoints": list(joints)}
        for at, image_id in enumerate((7, 7, 3), start=1)
    ]  # fmt: skip
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48} for i in (7, 3)]
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.joints)}
    return {"images": images, "annotations": entries, "categories": [category]}


def _write(folder, content, name="person_keypoints_tiny.json", images="images"):
    (folder / images).mkdir(parents=True, exist_ok=True)
    for entry in content["images"]:
        cv2.imwrite(str(folder / images / f"{entry['id']}.jpg"), np.full((48, 64, 3), 99, np.uint8))
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def _kinds(faults):
    return sorted(fault.kind for fault in faults)


def test_a_sound_set_has_no_faults(tmp_path):
    assert check(_write(tmp_path, _content())) == []


def _set(index, **changes):
    return lambda content: content["annotations"][index].update(changes)


def _unset(index, key):
    return lambda content: content["annotations"][index].pop(key)


def _image(index, **changes):
    return lambda content: content["images"][index].update(changes)


@pytest.mark.parametrize(
    ("change", "kind", "where", "what"),
    [
        (_unset(1, "keypoints"), "no keypoints", "annotation 2", "no keypoints"),
        (_set(1, keypoints=[1, 2]), "keypoint count", "annotation 2", "2 keypoint values"),
        (_set(1, keypoints=["a"] * 51), "keypoint count", "annotation 2", "no numbers"),
        (_set(1, num_keypoints=0), "num_keypoints", "annotation 2", "is 0, 2 have visibility above 0"),
        (_unset(1, "num_keypoints"), "num_keypoints", "annotation 2", "is None"),
        (_set(1, area=0), "area", "annotation 2", "area is 0"),
        (_set(1, area=float("nan")), "area", "annotation 2", "area is nan"),
        (_unset(1, "area"), "area", "annotation 2", "missing"),
        (_set(1, bbox=[5, 6, 61, 30]), "box", "annotation 2", "leaves the image of 64x48"),
        (_set(1, bbox=[-9, 6, 20, 30]), "box", "annotation 2", "leaves the image"),
        (_set(1, bbox=[5, 6, 0, 30]), "box", "annotation 2", "box of 0 x 30"),
        (_set(1, bbox=[5, 6, None, 30]), "box", "annotation 2", "None"),
        (_unset(1, "bbox"), "box", "annotation 2", "bbox is None"),
        (_set(1, id=1), "double annotation id", "id 1", "2 times"),
        (_set(1, image_id=99), "unknown image", "annotation 2", "99"),
        (_set(1, image_id=[1]), "unknown image", "annotation 2", "[1]"),
        (_set(1, iscrowd=2), "iscrowd", "annotation 2", "is 2"),
        (_unset(1, "iscrowd"), "iscrowd", "annotation 2", "missing"),
        (_set(1, iscrowd=1), "iscrowd", "annotation 2", "crowd region has labelled"),
        (_set(1, keypoints=[90, 12, 2, 14, 11, 1] + [0] * 45), "keypoint outside", "annotation 2", "nose (90, 12)"),
        (_set(1, keypoints=[9, 12, 3, 14, 11, 1] + [0] * 45), "visibility", "annotation 2", "nose 3"),
        (_set(1, category_id=5), "category", "annotation 2", "5 is not among"),
        (_image(1, width=63), "image size", "image 3", "is 64x48, annotated is 63x48"),
        (_image(1, file_name="x.jpg"), "missing image", "image 3, x.jpg", "does not exist"),
        (_image(1, file_name="../3.jpg"), "image entry", "image 3", "../3.jpg"),
    ],
)
def test_each_fault_is_found_alone_and_named(tmp_path, change, kind, where, what):
    content = _content()
    change(content)
    faults = check(_write(tmp_path, content))
    assert _kinds(faults) == [kind]
    assert where in faults[0].where and what in faults[0].what and faults[0].hint


def test_all_faults_are_listed_at_once(tmp_path):
    content = _content()
    for change in (_set(0, area=0), _set(1, area=0, num_keypoints=5), _set(2, bbox=[0, 0, -1, 5])):
        change(content)
    folder = _write(tmp_path, content)
    path = folder / "images" / "7.jpg"
    path.write_bytes(path.read_bytes()[:-80])
    (folder / "images" / "3.jpg").unlink()
    kinds = ["area", "area", "box", "missing image", "num_keypoints", "unreadable image"]
    assert _kinds(check(folder)) == kinds


@pytest.mark.parametrize("keep", [0, 100, 600])
def test_a_truncated_image_is_found(tmp_path, keep):
    folder = _write(tmp_path, _content())
    path = folder / "images" / "7.jpg"
    path.write_bytes(path.read_bytes()[:keep])
    assert [(f.kind, f.where) for f in check(folder)] == [("unreadable image", "image 7, 7.jpg")]


def test_double_images_are_found(tmp_path):
    content = _content()
    content["images"].append(dict(content["images"][0]))
    assert _kinds(check(_write(tmp_path, content))) == ["double image id"]


def test_a_set_without_labelled_persons_is_a_fault(tmp_path):
    assert _kinds(check(_write(tmp_path, {**_content(), "annotations": []}))) == ["no persons"]


def test_a_missing_image_folder_is_one_fault(tmp_path):
    folder = _write(tmp_path, _content())
    (folder / "images").rename(folder / "elsewhere")
    assert _kinds(check(folder)) == ["image folder"]
    assert check(folder / "person_keypoints_tiny.json", folder / "elsewhere") == []


def test_coco_s_own_layout_is_understood_and_both_splits_are_looked_at(tmp_path):
    for split in ("train2017", "val2017"):
        _write(tmp_path, _content(), f"annotations/person_keypoints_{split}.json", split)
    assert check(tmp_path) == []
    (tmp_path / "val2017" / "3.jpg").unlink()
    (tmp_path / "annotations" / "person_keypoints_train2017.json").write_text("{")
    assert _kinds(check(tmp_path)) == ["annotation file", "missing image"]


def test_crowdpose_needs_no_area_and_does_not_count_head_and_neck(tmp_path):
    content = _content(CROWDPOSE)
    for entry in content["annotations"]:
        del entry["area"]
        entry["keypoints"][-3:] = [20, 20, 2]
    for image in content["images"]:
        image["crowdIndex"] = 0.4
    assert check(_write(tmp_path, content)) == []


def test_a_folder_without_a_data_set_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"(?s)no data set here.*person_keypoints_val2017\.json and val2017/"):
        check(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        check(tmp_path / "gone")


def test_progress_reaches_the_number_of_images(tmp_path):
    seen = []
    check(_write(tmp_path, _content()), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("name", ["coco_val188", "coco_train125"])
def test_real_sets_are_sound(shared, name):
    assert check(shared / "data" / name) == []


def test_a_crowdpose_image_without_crowd_index_is_a_fault(tmp_path):
    content = _content(CROWDPOSE)
    content["images"][0]["crowdIndex"] = 0.4
    faults = check(_write(tmp_path, content))
    assert [(f.kind, f.where) for f in faults] == [("crowdIndex", "person_keypoints_tiny.json, image 3")]


def test_the_layout_of_crowdpose_is_understood(tmp_path):
    content = _content(CROWDPOSE)
    for image in content["images"]:
        image["crowdIndex"] = 0.4
    assert check(_write(tmp_path, content, "annotations/mmpose_crowdpose_val.json")) == []
