"""The network of SHaRPose: one vision transformer for a coarse and a fine stage, quality predictor, token head.

Card: sharpose.md, 1 and 2. B persons, K joints, D width, N1 coarse patches, N2 = 4 N1 fine patches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts import vit
from methods.parts.arithmetic import linear_macs
from methods.parts.early_exit import some

__all__ = ["CoarseStage", "QualityPredictor", "TokenHead", "TrunkSize", "TwoStageTrunk", "kept_count"]

Size = tuple[int, int]

# QUIRK: of every LayerNorm, torch's default, where MAE and ViTPose have 1e-6: published weights were trained with it
_EPS = 1e-5
# QUIRK: the running attention is not bias-corrected and forgets so slowly that all layers weigh nearly the same; the
# order of regions, which is all that is used, follows from these weights
_BETA = 0.99


@dataclass(frozen=True)
class TrunkSize:
    """`token_std`: spread of the keypoint tokens at the start, 0 as published. `stem`: widths of convolutions in place
    of the patch kernel, none as published."""

    dim: int
    depth: int
    heads: int
    patch: int = 16
    mlp_ratio: float = 4.0
    drop_path: float = 0.1
    token_std: float = 0.0
    stem: tuple[int, ...] = ()

    @property
    def scored_layers(self) -> range:
        """Layers whose attention enters the selection score: the last three quarters."""
        return range(self.depth // 4, self.depth)


@dataclass(frozen=True)
class CoarseStage:
    """What the coarse stage leaves; first axis: persons. `inputs`, `features` (B, N1, D) before and after the blocks,
    `keypoints` (B, K, D), `quality` (B, 1), or (B, 2) for `abs`, `score` (B, N1) by which regions are chosen."""

    inputs: Tensor
    features: Tensor
    keypoints: Tensor
    quality: Tensor
    score: Tensor

    def rows(self, mask: Tensor) -> CoarseStage:
        """Of the persons in `mask` (B,) bool."""
        return CoarseStage(*(some(getattr(self, name), mask) for name in self.__dataclass_fields__))


class QualityPredictor(nn.Module):
    """(B, D) -> (B, 1), or (B, 2) for `abs`."""

    def __init__(self, dim: int, kind: str) -> None:
        super().__init__()
        # QUIRK: the published predictor ends in a GELU although it is trained towards an OKS in 0..1; sigmoid and
        # a two-class softmax (abs) exist in the code and are used by no published configuration.
        last = {"gelu": nn.GELU(), "sigmoid": nn.Sigmoid(), "abs": nn.Softmax(dim=-1)}[kind]
        layers = [nn.Linear(dim, dim), nn.GELU(), nn.Dropout(0.0)]
        layers += [nn.Linear(dim, dim), nn.GELU(), nn.Dropout(0.0)]
        self.norm = nn.LayerNorm(dim, eps=_EPS)
        self.mlp = nn.Sequential(*layers, nn.Linear(dim, 2 if kind == "abs" else 1), last)

    def forward(self, token: Tensor) -> Tensor:
        return self.mlp(self.norm(token))


class TwoStageTrunk(nn.Module):
    """Both stages; every weight but `reuse_block` is shared by them."""

    def __init__(
        self, size: TrunkSize, num_joints: int, grid: Size, quality: str = "gelu", replace_oks: bool = False
    ) -> None:
        super().__init__()
        self.joints, self.grid, self.replace_oks = num_joints, grid, replace_oks
        self.scored_layers = size.scored_layers
        coarse = grid[0] * grid[1]
        # QUIRK: the kernel is not padded, although that of the trunk it starts from is (patches shift): trained so
        self.patch_embed = vit.embedding(size.dim, size.patch, size.stem)
        self.pos_embed_list = nn.ParameterList(torch.empty(1, n, size.dim) for n in (coarse, 4 * coarse))
        self.keypoint_tokens = nn.Parameter(torch.randn(1, num_joints, size.dim) * size.token_std)
        self.quality_token = nn.Parameter(torch.zeros(1, 1, size.dim))
        self.blocks = vit.blocks(
            size.dim, size.depth, size.heads, eps=_EPS, mlp_ratio=size.mlp_ratio, drop_path=size.drop_path
        )
        self.norm = nn.LayerNorm(size.dim, eps=_EPS)
        self.reuse_block = nn.Sequential(nn.LayerNorm(size.dim, eps=_EPS), vit.Mlp(size.dim, size.mlp_ratio))
        self.quality_predictor = QualityPredictor(size.dim, quality)
        for positions in self.pos_embed_list:
            nn.init.trunc_normal_(positions, std=0.02)

    def coarse(self, images: Tensor) -> CoarseStage:
        """(B, 3, H, W) -> the coarse stage of every person."""
        small = F.interpolate(images, scale_factor=0.5, mode="bilinear", align_corners=False)
        inputs = self.patch_embed(small) + self.pos_embed_list[0]  # (B, N1, D)
        tokens = torch.cat([self.quality_token, self.keypoint_tokens], dim=1).expand(images.shape[0], -1, -1)
        x, score = self._scored_blocks(torch.cat([tokens, inputs], dim=1))  # (B, 1 + K + N1, D)
        quality, keypoints, features = self.norm(x).split([1, self.joints, inputs.shape[1]], dim=1)
        return CoarseStage(inputs, features, keypoints, self.quality_predictor(quality[:, 0]), score)

    def _scored_blocks(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The blocks, and the running score (B, N1): 0.99 x score + 0.01 x attention of this layer.

        QUIRK: row 0 is the quality token and keypoints are rows 1..K, but the published slice is 1:K, so the last
        joint (COCO: right ankle) never counts.
        """
        rows, score = slice(1, self.joints), x.new_zeros(())
        for index, block in enumerate(self.blocks):
            if index not in self.scored_layers:
                x = block(x)
                continue
            x, attention = block.with_rows(x, rows)  # (B, heads, K - 1, L)
            layer = attention[..., 1 + self.joints :].mean(dim=1).sum(dim=1)
            score = _BETA * score + (1 - _BETA) * layer
        return x, score

    def enter_fine(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N2, D) embedded patches of the full-size image."""
        return self.patch_embed(images) + self.pos_embed_list[1]

    def fine(self, patches: Tensor, coarse: CoarseStage, alpha: float) -> tuple[Tensor, Tensor | None]:
        """Keypoint tokens (B, K, D) after the fine stage; with `replace_oks` also their quality."""
        kept, dropped = self.choose(coarse.score, alpha)
        return self.refine(patches, kept, _take(coarse.features, kept), _take(coarse.inputs, dropped))

    def refine(self, patches: Tensor, kept: Tensor, features: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """`fine` of regions that were gathered: indices (B, k) and coarse outputs (B, k, D) of the `kept`, coarse
        inputs (B, N1 - k, D) of the others."""
        # the coarse outputs are only ever used where a region was kept, so the others are not computed
        reuse = self.reuse_block(features).repeat(1, 4, 1)  # (B, 4k, D)
        # QUIRK: the stage starts from the learned keypoint tokens, not from the coarse stage's results, and dropped
        # regions are the *embedded* coarse patches, before any block: trained so.
        # QUIRK: with `replace_oks` the fine stage gets a quality token of its own; what it predicts is told, and takes
        # no part in the exit, which was decided before
        tokens = torch.cat([self.quality_token, self.keypoint_tokens], dim=1)[:, 0 if self.replace_oks else 1 :]
        refined = _take(patches, self.fine_patches(kept)) + reuse
        x = torch.cat([tokens.expand(patches.shape[0], -1, -1), refined, inputs], dim=1)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x[:, : tokens.shape[1]])
        return x[:, -self.joints :], self.quality_predictor(x[:, 0]) if self.replace_oks else None

    def choose(self, score: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        """Indices of the kept (B, k) and dropped (B, N1 - k) coarse patches, best first."""
        order = score.argsort(dim=1, descending=True, stable=True)
        kept = kept_count(alpha, score.shape[1])
        return order[:, :kept], order[:, kept:]

    def fine_patches(self, kept: Tensor) -> Tensor:
        """Coarse indices (B, k) -> their four fine patches (B, 4k): all upper left ones, then upper right, ..."""
        row, column = kept // self.grid[1], kept % self.grid[1]
        corners = [(2 * row + i) * 2 * self.grid[1] + 2 * column + j for i in (0, 1) for j in (0, 1)]
        return torch.cat(corners, dim=1)


def kept_count(alpha: float, patches: int) -> int:
    """Regions that are refined: the float ceiling of the published code (0.3 x 108 -> 33)."""
    return math.ceil(alpha * patches)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """(B, N, D) at (B, n) -> (B, n, D)."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


class TokenHead(nn.Module):
    """Keypoint tokens (B, K, D) -> heatmaps (B, K, h, w); one or two layers, shared by both stages."""

    def __init__(self, dim: int, size: Size, single: bool | None) -> None:
        super().__init__()
        cells = size[0] * size[1]
        self.size = size
        layers: list[nn.Module] = [nn.LayerNorm(dim, eps=_EPS)]
        # QUIRK: narrow networks (D < h w / 4: small at 256x192, base at 384x288) get a hidden layer, others do not
        if dim < cells // 4 if single is None else not single:
            layers += [nn.Linear(dim, cells // 2), nn.GELU(), nn.LayerNorm(cells // 2, eps=_EPS)]
            dim = cells // 2
        self.heatmap_mlp = nn.Sequential(*layers, nn.Linear(dim, cells))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.heatmap_mlp(tokens).unflatten(2, self.size)

    def macs(self, joints: int) -> int:
        linear = [layer for layer in self.heatmap_mlp if isinstance(layer, nn.Linear)]
        return sum(linear_macs(layer.in_features, layer.out_features, joints) for layer in linear)
