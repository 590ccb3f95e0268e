"""Select knobs answered from a stored pass."""

from __future__ import annotations

import json

import numpy as np
import pytest

from harness.data.boxes import Boxes
from harness.errors import MeasurementError, SuiteError
from harness.method import PoseProtocol
from harness.passes.replay import load_pass, notes_of, resolve_threshold, seal_pass, select, threshold_of, to_results
from harness.pose.skeletons import COCO
from harness.records.store import save_arrays

DECODING = "quarter-hrnet-0"


@pytest.fixture
def found():
    """Six persons, two exits; the pose of outcome i+j is the constant 10 * i + j (1000 added without flip)."""
    count = 6
    poses = {
        f"keypoints:{DECODING}:{i}+{j}": np.full((count, 17, 3), 10.0 * i + j, np.float32)
        for i in (0, 1)
        for j in (0, 1)
    }
    poses |= {f"keypoints:{DECODING}:{i}": np.full((count, 17, 3), 1000.0 + i, np.float32) for i in (0, 1)}
    return {
        "index": np.arange(count),
        "quality": np.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.9], np.float32),
        "quality_mirrored": np.array([0.9, 0.1, 0.9, 0.1, 0.9, 0.1], np.float32),
        "macs": np.tile(np.array([[10, 100]]), (count, 1)),
        "macs_mirrored": np.tile(np.array([[10, 100]]), (count, 1)),
        **poses,
    }


def test_each_forward_of_a_flip_test_leaves_at_its_own_exit(found):
    chosen = select(found, DECODING, flip=True, threshold=0.5)
    assert chosen.exits.tolist() == [[1, 0], [1, 1], [0, 0], [0, 1], [0, 0], [0, 1]]
    assert chosen.keypoints[:, 0, 0].tolist() == [10, 11, 0, 1, 0, 1]
    assert chosen.macs.tolist() == [[100, 10], [100, 100], [10, 10], [10, 100], [10, 10], [10, 100]]


