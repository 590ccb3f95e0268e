"""The recipes of all variants fit their networks."""

from __future__ import annotations

import pytest
import torch

from harness.method import find_variant, variants
from harness.train.optimiser import optimiser

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", [v.name for v in variants().values() if v.recipes])
def test_every_recipe_of_every_variant_has_an_optimiser_over_all_that_it_trains(name):
    variant = find_variant(name)
    with torch.device("meta"):
        built = variant.build(num_joints=17, input_size=variant.input_size)
    trained = {id(p) for p in built.parameters() if p.requires_grad}
    for recipe in variant.recipes.values():
        grouped = [id(p) for g in optimiser(built, recipe).param_groups for p in g["params"]]
        assert len(grouped) == len(set(grouped)) and set(grouped) >= trained
