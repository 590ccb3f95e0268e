"""Learning-rate schedules, as a factor of the recipe's rate at every optimiser step."""

from __future__ import annotations

import math
from bisect import bisect_right

from harness.train.recipes import Recipe

__all__ = ["rate_factor"]


def rate_factor(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """What the learning rate of every parameter group is multiplied by at `step` (of the whole run, from 0).

    Warm-up rises linearly from `warmup_ratio` at step 0 to 1 at `warmup_steps` (card hrnet.md F). 'step': x0.1 from
    each milestone on, epochs (or steps, in a recipe of so many steps) counted from 0. 'cosine': half a cosine from 1
    at step 0 to 0 at the run's end.
    """
    warm = 1.0
    if step < recipe.warmup_steps:
        warm = recipe.warmup_ratio + (1 - recipe.warmup_ratio) * step / recipe.warmup_steps
    if recipe.schedule == "cosine":
        return warm * 0.5 * (1 + math.cos(math.pi * step / (recipe.steps or recipe.epochs * steps_per_epoch)))
    reached = step if recipe.steps else step // steps_per_epoch
    return warm * 0.1 ** bisect_right(sorted(recipe.milestones), reached)
