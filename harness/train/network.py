"""The network as the loop runs it: trainable, of the recipe's input size, its losses as a module, on its device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.method import Trainable, Variant
from harness.train.recipes import ImageBatch, Progress, Recipe, TrainBatch

__all__ = ["Losses", "check", "check_input_size", "placed", "threads"]


class Losses(nn.Module):
    """A trainable network as a module whose `forward` is its `losses`, so that wrappers around it see every call."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: TrainBatch | ImageBatch, progress: Progress) -> dict[str, Tensor]:
        return self.network.losses(batch, progress)  # type: ignore[operator]


def check(network: object, variant: Variant, recipe: Recipe) -> None:
    """UserError for a network that has no losses, or another input size than the recipe was published for."""
    if not isinstance(network, Trainable):
        raise UserError(f"{variant.name} cannot be trained", hint="`paretopose methods` shows which ones can")
    check_input_size(variant, recipe, network.input_size)  # type: ignore[attr-defined]


def check_input_size(variant: Variant, recipe: Recipe, size: tuple[int, int]) -> None:
    """UserError for another input size (height, width) than the recipe was published for."""
    if recipe.input_size is not None and tuple(recipe.input_size) != tuple(size):
        own, wanted = _text(size), recipe.input_size
        raise UserError(
            f"the recipe is for an input of {_text(wanted)}, the network takes {own}",
            where=variant.name,
            hint=f"--set input_size={_text(wanted)}, or take a recipe for {own}, or say that this one will do: "
            f"--set recipe.input_size={own}",
        )


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))


def placed(network: nn.Module, device: torch.device, *, sync_norms: bool) -> nn.Module:
    """`network` on `device`, convolutions in the channels-last layout. `sync_norms`: batch norms take their statistics
    over all processes; UserError where there is no GPU."""
    if sync_norms and device.type != "cuda":
        raise UserError("norms can be synchronised between GPUs only", hint="leave --sync-norms out on a CPU")
    if sync_norms:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def threads(workers: int, device: torch.device) -> Iterator[None]:
    """On a CPU, one thread for each core that no worker occupies: more of them only wait for each other."""
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(max(1, before - workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)
