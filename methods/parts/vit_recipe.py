"""What ViTPose and SHaRPose share outside the network: test-time protocol, training settings, layer-wise decay.

Plain options, for the methods to make their protocol and recipes of. Cards: vitpose.md 4, sharpose.md 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from methods.parts import quick

__all__ = ["LIGHT", "OFFICIAL", "PROTOCOL", "QUICK", "layer_decay_groups"]

PROTOCOL: dict[str, Any] = {"codec": "udp", "decoder": "udp_dark", "dialect": "mmpose0"}

OFFICIAL: dict[str, Any] = {
    "epochs": 210,
    "lr": 5e-4,
    "optimiser": "adamw",
    "weight_decay": 0.1,
    "milestones": (170, 200),
    "warmup_steps": 500,
    "trunk": "mae",
}

# ViTPose's rule names patches and positions, SHaRPose's the tokens in addition
_LOWEST = (".cls_token", ".mask_token", ".pos_embed", ".patch_embed", ".keypoint_tokens", ".quality_token")
_UNDECAYED = ("pos_embed", "keypoint_tokens", "quality_token")


def layer_decay_groups(module: nn.Module, recipe: Any, *, rate: float) -> list[dict[str, Any]]:
    """Optimiser groups with the learning rate `recipe.lr` x rate^(depth + 1 - layer).

    Layer 0 holds patches, positions and tokens, block i is layer i + 1, everything else (final norm, head)
    layer depth + 1. No weight decay for vectors, biases, positions and tokens.
    """
    names = [name for name, _ in module.named_parameters()]
    top = 2 + max(_block_index(name) for name in names)
    groups: dict[tuple[int, bool], list[Tensor]] = {}
    for name, parameter in module.named_parameters():
        decayed = parameter.ndim > 1 and not name.endswith(".bias") and not _contains(name, _UNDECAYED)
        groups.setdefault((_layer(name, top), decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": recipe.lr * rate ** (top - layer),
            "weight_decay": recipe.weight_decay if decayed else 0.0,
        }
        for (layer, decayed), parameters in groups.items()
    ]


def _layer(name: str, top: int) -> int:
    if _contains(name, _LOWEST):
        return 0
    index = _block_index(name)
    return top if index < 0 else index + 1


def _block_index(name: str) -> int:
    """12 for 'backbone.blocks.12.norm1.weight', -1 outside the blocks."""
    _, found, rest = name.partition("backbone.blocks.")
    return int(rest.split(".")[0]) if found else -1


def _contains(name: str, parts: Sequence[str]) -> bool:
    return any(part in name for part in parts)


QUICK: dict[str, Any] = {
    "batch": quick.TINY["batch"],
    "lr": 1e-3,
    "optimiser": "adamw",
    "weight_decay": 0.05,
    "clip_norm": 1.0,
    "schedule": "cosine",
    "warmup_steps": 200,
    "groups": partial(layer_decay_groups, rate=1.0),
    "differs": quick.differs("no pretraining, no layer decay"),
}
LIGHT: dict[str, Any] = quick.LIGHT | {"dialect": "mmpose0"}
"""The augmentation of QUICK."""
