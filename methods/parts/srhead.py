"""Super-resolution heads: heatmaps as large as the input, from features at a quarter of it or less.

SRHead: one step from one feature map. CoarseToFineHead: SRPose's four stages, each supervised while training.
Wang et al., 'Lightweight Super-Resolution Head for Human Pose Estimation', ACM MM 2023; card srpose.md 1 and 2.
Tensor names are the official code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.parts.arithmetic import Size, conv_macs, linear_macs
from methods.parts.heads import deconv_head_macs, deconv_layers

__all__ = ["CoarseToFineHead", "SRHead", "Stages"]

_STD = 0.001  # of the normal start of convolutions


class SRHead(nn.Module):
    """(B, C, h, w) -> (B, K, 4 h', 4 w'), h' = h doubled by each of `deconvs`.

    Each joint has `embedding` channels of its own, from which a grouped convolution writes the `factor` x `factor`
    sub-pixels of every cell.
    """

    def __init__(
        self,
        inputs: int,
        num_joints: int,
        *,
        deconvs: Sequence[int] = (),
        embedding: int = 4,
        factor: int = 4,
        kernel: int = 9,
    ) -> None:
        super().__init__()
        self.inputs, self.deconvs, self.factor = inputs, tuple(deconvs), factor
        self.deconv_layers = deconv_layers(inputs, deconvs)
        self.kp_encoder = _encoder(deconvs[-1] if deconvs else inputs, num_joints, embedding)
        self.heatmap_head = _predictor(num_joints, embedding, factor, kernel)
        nn.init.normal_(self.kp_encoder[0].weight, std=_STD)
        nn.init.zeros_(self.kp_encoder[0].bias)

    def forward(self, features: Tensor) -> Tensor:
        embedded = self.kp_encoder(self.deconv_layers(features))  # (B, K e, h', w')
        return F.pixel_shuffle(self.heatmap_head(embedded), self.factor)

    def macs(self, size: Size) -> int:
        """For a feature map of `size`."""
        doubled = (size[0] << len(self.deconvs), size[1] << len(self.deconvs))
        step = _step_macs(self.kp_encoder, self.heatmap_head, doubled)
        return deconv_head_macs(self.inputs, self.deconvs, 4, size) + step


@dataclass(frozen=True)
class Stages:
    """Everything that is counted in a CoarseToFineHead, coarse to fine; defaults are the published ones.

    `widths`: channels of the fused features. `embeddings`: channels of one joint. `kernels`, `factors`: of the
    super-resolution steps; the last one's maps are the answer.
    """

    widths: tuple[int, ...] = (256, 128, 64, 32)
    embeddings: tuple[int, ...] = (16, 8, 4, 4)
    kernels: tuple[int, ...] = (3, 5, 7, 9)
    factors: tuple[int, ...] = (8, 4, 2, 4)


class CoarseToFineHead(nn.Module):
    """Maps at strides 4, 8, 16, 32 of a trunk -> heatmaps as large as the input.

    `inputs`: channels of the trunk's maps, finest first. A heatmap is made at stride 32 already, fed back into the
    coarsest features, which are then carried to the finer stages. `train_only`: prefixes of the tensors that only
    the intermediate training outputs need.
    """

    def __init__(self, inputs: Sequence[int], num_joints: int, stages: Stages) -> None:
        super().__init__()
        self.stages, self.num_joints, self.inputs = stages, num_joints, tuple(inputs)[::-1]
        coarse_to_fine = list(zip(self.inputs, stages.widths, strict=True))
        steps = list(zip(stages.widths, stages.widths[1:], strict=False))
        self.lr_head = _conv_relu(self.inputs[0], num_joints)
        self.lr_fuse = _conv_relu(num_joints, stages.widths[0])
        self.pre_interpolate = nn.ModuleList(_carry(a, b) for a, b in steps)
        self.pre_fuse = nn.ModuleList(_conv_norm_relu(a, b) for a, b in coarse_to_fine)
        self.fuse = nn.ModuleList(nn.Conv2d(2 * b, b, 1) for _, b in steps)
        self.post_fuse = nn.ModuleList(nn.Sequential(_Mixer(b), _Mixer(b)) for _, b in steps)
        self.kp_encoder = nn.ModuleList(
            _encoder(width, num_joints, e) for width, e in zip(stages.widths, stages.embeddings, strict=True)
        )
        self.converge = nn.ModuleList(
            _Converge(num_joints, e, factor, kernel)
            for e, factor, kernel in zip(stages.embeddings, stages.factors, stages.kernels, strict=True)
        )
        early = range(len(stages.widths) - 1)
        self.train_only = tuple(f"{part}.{i}" for part in ("kp_encoder", "converge") for i in early)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """The answer alone, (B, K, u h, u w) of the last factor u and the finest map; `maps` finest first."""
        return self._heatmaps(self._features(maps)[1][-1], -1)

    def all_outputs(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Heatmaps at stride 32, those of the four stages, the answer last."""
        coarsest, features = self._features(maps)
        return [coarsest, *(self._heatmaps(x, i) for i, x in enumerate(features))]

    def _features(self, maps: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The heatmaps at stride 32 and the fused features of each stage."""
        coarse_to_fine = list(maps)[::-1]
        heatmaps = self.lr_head(coarse_to_fine[0])  # never negative: the ReLU acts on the heatmaps themselves
        x = self.pre_fuse[0](coarse_to_fine[0]) + self.lr_fuse(heatmaps)
        features = [x]
        for carry, fuse, mix, own, finer in zip(
            self.pre_interpolate, self.fuse, self.post_fuse, self.pre_fuse[1:], coarse_to_fine[1:], strict=True
        ):
            x = F.interpolate(carry(x), size=finer.shape[2:], mode="nearest")
            x = mix(fuse(torch.cat([x, own(finer)], dim=1)))
            features.append(x)
        return heatmaps, features

    def _heatmaps(self, features: Tensor, stage: int) -> Tensor:
        return self.converge[stage](self.kp_encoder[stage](features))

    def macs(self, sizes: Sequence[Size]) -> int:
        """Of `forward` (without the training outputs) for trunk maps of `sizes`, finest first."""
        coarse_to_fine, widths = list(sizes)[::-1], self.stages.widths
        low = coarse_to_fine[0]
        total = conv_macs(self.inputs[0], self.num_joints, 1, low) + conv_macs(self.num_joints, widths[0], 1, low)
        for inputs, width, size in zip(self.inputs, widths, coarse_to_fine, strict=True):
            total += conv_macs(inputs, width, 1, size)
        for i, mix in enumerate(self.post_fuse):
            before, width, size = widths[i], widths[i + 1], coarse_to_fine[i + 1]
            total += conv_macs(before, before, 3, coarse_to_fine[i], groups=before)
            total += conv_macs(before, width, 1, coarse_to_fine[i]) + conv_macs(2 * width, width, 1, size)
            total += sum(mixer.macs(size) for mixer in mix)
        return total + _step_macs(self.kp_encoder[-1], self.converge[-1].conv, coarse_to_fine[-1])


class _Converge(nn.Module):
    """Grouped convolution and sub-pixel shuffle: (B, K e, h, w) -> (B, K, u h, u w)."""

    def __init__(self, num_joints: int, embedding: int, factor: int, kernel: int) -> None:
        super().__init__()
        self.factor = factor
        self.conv = _predictor(num_joints, embedding, factor, kernel)

    def forward(self, embedded: Tensor) -> Tensor:
        return F.pixel_shuffle(self.conv(embedded), self.factor)


class _Mixer(nn.Module):
    """ConvNeXt-like block with batch norm, without layer scale: (B, C, h, w) -> (B, C, h, w)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.BatchNorm2d(width)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)  # (B, h, w, C)
        return x + self.pwconv2(F.gelu(self.pwconv1(y))).permute(0, 3, 1, 2)

    def macs(self, size: Size) -> int:
        depthwise = conv_macs(self.width, self.width, 7, size, groups=self.width)
        return depthwise + 2 * linear_macs(self.width, 4 * self.width, size[0] * size[1])


