"""What is kept of a stored pass over whole images, and what an image costs."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data.coco import Dataset, ImageInfo
from harness.method import PoseProtocol
from harness.passes.score_images import boxes_of, image_work, kept_persons, person_results, score_images
from harness.pose.skeletons import COCO
from harness.suite.schema import AccuracySpec

PROTOCOL = PoseProtocol(box_score_threshold=0.05)


def a_pass(*counts, seed=0):
    """Persons per image; scores fall from 1."""
    rng, total = np.random.default_rng(seed), sum(counts)
    low = rng.uniform(0, 50, (total, 2))
    scores = [1 - i / 200 for n in counts for i in range(n)]
    persons = np.array(counts)
    return {
        "index": np.arange(len(counts)),
        "macs": (10**9 * (5 + 2 * persons))[:, None],
        "macs_without_persons": np.full(len(counts), 5 * 10**9),
        "macs_per_person": np.full(len(counts), 2 * 10**9),
        "trace_persons": persons,
        "image": np.repeat(np.arange(len(counts)), counts),
        "boxes": np.concatenate([low, low + rng.uniform(5, 50, (total, 2))], axis=1).astype(np.float32),
        "scores": np.array(scores, dtype=np.float32),
        "keypoints": rng.uniform(0, 100, (total, 17, 3)).astype(np.float32),
    }


def test_of_more_than_a_hundred_persons_the_best_hundred_of_the_image_are_kept():
    found = a_pass(150, 3, 0, 120)
    kept = kept_persons(found, PROTOCOL)
    assert np.bincount(found["image"][kept], minlength=4).tolist() == [100, 3, 0, 100]
    assert found["scores"][kept][:100].min() >= found["scores"][:150][100:].max()
    few = kept_persons(found, PoseProtocol(max_persons=2))
    assert np.bincount(found["image"][few], minlength=4).tolist() == [2, 2, 0, 2]
    sure = kept_persons(found, PoseProtocol(box_score_threshold=0.902))
    assert np.bincount(found["image"][sure], minlength=4).tolist() == [20, 3, 0, 20]


def test_results_name_the_image_and_hold_a_box_only_where_the_protocol_says_so():
    found = a_pass(1, 0, 2)
    plain = person_results(found, PROTOCOL, [7, 8, 9])
    assert [r["image_id"] for r in plain] == [7, 9, 9] and all("bbox" not in r for r in plain)
    boxed = person_results(found, PoseProtocol(results_with_bbox=True), [7, 8, 9])
    x1, y1, x2, y2 = found["boxes"][0]
    assert boxed[0]["bbox"] == pytest.approx([x1, y1, x2 - x1, y2 - y1])
    assert boxed[0]["score"] == 1.0 and len(boxed[0]["keypoints"]) == 51


def dataset(count):
    infos = tuple(ImageInfo(10 + n, f"{n}.png", 100, 100) for n in range(count))
    annotations = {
        "images": [{"id": i.id, "width": 100, "height": 100} for i in infos],
        "annotations": [
            {
                "id": 1, "image_id": 10, "category_id": 1, "bbox": [1.0, 1, 50, 50], "area": 2000.0, "iscrowd": 0,
                "keypoints": [5, 5, 2] * 17, "num_keypoints": 17,
            }
        ],
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    return Dataset("some", None, infos, (), COCO, annotations)


def test_boxes_for_other_networks_are_those_of_the_kept_persons():
    boxes = boxes_of(a_pass(1, 0, 2), PROTOCOL, dataset(3), "some row")
    assert boxes.image_ids.tolist() == [10, 12, 12] and (boxes.xywh[:, 2:] > 0).all() and boxes.source == "some row"
    nobody = boxes_of(a_pass(0, 0, 0), PROTOCOL, dataset(3), "some row")
    assert len(nobody) == 0 and nobody.xywh.shape == (0, 4)


def test_the_cost_of_an_image_is_its_parts():
    made = a_pass(0, 1, 4)
    names = {"work_fixed": "macs_without_persons", "work_each": "macs_per_person", "work_persons": "trace_persons"}
    work = {"work_macs": made["macs"].sum(axis=1), **{name: made[array] for name, array in names.items()}}
    found = image_work(work)["cost"]
    assert found["gmacs_per_image"]["mean"] == pytest.approx(5 + 2 * 5 / 3)
    assert found["gmacs_without_persons"] == {"mean": 5.0, "sd": 0.0, "p5": 5.0, "p95": 5.0}
    assert found["gmacs_per_person"]["mean"] == 2.0
    assert image_work(work)["persons_per_image"]["mean"] == pytest.approx(5 / 3)
    assert image_work({}) == {"persons_per_image": {}, "cost": {}}


def test_images_with_nobody_on_them_are_scored_and_no_error():
    found, spec = a_pass(0, 0, 0), AccuracySpec(bootstrap=0)
    result, _ = score_images(found, [], PROTOCOL, dataset(3), spec)
    assert result["stats"]["AP"]["value"] == 0 and result["box_ap"]["stats"]["AP"]["value"] == 0
    assert result["boxes"] == 0 and result["persons_per_image"]["mean"] == 0
    empty = {"index": np.zeros(0, dtype=np.int64), "macs": np.zeros((0, 1), dtype=np.int64)}
    result, _ = score_images(empty, [], PROTOCOL, dataset(3), spec)
    assert result["skipped_images"] == 3 and result["cost"] == {}
