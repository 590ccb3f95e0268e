"""The blocks of a pass on disk: rows arrive in batches of any size and are written a block at a time."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness.records.store import save_arrays

__all__ = ["BlockWriter", "block_file"]


def block_file(folder: Path, start: int) -> Path:
    """The file of the block of a pass that begins at person or image `start`."""
    return folder / f"block-{start:07d}.npz"


class BlockWriter:
    """Writes blocks of `size` rows below `folder`, each as soon as its last row, or a row behind it, is there."""

    def __init__(self, folder: Path, size: int) -> None:
        self._folder, self._size = folder, size
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
            start = int(self._rows[0]["index"][0]) // self._size * self._size
            whole = {name: np.concatenate([rows[name] for rows in self._rows]) for name in self._rows[0]}
            save_arrays(block_file(self._folder, start), whole)
            self._rows.clear()
