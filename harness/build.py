"""A variant, its build knobs and a weights file -> a predictor ready to answer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import WeightsError
from harness.method import Predictor, Size, Variant

__all__ = ["build"]


def build(
    variant: Variant,
    input_size: Size,
    knobs: Mapping[str, Any],
    *,
    weights: Path | None = None,
    num_joints: int = 17,
) -> Predictor:
    """The network with its weights, or with random ones (seed 0, the same on every call) when there are none.

    Raises WeightsError for weights of another variant, joint set or size.
    """
    if variant.open_file is not None:
        if weights is None:
            raise WeightsError(f"{variant.name} is a file", hint=f"--weights {variant.name}=FILE")
        return variant.open_file(weights, **knobs)
    import torch

    from harness.train.checkpoints import load_into

    assert variant.build is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        predictor = variant.build(num_joints=num_joints, input_size=input_size, **knobs)
    if weights is not None:
        load_into(predictor, variant, weights)
    if isinstance(predictor, torch.nn.Module):
        predictor.eval()
    return predictor
