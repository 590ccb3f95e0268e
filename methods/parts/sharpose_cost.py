"""The work of SHaRPose in closed form, from what its forward did for each person.

A trace holds for each person: `tokens_coarse`, `tokens_fine` (0: left early), `exit` taken, `heads` run.
Card: sharpose.md, 6. D width, N1 coarse patches, k regions that are refined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from methods.parts import vit
from methods.parts.sharpose import TrunkSize, kept_count

__all__ = ["TwoStageCost"]

Trace = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class TwoStageCost:
    """`grid` of coarse patches; `qualities`: outputs of the predictor; `head`: multiply-accumulates of one head run."""

    size: TrunkSize
    joints: int
    grid: tuple[int, int]
    qualities: int
    replace_oks: bool
    head: int

    @property
    def patches(self) -> int:
        """N1."""
        return self.grid[0] * self.grid[1]

    @property
    def coarse_tokens(self) -> int:
        """Length of the coarse sequence: quality, keypoints, patches."""
        return 1 + self.joints + self.patches

    def fine_tokens(self, alpha: float) -> int:
        """Length of the fine sequence: keypoints (and the quality token with `replace_oks`), 4k fine, N1 - k coarse."""
        return self.joints + self.replace_oks + self.patches + 3 * kept_count(alpha, self.patches)

    def trace(self, refined: Tensor, alpha: float, exits: int) -> dict[str, Tensor]:
        """What a forward did that refined the persons in `refined` (B,) bool, and gave heatmaps of `exits` exits."""
        taken = refined.long()
        return {
            "tokens_coarse": torch.full_like(taken, self.coarse_tokens),
            "tokens_fine": taken * self.fine_tokens(alpha),
            "exit": taken,
            "heads": 1 + taken * (exits - 1),
        }

    def trace_at(self, trace: Trace, exits: np.ndarray) -> dict[str, np.ndarray]:
        """The trace that persons leaving at `exits` (B,), 0 or 1, would have had; `trace` refined everybody.

        For replay: the cost of a threshold from a pass that stored both exits.
        """
        taken = np.asarray(exits, dtype=np.int64)
        fine = np.asarray(trace["tokens_fine"]) * taken
        return {**trace, "tokens_fine": fine, "exit": taken, "heads": np.ones_like(taken)}

    def macs(self, trace: Trace) -> np.ndarray:
        """(B,) int64, what our forward does for each person."""
        coarse, fine = (np.asarray(trace[name], dtype=np.int64) for name in ("tokens_coarse", "tokens_fine"))
        kept = (fine - self.fine_tokens(0.0)) // 3
        rows = vit.attention_row_macs(self.size.dim, self.joints - 1, coarse) * len(self.size.scored_layers)
        first = self._stage(coarse, self.patches) + rows + self._quality()
        return first + (fine > 0) * self._fine(fine, kept) + np.asarray(trace["heads"]) * self.head

    def as_published(self, trace: Trace) -> np.ndarray:
        """(B,) int64, what the official forward does: both heads for everybody, `reuse` for every coarse patch,
        whole attention maps and no extra rows."""
        coarse, fine = (np.asarray(trace[name], dtype=np.int64) for name in ("tokens_coarse", "tokens_fine"))
        first = self._stage(coarse, self.patches) + self._quality()
        return first + (fine > 0) * self._fine(fine, self.patches) + 2 * self.head

    def _fine(self, tokens: np.ndarray, reused: np.ndarray | int) -> np.ndarray:
        reuse = 2 * self.size.dim * int(self.size.dim * self.size.mlp_ratio) * reused
        return self._stage(tokens, 4 * self.patches) + reuse + self.replace_oks * self._quality()

    def _stage(self, tokens: np.ndarray, patches: int) -> np.ndarray:
        size = self.size
        blocks = size.depth * vit.block_macs(size.dim, tokens, size.mlp_ratio)
        return vit.embedding_macs(size.dim, size.patch, patches, size.stem) + blocks

    def _quality(self) -> int:
        return (2 * self.size.dim + self.qualities) * self.size.dim
