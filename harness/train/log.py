"""The log of a training run: JSON lines on disk, TensorBoard beside them, and the clock that speeds come from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from harness.records.files import write_atomically

__all__ = ["LOG_STEPS", "Clock", "Log"]

LOG_STEPS = 50  # a line in the log at least this often
Item = TypeVar("Item")


class Clock:
    """Images per second since the start, and the share of the time that was spent waiting for data."""

    def __init__(self) -> None:
        self._began, self._images, self._waited, self.speed = time.perf_counter(), 0, 0.0, 0.0

    def waiting(self, items: Iterator[Item]) -> Iterator[Item]:
        """`items`, the time for each of them counted as waiting."""
        while True:
            began = time.perf_counter()
            try:
                item = next(items)
            except StopIteration:
                return
            self._waited += time.perf_counter() - began
            yield item

    def count(self, images: int) -> None:
        """Add `images` that are done."""
        self._images += images
        self.speed = self._images / self._elapsed()

    def facts(self) -> dict[str, float]:
        """What a line of the log holds."""
        share = self._waited / self._elapsed()
        return {"images_per_second": round(self.speed, 1), "waiting_share": round(share, 4)}

    def _elapsed(self) -> float:
        return max(time.perf_counter() - self._began, 1e-9)


class Log:
    """`log.jsonl` in `folder`: means over the steps since the line before, at least every `LOG_STEPS` and each epoch;
    the same in TensorBoard's format in `folder/tensorboard` where that is installed. Not `active`: nothing is written.
    """

    def __init__(self, folder: Path, *, active: bool = True) -> None:
        self._folder, self._path, self._active, self.last = folder, folder / "log.jsonl", active, math.nan
        self._sums: dict[str, float] = {}
        self._steps = 0
        self._board: Any = None

    def open(self, first: int) -> None:
        """Keep the lines of steps before `first`; what was logged after the last saved state happens again."""
        lines = self._path.read_text().splitlines() if first and self._path.is_file() else []
        kept = [line for line in lines if _step_of(line) < first]
        if kept:
            self.last = json.loads(kept[-1])["loss"]
        if self._active:
            write_atomically(self._path, "".join(line + "\n" for line in kept).encode())
            self._board = _board(self._folder / "tensorboard", first)

    def add(self, losses: Mapping[str, float]) -> None:
        """Count one step; `losses` by name, `loss` their sum."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def write(self, **facts: float) -> None:
        """One line: `facts` and the mean losses."""
        means = {name: value / self._steps for name, value in self._sums.items()}
        self.last = means["loss"]
        line = {**facts, **means}
        if self._active:
            with self._path.open("a") as stream:
                stream.write(json.dumps(line) + "\n")
        if self._board is not None:
            for name, value in line.items():
                self._board.add_scalar(name, value, int(facts["step"]))
            self._board.flush()
        self._sums, self._steps = {}, 0

    def close(self) -> None:
        """Nothing is written any more."""
        if self._board is not None:
            self._board.close()


def _board(folder: Path, first: int) -> Any:
    """A TensorBoard writer, None where the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first)


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError):
        return math.inf  # a line that a kill cut short
