"""Effects of an ablation: against each resample computed on its own, by hand, and what seeds do to an interval."""

from __future__ import annotations

import numpy as np
import pytest

from harness.accuracy.ap import summarise
from harness.accuracy.bootstrap import holm, image_weights, paired_difference
from harness.accuracy.match import FALSE_POSITIVE, TRUE_POSITIVE, Matches
from harness.errors import DataError
from harness.run.effects import Draws, Outcome, ablation, lead


def toy(seed: int, quality: float, images: int = 15) -> Matches:
    """Random verdicts; `quality` is the share of poses that are right at the loosest threshold."""
    rng = np.random.default_rng(seed)
    poses = 3 * images
    image = np.repeat(np.arange(images), 3)
    reach = np.where(rng.random(poses) < quality, rng.integers(1, 11, poses), 0)  # right at this many thresholds
    status = np.where(np.arange(10) < reach[:, None], TRUE_POSITIVE, FALSE_POSITIVE).astype(np.uint8)
    order = rng.permutation(poses)
    positives = np.full((images, 3), 3)
    score = np.sort(rng.random(poses))[::-1]
    status = np.repeat(status[:, None], 3, axis=1)
    return Matches("coco", ("all", "medium", "large"), np.arange(images), image[order], score, status[order], positives)


def found(hits: int, thresholds: int = 10, images: int = 10) -> Matches:
    """One person an image; the first `hits` are found, right up to the given number of thresholds.

    Precision is 1 up to a recall of hits / 10, so AP is (10 hits + 1) / 101 times thresholds / 10.
    """
    verdicts = np.where(np.arange(10) < thresholds, TRUE_POSITIVE, FALSE_POSITIVE).astype(np.uint8)
    status = np.broadcast_to(verdicts, (hits, 3, 10)).copy()
    score = np.linspace(1, 0.5, hits)
    groups = ("all", "medium", "large")
    return Matches("coco", groups, np.arange(images), np.arange(hits), score, status, np.ones((images, 3), dtype=int))


def outcome(matches: Matches, seed: int = 0, **levels) -> Outcome:
    return Outcome(levels, seed, matches)


def aps(matches: Matches, n: int, seed: int) -> np.ndarray:
    """AP of every resample, each summarised on its own."""
    return np.array([summarise(matches, weights)["AP"] for weights in image_weights(matches.num_images, n, seed)])


def test_intervals_and_p_are_those_of_resamples_summarised_one_by_one():
    cells = {"a": toy(1, 0.6), "b": toy(2, 0.7), "c": toy(3, 0.55)}
    result = ablation([outcome(m, knob=k) for k, m in cells.items()], {"knob": "a"}, Draws(n=60, seed=5))
    base = aps(cells["a"], 60, 5)
    raw = []
    for setting, name in zip(result.settings[1:], "bc"):
        samples = aps(cells[name], 60, 5) - base
        low, high = np.quantile(samples, [0.025, 0.975])
        side = min(np.sum(samples <= 0), np.sum(samples >= 0))
        raw.append(min(1.0, 2 * (1 + side) / 61))
        assert setting.difference.value == pytest.approx(summarise(cells[name])["AP"] - summarise(cells["a"])["AP"])
        assert (setting.difference.low, setting.difference.high) == pytest.approx((low, high))
        assert setting.difference.p == pytest.approx(raw[-1])
    assert [s.difference.p_holm for s in result.settings[1:]] == pytest.approx(holm(raw))
    assert result.settings[0].difference is None
    assert (result.settings[0].ap.low, result.settings[0].ap.high) == pytest.approx(np.quantile(base, [0.025, 0.975]))


def test_with_one_factor_and_one_seed_the_interval_is_that_of_a_paired_comparison():
    a, b = toy(1, 0.6), toy(2, 0.7)
    effect = ablation([outcome(a, knob=1), outcome(b, knob=2)], {"knob": 1}, Draws(n=50, seed=3)).effects[0]
    reference = paired_difference(b, a, n=50, seed=3)["AP"]
    assert effect.estimate.value == pytest.approx(reference.value)
    assert (effect.estimate.low, effect.estimate.high) == pytest.approx(reference.interval.percentile)


GRID = [
    outcome(found(5), decoder="quarter", flip=True),
    outcome(found(4), decoder="quarter", flip=False),
    outcome(found(3), decoder="argmax", flip=True),
    outcome(found(3), decoder="argmax", flip=False),
]


def test_a_main_effect_is_the_mean_over_the_settings_of_the_other_factor():
    result = ablation(GRID, {"decoder": "quarter", "flip": True}, Draws(n=0))
    effects = {(e.factor, e.level): (e.estimate.value * 101, e.over) for e in result.effects}
    assert effects[("decoder", "argmax")] == (pytest.approx((-20 - 10) / 2), 2)
    assert effects[("flip", False)] == (pytest.approx((-10 + 0) / 2), 2)
    assert [s.changed for s in result.settings] == [(), ("flip",), ("decoder",), ("decoder", "flip")]
    assert [s.difference.value * 101 for s in result.settings[1:]] == pytest.approx([-10, -20, -20])
    assert result.effects[0].estimate.low is None and result.effects[0].estimate.p_holm is None


def test_a_setting_that_was_not_scored_leaves_its_pair_out():
    result = ablation(GRID[:3], {"decoder": "quarter", "flip": True}, Draws(n=0))
    effects = {e.factor: (round(e.estimate.value * 101, 9), e.over) for e in result.effects}
    assert effects == {"decoder": (-20, 1), "flip": (-10, 1)}


