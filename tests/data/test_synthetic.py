import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import coco as pycoco

from harness.data import pose_statistics, synthetic
from harness.errors import DataError, UserError
from harness.pose.skeletons import COCO


@pytest.fixture(scope="module")
def pictures():
    return [synthetic.render(index, seed=7) for index in range(120)]


@pytest.fixture(scope="module")
def people(pictures):
    return [person for _, persons in pictures for person in persons]


@pytest.fixture(scope="module")
def keypoints(people):
    return np.array([person["keypoints"] for person in people]).reshape(-1, COCO.num_joints, 3)


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthetic.write(tmp_path / name, images=4, seed=seed)
    first, again, other = (_bytes(tmp_path / name) for name in "abc")
    assert len(first) == 5
    assert first == again
    assert first.keys() == other.keys() and all(first[name] != other[name] for name in first)


def test_a_picture_does_not_depend_on_the_pictures_before_it():
    image, persons = synthetic.render(5, seed=1)
    synthetic.render(4, seed=1)
    again, same = synthetic.render(5, seed=1)
    assert np.array_equal(image, again) and persons == same


def test_a_picture_does_not_depend_on_the_routines_that_opencv_has_for_this_processor(pictures):
    before = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        plain = [synthetic.render(index, seed=7)[0] for index in range(40)]
        assert not cv2.ipp.useIPP(), "the setting of the caller is left as it was"
    finally:
        cv2.ipp.setUseIPP(before)
    assert all(np.array_equal(one, other) for one, (other, _) in zip(plain, pictures, strict=False))


def test_several_processes_write_the_files_of_one(tmp_path, monkeypatch):
    synthetic.write(tmp_path / "one", images=20, seed=3)
    monkeypatch.setattr(synthetic, "_PER_PROCESS", 10)
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 2)
    synthetic.write(tmp_path / "two", images=20, seed=3)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_a_picture_that_a_process_cannot_write_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_PER_PROCESS", 10)
    monkeypatch.setattr(synthetic.os, "cpu_count", lambda: 2)
    with pytest.raises(DataError, match=r"not be drawn: .*nowhere/0+1\.jpg: the picture could not be written"):
        list(synthetic._drawn(tmp_path / "nowhere", range(20), seed=3))


def test_two_splits_of_one_seed_share_no_picture(tmp_path):
    for split in ("train", "val"):
        synthetic.write(tmp_path, images=3, seed=0, split=split)
    train, val = (set(_bytes(tmp_path / f"{split}2017").values()) for split in ("train", "val"))
    assert len(train) == len(val) == 3 and not train & val


def test_what_is_written_is_read_by_pycocotools_and_by_the_harness(tmp_path):
    coco = pytest.importorskip("harness.data.coco")
    file = synthetic.write(tmp_path, images=5, seed=2)
    assert file == tmp_path / "annotations" / "person_keypoints_val2017.json"
    judge, ours = pycoco.COCO(str(file)), coco.load(file, tmp_path / "val2017")
    assert len(judge.imgs) == len(ours.images) == 5
    assert {a["id"] for a in judge.anns.values()} == {p.id for p in ours.persons}
    assert all((tmp_path / "val2017" / image["file_name"]).is_file() for image in judge.imgs.values())
    assert judge.loadCats(1)[0]["keypoints"] == list(COCO.joints)


def test_a_set_is_replaced_whole_but_a_foreign_one_is_left_alone(tmp_path):
    synthetic.write(tmp_path, images=3, seed=2)
    file = synthetic.write(tmp_path, images=2, seed=2)
    assert len(list((tmp_path / "val2017").iterdir())) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotations", "val2017"]
    file.write_text(json.dumps({"info": {"description": "COCO 2017 Dataset"}}))
    with pytest.raises(DataError, match="not a synthetic one"):
        synthetic.write(tmp_path, images=2, seed=2)


@pytest.mark.parametrize(
    "wrong", [{"images": 0, "seed": 1}, {"images": 1, "seed": -1}, {"images": 1, "seed": 1, "split": "vall"}]
)
def test_a_count_seed_or_split_that_makes_no_sense_is_refused(tmp_path, wrong):
    with pytest.raises(UserError):
        synthetic.write(tmp_path, **wrong)
    assert not list(tmp_path.iterdir())


