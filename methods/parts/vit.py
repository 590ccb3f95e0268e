"""Plain vision transformer: blocks with fused attention, position grids, the trunk of ViTPose.

Dosovitskiy et al., 'An Image is Worth 16x16 Words', ICLR 2021; pre-norm blocks without layer scale.
L tokens, width D.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops.stochastic_depth import StochasticDepth

from methods.parts.arithmetic import conv_macs

__all__ = [
    "Attention",
    "Block",
    "ConvStem",
    "Mlp",
    "PatchEmbed",
    "PoseViT",
    "attention_row_macs",
    "block_macs",
    "blocks",
    "embedding",
    "embedding_macs",
    "grid_of",
    "init_vit",
    "interpolated",
    "pad_patches",
    "resize_positions",
]

Size = tuple[int, int]

# QUIRK: of every LayerNorm of ViTPose, where torch's own start is 1e-5 and Hugging Face's configuration 1e-12;
# published weights were trained with it (mmpose 1.x agrees).
_EPS = 1e-6


class PatchEmbed(nn.Module):
    """(B, 3, H, W) -> (B, h w, D), row by row."""

    def __init__(self, dim: int, patch: int, padding: int = 0) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, patch, stride=patch, padding=padding)

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class ConvStem(nn.Module):
    """(B, 3, H, W) -> (B, h w, D) by 3x3 convolutions that each halve the image, to `widths` and then to D channels.

    For short trainings: one large kernel learns slowly from few images (after Xiao et al., 'Early Convolutions Help
    Transformers See Better', NeurIPS 2021). Ours has GELU and 3x3 kernels to the end, and its norm is over groups of
    channels (`widths` are multiples of 4), not over the batch: parts of a batch in several processes then give what
    the whole gives in one.
    """

    def __init__(self, dim: int, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, stride=2, padding=1), nn.GroupNorm(4, width), nn.GELU()]
            inputs = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(inputs, dim, 3, stride=2, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).flatten(2).transpose(1, 2)


def embedding(dim: int, patch: int, stem: Sequence[int] = (), padding: int = 0) -> PatchEmbed | ConvStem:
    """(B, 3, H, W) -> (B, h w, D): by one kernel of the size of a patch, `padding` around the image, or by a stem of
    these widths, which has a padding of its own. ValueError where its convolutions make patches of another size."""
    if not stem:
        return PatchEmbed(dim, patch, padding)
    made = 2 << len(stem)
    if patch != made:
        raise ValueError(f"a stem of {len(stem) + 1} convolutions makes patches of {made} pixels, not {patch}")
    return ConvStem(dim, stem)


def embedding_macs(dim: int, patch: int, patches: int, stem: Sequence[int] = ()) -> int:
    """Of `embedding` for one image of so many patches."""
    if not stem:
        return conv_macs(3, dim, patch, (patches, 1))
    channels = (3, *stem, dim)
    sizes = [patches << 2 * i for i in reversed(range(len(channels) - 1))]
    return sum(conv_macs(a, b, 3, (n, 1)) for a, b, n in zip(channels[:-1], channels[1:], sizes, strict=True))


class Attention(nn.Module):
    """Multi-head self-attention, (B, L, D) -> (B, L, D); one linear layer gives q, k and v in this order."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self._attend(*self._split(x))

    def with_rows(self, x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Also the softmax rows (B, heads, r, L) of the queries in `rows`.

        The rows are computed beside the fused attention, so that no map of L x L is ever held.
        """
        q, k, v = self._split(x)
        logits = (q[:, :, rows] * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        return self._attend(q, k, v), logits.softmax(dim=-1)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        batch, tokens, dim = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, dim // self.heads)
        return parts.permute(2, 0, 3, 1, 4).unbind(0)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Linear, exact GELU, linear: (..., D) -> (..., D)."""

    def __init__(self, dim: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, int(dim * ratio))
        self.fc2 = nn.Linear(int(dim * ratio), dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """x + drop(attention(norm x)), then x + drop(mlp(norm x)); (B, L, D) -> (B, L, D)."""

    def __init__(self, dim: int, heads: int, *, eps: float, mlp_ratio: float = 4.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=eps)
        self.attn = Attention(dim, heads)
        self.drop_path = StochasticDepth(drop_path, "row")
        self.norm2 = nn.LayerNorm(dim, eps=eps)
        self.mlp = Mlp(dim, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:
        return self._feed(x + self.drop_path(self.attn(self.norm1(x))))

    def with_rows(self, x: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
        """Also the attention rows (B, heads, r, L) of `Attention.with_rows`."""
        update, weights = self.attn.with_rows(self.norm1(x), rows)
        return self._feed(x + self.drop_path(update)), weights

    def _feed(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm2(x)))


def blocks(
    dim: int, depth: int, heads: int, *, eps: float, mlp_ratio: float = 4.0, drop_path: float = 0.0
) -> nn.ModuleList:
    """`depth` blocks; the drop-path rate rises linearly from 0 to `drop_path`."""
    rates = [drop_path * i / max(depth - 1, 1) for i in range(depth)]
    return nn.ModuleList(Block(dim, heads, eps=eps, mlp_ratio=mlp_ratio, drop_path=rate) for rate in rates)


class PoseViT(nn.Module):
    """The trunk of ViTPose for images of `input_size`: (B, 3, H, W) -> (B, D, H / patch, W / patch).

    Tensor names are ViTPose's (card vitpose.md 1).
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        heads: int,
        input_size: Size,
        drop_path: float = 0.0,
        *,
        mlp_ratio: float = 4.0,
        patch: int = 16,
        stem: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.dim, self.mlp_ratio, self.patch, self.stem = dim, mlp_ratio, patch, stem
        self.grid = (input_size[0] // patch, input_size[1] // patch)
        # QUIRK, of the kernel alone: padding 2 with stride = kernel shifts every patch by two pixels, and the last two
        # rows and columns of the image are never seen; published weights expect it.
        self.patch_embed = embedding(dim, patch, stem, padding=2)
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1] + 1, dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = blocks(dim, depth, heads, eps=_EPS, mlp_ratio=mlp_ratio, drop_path=drop_path)
        self.last_norm = nn.LayerNorm(dim, eps=_EPS)
        init_vit(self)

    def forward(self, images: Tensor) -> Tensor:
        # QUIRK: there is no class token, but its slot of the position embedding is added to every patch;
        # published weights were trained so.
        x = self.patch_embed(images) + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x).transpose(1, 2).unflatten(2, self.grid)

    def stages(self, images: Tensor) -> list[Tensor]:
        """The map, as a list of one, like other trunks."""
        return [self(images)]

    def trunk_macs(self, input_size: Size) -> int:
        """Multiply-accumulates for one image of the size the trunk was built for."""
        patches = self.grid[0] * self.grid[1]
        body = len(self.blocks) * block_macs(self.dim, patches, self.mlp_ratio)
        return embedding_macs(self.dim, self.patch, patches, self.stem) + body

    def adapt_state(self, state: Mapping[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], list[str]]:
        """`state` with the positions under `prefix` on this grid, without a classifier's own norm and head.

        Their own grid is that of a published file of as many positions.
        MAE's `norm` is not `last_norm`, which starts fresh (card, 2).
        """
        unused = tuple(f"{prefix}{name}." for name in ("norm", "head", "fc_norm"))
        kept = {name: value for name, value in state.items() if not name.startswith(unused)}
        positions = kept.get(f"{prefix}pos_embed")
        if positions is None:
            return kept, []
        source = grid_of(positions.shape[1] - 1, self.grid)
        if source == self.grid:
            return kept, []
        patches = resize_positions(positions[:, 1:], source, self.grid)
        kept[f"{prefix}pos_embed"] = torch.cat([positions[:, :1], patches], dim=1)
        return kept, [interpolated(source, self.grid)]


def block_macs(dim: int, tokens: Any, mlp_ratio: float = 4.0) -> Any:
    """Of one block over `tokens` tokens (int or integer array): four D x D layers, MLP, q k^T and its use."""
    return (4 * dim + 2 * int(dim * mlp_ratio)) * dim * tokens + 2 * dim * tokens**2


def attention_row_macs(dim: int, rows: int, tokens: Any) -> Any:
    """Of the extra rows that `with_rows` computes."""
    return rows * dim * tokens


def init_vit(module: nn.Module) -> None:
    """Truncated normal 0.02 for linear weights, bias 0; convolutions keep torch's own start."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)


def grid_of(tokens: int, like: Size) -> Size:
    """Rows and columns of a grid of `tokens` cells of unknown shape.

    A square number is a square (MAE files), 12 squares are 4:3 upright (every published pose file, whatever way up
    `like` is), otherwise the factors whose ratio is nearest to that of `like`.
    """
    side = math.isqrt(tokens)
    if side * side == tokens:
        return side, side
    third = math.isqrt(tokens // 12)
    if 12 * third * third == tokens:
        return 4 * third, 3 * third
    pairs = [(tokens // w, w) for w in range(1, tokens + 1) if tokens % w == 0]
    return min(pairs, key=lambda p: abs(math.log(p[0] / p[1]) - math.log(like[0] / like[1])))


def resize_positions(positions: Tensor, source: Size, target: Size) -> Tensor:
    """(1, h w, D) on grid `source` -> (1, h' w', D) on grid `target`, bicubic, corners not aligned."""
    if source == target:
        return positions
    grid = positions.float().reshape(1, *source, -1).permute(0, 3, 1, 2)
    resized = F.interpolate(grid, size=target, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).to(positions.dtype)


def interpolated(source: Size, target: Size) -> str:
    """The note on weights whose positions were resized."""
    return "position embedding interpolated from {}x{} to {}x{}, not fine-tuned".format(*source, *target)


def pad_patches(weight: Tensor, patch: int) -> Tensor:
    """Patch kernels (D, 3, p, p) -> (D, 3, patch, patch), zeros around (MAE's ViT-H has p = 14)."""
    missing = patch - weight.shape[-1]
    if missing < 0:
        raise ValueError(f"patch kernel of {weight.shape[-1]} pixels does not fit into {patch}")
    before, after = missing // 2, missing - missing // 2
    return F.pad(weight, (before, after, before, after))
