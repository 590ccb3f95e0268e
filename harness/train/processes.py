"""One process or many: which share of a step each computes, and how gradients and sums meet."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import MissingPackage, UserError
from harness.train.recipes import Precision
from harness.train.stream import Piece, Share

__all__ = ["Alone", "Together", "launched_precision", "start"]

_LAUNCHED: dict[str, Precision] = {"no": "float32", "bf16": "bfloat16", "fp16": "float16"}
_PATIENCE = timedelta(hours=2)  # the others wait as long while the first one validates


def start(device: str) -> Alone:
    """`Together` where `accelerate launch` or `torchrun` started several processes, else `Alone`.

    `device` as torch names it; of several processes on GPUs each has its own.
    """
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return Together(torch.device(device)) if several else Alone(torch.device(device))


def launched_precision() -> Precision:
    """What `accelerate launch --mixed_precision` asked for, float32 without it. UserError for a format we do not
    train in."""
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in _LAUNCHED:
        raise UserError(
            f"accelerate was launched with mixed precision {asked}",
            expected=" or ".join(_LAUNCHED),
            hint="or say it to paretopose: --precision bfloat16",
        )
    return _LAUNCHED[asked]


class Alone:
    """One process on one device."""

    def __init__(self, device: torch.device, index: int = 0, count: int = 1) -> None:
        self.device, self.index, self.count = device, index, count

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.index == 0

    def share(self, pieces: int) -> Share:
        """What this process computes of each step, `pieces` parts of it one after the other."""
        return Share(self.index, self.count, pieces)

    def wrap(self, module: nn.Module) -> nn.Module:
        """`module` with gradients that are means over all processes after each backward pass."""
        return module

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        """Within it a backward pass of a wrapped module keeps its gradients to itself."""
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        """Over all processes."""
        return values

    def pooled(self, piece: Piece) -> Callable[[Tensor], Tensor]:
        """What `Progress.pooled` is for a piece (harness.train.recipes)."""
        return lambda count: count

    def agree(self, value: int, what: str, hint: str) -> None:
        """UserError unless every process has this `value`."""
        if int(self.sum(torch.tensor(value, device=self.device))) != value * self.count:
            raise UserError(f"the processes do not agree on {what}", hint=hint)

    def wait(self) -> None:
        """Until every process is here."""

    def first_goes_ahead(self) -> AbstractContextManager[Any]:
        """Within it the first process runs alone, then the others."""
        return nullcontext()


class Together(Alone):
    """One of several processes, as `accelerate launch` or `torchrun` started them."""

    def __init__(self, device: torch.device) -> None:
        try:
            from accelerate import Accelerator
            from accelerate.utils import InitProcessGroupKwargs
        except ImportError:
            raise MissingPackage(
                "training in several processes", "accelerate", 'pip install "paretopose[train]"'
            ) from None
        # number format, accumulation and clipping are the loop's, the same for one process and for many
        self._accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision="no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )
        super().__init__(self._accelerator.device, self._accelerator.process_index, self._accelerator.num_processes)

    def wrap(self, module: nn.Module) -> nn.Module:
        return self._accelerator.prepare_model(module)

    def apart(self, module: nn.Module) -> AbstractContextManager[Any]:
        return self._accelerator.no_sync(module)

    def sum(self, values: Tensor) -> Tensor:
        return self._accelerator.reduce(values, "sum")

    def pooled(self, piece: Piece) -> Callable[[Tensor], Tensor]:
        counts = float(piece.weight > 0)
        return lambda count: self.sum(count.detach() * counts) * piece.part

    def wait(self) -> None:
        self._accelerator.wait_for_everyone()

    def first_goes_ahead(self) -> AbstractContextManager[Any]:
        return self._accelerator.main_process_first()
