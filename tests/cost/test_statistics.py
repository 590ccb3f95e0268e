"""Order-statistic intervals: by hand, by simulation, by property."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cost.statistics import quantile, stationary


def test_the_interval_of_a_median_of_ten_by_hand():
    # P(2 <= B(10, 1/2) <= 8) = 1 - 2 (1 + 10) / 1024 = 0.979; one step narrower gives 0.891
    found = quantile([9, 1, 8, 2, 7, 3, 6, 4, 5, 10], 0.5)
    assert (found.value, found.low, found.high, found.n) == (5.5, 2, 9, 10)


@pytest.mark.parametrize("n", [6, 13, 30, 100])
def test_bounds_are_the_narrowest_with_equal_tails(n):
    found = quantile(range(1, n + 1), 0.5)
    low, high = int(found.low), int(found.high)

    def below(rank):  # P(fewer than `rank` samples lie below the median)
        return sum(comb(n, i) for i in range(rank)) / 2**n

    assert below(low) <= 0.025 < below(low + 1)
    assert high == n + 1 - low


def test_too_few_samples_give_no_interval_and_say_how_many_it_takes():
    assert quantile([1, 2, 3, 4, 5], 0.5).value == 3
    assert quantile([1, 2, 3, 4, 5], 0.5).low is None
    assert "needs 6" in quantile([1, 2, 3, 4, 5], 0.5).reason
    assert quantile([], 0.5).value is None


@pytest.mark.parametrize(("q", "needed"), [(0.9, 36), (0.99, 368)])
def test_a_tail_quantile_is_given_only_when_enough_samples_carry_it(q, needed):
    short = quantile(range(needed - 1), q)
    assert short.value is None and f"needs {needed}" in short.reason
    full = quantile(range(needed), q)
    assert full.low <= full.value <= full.high == needed - 1


@pytest.mark.parametrize(("q", "n", "truth"), [(0.5, 25, np.log(2)), (0.9, 60, np.log(10))])
def test_intervals_cover_the_truth_as_often_as_they_say(q, n, truth):
    rng = np.random.default_rng(0)
    found = [quantile(rng.exponential(size=n), q) for _ in range(1500)]
    covered = np.mean([f.low <= truth <= f.high for f in found])
    assert 0.945 <= covered <= 0.99


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.1, 100), min_size=6, max_size=60), st.floats(0.5, 20))
def test_scaling_the_samples_scales_the_interval(samples, factor):
    plain, scaled = quantile(samples, 0.5), quantile([factor * s for s in samples], 0.5)
    assert (scaled.low, scaled.value, scaled.high) == pytest.approx(
        (factor * plain.low, factor * plain.value, factor * plain.high)
    )
    assert plain.low <= plain.value <= plain.high


def test_a_warm_up_ends_when_calls_stop_getting_faster():
    falling = [100 * 0.8**i for i in range(10)]
    assert not stationary(falling)
    assert not stationary([10.0] * 9)
    assert stationary(falling + [10.0] * 10)
    assert stationary([10, 10.2, 9.9, 30, 10, 10.1, 9.8, 10, 10.2, 9.9])
