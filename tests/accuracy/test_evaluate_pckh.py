"""PCKh of a data set: against a hand computation with generated head sizes, joint by joint and image by image."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.io import savemat

from harness.accuracy.bootstrap import image_weights
from harness.accuracy.evaluate import compare
from harness.accuracy.evaluate_pckh import evaluate_pckh, read_poses
from harness.accuracy.pck import Hits
from harness.accuracy.scored import from_arrays, side_by_side, summarise
from harness.data import mpii
from harness.errors import DataError
from harness.pose.skeletons import MPII

COUNT = 40


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """40 persons on 25 images, head boxes of all sizes, a third of the joints unlabelled: data set and arrays."""
    folder, rng = tmp_path_factory.mktemp("mpii"), np.random.default_rng(4)
    joints = rng.uniform(1, 500, (COUNT, 16, 2))
    seen = rng.random((COUNT, 16)) < 0.67
    image = np.sort(rng.integers(0, 25, COUNT))
    corners = rng.uniform(0, 400, (COUNT, 2))
    sizes = rng.uniform(15, 120, (COUNT, 2))
    entries = [
        {"image": f"{image[n]}.jpg", "center": [250.0, 250.0], "scale": 2.0, "joints": joints[n].tolist(),
         "joints_vis": seen[n].astype(int).tolist()}
        for n in range(COUNT)
    ]  # fmt: skip
    (folder / "valid.json").write_text(json.dumps(entries))
    boxes = np.stack([corners, corners + sizes]).transpose(0, 2, 1)
    savemat(folder / "gt.mat", {"headboxes_src": boxes})
    dataset = mpii.load(folder / "valid.json", folder, heads=folder / "gt.mat")
    return dataset, joints - 1, seen, 0.6 * np.hypot(*sizes.T), image


def _poses(joints, seed=0, spread=30.0):
    return joints + np.random.default_rng(seed).normal(0, spread, joints.shape)


def _results(poses):
    points = np.concatenate([poses, np.ones((*poses.shape[:2], 1))], axis=2)
    return [{"person": n, "keypoints": p.ravel().tolist()} for n, p in enumerate(points, start=1)]


def _by_hand(poses, joints, seen, heads, threshold, weight=None):
    """Shares by joint and their mean, with loops: (16,) and a number."""
    right, all_ = np.zeros(16), np.zeros(16)
    for n in range(len(joints)):
        for j in range(16):
            if seen[n, j]:
                times = 1 if weight is None else weight[n]
                apart = np.sqrt(((poses[n, j] - joints[n, j]) ** 2).sum())
                all_[j] += times
                right[j] += times * (apart <= threshold * heads[n])
    counted = [j for j, name in enumerate(MPII.joints) if name not in ("pelvis", "thorax")]
    return right / all_, right[counted].sum() / all_[counted].sum()


@pytest.mark.parametrize("threshold", [0.5, 0.1])
def test_every_joint_and_the_mean_are_those_of_a_hand_computation(world, threshold):
    dataset, joints, seen, heads, _ = world
    poses = _poses(joints)
    found = evaluate_pckh(dataset, _results(poses), bootstrap=0)
    shares, mean = _by_hand(poses, joints, seen, heads, threshold)
    assert 0.02 < mean < 0.9
    assert found.stats[f"PCKh@{threshold}"] == pytest.approx(mean, abs=1e-12)
    for name, share in zip(MPII.joints, shares, strict=True):
        assert found.stats[f"PCKh@{threshold} {name}"] == pytest.approx(share, abs=1e-12)


def test_a_resample_is_the_hand_computation_with_whole_images_drawn_again(world):
    dataset, joints, seen, heads, image = world
    poses = _poses(joints)
    hits = evaluate_pckh(dataset, _results(poses), bootstrap=0).matches
    weights = image_weights(hits.num_images, 3, seed=7)
    place = np.unique(image, return_inverse=True)[1]
    for row in weights:
        expected = _by_hand(poses, joints, seen, heads, 0.5, row[place])[1]
        assert summarise(hits, row)["PCKh@0.5"] == pytest.approx(expected, abs=1e-12)


def test_the_interval_holds_the_value_and_narrows_with_more_images(world):
    dataset, joints, *_ = world
    found = evaluate_pckh(dataset, _results(_poses(joints)), bootstrap=200)
    interval = found.intervals["PCKh@0.5"]
    assert interval.bca[0] < found.stats["PCKh@0.5"] < interval.bca[1]
    assert interval.bca[1] - interval.bca[0] < 0.3
    assert any("images: intervals from fewer than 30" in note for note in found.notes)


def test_hits_survive_the_way_to_disk_and_side_by_side_give_both(world):
    dataset, joints, *_ = world
    a, b = (evaluate_pckh(dataset, _results(_poses(joints, s)), bootstrap=0).matches for s in (1, 2))
    again = from_arrays(a.to_arrays())
    assert isinstance(again, Hits) and summarise(again) == summarise(a)
    both, nothing, once = side_by_side(a, b), np.zeros(a.num_images), np.ones(a.num_images)
    assert summarise(both, np.concatenate((once, nothing))) == summarise(a)
    assert summarise(both, np.concatenate((nothing, once))) == summarise(b)


def test_a_paired_difference_is_the_difference_and_tells_a_better_network(world):
    dataset, joints, *_ = world
    good, poor = (evaluate_pckh(dataset, _results(_poses(joints, spread=s)), bootstrap=0) for s in (8.0, 60.0))
    found = compare(good, [poor], bootstrap=200)[0].differences["PCKh@0.5"]
    assert found.value == pytest.approx(good.stats["PCKh@0.5"] - poor.stats["PCKh@0.5"])
    assert found.p < 0.02 and found.interval.bca[0] > 0


def test_persons_without_a_pose_are_an_error_or_wrong_as_asked(world):
    dataset, joints, seen, heads, _ = world
    results = _results(joints)
    with pytest.raises(DataError, match="1 persons have no pose: 3"):
        evaluate_pckh(dataset, results[:2] + results[3:], bootstrap=0)
    lost = evaluate_pckh(dataset, results[:2] + results[3:], bootstrap=0, absent_as_wrong=True)
    far = joints.copy()
    far[2] += 10_000
    assert lost.stats["PCKh@0.5"] == pytest.approx(_by_hand(far, joints, seen, heads, 0.5)[1])
    assert any("1 person has no pose" in note for note in lost.notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[1].pop("person"), "result 1: person is None"),
        (lambda r: r[1].update(person=99), "there is no person 99"),
        (lambda r: r[1].update(person=1), "person 1 has a pose already"),
        (lambda r: r[1].update(keypoints=[1.0] * 51), "51 keypoint numbers, not 48"),
        (lambda r: r[1].update(keypoints=[float("nan")] * 48), "not finite"),
    ],
)
def test_faulty_results_are_named(world, change, message):
    dataset, joints, *_ = world
    results = _results(joints)
    change(results)
    with pytest.raises(DataError, match=message):
        evaluate_pckh(dataset, results, bootstrap=0)


def test_without_head_sizes_there_is_no_pckh(world, tmp_path):
    joints = world[1]
    entry = {"image": "a.jpg", "center": [5, 5], "scale": 1, "joints": [[1, 1]] * 16, "joints_vis": [1] * 16}
    (tmp_path / "valid.json").write_text(json.dumps([entry]))
    with pytest.raises(DataError, match=r"no head size(?s:.*)heads"):
        evaluate_pckh(mpii.load(tmp_path / "valid.json", tmp_path), _results(joints[:1]))


def test_a_mat_file_of_predictions_counts_from_one(world, tmp_path):
    dataset, joints, *_ = world
    poses = _poses(joints)
    savemat(tmp_path / "pred.mat", {"preds": poses + 1})
    found = evaluate_pckh(dataset, read_poses(tmp_path / "pred.mat", COUNT), bootstrap=0)
    assert found.stats == evaluate_pckh(dataset, _results(poses), bootstrap=0).stats
    with pytest.raises(DataError, match="preds is 40x16x2"):
        read_poses(tmp_path / "pred.mat", 39)
