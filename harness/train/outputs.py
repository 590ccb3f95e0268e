"""The files of a run: the states it goes on from, and its weights, each with what made them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from harness.train import checkpoints, failures, state
from harness.train.optimiser import Update

__all__ = ["Outputs"]


class Outputs:
    """Files in `folder`. `identity` is what makes the run what it is, `facts` is written beside it into the weights;
    `best` is the highest first score of a validation so far."""

    def __init__(self, folder: Path, name: str, identity: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        self.name, self.identity, self.facts = name, identity, facts
        self.states = folder / "state"
        self.weights, self.best_weights = folder / f"{name}.safetensors", folder / f"{name}.best.safetensors"
        self.best = -math.inf

    def load(self) -> dict[str, Any] | None:
        """The newest state; None where there is none. UserError for one of another run."""
        found = state.load(self.states, self.identity)
        if found is not None:
            self.best = found["best"]
        return found

    def save(self, step: int, network: nn.Module, update: Update, watch: failures.Watch) -> None:
        """Keep the state after `step` steps. MeasurementError, with nothing written, when a weight is not finite."""
        weights = network.state_dict()
        fault = failures.not_finite(self.name, step - 1, weights)
        if fault is not None:
            raise fault
        content = {"network": weights, "update": update.state_dict(), "first_losses": watch.first, "best": self.best}
        state.save(self.states, step, {**content, "identity": dict(self.identity)})

    def write_if_best(self, network: nn.Module, scores: Mapping[str, float], step: int) -> None:
        """Keep the weights when no validation before gave a higher first score: AP, or PCKh@0.5."""
        score = next(iter(scores.values()), -math.inf)
        if score > self.best:
            self.best = score
            self.write(self.best_weights, network, scores, step)

    def write(self, path: Path, network: nn.Module, scores: Mapping[str, float], step: int) -> None:
        """The weights after `step` steps, with what made them."""
        facts = {**self.identity, "steps": step, **self.facts, **({"scores": dict(scores)} if scores else {})}
        plain = {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}
        checkpoints.write(path, network.state_dict(), plain)
