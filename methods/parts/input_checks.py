"""Sizes that do not fit a network, refused with what would."""

from __future__ import annotations

from torch import Tensor

from harness.errors import UserError

__all__ = ["check_images", "check_multiple"]

Size = tuple[int, int]


def check_images(images: Tensor, size: Size) -> None:
    """UserError unless `images` (B, 3, H, W) have the size that the network was built for."""
    if tuple(images.shape[2:]) != tuple(size):
        given = "x".join(map(str, images.shape[2:]))
        raise UserError(f"images of {given}", expected=f"{size[0]}x{size[1]}, the input size of this network")


def check_multiple(size: Size, multiple: int, why: str) -> None:
    """UserError unless height and width are multiples of `multiple`."""
    if size[0] % multiple or size[1] % multiple:
        nearest = "x".join(str(max(1, round(side / multiple)) * multiple) for side in size)
        raise UserError(
            f"input size {size[0]}x{size[1]}",
            expected=f"height and width divisible by {multiple}: {why}",
            hint=f"take {nearest}",
        )
