"""The number format of a forward pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch

from harness.errors import UserError

__all__ = ["number_format"]


def number_format(dtype: str, device: str) -> Callable[[], AbstractContextManager[Any]]:
    """What opens the context in which forwards run in `dtype` on `device`: weights stay float32, products do not.

    Raises UserError for float16 on a CPU.
    """
    kind = torch.device(device).type
    if dtype == "float32":
        return nullcontext
    if dtype == "float16" and kind == "cpu":
        raise UserError(
            "dtype float16 on the CPU",
            expected="float32 or bfloat16: a CPU has no float16 arithmetic, it would be emulated and slow",
            hint="--device cuda, or dtype: bfloat16",
        )
    return partial(torch.autocast, kind, getattr(torch, dtype))
