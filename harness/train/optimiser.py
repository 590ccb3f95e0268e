"""The weights' way from one step to the next: optimiser, learning rates, clipping, loss scaling, running mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from harness.train.recipes import Recipe
from harness.train.schedules import rate_factor

__all__ = ["Update", "optimiser"]


def optimiser(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over its parameter groups; parameters that need no gradient are left out."""
    if recipe.groups is not None:
        groups: Iterable[Any] = recipe.groups(network, recipe)
    else:
        groups = [p for p in network.parameters() if p.requires_grad]
    options: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimiser == "sgd":
        return torch.optim.SGD(groups, momentum=recipe.momentum, **options)
    kind = torch.optim.AdamW if recipe.optimiser == "adamw" else torch.optim.Adam
    return kind(groups, betas=recipe.betas, **options)


class Update:
    """What a recipe does to the weights of `network` at each step. `scaled`: float16, whose small gradients vanish
    unless the loss is multiplied; a step whose gradients overflow is then skipped and the factor halved.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, device: torch.device, *, scaled: bool = False) -> None:
        self.network, self.recipe = network, recipe
        self.optimiser = optimiser(network, recipe)
        self._rates = [group["lr"] for group in self.optimiser.param_groups]
        self._scaler = torch.amp.GradScaler(device.type, enabled=scaled)
        decay = recipe.ema
        self._mean = None if decay is None else AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay))

    @property
    def result(self) -> nn.Module:
        """The network that is validated and written: the running mean where the recipe has one."""
        return self.network if self._mean is None else self._mean.module

    def begin(self, step: int, steps_per_epoch: int) -> float:
        """Set the rates of `step`, forget the gradients; the rate of the first group."""
        factor = rate_factor(self.recipe, step, steps_per_epoch)
        for group, base in zip(self.optimiser.param_groups, self._rates):
            group["lr"] = base * factor
        self.optimiser.zero_grad(set_to_none=True)
        return self._rates[0] * factor

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`."""
        self._scaler.scale(loss).backward()

    def finish(self) -> None:
        """Clip the gradients and move the weights."""
        self._scaler.unscale_(self.optimiser)
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        if self._mean is not None:
            self._mean.update_parameters(self.network)

    def state_dict(self) -> dict[str, Any]:
        """All but the network's own weights."""
        mean = None if self._mean is None else self._mean.state_dict()
        return {"optimiser": self.optimiser.state_dict(), "scaler": self._scaler.state_dict(), "mean": mean}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        if self._mean is not None:
            self._mean.load_state_dict(state["mean"])
