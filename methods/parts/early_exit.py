"""Results of those persons of a batch for whom a stage ran, and how they come together again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Part", "merged", "some"]


@dataclass(frozen=True)
class Part:
    """Results of some persons of a batch: `values` (n, ...) belong to the persons in `mask` (B,), a CPU tensor."""

    mask: Tensor
    values: Tensor

    def of(self, mask: Tensor) -> Tensor:
        """Of the persons in `mask`, a subset of the own one."""
        return self.values if torch.equal(mask, self.mask) else self.values[mask[self.mask]]


def merged(first: Part, later: Part, refined: Tensor) -> Tensor:
    """`later` of the persons in `refined` (B,), `first` of the others, in the order of the batch."""
    if bool(refined.all()):
        return later.of(refined)
    exited = ~refined
    values = first.values.new_empty(len(exited), *first.values.shape[1:])
    values[exited] = first.of(exited)
    values[refined] = later.of(refined).to(values.dtype)
    return values


def some(values: Tensor, mask: Tensor) -> Tensor:
    """The rows in `mask`, without a copy when these are all."""
    return values if bool(mask.all()) else values[mask]
