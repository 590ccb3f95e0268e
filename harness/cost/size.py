"""The size of a network that is not run: built without memory for its weights, where it can be."""

from __future__ import annotations

from typing import Any

import torch

from harness.errors import HarnessError
from harness.method import Variant

__all__ = ["constant_macs", "unfilled"]


def unfilled(variant: Variant, **options: Any) -> Any:
    """The network of a variant without values in its weights; a real one where an initialisation needs values."""
    assert variant.build is not None
    try:
        with torch.device("meta"):
            return variant.build(**options)
    except (NotImplementedError, RuntimeError):
        return variant.build(**options)


def constant_macs(predictor: Any) -> int | None:
    """Multiply-accumulates of one forward in closed form; None where they depend on what is in the image."""
    try:
        return int(predictor.macs({}))
    except (KeyError, TypeError, ValueError, IndexError, HarnessError):
        return None
