"""The project's own short recipe for the synthetic people, as the convolutional networks share it."""

from __future__ import annotations

from typing import Any

__all__ = ["LIGHT", "QUICK", "TINY", "differs"]


def differs(start: str) -> tuple[str, ...]:
    """What a table of such a recipe says of it; `start`: which pretrained trunk it expects."""
    return (f"own recipe for the synthetic set: short, light augmentation, {start}",)


QUICK: dict[str, Any] = {
    "batch": 64,
    "lr": 2e-3,
    "schedule": "cosine",
    "warmup_steps": 50,
    "warmup_ratio": 0.1,
    "differs": differs("no pretrained trunk"),
}
"""Fields of a Recipe that has its own length and target."""
LIGHT: dict[str, Any] = {"scale": 0.15, "rotation": 15.0, "half_body": 0.0}
"""Its augmentation."""
# small batches: at this length, the number of steps counts for more than the noise of each
TINY = QUICK | {"batch": 16, "lr": 3e-3, "warmup_steps": 200}
"""The same for the tiny networks, on a CPU."""