def _encoder(inputs: int, num_joints: int, embedding: int) -> nn.Sequential:
    """To `embedding` channels per joint, joint by joint."""
    return _conv_relu(inputs, num_joints * embedding)


def _predictor(num_joints: int, embedding: int, factor: int, kernel: int) -> nn.Conv2d:
    """From a joint's own channels to its factor^2 sub-pixels, in pixel_shuffle order."""
    outputs = num_joints * factor**2
    conv = nn.Conv2d(num_joints * embedding, outputs, kernel, padding=kernel // 2, groups=num_joints)
    nn.init.normal_(conv.weight, std=_STD)
    nn.init.zeros_(conv.bias)
    return conv


def _step_macs(encoder: nn.Sequential, predictor: nn.Conv2d, size: Size) -> int:
    """Of one super-resolution step on features of `size`."""
    first, kernel = encoder[0], predictor.kernel_size[0]
    grouped = conv_macs(predictor.in_channels, predictor.out_channels, kernel, size, groups=predictor.groups)
    return conv_macs(first.in_channels, first.out_channels, 1, size) + grouped


def _conv_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.ReLU(inplace=True))


def _conv_norm_relu(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _carry(inputs: int, outputs: int) -> nn.Sequential:
    """Features on their way to the next finer stage: depthwise 3x3, 1x1, norm, ReLU."""
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs)
    return nn.Sequential(depthwise, nn.Conv2d(inputs, outputs, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