def test_there_are_two_to_four_people_per_image_of_both_coco_sizes(pictures, people):
    assert 2 <= len(people) / len(pictures) <= 4
    areas = np.array([person["area"] for person in people])
    assert ((areas > 32**2) & (areas < 96**2)).mean() > 0.2
    assert (areas > 96**2).mean() > 0.2


def test_at_least_a_quarter_of_the_keypoints_is_hidden_or_cut_off(keypoints):
    visible = keypoints[..., 2]
    assert set(np.unique(visible)) == {0, 1, 2}
    assert 0.25 <= (visible < 2).mean() <= 0.36
    assert 0.04 <= (visible == 1).mean() <= 0.15


def test_labelled_keypoints_lie_in_the_image_and_unlabelled_ones_at_zero(pictures):
    for image, persons in pictures:
        height, width = image.shape[:2]
        for person in persons:
            x, y, visible = np.array(person["keypoints"]).reshape(-1, 3).T
            labelled = visible > 0
            assert ((x >= 0) & (x < width) & (y >= 0) & (y < height))[labelled].all()
            assert not x[~labelled].any() and not y[~labelled].any()
            assert person["num_keypoints"] == labelled.sum()


def test_boxes_hold_the_visible_silhouette_and_so_every_visible_joint(pictures):
    for image, persons in pictures:
        height, width = image.shape[:2]
        for person in persons:
            left, top, wide, high = person["bbox"]
            assert left >= 0 and top >= 0 and left + wide <= width and top + high <= height
            assert 0 < person["area"] <= wide * high
            x, y, visible = np.array(person["keypoints"]).reshape(-1, 3).T
            seen = visible == 2
            assert ((x >= left - 2) & (x <= left + wide + 2) & (y >= top - 2) & (y <= top + high + 2))[seen].all()


def test_some_people_are_cut_by_the_image_edge(pictures):
    cut = 0
    for image, persons in pictures:
        for person in persons:
            left, top, wide, high = person["bbox"]
            touches = left == 0 or top == 0 or left + wide == image.shape[1] or top + high == image.shape[0]
            cut += touches and person["num_keypoints"] < COCO.num_joints
    assert cut > 20


def test_the_left_shoulder_of_a_person_who_looks_at_the_viewer_is_to_the_right(keypoints):
    seen = keypoints[..., 2] == 2
    frontal = seen[:, [1, 2, 5, 6]].all(1) & seen[:, 3:5].all(1) & seen[:, 0]
    assert frontal.sum() > 10
    assert (keypoints[frontal, 5, 0] > keypoints[frontal, 6, 0]).mean() > 0.9
    assert (keypoints[frontal, 1, 0] > keypoints[frontal, 2, 0]).mean() > 0.9


def test_some_people_are_seen_from_behind_and_show_no_face(keypoints):
    labelled = keypoints[..., 2] > 0
    body = labelled[:, 5:7].all(1)
    behind = body & (keypoints[:, 5, 0] < keypoints[:, 6, 0]) & ~labelled[:, :3].any(1)
    assert 0.05 < behind.sum() / body.sum() < 0.5


def test_bones_are_vectors_from_the_hips_outwards():
    points = np.zeros((1, 17, 3))
    points[..., 2] = 2
    points[0, 5, :2], points[0, 6, :2] = (12, 10), (8, 10)
    points[0, 11:13, :2] = (10, 30)
    points[0, 7, :2] = (15, 20)
    vectors = pose_statistics.bones(points)[0]
    names = list(pose_statistics.BONES)
    assert vectors[names.index("torso")].tolist() == [0, -20]
    assert vectors[names.index("shoulder")].tolist() == [2, 0]
    assert vectors[names.index("left_upper_arm")].tolist() == [3, 10]


def test_the_table_of_statistics_can_be_derived_from_annotations(shared):
    file = next((shared / "data" / "coco_val2017_annotations_only").glob("*.json"))
    persons = [a["keypoints"] for a in json.loads(file.read_text())["annotations"]]
    table = pose_statistics.derive(np.array(persons, dtype=float).reshape(-1, 17, 3))
    means, components = np.array(table["means"]), np.array(table["components"])
    assert means.shape[1] == components.shape[2] == len(table["features"]) == 25
    assert abs(sum(table["shares"]) - 1) < 0.01
    torso = np.abs(np.average(means[:, 1], weights=table["shares"]))
    assert 0.2 < torso < 0.35
