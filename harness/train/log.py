"""The log of a training run: JSON lines on disk, and the clock that its speeds come from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["LOG_STEPS", "Clock", "Log"]

LOG_STEPS = 50  # a line in the log at least this often


class Clock:
    """Images per second since the start."""

    def __init__(self) -> None:
        self._began, self._images, self.speed = time.perf_counter(), 0, 0.0

    def count(self, images: int) -> float:
        """Add `images`; the mean speed so far."""
        self._images += images
        self.speed = self._images / max(time.perf_counter() - self._began, 1e-9)
        return self.speed


class Log:
    """`log.jsonl`: means over the steps since the line before, at least every `LOG_STEPS` and each epoch."""

    def __init__(self, path: Path) -> None:
        self._path, self.last = path, math.nan
        self._sums: dict[str, float] = {}
        self._steps = 0

    def open(self, first: int) -> None:
        """Keep the lines of steps before `first`; what was logged after the last saved state happens again."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lines = self._path.read_text().splitlines() if first and self._path.is_file() else []
        kept = [line for line in lines if _step_of(line) < first]
        self._path.write_text("".join(line + "\n" for line in kept))
        if kept:
            self.last = json.loads(kept[-1])["loss"]

    def add(self, loss: float, losses: Mapping[str, Tensor]) -> None:
        """Count one step."""
        parts = {name: value.item() for name, value in losses.items()} if len(losses) > 1 else {}
        for name, value in {"loss": loss, **parts}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def write(self, **facts: object) -> None:
        """One line: `facts` and the mean losses."""
        means = {name: value / self._steps for name, value in self._sums.items()}
        self.last = means["loss"]
        with self._path.open("a") as stream:
            stream.write(json.dumps({**facts, **means}) + "\n")
        self._sums, self._steps = {}, 0


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf  # a line that a kill cut short
