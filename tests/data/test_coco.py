from __future__ import annotations

import copy
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import coco
from harness.errors import DataError
from harness.pose.skeletons import COCO, CROWDPOSE, MPII


def _person(identity, image_id, **changes):
    joints = [0] * 51
    joints[:6] = [10, 12, 2, 14, 11, 1]
    entry = {
        "id": identity, "image_id": image_id, "category_id": 1, "iscrowd": 0, "num_keypoints": 2,
        "bbox": [5, 6, 20, 30], "area": 300.5, "keypoints": joints, "segmentation": [[1, 2, 3, 4]],
    }  # fmt: skip
    return {**entry, **changes}


def _content(skeleton=COCO):
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7, "file_name": "b.jpg", "width": 64, "height": 48, "gt": "complete"},
            {"id": 3, "file_name": "a.jpg", "width": 32, "height": 40, "gt": "partly"},
        ],
        "annotations": [_person(1, 3), _person(2, 7), _person(4, 7, iscrowd=1, num_keypoints=0, keypoints=[0] * 51)],
        "categories": [{"id": 1, "name": "person", "keypoints": list(skeleton.joints)}],
    }


def _write(folder, content):
    path = folder / "person_keypoints.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def dataset(tmp_path):
    return coco.load(_write(tmp_path, _content()), tmp_path, name="tiny")


def test_images_and_persons_are_read_in_file_order(dataset):
    assert [image.id for image in dataset.images] == [7, 3]
    assert dataset.images[0] == coco.ImageInfo(7, "b.jpg", 64, 48)
    assert [person.id for person in dataset.persons] == [1, 2, 4]
    person = dataset.persons[0]
    assert person.bbox == (5, 6, 20, 30) and person.area == 300.5 and person.num_keypoints == 2
    assert person.keypoints.shape == (17, 3) and person.keypoints[1].tolist() == [14, 11, 1]
    assert dataset.persons[2].iscrowd and dataset.name == "tiny" and dataset.skeleton is COCO


def test_the_dict_for_the_judge_is_complete_but_for_segmentations(dataset):
    expected = _content()
    for entry in expected["annotations"]:
        del entry["segmentation"]
    assert dataset.annotations == expected


def test_the_judge_accepts_the_dict(dataset):
    from pycocotools.coco import COCO as JUDGE

    judge = JUDGE()
    judge.dataset = dataset.annotations
    judge.createIndex()
    assert judge.getAnnIds(imgIds=[7]) == [2, 4]


@pytest.mark.parametrize("skeleton", [COCO, CROWDPOSE, MPII])
def test_the_joint_set_follows_from_the_number_of_keypoints(tmp_path, skeleton):
    content = _content(skeleton)
    for entry in content["annotations"]:
        entry["keypoints"] = [0] * (3 * skeleton.num_joints)
    assert coco.load(_write(tmp_path, content), tmp_path).skeleton is skeleton


def test_joints_in_another_order_are_refused_even_when_spelled_with_spaces(tmp_path):
    names = ["Right Shoulder", "Left Shoulder", *CROWDPOSE.joints[2:]]
    content = _content(CROWDPOSE)
    content["categories"][0]["keypoints"] = names
    with pytest.raises(DataError, match=r"Right Shoulder where the joint set crowdpose has left_shoulder"):
        coco.load(_write(tmp_path, content), tmp_path)


def test_what_custom_sets_omit_is_filled_in_for_the_judge(tmp_path):
    content = _content()
    del content["annotations"][0]["num_keypoints"], content["annotations"][0]["iscrowd"]
    dataset = coco.load(_write(tmp_path, content), tmp_path)
    assert dataset.persons[0].num_keypoints == 2
    assert dataset.annotations["annotations"][0]["num_keypoints"] == 2
    assert dataset.annotations["annotations"][0]["iscrowd"] == 0


def test_crowdpose_without_area_takes_its_share_of_the_box(tmp_path):
    content = _content(CROWDPOSE)
    for entry in content["annotations"]:
        entry["keypoints"] = [0] * 42
        del entry["area"]
    dataset = coco.load(_write(tmp_path, content), tmp_path)
    assert dataset.persons[0].area == pytest.approx(0.53 * 20 * 30)


