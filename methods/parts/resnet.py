"""ResNet trunk (He et al., CVPR 2016) with torchvision's tensor names, without a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from methods.parts.arithmetic import Size, conv_macs, shrink

__all__ = ["DEPTHS", "TINY", "BasicBlock", "Bottleneck", "ResNet"]


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, (B, inputs, h, w) -> (B, planes, h/stride, w/stride)."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.inputs, self.planes, self.stride = inputs, planes, stride
        self.conv1 = _conv(inputs, planes, 3, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _shortcut(inputs, planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + residual)

    def macs(self, size: Size) -> int:
        """For an input of `size`."""
        out = shrink(size, self.stride)
        shortcut = conv_macs(self.inputs, self.planes, 1, out) if self.downsample is not None else 0
        return conv_macs(self.inputs, self.planes, 3, out) + conv_macs(self.planes, self.planes, 3, out) + shortcut


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, (B, inputs, h, w) -> (B, 4 planes, h/stride, w/stride).

    `style` says which convolution has the stride: 'pytorch' the 3x3 (torchvision's v1.5), 'caffe' the first
    1x1.
    """

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1, style: str = "pytorch") -> None:
        super().__init__()
        self.inputs, self.planes, self.stride, self.style = inputs, planes, stride, style
        first, second = (stride, 1) if style == "caffe" else (1, stride)
        self.conv1 = _conv(inputs, planes, 1, first)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv(planes, planes, 3, second)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv(planes, 4 * planes, 1)
        self.bn3 = nn.BatchNorm2d(4 * planes)
        self.downsample = _shortcut(inputs, 4 * planes, stride)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + residual)

    def macs(self, size: Size) -> int:
        """For an input of `size`."""
        out = shrink(size, self.stride)
        middle = out if self.style == "caffe" else size
        total = conv_macs(self.inputs, self.planes, 1, middle) + conv_macs(self.planes, self.planes, 3, out)
        total += conv_macs(self.planes, 4 * self.planes, 1, out)
        return total + (conv_macs(self.inputs, 4 * self.planes, 1, out) if self.downsample is not None else 0)


DEPTHS: dict[int, tuple[type[BasicBlock] | type[Bottleneck], tuple[int, int, int, int]]] = {
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}
"""Block and blocks per stage of the published depths (table 1 of the paper)."""


TINY: dict[str, Any] = {"block": BasicBlock, "blocks": (1, 2, 2), "widths": (32, 64, 128)}
"""The trunk of the tiny networks: three stages, because a fourth would leave 4x3 positions at 128x96."""


class ResNet(nn.Module):
    """Stem and stages; keys conv1, bn1, layer1..4 (as many as `blocks` has entries).

    `block` and `blocks` as in `DEPTHS`; `widths` are the planes of the stages, the stem has the first of
    them. `channels`: output channels of the stages, at strides 4, 8, 16, 32.
    """

    channels: tuple[int, ...]

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        widths: Sequence[int] = (64, 128, 256, 512),
        style: str = "pytorch",
    ) -> None:
        super().__init__()
        self.conv1 = _conv(3, widths[0], 7, 2)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        # only the bottleneck has two places for the stride
        extra = {"style": style} if block is Bottleneck else {}
        inputs = widths[0]
        for i, (count, planes) in enumerate(zip(blocks, widths, strict=True)):
            layer = []
            for j in range(count):
                layer.append(block(inputs, planes, 2 if i > 0 and j == 0 else 1, **extra))
                inputs = planes * block.expansion
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
        self.channels = tuple(w * block.expansion for w in widths)
        _initialise(self)

    def stages(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) -> [c2, c3, c4, c5], strides 4, 8, 16, 32."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for layer in self._layers():
            x = layer(x)
            maps.append(x)
        return maps

    def trunk_macs(self, input_size: Size) -> int:
        """Multiply-accumulates of stem and stages for one image."""
        size = shrink(input_size, 2)
        total = conv_macs(3, self.conv1.out_channels, 7, size)
        size = shrink(size, 2)
        for block in (b for layer in self._layers() for b in layer):
            total += block.macs(size)
            size = shrink(size, block.stride)
        return total

    def _layers(self) -> list[nn.Sequential]:
        return [getattr(self, f"layer{i + 1}") for i in range(len(self.channels))]


def _initialise(module: nn.Module) -> None:
    """Kaiming over outputs, as the ImageNet trunks were started; matters only without pretrained weights."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
