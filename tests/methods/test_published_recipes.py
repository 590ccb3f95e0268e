"""The published recipes of all methods, number by number as the cards print them (hrnet.md F, sharpose.md 4, ...)."""

from __future__ import annotations

import pytest
import torch

from harness.method import find_variant, variants
from harness.train.optimiser import optimiser

HRNET, MMPOSE0, MMPOSE1 = (
    ("hrnet", 0.35, 45.0, 0.3, 0.0),
    ("mmpose0", 0.5, 40.0, 0.3, 0.2),
    ("mmpose1", 0.5, 80.0, 0.3, 0.16),
)
SIMPLE, SHARPOSE = ("hrnet", 0.3, 40.0, 0.0, 0.0), ("mmpose0", 0.5, 40.0, 0.3, 0.16)

# variant, recipe: optimiser, lr, total batch, epochs, milestones, steps of warm-up, weight decay, clipping; target
# (encoder, sigma, stride); augmentation (dialect, scale, rotation, half-body, shift)
PUBLISHED = {
    ("hrnet_w32", "official"): ("adam", 1e-3, 128, 210, (170, 200), 0, 0.0, None, ("msra", 2, 4), HRNET),
    ("hrnet_w48", "official"): ("adam", 1e-3, 128, 210, (170, 200), 0, 0.0, None, ("msra", 2, 4), HRNET),
    ("hrnet_w32", "official_384x288"): ("adam", 1e-3, 128, 210, (170, 200), 0, 0.0, None, ("msra", 3, 4), HRNET),
    ("hrnet_w48", "official_384x288"): ("adam", 1e-3, 96, 210, (170, 200), 0, 0.0, None, ("msra", 3, 4), HRNET),
    ("hrnet_w32", "mmpose0"): ("adam", 5e-4, 512, 210, (170, 200), 500, 0.0, None, ("msra", 2, 4), MMPOSE0),
    ("hrnet_w48", "mmpose1"): ("adam", 5e-4, 256, 210, (170, 200), 500, 0.0, None, ("msra", 2, 4), MMPOSE1),
    ("simplebaseline_r50", "official"): ("adam", 1e-3, 128, 140, (90, 120), 0, 0.0, None, ("msra", 2, 4), SIMPLE),
    ("simplebaseline_r152", "mmpose1"): ("adam", 5e-4, 512, 210, (170, 200), 500, 0.0, None, ("msra", 2, 4), MMPOSE1),
    ("vitpose_s", "official"): ("adamw", 5e-4, 512, 210, (170, 200), 500, 0.1, 1.0, ("udp", 2, 4), MMPOSE0),
    ("vitpose_h", "official"): ("adamw", 5e-4, 512, 210, (170, 200), 500, 0.1, 1.0, ("udp", 2, 4), MMPOSE0),
    ("sharpose_s", "official"): ("adamw", 5e-4, 512, 250, (170, 200), 500, 0.1, None, ("udp", 2, 4), SHARPOSE),
    ("sharpose_b", "official"): ("adamw", 5e-4, 256, 210, (170, 200), 500, 0.1, None, ("udp", 2, 4), SHARPOSE),
    ("sharpose_b", "official_384x288"): ("adamw", 5e-4, 256, 210, (170, 200), 500, 0.1, None, ("udp", 3, 4), SHARPOSE),
    ("srpose_r50", "official"): ("adam", 5e-4, 256, 210, (170, 200), 500, 0.0, None, ("msra", 8, 1), MMPOSE0),
}  # fmt: skip


@pytest.mark.parametrize(("variant", "name"), PUBLISHED)
def test_a_recipe_is_that_of_the_card(variant, name):
    r = find_variant(variant).recipes[name]
    a, schedule = r.augmentation, (r.epochs, r.milestones, r.warmup_steps)
    found = (r.optimiser, r.lr, r.batch, *schedule, r.weight_decay, r.clip_norm)
    target = (r.target.encoder, r.target.sigma, r.target.stride)
    assert (*found, target, (a.dialect, a.scale, a.rotation, a.half_body, a.shift)) == PUBLISHED[variant, name]
    assert (a.flip, a.rotation_prob, a.half_body_min_joints) == (0.5, 0.6, 8)
    assert not a.shift or a.shift_prob == 0.3
    assert r.schedule == "step" and r.betas == (0.9, 0.999) and (not r.warmup_steps or r.warmup_ratio == 0.001)
    assert r.loss and r.source, "a dry run has to say what is minimised, and where it is from"


DECAY = {
    "vitpose_s": 0.80,
    "vitpose_b": 0.75,
    "vitpose_l": 0.80,
    "vitpose_h": 0.85,
    "sharpose_s": 0.80,
    "sharpose_b": 0.75,
}


@pytest.mark.parametrize(("variant", "rate"), DECAY.items())
def test_rates_decay_by_layer_from_the_head_to_the_patches(variant, rate):
    chosen = find_variant(variant)
    with torch.device("meta"):
        network = chosen.build(num_joints=17, input_size=chosen.input_size)
    rates = sorted({group["lr"] for group in optimiser(network, chosen.recipes["official"]).param_groups})
    depth = {"vitpose_l": 24, "vitpose_h": 32}.get(variant, 12)
    assert rates == pytest.approx(sorted(5e-4 * rate**power for power in range(depth + 2)))


def test_the_large_sharpose_decays_faster_and_its_quality_counts_after_epoch_180():
    chosen = find_variant("sharpose_b")
    assert chosen.recipes["official_384x288"].groups.keywords == {"rate": 0.70}
    for variant, start, epochs in (("sharpose_b", 180, 210), ("sharpose_s", 210, 250)):
        with torch.device("meta"):
            network = find_variant(variant).build(num_joints=17, input_size=(256, 192))
        assert network.quality_start * epochs == start
        assert f"after epoch {start}" in find_variant(variant).recipes["official"].loss


STEPS = [("maskrcnn_r50", 16, 270_000), ("maskrcnn_refined_r50", 2, 2_160_000)]


@pytest.mark.parametrize(("variant", "batch", "steps"), STEPS)
def test_mask_rcnn_sees_as_many_images_in_any_batch(variant, batch, steps):
    r = find_variant(variant).recipes["official"]
    assert (r.optimiser, r.momentum, r.weight_decay, r.batch, r.steps) == ("sgd", 0.9, 1e-4, batch, steps)
    assert r.lr == pytest.approx(0.02 * batch / 16) and r.milestones == (steps * 7 // 9, steps * 25 // 27)
    assert (r.warmup_steps, r.warmup_ratio) == (1000, 0.001)
    assert r.augmentation.short_sides == (640, 672, 704, 736, 768, 800) and r.augmentation.longest == 1333


def test_the_trunk_that_a_recipe_starts_from_is_a_layout_of_its_variant():
    started = [(v, r) for v in variants().values() for r in v.recipes.values() if r.trunk]
    assert len(started) > 20
    for variant, recipe in started:
        assert recipe.trunk in {layout.name for layout in variant.layouts if layout.partial}, variant.name
