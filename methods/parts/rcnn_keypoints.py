"""The keypoint branch of Mask R-CNN: head with or without global context, targets and loss, decoding.

Card: maskrcnn.md 1 (baseline), 2.3 (global context module, GCM).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.arithmetic import Size, conv_macs, deconv_macs

__all__ = ["GCM", "SIZE", "GlobalAttention", "decoded", "keypoint_head", "keypoint_head_macs", "keypoint_loss"]

SIZE = 14  # of a person's features; the heatmaps are four times as large
_DECODED = 1 << 26  # numbers of one resized heatmap that are held at once
_LEAST = 1e-37  # a score stays finite where untrained logits make its sum vanish


class GlobalAttention(nn.Module):
    """Self-attention over all cells of a map with learned relative positions: (N, C, s, s) -> the same.

    Logits are q.k + q.Rw[column distance] + q.Rh[row distance], q scaled before all three; no output projection.
    """

    def __init__(self, width: int, heads: int = 4, size: int = SIZE) -> None:
        super().__init__()
        self.heads, self.size, self.scale = heads, size, (width // heads) ** -0.5
        self.to_qk = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.to_v = nn.Conv2d(width, width, 1, bias=False)
        self.pos_emb = _RelativePositions(size, width // heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._split(t) for t in (*self.to_qk(x).chunk(2, dim=1), self.to_v(x)))  # (N, heads, cells, d)
        q = q * self.scale
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=self.pos_emb(q), scale=1.0)
        return out.transpose(2, 3).reshape(x.shape)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(1, (self.heads, -1)).flatten(3).transpose(2, 3)

    def macs(self) -> int:
        """Of one map: projections, products with the distances, logits, weighted sum."""
        cells, width = self.size * self.size, self.to_v.out_channels
        attention = 2 * cells * cells * width + 2 * cells * (2 * self.size - 1) * width
        return conv_macs(width, 3 * width, 1, (self.size, self.size)) + attention


class _RelativePositions(nn.Module):
    """Queries (N, heads, s * s, d) -> what their distance adds to the logits, (N, heads, s * s, s * s)."""

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        self.size = size
        self.rel_height = nn.Parameter(torch.randn(2 * size - 1, dim) * dim**-0.5)
        self.rel_width = nn.Parameter(torch.randn(2 * size - 1, dim) * dim**-0.5)

    def forward(self, q: Tensor) -> Tensor:
        side = self.size
        q = q.unflatten(2, (side, side))  # (N, heads, row, column, d)
        across = self._along(torch.matmul(q, self.rel_width.T))  # (N, heads, row, column, key column)
        down = self._along(torch.matmul(q, self.rel_height.T).transpose(2, 3)).transpose(2, 3)
        return (down[..., :, None] + across[..., None, :]).flatten(4).flatten(2, 3)

    def _along(self, by_distance: Tensor) -> Tensor:
        """(..., place, distance) -> (..., place, key place): the entry of distance key - place + s - 1."""
        place = torch.arange(self.size, device=by_distance.device)
        return by_distance[..., place[:, None], place - place[:, None] + self.size - 1]


class GCM(nn.Module):
    """y = x + attention(ReLU(BN(x))); y + convolution(ReLU(BN(y))). Norms run over regions and are never frozen."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(width)
        self.MHSA = GlobalAttention(width, heads)
        self.norm2 = nn.BatchNorm2d(width)
        self.conv_fc = nn.Conv2d(width, width, 3, padding=1)
        for norm in (self.norm1, self.norm2):
            nn.init.uniform_(norm.weight)
        for conv in (self.MHSA.to_qk, self.MHSA.to_v, self.conv_fc):
            _start(conv)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 0:  # nothing to take statistics of; but several processes wait for a gradient of every parameter
            return x + 0.0 * sum(parameter.sum() for parameter in self.parameters())
        y = x + self.MHSA(F.relu(self.norm1(x)))
        return y + self.conv_fc(F.relu(self.norm2(y)))

    def macs(self) -> int:
        """Of one region."""
        width = self.conv_fc.out_channels
        return self.MHSA.macs() + conv_macs(width, width, 3, (SIZE, SIZE))


