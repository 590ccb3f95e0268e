"""Attention written out, with every map held: what fused attention and needed rows are measured against."""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor, nn

from methods.parts.vit import Attention

__all__ = ["written_out"]


class WholeMaps(Attention):
    """The same weights and results; (B, heads, L, L) is computed once and everything is read from it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.with_rows(x, slice(0, 0))[0]

    def with_rows(self, x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        q, k, v = self._split(x)
        weights = ((q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)
        return self.proj((weights @ v).transpose(1, 2).flatten(2)), weights[:, :, rows]


def written_out(network: nn.Module) -> Any:
    """A copy of `network` whose attention holds every map."""
    found = copy.deepcopy(network)
    for module in found.modules():
        if type(module) is Attention:
            module.__class__ = WholeMaps
    return found
