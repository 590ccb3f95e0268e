"""MPII's list of persons and its head boxes."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from harness.data import mpii, sets
from harness.data.boxes import from_ground_truth
from harness.data.check import check
from harness.data.crops import center_scale
from harness.errors import DataError
from harness.pose.skeletons import MPII


def _entries(count=3):
    rng = np.random.default_rng(1)
    return [
        {
            "image": f"{number // 2}.png",
            "center": [30.0 + number, 25.0],
            "scale": 0.2,
            "joints": (rng.uniform(1, 40, (16, 2))).round(2).tolist(),
            "joints_vis": [1] * 15 + [0],
        }
        for number in range(count)
    ]


def _write(folder, entries, name="valid.json"):
    for file in {e["image"] for e in entries if isinstance(e, dict) and isinstance(e.get("image"), str)}:
        cv2.imwrite(str(folder / file.rpartition("/")[2]), np.zeros((48, 64, 3), np.uint8))
    (folder / name).write_text(json.dumps(entries))
    return folder / name


def _truth(entries):
    joints = np.array([e["joints"] for e in entries]).transpose(1, 2, 0)
    return {"pos_gt_src": joints, "jnt_missing": 1 - np.array([e["joints_vis"] for e in entries]).T}


def _heads(count, size=(30.0, 40.0)):
    boxes = np.zeros((2, 2, count))
    boxes[0], boxes[1] = 5.0, np.array([[5 + size[0]], [5 + size[1]]])
    return {"headboxes_src": boxes}


def test_coordinates_count_from_zero_and_unlabelled_joints_are_zero(tmp_path):
    entries = _entries(1)
    person = sets.load(_write(tmp_path, entries), tmp_path).persons[0]
    assert person.keypoints[0].tolist() == [*(np.array(entries[0]["joints"][0]) - 1), 2.0]
    assert person.keypoints[15].tolist() == [0, 0, 0] and person.num_keypoints == 15


def test_the_crop_is_that_of_the_published_protocol(tmp_path):
    """center - 1, moved down by 15 x scale; 200 x scale pixels, times 1.25; never cleaned."""
    dataset = sets.load(_write(tmp_path, _entries(1)), tmp_path)
    boxes = from_ground_truth(dataset, dataset.protocol["box_cleaning"])
    centers, scales = center_scale(boxes.xywh, (256, 256))
    assert np.allclose(centers, [[29.0, 24.0 + 15 * 0.2]])
    assert np.allclose(scales, 0.2 * 1.25)
    _, narrow = center_scale(boxes.xywh, (256, 192))
    assert np.allclose(narrow[0, 0], 0.2 * 1.25)  # the width decides, as in the published crop


def test_persons_of_one_image_share_it_and_its_size_is_read_from_the_file(tmp_path):
    dataset = sets.load(_write(tmp_path, _entries(3)), tmp_path)
    assert [(i.id, i.file, i.width, i.height) for i in dataset.images] == [(1, "0.png", 64, 48), (2, "1.png", 64, 48)]
    assert [(p.id, p.image_id) for p in dataset.persons] == [(1, 1), (2, 1), (3, 2)]
    assert dataset.skeleton is MPII and dataset.evaluator == "mpii"


def test_head_sizes_are_six_tenths_of_the_diagonal_and_the_fingerprint_sees_them(tmp_path):
    path, heads = _write(tmp_path, _entries(3)), tmp_path / "gt.mat"
    savemat(heads, _heads(3))
    with_heads = sets.load(path, tmp_path, heads=heads)
    assert [p.head_size for p in with_heads.persons] == [30.0, 30.0, 30.0]
    assert with_heads.fingerprint != sets.load(path, tmp_path).fingerprint


def test_joints_of_the_mat_file_are_the_ones_that_count(tmp_path):
    entries = _entries(3)
    truth = _truth(entries)
    truth["pos_gt_src"][2, 0, 1] += 0.5
    truth["jnt_missing"][4, 1] = 1
    savemat(tmp_path / "gt.mat", {**_heads(3), **truth})
    dataset = sets.load(_write(tmp_path, entries), tmp_path, heads=tmp_path / "gt.mat")
    second = dataset.persons[1].keypoints
    assert second[2, 0] == pytest.approx(entries[1]["joints"][2][0] - 0.5)
    assert second[4].tolist() == [0, 0, 0] and dataset.persons[1].num_keypoints == 14


def _release(entries, single=False):
    """A small RELEASE as MATLAB has it: images in another order, a second person, one without a head box."""
    images = []
    for name in sorted({e["image"] for e in entries}, reverse=True):
        people = [
            {"x1": 5.0, "y1": 5.0, "x2": 35.0, "y2": 45.0 + 10 * number,
             "objpos": {"x": e["center"][0], "y": e["center"][1]}, "scale": e["scale"]}
            for number, e in enumerate(entries) if e["image"] == name
        ]  # fmt: skip
        people.append({**people[0], "objpos": {"x": 500.0, "y": 500.0}, "y2": 900.0})
        people.append({**people[0], "x1": np.zeros((0, 0))})
        images.append({"image": {"name": name}, "annorect": people[0] if single else people})
    return {"RELEASE": {"annolist": images}}


@pytest.mark.parametrize("single", [True, False])
def test_the_release_tells_persons_by_image_and_center(tmp_path, single):
    entries = _entries(3)[::2] if single else _entries(3)
    savemat(tmp_path / "release.mat", _release(entries, single))
    dataset = sets.load(_write(tmp_path, entries), tmp_path, heads=tmp_path / "release.mat")
    expected = [0.6 * np.hypot(30, 40 + 10 * number) for number in range(len(entries))]
    assert [p.head_size for p in dataset.persons] == pytest.approx(expected)


def test_a_person_that_the_release_does_not_know_is_named(tmp_path):
    entries = _entries(3)
    savemat(tmp_path / "release.mat", _release(entries))
    entries[1]["center"] = [60.0, 40.0]
    with pytest.raises(DataError, match=r"entry 1: 0.png has 3 persons with one, none at \[60.0, 40.0\]"):
        sets.load(_write(tmp_path, entries), tmp_path, heads=tmp_path / "release.mat")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (_heads(2), r"headboxes_src is 2x2x2(?s:.*)the JSON file has 3 persons"),
        ({"headboxes_src": np.zeros((4, 3))}, r"headboxes_src is 4x3"),
        (_heads(3, (0.0, 0.0)), "head box of person 1 has no extent"),
        ({"preds": np.zeros(3)}, "no headboxes_src or .* in it: it holds preds"),
        ({**_heads(3), **{k: v[..., ::-1] for k, v in _truth(_entries(3)).items()}}, "they are not the same person"),
        ({**_heads(3), **{k: v[..., :2] for k, v in _truth(_entries(3)).items()}}, "pos_gt_src is 16x2x2"),
    ],
)
def test_head_boxes_of_other_persons_are_refused(tmp_path, content, message):
    savemat(tmp_path / "gt.mat", content)
    with pytest.raises(DataError, match=message):
        sets.load(_write(tmp_path, _entries(3)), tmp_path, heads=tmp_path / "gt.mat")


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + b"x" * 200, b"\x80\x04cposix\nsystem\n", None])
def test_what_is_no_mat_file_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "gt.mat").write_bytes(content)
    with pytest.raises(DataError, match=r"damaged|no such mat file|it holds nothing"):
        sets.load(_write(tmp_path, _entries(3)), tmp_path, heads=tmp_path / "gt.mat")


_FAULTS = [
    (lambda e: e.pop("scale"), "no scale"),
    (lambda e: e.update(joints=e["joints"][:14]), "joints has 14 rows, not 16"),
    (lambda e: e.update(joints_vis=[1] * 17), "joints_vis has 17 rows, not 16"),
    (lambda e: e.update(joints=[[1, 2, 3]] * 16), "joints that are not two numbers"),
    (lambda e: e.update(joints=[[1, float("nan")]] * 16), "joints that are not two numbers"),
    (lambda e: e.update(joints_vis=[2] * 16), "joints_vis that are neither"),
    (lambda e: e.update(center=[-1, -1]), "center is"),
    (lambda e: e.update(scale=0), "scale is 0"),
    (lambda e: e.update(image="../a.png"), "not a path inside"),
]


@pytest.mark.parametrize(("change", "message"), _FAULTS)
def test_a_faulty_person_is_refused_and_told_by_the_check_with_its_entry(tmp_path, change, message):
    entries = _entries(3)
    change(entries[1])
    path = _write(tmp_path, entries)
    with pytest.raises(DataError, match=f"entry 1: .*{message}"):
        sets.load(path, tmp_path)
    faults = [f for f in check(path, tmp_path) if f.kind == "person"]
    assert [f.where for f in faults] == ["valid.json, entry 1"] and message in faults[0].what


def test_detections_are_not_taken_for_persons(tmp_path):
    (tmp_path / "boxes.json").write_text('[{"image_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]')
    with pytest.raises(DataError, match=r"no image, center, scale, joints, joints_vis"):
        sets.load(tmp_path / "boxes.json", tmp_path)


def test_head_boxes_of_a_coco_file_are_refused(tmp_path):
    (tmp_path / "coco.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DataError, match="head boxes of a set in COCO's format"):
        sets.load(tmp_path / "coco.json", tmp_path, heads=tmp_path / "gt.mat")


def test_the_check_finds_nothing_in_a_sound_set_of_mpii_s_layout(tmp_path):
    (tmp_path / "annot").mkdir()
    (tmp_path / "images").mkdir()
    entries = _entries(3)
    _write(tmp_path / "images", entries).rename(tmp_path / "annot" / "valid.json")
    savemat(tmp_path / "annot" / "gt_valid.mat", {**_heads(3), **_truth(entries)})
    assert check(tmp_path) == []
    savemat(tmp_path / "annot" / "gt_valid.mat", _heads(2))
    assert [f.kind for f in check(tmp_path)] == ["head boxes"]


def test_the_check_names_missing_images_and_joints_outside(tmp_path):
    entries = _entries(3)
    entries[0]["joints"][3] = [900.0, 3.0]
    path = _write(tmp_path, entries)
    (tmp_path / "1.png").unlink()
    assert sorted((f.kind, f.where.partition(",")[0]) for f in check(path, tmp_path)) == [
        ("joint outside", "valid.json"),
        ("missing image", "image 2"),
    ]


def test_real_persons_are_read_whole(shared):
    folder = shared / "data/others/mpii"
    dataset = sets.load(folder / "test_mpii.json", folder)
    assert len(dataset.persons) == len(dataset.images) == 5
    assert {(i.width, i.height) for i in dataset.images} == {(1280, 720), (854, 480)}
    assert check(folder / "test_mpii.json", folder) == []
    assert dict(dataset.protocol) == mpii.PROTOCOL
