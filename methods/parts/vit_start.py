"""How a vision transformer starts that no pretrained file initialises.

The published start (normal, 0.02) suits wide networks that a file overwrites. In a narrow one it leaves attention and
positions so small that training from it stays at the mean heatmap for dozens of epochs. MAE's own start does not:
Xavier for linear weights and sine-cosine positions (He et al., CVPR 2022, appendix A.1; Vaswani et al., 2017, 3.5).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from methods.parts.arithmetic import Size

__all__ = ["sine_positions", "start_from_scratch"]


def start_from_scratch(network: nn.Module, *positions: tuple[nn.Parameter, Size]) -> None:
    """Xavier for every linear weight, sine-cosine waves for each of `positions`, in place.

    A position embedding (1, n, D) comes with its grid (h, w); the first n - h w rows (class slot) become 0.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
    with torch.no_grad():
        for embedding, grid in positions:
            embedding.zero_()
            embedding[:, -grid[0] * grid[1] :] = sine_positions(grid, embedding.shape[2])


def sine_positions(grid: Size, dim: int) -> Tensor:
    """(1, h w, dim): sine and cosine of x, then of y, at dim / 4 frequencies from one period over the grid to one over
    two cells; amplitude 0.7."""
    y, x = torch.meshgrid(*(torch.arange(side) / side for side in grid), indexing="ij")
    octaves = torch.linspace(0, math.log(max(grid) / 2), dim // 4)
    waves = 2 * math.pi * torch.exp(octaves)  # (dim / 4,)
    angles = [axis.reshape(-1, 1) * waves for axis in (x, y)]
    return 0.7 * torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)[None]