def _drop(*keys):
    def change(content):
        target = content
        for key in keys[:-1]:
            target = target[key]
        del target[keys[-1]]

    return change


def _put(value, *keys):
    def change(content):
        target = content
        for key in keys[:-1]:
            target = target[key]
        target[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_drop("categories"), "no list categories"),
        (_put([], "categories"), "no person category"),
        (_put([{"id": 1, "name": "person"}], "categories"), "names 0 keypoints"),
        (_put(["nose"] * 5, "categories", 0, "keypoints"), "names 5 keypoints"),
        (_drop("annotations", 1, "keypoints"), "annotation 2: annotation has no keypoints"),
        (_put([0] * 50, "annotations", 1, "keypoints"), "annotation 2: annotation has 50 keypoint numbers"),
        (_put([None] * 51, "annotations", 1, "keypoints"), "annotation 2: .*something else than finite numbers"),
        (_put([float("nan"), 1, 2, 3], "annotations", 1, "bbox"), "annotation 2: .*finite numbers"),
        (_drop("annotations", 1, "bbox"), "annotation 2: annotation has no bbox"),
        (_drop("annotations", 1, "area"), "annotation 2: annotation has no area"),
        (_put("large", "annotations", 1, "area"), "annotation 2: .*finite numbers"),
        (_put(1, "annotations", 1, "id"), "annotation id 1 is there twice"),
        (_put(99, "annotations", 1, "image_id"), "annotation 2 is of image 99"),
        (_put("7", "annotations", 1, "image_id"), "image_id '7'"),
        (_put(7, "images", 1, "id"), "image id 7 is there twice"),
        (_drop("images", 1, "width"), "entry 3 has no 'width'"),
        (_put(0, "images", 1, "width"), "image 3 is 0x40 pixels"),
        (_put(None, "images", 1, "file_name"), "whole numbers and a file name"),
        (_put([1], "annotations", 1), "annotations holds something else"),
    ],
)
def test_a_broken_annotation_file_is_refused_with_the_entry_named(tmp_path, change, message):
    content = _content()
    change(content)
    with pytest.raises(DataError, match=r"person_keypoints\.json") as caught:
        coco.load(_write(tmp_path, content), tmp_path)
    assert re.search(message, str(caught.value))


@pytest.mark.parametrize("file", ["/etc/a.jpg", "../a.jpg", "x/../../a.jpg", "C:\\a.jpg", "x\\..\\a.jpg", "a\0.jpg"])
def test_a_file_name_that_leaves_the_image_folder_is_refused(tmp_path, file):
    content = _content()
    content["images"][0]["file_name"] = file
    with pytest.raises(DataError, match=r"leaves the image folder"):
        coco.load(_write(tmp_path, content), tmp_path)


def test_a_file_in_a_folder_of_the_image_folder_is_accepted(tmp_path):
    content = _content()
    content["images"][0]["file_name"] = "val/x..y/b.jpg"
    assert coco.load(_write(tmp_path, content), tmp_path).images[0].file == "val/x..y/b.jpg"


