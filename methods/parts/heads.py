"""Heatmap heads that several methods share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from methods.parts.arithmetic import Size, conv_macs, deconv_macs

__all__ = ["deconv_head_macs", "deconv_layers", "final_layer", "final_layer_macs"]

# kernel -> (padding, output_padding) that doubles the size exactly (simplebaseline.md, kernel rule)
_DECONV_PADDING = {4: (1, 0), 3: (1, 1), 2: (0, 0)}


def deconv_layers(inputs: int, widths: Sequence[int] = (256, 256, 256), kernel: int = 4) -> nn.Sequential:
    """[ConvTranspose2d stride 2, BN, ReLU] per width: (B, inputs, h, w) -> (B, widths[-1], h 2^n, w 2^n).

    Started at N(0, 0.001) as in SimpleBaseline (sec. 3). Indices 0, 3, 6 are the transposed convolutions.
    """
    padding, output_padding = _DECONV_PADDING[kernel]
    layers: list[nn.Module] = []
    for width in widths:
        deconv = nn.ConvTranspose2d(inputs, width, kernel, 2, padding, output_padding, bias=False)
        nn.init.normal_(deconv.weight, std=0.001)
        layers += [deconv, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        inputs = width
    return nn.Sequential(*layers)


def deconv_head_macs(inputs: int, widths: Sequence[int], kernel: int, size: Size) -> int:
    """Of `deconv_layers` for an input map of `size`."""
    total = 0
    for width in widths:
        total += deconv_macs(inputs, width, kernel, size)
        inputs, size = width, (2 * size[0], 2 * size[1])
    return total


def final_layer(inputs: int, num_joints: int, kernel: int = 1) -> nn.Conv2d:
    """One map per joint, with bias; started at N(0, 0.001), bias 0."""
    layer = nn.Conv2d(inputs, num_joints, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=0.001)
    nn.init.zeros_(layer.bias)
    return layer


def final_layer_macs(inputs: int, num_joints: int, size: Size, kernel: int = 1) -> int:
    """Of `final_layer` on a map of `size`."""
    return conv_macs(inputs, num_joints, kernel, size)