def test_a_quality_equal_to_the_threshold_exits(found):
    exits = select(found, DECODING, flip=False, threshold=float(np.float32(0.9))).exits[:, 0]
    assert exits.tolist() == [1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(("word", "share"), [("always", 1.0), ("never", 0.0)])
def test_always_refines_everybody_and_never_nobody(found, word, share):
    chosen = select(found, DECODING, flip=False, threshold=resolve_threshold(found, word))
    assert np.mean(chosen.exits) == share


def _leaving(found, rate, flip):
    """(threshold that the rate became, share of forwards that leave at it)"""
    threshold = threshold_of(found, {"exit_rate": rate}, flip=flip)
    return threshold, float(np.mean(select(found, DECODING, flip=flip, threshold=threshold).exits == 0))


@pytest.mark.parametrize(
    ("rate", "threshold", "share"),
    [(0.0, np.inf, 0.0), (0.2, 0.9, 2 / 6), (0.5, 0.7, 3 / 6), (0.51, 0.5, 4 / 6), (1.0, 0.1, 1.0)],
)
def test_an_exit_rate_becomes_the_largest_threshold_at_which_that_share_leaves(found, rate, threshold, share):
    became, left = _leaving(found, rate, flip=False)
    assert became == pytest.approx(threshold) and left == pytest.approx(share)
    assert left >= rate
    above = select(found, DECODING, flip=False, threshold=float(np.nextafter(np.float32(became), np.float32(np.inf))))
    assert rate == 0 or np.mean(above.exits == 0) < rate


def test_a_row_without_flip_test_takes_its_exit_rate_from_its_own_forwards_alone(found):
    alone = {name: array for name, array in found.items() if not name.endswith("_mirrored")}
    assert _leaving(found, 0.5, flip=False) == _leaving(alone, 0.5, flip=False) == (pytest.approx(0.7), 0.5)
    assert _leaving(found, 0.5, flip=True) == (pytest.approx(0.7), 0.5)  # 12 qualities: 0.9 five times, then 0.7
    assert _leaving(found, 0.4, flip=True) == (pytest.approx(0.9), 5 / 12)


def test_forwards_of_equal_quality_leave_together(found):
    same = {**found, "quality": np.full(6, 0.25, np.float32)}
    assert _leaving(same, 0.1, flip=False) == (0.25, 1.0)


@pytest.mark.parametrize("count", [10, 1000])
def test_an_exit_rate_is_not_missed_by_the_last_digit_of_a_product(count):
    found = {"quality": np.arange(count, dtype=np.float32)}
    for tenths in range(1, 11):
        threshold = threshold_of(found, {"exit_rate": tenths / 10}, flip=False)
        assert np.sum(found["quality"] >= threshold) == tenths * count // 10


def test_a_network_that_compares_two_qualities_knows_no_number(found):
    two = {**found, "quality_rival": np.float32(1) - found["quality"], "default_threshold": np.full(6, 0.99)}
    for given in (None, 0.2, 0.99):
        threshold = threshold_of(two, {"quality_threshold": given}, flip=False)
        assert threshold is None
        assert select(two, DECODING, flip=False, threshold=threshold).exits[:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    for word, exits in (("always", 1), ("never", 0)):
        threshold = threshold_of(two, {"quality_threshold": word}, flip=False)
        assert select(two, DECODING, flip=False, threshold=threshold).exits[:, 0].tolist() == [exits] * 6
    with pytest.raises(MeasurementError, match=r"exit_rate 0\.5 needs a threshold"):
        threshold_of(two, {"exit_rate": 0.5}, flip=False)


def test_a_network_without_quality_has_no_threshold(found):
    plain = {name: array for name, array in found.items() if "quality" not in name}
    assert threshold_of(plain, {}, flip=True) is None
    assert (select(plain, DECODING, flip=True).exits == 1).all()


@pytest.mark.parametrize("value", [float("nan"), "sometimes", None])
def test_a_threshold_that_is_no_number_is_refused(found, value):
    with pytest.raises(SuiteError, match="quality_threshold"):
        resolve_threshold(found, value)


def test_the_refined_share_never_falls_when_the_threshold_rises(found):
    shares = [np.mean(select(found, DECODING, flip=True, threshold=t).exits) for t in np.linspace(-0.1, 1.1, 25)]
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1


def test_a_decoder_that_was_not_applied_is_an_error(found):
    with pytest.raises(MeasurementError, match="no poses decoded by dark"):
        select(found, "dark-hrnet-11", flip=False)


def test_a_pass_counts_only_when_it_is_sealed_and_whole(tmp_path):
    for start in (0, 2):
        save_arrays(tmp_path / f"block-{start:07d}.npz", {"index": np.arange(start, start + 2)})
    assert load_pass(tmp_path) is None
    assert notes_of(tmp_path) == []
    seal_pass(tmp_path, {"seconds": 1.0, "notes": ["interpolated"]})
    assert notes_of(tmp_path) == ["interpolated"]
    assert load_pass(tmp_path)["index"].tolist() == [0, 1, 2, 3]
    assert json.loads((tmp_path / "complete.json").read_text())["seconds"] == 1.0
    (tmp_path / "block-0000002.npz").write_bytes(b"damaged")
    assert load_pass(tmp_path) is None


def test_results_are_rescored_and_duplicates_of_an_image_are_suppressed():
    pose = np.stack([np.linspace(10, 90, 17), np.linspace(10, 190, 17), np.full(17, 0.5)], axis=1).astype(np.float32)
    boxes = Boxes(
        image_ids=np.array([1, 1, 2]),
        xywh=np.tile([0.0, 0.0, 100.0, 200.0], (3, 1)),
        scores=np.array([0.9, 0.8, 0.7]),
        ids=np.array([-1, -1, -1]),
        source="detections",
    )
    keypoints = np.stack([pose, pose, pose])
    found = {"index": np.arange(3), f"keypoints:{DECODING}:0": keypoints, "macs": np.ones((3, 1), np.int64)}
    scales = np.tile(np.array([[0.9, 1.2]], np.float32), (3, 1))
    results = to_results(found, select(found, DECODING, flip=False), boxes, scales, PoseProtocol(), COCO)
    assert [r["image_id"] for r in results] == [1, 2]
    assert [r["score"] for r in results] == pytest.approx([0.45, 0.35])
    assert all("bbox" not in r for r in results)
    kept = to_results(
        found,
        select(found, DECODING, flip=False),
        boxes,
        scales,
        PoseProtocol(nms="none", results_with_bbox=True),
        COCO,
    )
    assert len(kept) == 3 and kept[0]["bbox"] == [0.0, 0.0, 100.0, 200.0]