def test_a_missing_file_says_what_is_there(tmp_path):
    _write(tmp_path, _content())
    with pytest.raises(DataError, match=r"val\.json: annotation file is missing\n.*there are: person_keypoints\.json"):
        coco.load(tmp_path / "val.json", tmp_path)
    with pytest.raises(DataError, match=r"does not exist either"):
        coco.load(tmp_path / "nowhere" / "val.json", tmp_path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_named_with_line_and_position(tmp_path, keep):
    text = json.dumps(_content(), indent=1)
    with pytest.raises(DataError, match=r"person_keypoints\.json:\d+: .*line \d+, column \d+, character \d+ of"):
        coco.load(_write(tmp_path, text[: int(len(text) * keep)]), tmp_path)


def test_a_file_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "x.json"
    path.write_bytes(b"\xff\xd8\xff\xe0 picture")
    with pytest.raises(DataError, match=r"is not JSON"):
        coco.load(path, tmp_path)


def test_a_detection_file_is_not_taken_for_annotations(tmp_path):
    with pytest.raises(DataError, match=r"a list of detections"):
        coco.load(_write(tmp_path, [{"image_id": 1}]), tmp_path)


def test_a_subset_keeps_order_persons_and_judge_in_step(dataset):
    part = coco.subset(dataset, [7])
    assert [image.id for image in part.images] == [7] and [p.id for p in part.persons] == [2, 4]
    assert [entry["id"] for entry in part.annotations["annotations"]] == [2, 4]
    assert part.omitted == {3} and part.fingerprint != dataset.fingerprint
    assert [image.id for image in coco.subset(dataset, [3, 7]).images] == [7, 3]
    with pytest.raises(DataError, match=r"not in the dataset: \[8\]"):
        coco.subset(dataset, [7, 8])


def test_a_limit_takes_the_first_images(dataset):
    assert [image.id for image in coco.limit(dataset, 1).images] == [7]
    assert coco.limit(dataset, 50).fingerprint == dataset.fingerprint
    with pytest.raises(DataError, match=r"leaves nothing"):
        coco.limit(dataset, 0)


def test_images_are_restricted_by_a_field(tmp_path):
    path = _write(tmp_path, _content())
    assert [image.id for image in coco.load(path, tmp_path, where={"gt": "complete"}).images] == [7]
    with pytest.raises(DataError, match=r"complete.*partly"):
        coco.load(path, tmp_path, where={"gt": "full"})


@pytest.mark.parametrize(
    "change",
    [
        _put(31, "images", 1, "width"),
        _put("c.jpg", "images", 1, "file_name"),
        _put(301.5, "annotations", 0, "area"),
        _put([5, 6, 20, 31], "annotations", 0, "bbox"),
        _put(1, "annotations", 0, "iscrowd"),
        _put(2, "annotations", 0, "keypoints", 5),
    ],
)
def test_the_fingerprint_changes_with_everything_that_moves_a_number(tmp_path, dataset, change):
    content = _content()
    change(content)
    assert coco.load(_write(tmp_path, content), tmp_path).fingerprint != dataset.fingerprint


def test_the_fingerprint_ignores_what_moves_no_number(tmp_path, dataset):
    content = copy.deepcopy(_content())
    content["info"] = {"url": "elsewhere"}
    content["annotations"][0]["segmentation"] = []
    assert coco.load(_write(tmp_path, content), tmp_path).fingerprint == dataset.fingerprint


def test_the_fingerprint_sees_an_exchanged_image(tmp_path, dataset):
    before = dataset.fingerprint
    (tmp_path / "a.jpg").write_bytes(b"123")
    assert coco.load(tmp_path / "person_keypoints.json", tmp_path).fingerprint != before


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1e4, allow_nan=False), min_size=51, max_size=51))
def test_coordinates_arrive_bit_for_bit(tmp_path_factory, values):
    folder = tmp_path_factory.mktemp("coco")
    content = _content()
    content["annotations"][0]["keypoints"] = values
    person = coco.load(_write(folder, content), folder).persons[0]
    np.testing.assert_array_equal(person.keypoints.ravel(), values)


def test_an_empty_set_is_read(tmp_path):
    content = {**_content(), "annotations": []}
    dataset = coco.load(_write(tmp_path, content), tmp_path)
    assert dataset.persons == () and len(dataset.fingerprint) == 64


def test_real_annotations_are_read_whole(shared):
    folder = shared / "data" / "coco_val188"
    dataset = coco.load(folder / "person_keypoints_coco_val188.json", folder / "images")
    with_joints = [p for p in dataset.persons if p.num_keypoints and not p.iscrowd]
    assert len(dataset.images) == 188 and len(with_joints) == 593
    assert sum(p.num_keypoints for p in with_joints) == 6192
    complete = coco.restrict(dataset, {"gt": "complete"})
    assert len(complete.images) == 69


def test_crowdpose_is_recognised(shared):
    folder = shared / "data" / "others" / "crowdpose"
    dataset = coco.load(folder / "crowdpose_val_annotations_only.json", folder)
    assert dataset.skeleton is CROWDPOSE and len(dataset.images) == 2000 and len(dataset.persons) == 8527


def test_reading_needs_no_torch():
    code = "import sys, harness.data.coco, harness.data.boxes, harness.data.check; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
