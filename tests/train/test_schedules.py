"""Learning-rate factors against hand computation."""

from __future__ import annotations

import pytest

from harness.train.recipes import Recipe
from harness.train.schedules import rate_factor

STEP = Recipe(epochs=210, batch=32, lr=1e-3, milestones=(170, 200))


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (169, 1), (170, 0.1), (199, 0.1), (200, 0.01), (209, 0.01)])
def test_the_rate_drops_tenfold_with_each_milestone_epoch(epoch, factor):
    for step in (epoch * 7, epoch * 7 + 6):
        assert rate_factor(STEP, step, 7) == pytest.approx(factor)


def test_warm_up_rises_linearly_from_its_ratio_to_one():
    recipe = Recipe(epochs=210, batch=32, lr=5e-4, milestones=(170, 200), warmup_steps=500)
    found = [rate_factor(recipe, step, 100) for step in (0, 250, 499, 500, 501)]
    assert found == pytest.approx([0.001, 0.5005, 0.998002, 1, 1])


def test_a_milestone_within_the_warm_up_counts():
    recipe = Recipe(epochs=10, batch=1, lr=1, milestones=(1,), warmup_steps=4, warmup_ratio=0.2)
    assert rate_factor(recipe, 2, 2) == pytest.approx(0.1 * 0.6)


def test_cosine_goes_from_one_over_a_half_to_zero():
    recipe = Recipe(epochs=4, batch=1, lr=1, schedule="cosine")
    assert [rate_factor(recipe, step, 25) for step in (0, 50, 100)] == pytest.approx([1, 0.5, 0])
    assert rate_factor(recipe, 25, 25) == pytest.approx(0.853553, abs=1e-6)
