"""HRNet trunk (Sun et al., CVPR 2019): parallel branches at strides 4 to 32 that exchange features.

Tensor names are the official code's (card hrnet.md A): conv1, bn1, conv2, bn2, layer1, transition1..3,
stage2..4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from methods.parts.arithmetic import Size, conv_macs, shrink
from methods.parts.resnet import BasicBlock, Bottleneck

__all__ = ["HRNet", "HRNetShape"]


@dataclass(frozen=True)
class HRNetShape:
    """Everything that is counted in an HRNet; defaults are the published ones.

    `width`: channels C of the finest branch, branch i has C 2^i. `modules`: exchange modules of stages 2, 3,
    4. `blocks`: basic blocks per branch and module. `stem`: channels of the two stem convolutions. `planes`,
    `first_blocks`: bottlenecks of layer1.
    """

    width: int = 32
    modules: tuple[int, int, int] = (1, 4, 3)
    blocks: int = 4
    stem: int = 64
    planes: int = 64
    first_blocks: int = 4


def _unit(inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs), *([nn.ReLU(inplace=True)] if relu else [])]


class _Exchange(nn.Module):
    """One HR module: blocks on each branch, then every output sums all branches at its size."""

    def __init__(self, widths: Sequence[int], blocks: int, outputs: int) -> None:
        super().__init__()
        self.widths, self.outputs = tuple(widths), outputs
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, w) for _ in range(blocks))) for w in widths)
        # None keeps the index of the identity, so that the other keys have the official names
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(j, i) for j in range(len(widths))) for i in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def _path(self, j: int, i: int) -> nn.Module | None:
        """From branch j to output i: 1x1 and nearest upsampling to finer ones, 3x3 stride-2 steps to coarser
        ones.
        """
        source, goal = self.widths[j], self.widths[i]
        if j == i:
            return None
        if j > i:
            return nn.Sequential(*_unit(source, goal, 1, relu=False), nn.Upsample(scale_factor=2.0 ** (j - i)))
        steps = [nn.Sequential(*_unit(source, source, 3, 2)) for _ in range(i - j - 1)]
        return nn.Sequential(*steps, nn.Sequential(*_unit(source, goal, 3, 2, relu=False)))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        outputs = []
        for paths in self.fuse_layers:
            total = None
            for path, x in zip(paths, maps, strict=True):
                y = x if path is None else path(x)
                total = y if total is None else total + y
            outputs.append(self.relu(total))
        return outputs

    def macs(self, sizes: Sequence[Size]) -> int:
        """For branch maps of `sizes`, finest first."""
        total = sum(block.macs(s) for branch, s in zip(self.branches, sizes, strict=True) for block in branch)
        for i in range(self.outputs):
            total += sum(self._path_macs(j, i, sizes[j]) for j in range(len(sizes)))
        return total

    def _path_macs(self, j: int, i: int, size: Size) -> int:
        source, goal = self.widths[j], self.widths[i]
        if j >= i:
            return 0 if j == i else conv_macs(source, goal, 1, size)
        total = 0
        for step in range(i - j):
            size = shrink(size, 2)
            total += conv_macs(source, goal if step == i - j - 1 else source, 3, size)
        return total


class HRNet(nn.Module):
    """Stem, layer1, stages 2 to 4.

    With `multiscale_output` the last module answers on all four branches (trunks of SRPose and of
    classifiers), otherwise on the finest only, as the pose network does. `channels`: of the branches, finest
    first.
    """

    channels: tuple[int, ...]

    def __init__(self, shape: HRNetShape, multiscale_output: bool = False) -> None:
        super().__init__()
        self.shape, self.multiscale_output = shape, multiscale_output
        self.channels = tuple(shape.width * 2**i for i in range(4))
        stem, wide = shape.stem, 4 * shape.planes
        self.conv1, self.bn1, self.relu = _unit(3, stem, 3, 2)
        self.conv2, self.bn2, _ = _unit(stem, stem, 3, 2)
        self.layer1 = nn.Sequential(*(Bottleneck(wide if i else stem, shape.planes) for i in range(shape.first_blocks)))
        c = self.channels
        # the official code nests a new, coarser branch one level deeper than a same-size path
        self.transition1 = nn.ModuleList(
            [nn.Sequential(*_unit(wide, c[0], 3)), nn.Sequential(nn.Sequential(*_unit(wide, c[1], 3, 2)))]
        )
        self.stage2 = self._stage(2)
        self.transition2 = _new_branch(c[1], c[2], kept=2)
        self.stage3 = self._stage(3)
        self.transition3 = _new_branch(c[2], c[3], kept=3)
        self.stage4 = self._stage(4)
        _initialise(self)

    def _stage(self, branches: int) -> nn.Sequential:
        count = self.shape.modules[branches - 2]
        narrow = branches == 4 and not self.multiscale_output
        outputs = [1 if narrow and m == count - 1 else branches for m in range(count)]
        return nn.Sequential(*(_Exchange(self.channels[:branches], self.shape.blocks, n) for n in outputs))

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> maps at strides 4, 8, 16, 32 (only the first without `multiscale_output`)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer1(self.relu(self.bn2(self.conv2(x))))
        maps = self.stage2([self.transition1[0](x), self.transition1[1](x)])
        maps = self.stage3([*maps, self.transition2[2](maps[-1])])
        return self.stage4([*maps, self.transition3[3](maps[-1])])

    def trunk_macs(self, input_size: Size) -> int:
        """Multiply-accumulates for one image."""
        shape, c, half = self.shape, self.channels, shrink(input_size, 2)
        sizes = [shrink(input_size, 4 * 2**i) for i in range(4)]
        total = conv_macs(3, shape.stem, 3, half) + conv_macs(shape.stem, shape.stem, 3, sizes[0])
        total += sum(block.macs(sizes[0]) for block in self.layer1)
        wide = 4 * shape.planes
        total += conv_macs(wide, c[0], 3, sizes[0]) + conv_macs(wide, c[1], 3, sizes[1])
        total += conv_macs(c[1], c[2], 3, sizes[2]) + conv_macs(c[2], c[3], 3, sizes[3])
        for branches, stage in ((2, self.stage2), (3, self.stage3), (4, self.stage4)):
            total += sum(module.macs(sizes[:branches]) for module in stage)
        return total


def _new_branch(source: int, goal: int, kept: int) -> nn.ModuleList:
    """`kept` branches pass unchanged, a new one is made from the last of them."""
    return nn.ModuleList([*([None] * kept), nn.Sequential(nn.Sequential(*_unit(source, goal, 3, 2)))])


def _initialise(module: nn.Module) -> None:
    """N(0, 0.001) for every convolution, as in the official code."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.normal_(m.weight, std=0.001)
