"""The two stages of SHaRPose as static graphs, one for each exported file.

What lies between them (who is refined, which regions, gathering their tokens) depends on what the first one saw and is
not part of a graph: sharpose_onnx.py. B persons, K joints, D width, N1 coarse patches, k refined regions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from methods.parts.sharpose import TokenHead, TwoStageTrunk

__all__ = ["CoarseGraph", "FineGraph"]


class CoarseGraph(nn.Module):
    """images (B, 3, H, W) -> `outputs`: exit0 (B, K, h, w), quality (B,), score (B, N1), features and inputs
    (B, N1, D), and with two qualities the one that quality is compared with."""

    def __init__(self, trunk: TwoStageTrunk, head: TokenHead, two_qualities: bool) -> None:
        super().__init__()
        self.trunk, self.head, self.two_qualities = trunk, head, two_qualities
        self.outputs = ("exit0", "quality", "score", "features", "inputs", *(["rival"] if two_qualities else []))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        coarse = self.trunk.coarse(images)
        first = (self.head(coarse.keypoints), coarse.quality[:, 0], coarse.score, coarse.features, coarse.inputs)
        return (*first, coarse.quality[:, 1]) if self.two_qualities else first


class FineGraph(nn.Module):
    """images (B, 3, H, W), kept (B, k), features (B, k, D), inputs (B, N1 - k, D) -> exit1 (B, K, h, w); where the
    fine stage predicts a quality also that, (B,)."""

    open_axes = {"kept": {1: "refined"}, "features": {1: "refined"}, "inputs": {1: "others"}}  # noqa: RUF012

    def __init__(self, trunk: TwoStageTrunk, head: TokenHead) -> None:
        super().__init__()
        self.trunk, self.head = trunk, head
        self.outputs = ("exit1", *(["quality_fine"] if trunk.replace_oks else []))

    def forward(self, images: Tensor, kept: Tensor, features: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
        tokens, quality = self.trunk.refine(self.trunk.enter_fine(images), kept, features, inputs)
        return (self.head(tokens),) if quality is None else (self.head(tokens), quality[:, 0])

    def example(self, images: Tensor, alpha: float) -> dict[str, Tensor]:
        """What the coarse stage would hand over for `images`, gathered."""
        with torch.inference_mode():
            coarse = self.trunk.coarse(images)
            kept, dropped = self.trunk.choose(coarse.score, alpha)
            rows = torch.arange(images.shape[0])[:, None]
            gathered = {"kept": kept, "features": coarse.features[rows, kept], "inputs": coarse.inputs[rows, dropped]}
        return {"images": images} | {name: value.clone() for name, value in gathered.items()}
