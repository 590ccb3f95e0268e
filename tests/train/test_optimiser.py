"""From one step to the next: optimisers, groups, rates, clipping, loss scaling, running mean."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from harness.method import find_variant
from harness.train.optimiser import Update, optimiser
from harness.train.recipes import Recipe


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


@pytest.mark.parametrize(
    ("name", "kind"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_the_optimiser_is_the_one_of_the_recipe(name, kind):
    frozen = network()
    frozen[0].requires_grad_(False)
    made = optimiser(frozen, Recipe(epochs=1, batch=1, lr=0.1, optimiser=name, weight_decay=0.2))
    assert type(made) is kind and made.defaults["weight_decay"] == 0.2
    assert len(made.param_groups[0]["params"]) == 2


def by_kind(module, recipe):
    slow = [p for n, p in module.named_parameters() if n.endswith("bias")]
    rest = [p for n, p in module.named_parameters() if not n.endswith("bias")]
    return [{"params": slow, "lr": recipe.lr * 0.5, "weight_decay": 0.0}, {"params": rest}]


def test_parameter_groups_keep_their_own_rate_under_the_schedule():
    recipe = Recipe(epochs=2, batch=8, lr=1e-2, optimiser="adamw", weight_decay=0.1, milestones=(1,), groups=by_kind)
    update = Update(network(), recipe, torch.device("cpu"))
    assert update.begin(0, 3) == pytest.approx(5e-3) and update.begin(3, 3) == pytest.approx(5e-4)
    groups = update.optimiser.param_groups
    assert [g["lr"] for g in groups] == pytest.approx([5e-4, 1e-3])
    assert [g["weight_decay"] for g in groups] == [0.0, 0.1]


def test_a_step_of_sgd_with_clipping_is_the_hand_computed_one():
    one = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(one.weight)
    recipe = Recipe(epochs=1, batch=1, lr=0.5, optimiser="sgd", momentum=0.0, clip_norm=1.0)
    update = Update(one, recipe, torch.device("cpu"))
    update.begin(0, 1)
    update.backward(one(torch.tensor([[3.0, 4.0]])).sum())  # gradient (3, 4), clipped to (0.6, 0.8)
    update.finish()
    torch.testing.assert_close(one.weight.detach(), torch.tensor([[-0.3, -0.4]]), atol=1e-5, rtol=0)


def test_the_running_mean_follows_its_decay():
    one = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(one.weight)
    recipe = Recipe(epochs=1, batch=1, lr=1.0, optimiser="sgd", momentum=0.0, ema=0.9)
    update = Update(one, recipe, torch.device("cpu"))
    for step in range(3):
        update.begin(step, 3)
        update.backward(one(torch.ones(1, 1)).sum())
        update.finish()
    # the weight is -1, -2, -3; the mean starts with the first and keeps 0.9 of itself
    mean = 0.9 * (0.9 * -1 + 0.1 * -2) + 0.1 * -3
    assert update.result.weight.item() == pytest.approx(mean) and one.weight.item() == -3


def test_a_step_whose_scaled_gradients_overflow_is_skipped_and_the_next_is_taken():
    one = nn.Linear(1, 1, bias=False)
    update = Update(one, Recipe(epochs=1, batch=1, lr=0.1), torch.device("cpu"), scaled=True)
    before = one.weight.detach().clone()
    for value, moves in ((float("inf"), False), (1.0, True)):
        update.begin(0, 1)
        update.backward(one(torch.full((1, 1), value)).sum())
        update.finish()
        assert torch.equal(one.weight.detach(), before) is not moves
    assert update.state_dict()["scaler"]["scale"] == 2.0**15


def test_the_groups_of_vitpose_b_are_the_published_ones(shared):
    wanted = json.loads((shared / "goldens/vitpose_b_layer_decay.json").read_text())
    variant = find_variant("vitpose_b")
    recipe = variant.recipes["official"]
    with torch.device("meta"):
        built = variant.build(num_joints=17, input_size=(256, 192))
    names = {parameter: name for name, parameter in built.named_parameters()}
    found = {
        names[parameter]: (group["lr"] / recipe.lr, group["weight_decay"])
        for group in optimiser(built, recipe).param_groups
        for parameter in group["params"]
    }
    for name, (scale, decay) in wanted.items():
        assert found.pop(name) == (pytest.approx(scale), decay), name
    assert {scale for scale, _ in found.values()} <= {1.0}  # the head


@pytest.mark.parametrize(
    ("name", "rate", "depth"), [("sharpose_s", 0.80, 12), ("sharpose_b", 0.75, 12), ("vitpose_h", 0.85, 32)]
)
def test_layer_decay_reaches_from_the_patches_to_the_head(name, rate, depth):
    variant = find_variant(name)
    recipe = variant.recipes["official"]
    with torch.device("meta"):
        built = variant.build(num_joints=17, input_size=(256, 192))
    rates = {id(p): g["lr"] / recipe.lr for g in optimiser(built, recipe).param_groups for p in g["params"]}
    found = {name: rates[id(p)] for name, p in built.named_parameters()}
    assert found["backbone.patch_embed.proj.weight"] == pytest.approx(rate ** (depth + 1))
    assert found["backbone.blocks.0.mlp.fc1.weight"] == pytest.approx(rate**depth)
    assert found[f"backbone.blocks.{depth - 1}.mlp.fc1.weight"] == pytest.approx(rate)
    assert {found[n] for n in found if n.startswith("keypoint_head.")} == {1.0}