def keypoint_head(inputs: int, width: int, convs: int, gcm: str, heads: int = 4) -> nn.Sequential:
    """(N, inputs, 14, 14) -> (N, width, 14, 14): `convs` 3x3 convolutions with ReLU.

    gcm: `none`, the baseline; `first`, a 1x1 convolution to `width` with ReLU and a GCM before them; `both`, a second
    GCM in their middle. `heads` are those of their attention. Names are the published code's (GCM before convolution i:
    MHSA_i).
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if gcm != "none":
        layers["conv_channel"] = _start(nn.Conv2d(inputs, width, 1))
        layers["relu_channel"] = nn.ReLU(inplace=True)
    before = {"none": (), "first": (1,), "both": (1, convs // 2 + 1)}[gcm]
    for i in range(1, convs + 1):
        if i in before:
            layers[f"MHSA_{i}"] = GCM(width, heads)
        channels = inputs if i == 1 and gcm == "none" else width
        layers[f"conv_fcn{i}"] = _start(nn.Conv2d(channels, width, 3, padding=1))
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _start(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv


def keypoint_head_macs(head: nn.Sequential, num_joints: int) -> int:
    """Of `keypoint_head` and the transposed convolution behind it, one region."""
    size: Size = (SIZE, SIZE)
    convs = [m for m in head if isinstance(m, nn.Conv2d)]
    total = sum(conv_macs(c.in_channels, c.out_channels, c.kernel_size[0], size) for c in convs)
    total += sum(m.macs() for m in head if isinstance(m, GCM))
    return total + deconv_macs(convs[-1].out_channels, num_joints, 4, size)


def keypoint_loss(
    logits: Tensor, boxes: Tensor, joints: Tensor, visible: Tensor, pooled: Callable[[Tensor], Tensor] = lambda n: n
) -> Tensor:
    """Softmax cross-entropy over the S * S cells of each heatmap, where a joint is visible and falls into its box.

    logits (N, K, S, S); boxes (N, 4) that the heatmaps cover; joints (N, K, 2); visible (N, K). The sum is divided by
    `pooled(number of such joints)`: NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS of detectron2.
    """
    cell, valid = _cells(joints, boxes, logits.shape[-1])
    valid &= visible > 0
    total = F.cross_entropy(logits.float().flatten(2)[valid], cell[valid], reduction="sum")
    return total / pooled(valid.sum()).clamp(min=1)


def _cells(joints: Tensor, boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(N, K) index of the cell that each joint falls into, and whether it falls into any."""
    corner, end = boxes[:, None, :2], boxes[:, None, 2:]
    place = torch.floor((joints - corner) * (size / (end - corner)))
    # the right and the bottom edge belong to the last cell
    place = torch.where(joints == end, place.new_tensor(size - 1), place)
    valid = ((place >= 0) & (place < size)).all(dim=2)
    column, row = torch.where(valid[..., None], place, place.new_zeros(())).long().unbind(2)
    return row * size + column, valid


def decoded(logits: Tensor, boxes: Tensor) -> Tensor:
    """logits (N, K, S, S) over boxes (N, 4) -> (N, K, 3) x, y, score.

    Each map is resized (bicubic) to the whole pixels of its box, of which the middle of the largest is taken. Score:
    that value's exponential by the sum of exponentials over the S * S cells.

    QUIRK: numerator and sum are of maps of different size in detectron2, so a score may exceed 1, without bound.
    """
    sides = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
    found = [
        _decode(maps.float(), (int(height), int(width)))
        for maps, (width, height) in zip(logits, sides.ceil().tolist(), strict=True)
    ]
    if not found:
        return boxes.new_zeros((0, logits.shape[1], 3))
    answer = torch.stack(found).to(boxes.dtype)
    points = (answer[..., :2] + 0.5) * (sides / sides.ceil())[:, None] + boxes[:, None, :2]
    return torch.cat([points, answer[..., 2:]], dim=2)


def _decode(maps: Tensor, size: Size) -> Tensor:
    """(K, S, S) -> (K, 3): column and row of the peak at `size`, score. A few joints at a time for a huge box."""
    step = max(1, _DECODED // (size[0] * size[1]))
    found = []
    for some in maps.split(step):
        large = F.interpolate(some[:, None], size=size, mode="bicubic", align_corners=False)
        peak, at = large.flatten(1).max(dim=1)
        total = (some.flatten(1) - peak[:, None]).exp().sum(dim=1)
        rows = torch.div(at, size[1], rounding_mode="floor")
        found.append(torch.stack([(at - rows * size[1]).float(), rows.float(), 1 / total.clamp(min=_LEAST)], dim=1))
    return torch.cat(found)
