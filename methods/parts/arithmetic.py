"""Multiply-accumulates of single layers, as arithmetic. Sizes are (height, width)."""

from __future__ import annotations

import math

__all__ = ["conv_macs", "deconv_macs", "linear_macs", "shrink"]

Size = tuple[int, int]


def shrink(size: Size, stride: int) -> Size:
    """Output size of a 'same'-padded odd-kernel layer with `stride`: n -> ceil(n / stride)."""
    return math.ceil(size[0] / stride), math.ceil(size[1] / stride)


def conv_macs(inputs: int, outputs: int, kernel: int, out_size: Size, groups: int = 1) -> int:
    """A convolution: every output position takes kernel^2 x inputs/groups products per output channel."""
    return kernel * kernel * (inputs // groups) * outputs * out_size[0] * out_size[1]


def deconv_macs(inputs: int, outputs: int, kernel: int, in_size: Size, groups: int = 1) -> int:
    """A transposed convolution: every *input* position takes kernel^2 x outputs/groups products per input
    channel.

    Papers that charge it at output size count stride^2 times too much (cards: hrnet.md H).
    """
    return kernel * kernel * inputs * (outputs // groups) * in_size[0] * in_size[1]


def linear_macs(inputs: int, outputs: int, rows: int = 1) -> int:
    """A linear layer applied to `rows` vectors."""
    return inputs * outputs * rows
