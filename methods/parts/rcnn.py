"""The detector under Mask R-CNN up to its proposals: canvas, trunk with feature pyramid, region proposal network.

torchvision's layers wherever their arithmetic is detectron2's; a class here says what differs. Card: maskrcnn.md 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead, concat_box_prediction_layers
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from harness.errors import UserError
from methods.parts.arithmetic import Size, conv_macs, linear_macs
from methods.parts.resnet import BasicBlock, Bottleneck, ResNet

__all__ = [
    "MAX_PIXELS",
    "ProposalNetwork",
    "Pyramid",
    "RCNNShape",
    "box_head_macs",
    "damp_blocks",
    "image_macs",
    "level_sizes",
    "named_outputs",
    "on_canvas",
    "proposal_macs",
    "pyramid_macs",
]

STRIDES = (4, 8, 16, 32, 64)  # of p2 to p6
RATIOS = (0.5, 1.0, 2.0)  # height / width of the anchors
MAX_PIXELS = 1 << 22
"""Of one canvas: a ResNet-50 with its pyramid takes about 0.8 kB a pixel, so 3.4 GB; 800 x 1344 is a quarter."""
_MULTIPLE = 32  # of the canvas, so that every level of the pyramid is exactly half as large as the next


@dataclass(frozen=True)
class RCNNShape:
    """Sizes of one network. `frozen`: norms of the trunk keep their statistics and scale, stem and first stage are not
    trained. `anchors`: one size for each of the coarsest levels, in pixels. Pairs are (training, test): `candidates`
    per level before NMS, `proposals` per image after it. `sampled_*`: per image, for the losses.
    """

    block: type[BasicBlock] | type[Bottleneck] = Bottleneck
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    widths: tuple[int, int, int, int] = (64, 128, 256, 512)
    frozen: bool = True
    pyramid: int = 256
    anchors: tuple[int, ...] = (32, 64, 128, 256, 512)
    fc: int = 1024
    keypoint_width: int = 512
    keypoint_convs: int = 8
    attention_heads: int = 4
    candidates: tuple[int, int] = (2000, 1000)
    proposals: tuple[int, int] = (1500, 1000)
    sampled_anchors: int = 256
    sampled_boxes: int = 512


def on_canvas(images: Sequence[Tensor]) -> ImageList:
    """Images (3, h, w) of different sizes, padded with zeros at the right and the bottom to one canvas (B, 3, H, W), H
    and W multiples of 32. Raises UserError for another shape and for a canvas of more than `MAX_PIXELS`.
    """
    for i, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise UserError(f"image {i} has the shape {tuple(image.shape)}", expected="(3, height, width)")
    sizes = [(int(image.shape[1]), int(image.shape[2])) for image in images]
    height, width = (math.ceil(max(side) / _MULTIPLE) * _MULTIPLE for side in zip(*sizes, strict=True))
    if height * width > MAX_PIXELS:
        raise UserError(
            f"a canvas of {height}x{width} pixels would take more memory than most machines have",
            expected=f"at most {MAX_PIXELS:,} pixels",
            hint="scale the image to the size that the network was trained for (800x1333)",
        )
    padded = [F.pad(image, (0, width - w, 0, height - h)) for image, (h, w) in zip(images, sizes, strict=True)]
    return ImageList(torch.stack(padded), sizes)


def level_sizes(canvas: Size) -> list[Size]:
    """Sizes of p2 to p6 on a canvas whose sides are multiples of 32."""
    return [(math.ceil(canvas[0] / stride), math.ceil(canvas[1] / stride)) for stride in STRIDES]


class Pyramid(nn.Module):
    """(B, 3, H, W) -> [p2, ..., p6], (B, `shape.pyramid`, H/stride, W/stride).

    The trunk is the MSRA ResNet: torchvision's puts the stride of a bottleneck into the 3x3 convolution, this one into
    the first 1x1. The pyramid is torchvision's.
    """

    def __init__(self, shape: RCNNShape) -> None:
        super().__init__()
        self.body = ResNet(shape.block, shape.blocks, shape.widths, style="caffe")
        if shape.frozen:
            _freeze(self.body)
        self.fpn = FeaturePyramidNetwork(list(self.body.channels), shape.pyramid, LastLevelMaxPool())

    def forward(self, images: Tensor) -> list[Tensor]:
        stages = self.body.stages(images)
        return list(self.fpn({str(i): stage for i, stage in enumerate(stages)}).values())


def _freeze(trunk: ResNet) -> None:
    """Norms become constants; stem and first stage (detectron2: FREEZE_AT 2) need no gradient."""
    for module in list(trunk.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
    damp_blocks(trunk)
    for name, parameter in trunk.named_parameters():
        if name.startswith(("conv1.", "layer1.")):
            parameter.requires_grad_(False)


def damp_blocks(trunk: nn.Module) -> None:
    """Frozen norms do not normalise random weights: each block would double the variance. So the last one of a block
    starts small, and a network without weights has finite outputs. A checkpoint has its own."""
    for block in trunk.modules():
        if isinstance(getattr(block, "bn3", None), FrozenBatchNorm2d):
            block.bn3.weight.fill_(0.2)


def pyramid_macs(trunk: ResNet, width: int, canvas: Size) -> int:
    """Of a trunk with a pyramid of `width` channels, one image."""
    total = trunk.trunk_macs(canvas)
    for channels, size in zip(trunk.channels, level_sizes(canvas), strict=False):
        total += conv_macs(channels, width, 1, size) + conv_macs(width, width, 3, size)
    return total


class Anchors(nn.Module):
    """Boxes around the cells of each level; what torchvision's RPN takes for its anchor generator.

    torchvision's own rounds the sides to whole pixels, and takes canvas // cells for the stride, which is not the
    level's where p6 has half a cell too many (800 rows: 13 cells of 64, not of 61).
    """

    def __init__(self, sizes: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = tuple(strides)
        sides = torch.tensor([[(size / math.sqrt(r), size * math.sqrt(r)) for r in RATIOS] for size in sizes])
        self.register_buffer("cells", torch.cat([-sides, sides], dim=2) / 2, persistent=False)  # (levels, 3, 4)

    def forward(self, images: ImageList, maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors (A, 4) x1 y1 x2 y2 of each image: by level, row, column, ratio."""
        found = []
        for level, cells, stride in zip(maps, self.cells, self.strides, strict=True):
            rows = torch.arange(level.shape[2], device=cells.device) * stride
            columns = torch.arange(level.shape[3], device=cells.device) * stride
            y, x = torch.meshgrid(rows, columns, indexing="ij")
            corners = torch.stack([x, y, x, y], dim=2)[:, :, None]
            found.append((corners + cells).reshape(-1, 4))
        return [torch.cat(found)] * len(images.image_sizes)


