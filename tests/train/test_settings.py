"""`--set` of a training: build knobs and recipe fields."""

from __future__ import annotations

import pytest

from harness.errors import SuiteError
from harness.method import find_variant
from harness.train.settings import settled, with_fields

VARIANT = find_variant("fasterpose_r50")
RECIPE = VARIANT.recipes["official"]


def test_knobs_go_to_the_network_and_fields_to_the_recipe():
    assignments = ["head=bilinear", "epochs=14", "lr=2e-3", "target.sigma=3", "augmentation.rotation=30"]
    recipe, build, size = settled(VARIANT, RECIPE, assignments)
    assert build == {"head": "bilinear", "loss": "rce_soft"} and size is None
    assert (recipe.epochs, recipe.milestones, recipe.lr) == (14, (9, 12), 2e-3)
    assert (recipe.target.sigma, recipe.augmentation.rotation) == (3.0, 30.0)
    assert recipe.differs[-3:] == (
        "target.sigma 3.0 in place of 2.0",
        "augmentation.rotation 30.0 in place of 40.0",
        "head bilinear in place of project_shuffle",
    )


def test_another_input_size_is_the_networks_and_the_recipe_stays_for_its_own():
    recipe, _, size = settled(VARIANT, RECIPE, ["input_size=384x288"])
    assert size == (384, 288) and recipe.input_size == (256, 192)
    recipe, _, _ = settled(VARIANT, RECIPE, ["input_size=384x288", "recipe.input_size=384x288"])
    assert recipe.input_size == (384, 288)


def test_lists_and_choices_are_read():
    recipe = settled(VARIANT, RECIPE, ["milestones=[3, 4]", "schedule=cosine", "clip_norm=1", "ema=0.999"]).recipe
    assert (recipe.milestones, recipe.schedule, recipe.clip_norm, recipe.ema) == ((3, 4), "cosine", 1.0, 0.999)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("hed=bilinear", "unknown knob or field of the recipe 'hed'[\\s\\S]*did you mean head"),
        ("augmentation.rotatoin=3", "unknown knob or field of the recipe 'augmentation.rotatoin'[\\s\\S]*rotation"),
        ("augmentation=3", "unknown knob or field"),
        ("lr.x=3", "unknown knob or field"),
        ("lr=quick", "lr is 'quick'"),
        ("optimiser=lion", "optimiser is 'lion'"),
        ("head=wide", "head is 'wide'"),
        ("input_size=384", "input_size is '384'"),
        ("groups=none", "unknown knob or field"),
        ("epochs", "--set epochs"),
        ("target.encoder=simcc", "two vectors of bins a joint, its networks write one map"),
        ("target.encoder=udp", "placed for the UDP crop"),
        ("loss=focal", "exactly 1"),
        ("loss=dsnt", "needs the joints' coordinates"),
        ("loss=simcc_kl", "two vectors of bins"),
    ],
)
def test_what_is_not_there_or_not_allowed_is_refused(assignment, message):
    with pytest.raises(SuiteError, match=message):
        settled(VARIANT, RECIPE, [assignment])


def test_a_suite_sets_fields_by_name():
    assert with_fields(RECIPE, {"lr": 1e-4, "target.sigma": 1.5}).target.sigma == 1.5
    with pytest.raises(SuiteError, match=r"train\.set\.lrr"):
        with_fields(RECIPE, {"lrr": 1})
