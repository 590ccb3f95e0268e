from __future__ import annotations

import contextlib
import copy
import io

import numpy as np
import pytest
from pycocotools import coco as pycoco
from pycocotools.cocoeval import COCOeval

from harness.accuracy.ap import STAT_NAMES, Curves, summarise
from harness.accuracy.bootstrap import (
    holm,
    image_weights,
    interval,
    intervals,
    paired_difference,
    resample,
)
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import match
from harness.errors import DataError
from harness.pose.skeletons import COCO


def _matches(gt, results, image_ids=None):
    truth = GroundTruth.from_coco(gt, num_joints=17, image_ids=image_ids)
    found = Detections.from_results(results, truth, known_images=[p["id"] for p in gt["images"]])
    return match(truth, found, COCO.sigmas)


def _drawn(gt, results, counts):
    """Annotations and results in which image i really occurs counts[i] times."""
    pictures, annotations, copies = [], [], []
    for picture, count in zip(gt["images"], counts, strict=True):
        for n in range(count):
            new = picture["id"] * 1000 + n
            pictures.append({**picture, "id": new})
            of_image = [a for a in gt["annotations"] if a["image_id"] == picture["id"]]
            annotations += [{**a, "image_id": new, "id": len(annotations) + i + 1} for i, a in enumerate(of_image)]
            copies += [{**r, "image_id": new} for r in results if r["image_id"] == picture["id"]]
    return {**gt, "images": pictures, "annotations": annotations}, copies


def _pycocotools(gt, results):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = pycoco.COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        run = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return np.where(run.stats > -1, run.stats, np.nan)


def test_reweighting_equals_pycocotools_on_really_resampled_images(made_up, jittered):
    gt = made_up(40, 7)
    results = jittered(gt, 7)
    curves = Curves(_matches(gt, results))
    for counts in image_weights(40, 60, seed=3):
        theirs = _pycocotools(*_drawn(gt, results, counts))
        np.testing.assert_allclose(curves.stats(counts), theirs, rtol=0, atol=1e-9)


def test_weights_of_zero_and_one_equal_restricting_the_images(made_up, jittered):
    gt = made_up(30, 2)
    results = jittered(gt, 2, levels=4)
    chosen = np.arange(30) % 3 == 0
    ids = [p["id"] for p, use in zip(gt["images"], chosen, strict=True) if use]
    ours = summarise(_matches(gt, results), chosen.astype(int))
    assert dict(ours) == pytest.approx(dict(summarise(_matches(gt, results, ids))), abs=0, nan_ok=True)


def test_doubling_every_image_changes_nothing(made_up, jittered):
    gt = made_up(20, 5)
    matches = _matches(gt, jittered(gt, 5))
    once, twice = summarise(matches), summarise(matches, np.full(20, 2))
    assert dict(twice) == pytest.approx(dict(once), abs=1e-12, nan_ok=True)


def test_resamples_repeat_with_their_seed_and_differ_without(made_up, jittered):
    gt = made_up(20, 5)
    matches = _matches(gt, jittered(gt, 5))
    assert np.array_equal(resample(matches, 10, 1), resample(matches, 10, 1), equal_nan=True)
    assert not np.array_equal(resample(matches, 10, 1), resample(matches, 10, 2), equal_nan=True)
    assert (image_weights(20, 10, 1).sum(axis=1) == 20).all()


def test_intervals_hold_the_value_and_agree_in_width_with_the_spread(val188, jittered):
    matches = _matches(val188, jittered(val188, 1))
    value, found = summarise(matches), intervals(matches, 300, 0)
    for name in STAT_NAMES["coco"]:
        low, high = found[name].percentile
        assert low < value[name] < high
        assert (high - low) / found[name].sd == pytest.approx(2 * 1.96, rel=0.15)
        assert found[name].bca[0] < found[name].bca[1]


