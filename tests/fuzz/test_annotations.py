"""Annotation and result files that somebody damaged, or made to do damage."""

from __future__ import annotations

import json

import pytest

from harness.accuracy.evaluate import evaluate
from harness.data import check, coco
from harness.data.boxes import CLEANINGS, from_file, from_ground_truth
from harness.pose.skeletons import COCO, CROWDPOSE


def _persons(skeleton, count=3):
    joints = [v for j in range(skeleton.num_joints) for v in (10.0 + j, 12.0 + 2 * j, 2)]
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 80, "crowdIndex": 0.4} for i in range(1, count)]
    annotations = [
        {
            "id": n, "image_id": 1 + n % 2, "category_id": 1, "iscrowd": 0, "keypoints": joints,
            "num_keypoints": skeleton.num_joints, "bbox": [4.0, 5.0, 40.0, 60.5], "area": 1500.25,
            "segmentation": [[4.0, 5.0, 44.0, 5.0, 44.0, 65.0]],
        }
        for n in range(1, 1 + count)
    ]  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.joints), "skeleton": [[1, 2]]}
    return {"info": {"description": "made"}, "images": images, "annotations": annotations, "categories": [category]}


ANNOTATIONS = [_persons(COCO), _persons(CROWDPOSE)]
RESULTS = [
    [{k: a[k] for k in ("image_id", "category_id", "keypoints", "bbox")} | {"score": 0.5} for a in tree["annotations"]]
    for tree in ANNOTATIONS
]


def _dumped(tree) -> bytes:
    return json.dumps(tree).encode()


@pytest.fixture
def load(tmp_path):
    """load(data) reads an annotation file as every verb does: data set, boxes, `data check`."""
    (tmp_path / "images").mkdir()

    def run(data: bytes) -> None:
        path = tmp_path / "a.json"
        path.write_bytes(data)
        for _ in check.check(path, tmp_path / "images"):
            pass
        dataset = coco.load(path, tmp_path / "images")
        assert dataset.fingerprint
        for cleaning in CLEANINGS:
            from_ground_truth(dataset, cleaning)

    return run


@pytest.fixture
def detect(tmp_path):
    """detect(data) reads a detection file of a sound data set."""
    (tmp_path / "a.json").write_bytes(_dumped(ANNOTATIONS[0]))
    dataset = coco.load(tmp_path / "a.json", tmp_path)

    def run(data: bytes) -> None:
        (tmp_path / "boxes.json").write_bytes(data)
        from_file(tmp_path / "boxes.json", dataset)

    return run


@pytest.fixture
def score(tmp_path):
    """score((annotations, results)) evaluates two files."""

    def run(pair) -> None:
        for name, data in zip(("gt.json", "results.json"), pair):  # one of the two may be gone
            (tmp_path / name).write_bytes(data)
        evaluate(tmp_path / "gt.json", tmp_path / "results.json", bootstrap=0, judge=False)

    return run


def test_changed_annotation_files_are_read_or_refused(fuzz, load):
    fuzz.bytes([_dumped(tree) for tree in ANNOTATIONS], load)


def test_annotations_of_other_types_are_read_or_refused(fuzz, load):
    fuzz.trees(ANNOTATIONS, lambda tree: load(_dumped(tree)))


def test_changed_detection_files_are_read_or_refused(fuzz, detect):
    fuzz.bytes([_dumped(tree) for tree in RESULTS], detect)


def test_detections_of_other_types_are_read_or_refused(fuzz, detect):
    fuzz.trees(RESULTS, lambda tree: detect(_dumped(tree)))


def test_changed_result_files_are_evaluated_or_refused(fuzz, score):
    fuzz.bytes([_dumped(RESULTS[0])], lambda data: score((_dumped(ANNOTATIONS[0]), data)))


def test_results_and_annotations_of_other_types_are_evaluated_or_refused(fuzz, score):
    pairs = [[annotations, results] for annotations, results in zip(ANNOTATIONS, RESULTS)]

    def scored(pair):
        if isinstance(pair, list) and len(pair) == 2:  # what was changed may be the pair itself
            score([_dumped(tree) for tree in pair])

    fuzz.trees(pairs, scored)