class _Float32Head(RPNHead):
    """torchvision's; boxes are computed in float32 whatever the number format of the convolutions."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        objectness, deltas = super().forward(x)
        return [o.float() for o in objectness], [d.float() for d in deltas]


class ProposalNetwork(RegionProposalNetwork):
    """torchvision's RPN with detectron2's anchors and losses."""

    def __init__(self, shape: RCNNShape) -> None:
        super().__init__(
            Anchors(shape.anchors, STRIDES[-len(shape.anchors) :]),
            _Float32Head(shape.pyramid, len(RATIOS)),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=shape.sampled_anchors,
            positive_fraction=0.5,
            pre_nms_top_n=dict(zip(("training", "testing"), shape.candidates, strict=True)),
            post_nms_top_n=dict(zip(("training", "testing"), shape.proposals, strict=True)),
            nms_thresh=0.7,
        )
        self.levels, self.sampled = len(shape.anchors), shape.sampled_anchors

    def propose(
        self, images: ImageList, maps: Sequence[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Boxes of each image, best first, and the losses (none unless training). `maps`: p2 to p6."""
        return self(images, dict(enumerate(maps[-self.levels :])), targets)

    def raw(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Objectness logits (B, A) and box deltas (B, A, 4)."""
        objectness, deltas = concat_box_prediction_layers(*self.head(list(maps[-self.levels :])))
        return objectness.reshape(len(maps[0]), -1), deltas.reshape(len(maps[0]), -1, 4)

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Binary cross-entropy, and the L1 distance of positives; torchvision smooths the latter (beta 1/9).

        Both are sums over the sampled anchors divided by how many an image *should* have; torchvision divides by how
        many it has.
        """
        positive, negative = (torch.cat(mask).bool().nonzero().squeeze(1) for mask in self.fg_bg_sampler(labels))
        sampled = torch.cat([positive, negative])
        wanted = self.sampled * len(labels)
        truth, target = torch.cat(labels), torch.cat(regression_targets)
        logits = objectness.flatten()[sampled]
        judged = F.binary_cross_entropy_with_logits(logits, truth[sampled], reduction="sum")
        return judged / wanted, F.l1_loss(pred_bbox_deltas[positive], target[positive], reduction="sum") / wanted


def proposal_macs(width: int, levels: int, canvas: Size) -> int:
    """Of the RPN's head on the `levels` coarsest maps of one image."""
    outputs = 5 * len(RATIOS)  # objectness and four deltas
    sizes = level_sizes(canvas)[-levels:]
    return sum(conv_macs(width, width, 3, size) + conv_macs(width, outputs, 1, size) for size in sizes)


def box_head_macs(inputs: int, hidden: int, outputs: int) -> int:
    """Of two hidden layers and their `outputs`, one box."""
    return linear_macs(inputs, hidden) + linear_macs(hidden, hidden) + linear_macs(hidden, outputs)


def image_macs(trace: Mapping[str, Any], dense: Callable[[Size], int], box: int, person: int) -> np.ndarray:
    """(I,) int64: `dense` of each image's canvas, `box` for each of its proposals, `person` for each person."""
    names = ("height", "width", "proposals", "persons")
    height, width, proposals, persons = (np.atleast_1d(np.asarray(trace[name], dtype=np.int64)) for name in names)
    canvases = list(zip(height.tolist(), width.tolist(), strict=True))
    costs = {canvas: dense(canvas) for canvas in set(canvases)}
    return np.array([costs[canvas] for canvas in canvases], dtype=np.int64) + proposals * box + persons * person


def named_outputs(outputs: Sequence[Any]) -> dict[str, Tensor]:
    """What a network found, image by image, under one name each: boxes0, scores0, keypoints0, trace_height0, ..."""
    named: dict[str, Tensor] = {}
    for i, one in enumerate(outputs):
        named |= {f"{part}{i}": getattr(one, part) for part in ("boxes", "scores", "keypoints")}
        named |= {f"trace_{name}{i}": torch.tensor(value) for name, value in one.trace.items()}
    return named