def test_bca_of_a_mean_has_the_textbook_endpoints():
    """A skewed sample; the tails are computed here by hand from equations 14.9, 14.10 and 14.15."""
    from statistics import NormalDist

    data = np.random.default_rng(0).exponential(size=40)
    means = np.array([data[np.random.default_rng(i).integers(40, size=40)].mean() for i in range(2000)])
    leave_one_out = (data.sum() - data) / 39
    found = interval(data.mean(), means, leave_one_out, level=0.9)
    normal = NormalDist()
    z0 = normal.inv_cdf(float(np.mean(means < data.mean())))
    u = leave_one_out.mean() - leave_one_out
    a = (u**3).sum() / (6 * (u**2).sum() ** 1.5)
    tails = [normal.cdf(z0 + (z0 + z) / (1 - a * (z0 + z))) for z in (normal.inv_cdf(0.05), normal.inv_cdf(0.95))]
    assert found.bca == pytest.approx(tuple(np.quantile(means, tails)))
    assert found.bca[1] > found.percentile[1]  # a long right tail moves the interval up


def test_a_statistic_of_nobody_has_no_interval(made_up, jittered):
    gt = made_up(20, 5)
    tiny = {**gt, "annotations": [{**a, "area": 2000.0} for a in gt["annotations"]]}
    found = intervals(_matches(tiny, jittered(tiny)), 20)
    assert found["APl"] is None
    assert found["APm"] is not None


def test_the_paired_difference_of_a_set_with_itself_is_nothing(made_up, jittered):
    gt = made_up(20, 5)
    matches = _matches(gt, jittered(gt, 5))
    found = paired_difference(matches, matches, n=50)["AP"]
    assert found.value == 0
    assert found.p == 1
    assert found.interval.percentile == (0, 0)


def test_a_clearly_better_set_is_told_apart_though_its_own_interval_overlaps(val188, jittered):
    results = jittered(val188, 1)
    rng = np.random.default_rng(0)
    worse = copy.deepcopy(results)
    for r in worse:
        points = np.array(r["keypoints"]).reshape(-1, 3)
        points[:, :2] += rng.normal(0, 1.5, (17, 2))
        r["keypoints"] = points.ravel().tolist()
    a, b = _matches(val188, results), _matches(val188, worse)
    found = paired_difference(a, b, n=200)["AP"]
    alone = intervals(a, 200)["AP"], intervals(b, 200)["AP"]
    assert found.interval.percentile[0] > 0
    assert found.p < 0.02
    assert alone[0].percentile[0] < alone[1].percentile[1]
    assert found.interval.sd < alone[0].sd


def test_swapping_the_two_sets_turns_the_sign_and_keeps_p(made_up, jittered):
    gt = made_up(30, 5)
    a, b = _matches(gt, jittered(gt, 1)), _matches(gt, jittered(gt, 2))
    forth, back = paired_difference(a, b, n=99)["AP"], paired_difference(b, a, n=99)["AP"]
    assert forth.value == -back.value
    assert forth.p == pytest.approx(back.p, abs=0.02)


def test_sets_over_different_images_are_refused_with_the_images(made_up, jittered):
    gt = made_up(20, 5)
    results = jittered(gt, 5)
    with pytest.raises(DataError, match="1 only in the second: 20"):
        paired_difference(_matches(gt, results, range(1, 20)), _matches(gt, results, range(1, 21)), n=10)


def test_holm_is_the_step_down_rule_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.slow
def test_intervals_cover_the_truth_nearly_as_often_as_they_say(made_up, jittered):
    """A population of 1,500 images, 120 samples of 150: the 90 % intervals hold the population's AP."""
    gt = made_up(1500, 11)
    curves = Curves(_matches(gt, jittered(gt, 11)))
    truth = curves.stats(np.ones(1500))[0]
    rng, hits = np.random.default_rng(0), 0
    for _ in range(120):
        chosen = rng.choice(1500, 150, replace=False)
        base = np.zeros(1500, dtype=int)
        base[chosen] = 1
        samples = []
        for draw in image_weights(150, 150, int(rng.integers(10**6))):
            weights = np.zeros(1500, dtype=int)
            weights[chosen] = draw
            samples.append(curves.stats(weights)[0])
        left_out = []
        for block in np.array_split(chosen, 30):
            weights = base.copy()
            weights[block] = 0
            left_out.append(curves.stats(weights)[0])
        found = interval(curves.stats(base)[0], np.array(samples), np.array(left_out), level=0.9)
        hits += found.bca[0] <= truth <= found.bca[1]
    assert 0.80 <= hits / 120 <= 0.98