def test_without_a_scored_base_there_is_nothing_to_compare_with():
    assert ablation(GRID[1:], {"decoder": "quarter", "flip": True}, Draws(n=0)) is None


def test_equal_predictions_differ_by_nothing():
    result = ablation([outcome(toy(1, 0.6), knob=k) for k in (1, 2)], {"knob": 1}, Draws(n=30))
    estimate = result.effects[0].estimate
    assert (estimate.value, estimate.low, estimate.high, estimate.p) == (0, 0, 0, 1)


def all_right_up_to(thresholds: int) -> Matches:
    """AP is thresholds / 10 whichever images are drawn."""
    return found(10, thresholds)


def test_two_seeds_that_disagree_span_the_interval():
    # seed 0 gains 0.3, seed 1 loses 0.1; images do not matter here
    cells = [
        outcome(all_right_up_to(4), 0, loss="a"), outcome(all_right_up_to(5), 1, loss="a"),
        outcome(all_right_up_to(7), 0, loss="b"), outcome(all_right_up_to(4), 1, loss="b"),
    ]  # fmt: skip
    result = ablation(cells, {"loss": "a"}, Draws(n=400, seed=1))
    estimate = result.effects[0].estimate
    assert estimate.value == pytest.approx(0.1)
    assert (estimate.low, estimate.high) == pytest.approx((-0.1, 0.3))
    assert estimate.p > 0.8
    assert result.settings[0].seeds == (0, 1) and result.settings[0].ap.value == pytest.approx(0.45)


def test_seeds_are_paired_so_what_a_seed_does_to_both_sides_does_not_widen_the_interval():
    cells = [
        outcome(all_right_up_to(n + gain), s, loss=k) for s, n in ((0, 2), (1, 6)) for k, gain in (("a", 0), ("b", 1))
    ]
    estimate = ablation(cells, {"loss": "a"}, Draws(n=100)).effects[0].estimate
    assert (estimate.low, estimate.high) == pytest.approx((0.1, 0.1))


def test_the_spread_over_seeds_is_that_of_a_mean():
    rng = np.random.default_rng(0)
    gains = rng.integers(-3, 4, 6)
    cells = [outcome(all_right_up_to(5), s, k=0) for s in range(6)]
    cells += [outcome(all_right_up_to(5 + g), s, k=1) for s, g in enumerate(gains)]
    estimate = ablation(cells, {"k": 0}, Draws(n=400)).effects[0].estimate
    standard_error = np.std(gains / 10, ddof=1) / np.sqrt(6)
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * standard_error, rel=0.25)


def test_a_seed_that_failed_on_one_side_is_left_out_of_the_difference():
    cells = [outcome(all_right_up_to(n), s, loss=k) for k, s, n in (("a", 0, 4), ("a", 1, 8), ("b", 0, 5))]
    assert ablation(cells, {"loss": "a"}, Draws(n=0)).effects[0].estimate.value == pytest.approx(0.1)


def test_cells_scored_on_different_images_are_refused():
    with pytest.raises(DataError, match="different images"):
        ablation([outcome(found(3), k=1), outcome(found(3, images=12), k=2)], {"k": 1}, Draws(n=0))


def test_levels_are_told_apart_by_what_they_say():
    cells = [outcome(found(3), size=[64, 48]), outcome(found(5), size=[128, 96]), outcome(found(5), size="128x96")]
    assert [e.level for e in ablation(cells, {"size": [64, 48]}, Draws(n=0)).effects] == [[128, 96], "128x96"]


def test_the_best_of_several_leads_each_other_one_by_paired_differences():
    several = [toy(1, 0.5), toy(2, 0.9), toy(3, 0.6)]
    first = lead(several, Draws(n=80, seed=5))
    samples = [aps(matches, 80, 5) for matches in several]
    values = [summarise(matches)["AP"] for matches in several]
    assert first.best == 1
    raw = []
    for difference, other in zip(first.differences, (0, 2), strict=True):
        spread = samples[1] - samples[other]
        assert difference.value == pytest.approx(values[1] - values[other])
        assert (difference.low, difference.high) == pytest.approx(tuple(np.quantile(spread, [0.025, 0.975])))
        raw.append(min(1.0, 2 * (1 + min(np.sum(spread <= 0), np.sum(spread >= 0))) / 81))
    assert [d.p_holm for d in first.differences] == pytest.approx(holm(raw))


def test_nobody_leads_its_own_double_other_images_or_alone():
    assert lead([toy(1, 0.6), toy(1, 0.6)], Draws(n=50)).differences[0].p_holm == 1
    assert lead([toy(1, 0.6), toy(2, 0.6, images=16)], Draws(n=50)) is None
    assert lead([toy(1, 0.6)], Draws(n=50)) is None


def test_a_row_of_an_ablation_that_is_also_compared_with_all_others_is_resampled_once(monkeypatch):
    from harness.run import effects

    seen, resample = [], effects.resample
    monkeypatch.setattr(
        effects, "resample", lambda matches, *how: (seen.append(id(matches)), resample(matches, *how))[1]
    )
    several, draws = [toy(1, 0.6), toy(2, 0.7)], Draws(n=20)
    ablation([outcome(m, knob=k) for k, m in enumerate(several)], {"knob": 0}, draws)
    lead(several, draws)
    assert seen == [id(m) for m in several]
