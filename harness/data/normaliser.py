"""Pixels -> what a network takes."""

from __future__ import annotations

import numpy as np
import torch

from harness.method import PoseProtocol

__all__ = ["Normaliser"]


class Normaliser:
    """uint8 crops (B, H, W, 3) -> (B, 3, H, W) float32 on `device`, normalised as the protocol says."""

    def __init__(self, protocol: PoseProtocol, device: torch.device) -> None:
        self.device, self._bgr = device, protocol.colour == "bgr"
        mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (protocol.mean, protocol.std))
        # (x / 255 - mean) / std in one multiply-add over the image
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def __call__(self, crops: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(crops).to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        if self._bgr:
            images = images.flip(1)
        if self.device.type != "cpu":
            # turned while they are bytes: a quarter of the memory to go through. On a CPU they stay as a file has them,
            # colours innermost, where convolutions are faster
            images = images.contiguous()
        return images.float().mul_(self._scale).add_(self._shift)
