"""The blocks of a pass on disk: rows arrive in batches of any size and are written a block at a time.

A run that is asked to stop keeps the rows of the block that it is at as a part, from which the next run goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness.records.files import load_arrays, save_arrays

__all__ = ["BlockWriter", "block_file", "part_file", "take_up"]


def block_file(folder: Path, start: int) -> Path:
    """The file of the block of a pass that begins at person or image `start`."""
    return folder / f"block-{start:07d}.npz"


def part_file(folder: Path, start: int) -> Path:
    """The file of what a stopped run had of that block."""
    return folder / f"part-{start:07d}.npz"


class BlockWriter:
    """Writes blocks of `size` rows below `folder`, each as soon as its last row, or a row behind it, is there.
    `written`: names of their files."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self._size = folder, size
        self.written: list[str] = []
        self._rows: list[Mapping[str, np.ndarray]] = []

    def add(self, arrays: Mapping[str, np.ndarray]) -> None:
        """More rows, all arrays (n, ...); `index` (n,) rises within and across calls, with gaps for absent rows."""
        block = arrays["index"] // self._size
        for first, end in pairwise([0, *(np.flatnonzero(np.diff(block)) + 1).tolist(), len(block)]):
            if self._rows and self._rows[-1]["index"][-1] // self._size != block[first]:
                self.close()
            self._rows.append({name: array[first:end] for name, array in arrays.items()})
            if (arrays["index"][end - 1] + 1) % self._size == 0:
                self.close()

    def close(self) -> None:
        """Write what is there; a block that ends in absent rows is whole then."""
        if self._rows:
            file = block_file(self.folder, self._start())
            save_arrays(file, self._whole())
            part_file(self.folder, self._start()).unlink(missing_ok=True)
            self.written.append(file.name)
            self._rows.clear()

    def keep(self) -> None:
        """Write what is there of the open block as a part."""
        if self._rows:
            save_arrays(part_file(self.folder, self._start()), self._whole())

    def _start(self) -> int:
        return int(self._rows[0]["index"][0]) // self._size * self._size

    def _whole(self) -> dict[str, np.ndarray]:
        return {name: np.concatenate([rows[name] for rows in self._rows]) for name in self._rows[0]}


def take_up(writers: Sequence[BlockWriter], start: int) -> np.ndarray:
    """The rows of the block at `start` that a stopped run kept for all of `writers`, which now have them."""
    kept = [part for writer in writers if (part := load_arrays(part_file(writer.folder, start))) is not None]
    if len(kept) < len(writers) or any(not np.array_equal(part["index"], kept[0]["index"]) for part in kept):
        return np.zeros(0, dtype=np.int64)
    for writer, part in zip(writers, kept):
        writer.add(part)
    return kept[0]["index"]
