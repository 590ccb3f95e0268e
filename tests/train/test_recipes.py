"""Recipes as data."""

from __future__ import annotations

import json
from functools import partial

import pytest

from harness.errors import UserError
from harness.train.recipes import Recipe, describe, with_epochs


def two_groups(module, recipe):
    return []


def test_a_recipe_is_described_in_json_values_with_its_groups_by_name():
    plain = describe(Recipe(epochs=2, batch=4, lr=0.1, milestones=(1,), groups=two_groups))
    assert json.loads(json.dumps(plain)) == plain
    assert (plain["groups"], plain["milestones"], plain["target"]["sigma"]) == ("two_groups", [1], 2.0)


def test_options_bound_to_the_groups_rule_are_part_of_the_description():
    plain = describe(Recipe(epochs=2, batch=4, lr=0.1, groups=partial(two_groups, rate=0.75)))
    assert plain["groups"] == "two_groups(rate=0.75)"


def test_another_length_moves_the_milestones_and_is_stated():
    recipe = with_epochs(Recipe(epochs=210, batch=4, lr=0.1, milestones=(170, 200), differs=("a",)), 21)
    assert (recipe.epochs, recipe.milestones) == (21, (17, 20))
    assert recipe.differs == ("a", "21 epochs in place of 210, milestones in proportion")


def test_the_same_length_changes_nothing_and_none_at_all_is_refused():
    recipe = Recipe(epochs=210, batch=4, lr=0.1)
    assert with_epochs(recipe, 210) is recipe
    with pytest.raises(UserError, match="0 epochs"):
        with_epochs(recipe, 0)
