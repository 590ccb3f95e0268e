"""torchvision's Keypoint R-CNN as it is: Mask R-CNN for keypoints (He et al., ICCV 2017). Card: maskrcnn.md 1.

The same network as maskrcnn_r50 with another arithmetic (stride of a bottleneck in the 3x3 convolution, unaligned
ROIAlign with 2 x 2 samples, deltas for the background too, RGB in 0..1): weights of one do not fit the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import detection
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from harness.method import Layout, OneStageOutput, PoseProtocol, Size, Trace, Variant
from harness.train.recipes import ImageAugmentation, ImageBatch, Progress, Recipe
from methods.parts import rcnn_names as names
from methods.parts.arithmetic import conv_macs, deconv_macs
from methods.parts.names import renamed
from methods.parts.rcnn import (
    box_head_macs,
    damp_blocks,
    image_macs,
    named_outputs,
    on_canvas,
    proposal_macs,
    pyramid_macs,
)
from methods.parts.rcnn_regions import refuse_huge
from methods.parts.resnet import DEPTHS, ResNet

__all__ = ["VARIANTS", "KeypointRCNN"]

_WIDTH, _HIDDEN, _LEVELS, _ROI, _KEYPOINT = 256, 1024, 5, (14, 14), 512


class KeypointRCNN(nn.Module):
    """Images -> persons: box, score, keypoints with the logit at the peak as their score.

    torchvision's own resizing and normalisation (`transform`) are not run: images come as the protocol makes them.
    """

    def __init__(self, *, num_joints: int = 17, input_size: Size = (800, 1333)) -> None:
        super().__init__()
        self.input_size, self.num_joints = input_size, num_joints
        trunk = resnet_fpn_backbone(backbone_name="resnet50", weights=None, trainable_layers=3)
        damp_blocks(trunk)
        self.network = detection.KeypointRCNN(trunk, num_classes=2, num_keypoints=num_joints)
        for pool in (self.network.roi_heads.box_roi_pool, self.network.roi_heads.keypoint_roi_pool):
            _fix_strides(pool)

    def predict(self, images: Sequence[Tensor], settings: Mapping[str, Any]) -> list[OneStageOutput]:
        """Images (3, h, w), normalised -> their persons, at most 100 each. UserError for a canvas that is too large."""
        if not images:
            return []
        batch = on_canvas(images)
        return self._persons(batch, self.network.backbone(batch.tensors))

    def _persons(self, batch: ImageList, maps: dict[str, Tensor]) -> list[OneStageOutput]:
        proposals, _ = self.network.rpn(batch, maps)
        found, _ = self.network.roi_heads(maps, proposals, batch.image_sizes)
        height, width = (int(side) for side in batch.tensors.shape[2:])
        outputs = []
        for boxes, one in zip(proposals, found, strict=True):
            keypoints = torch.cat([one["keypoints"][..., :2], one["keypoints_scores"][..., None]], dim=2)
            trace = {"height": height, "width": width, "proposals": len(boxes), "persons": len(one["boxes"])}
            outputs.append(OneStageOutput(one["boxes"], one["scores"], keypoints, trace))
        return outputs

    def losses(self, batch: ImageBatch, progress: Progress) -> dict[str, Tensor]:
        """torchvision's five losses. `batch.crowd` is not looked at: what is found there counts as background."""
        targets = []
        for boxes, joints, visible in zip(batch.boxes, batch.joints, batch.visible, strict=True):
            extent = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)  # a box without one has no logarithm
            labels = torch.ones(int(extent.sum()), dtype=torch.int64, device=boxes.device)
            keypoints = torch.cat([joints, visible[..., None].to(joints.dtype)], dim=2)[extent]
            targets.append({"boxes": boxes[extent], "labels": labels, "keypoints": keypoints.float()})
        images = on_canvas(batch.images)
        maps = self.network.backbone(images.tensors)
        proposals, of_proposals = self.network.rpn(images, maps, targets)
        _, of_boxes = self.network.roi_heads(maps, proposals, images.image_sizes, targets)
        return {**of_proposals, **of_boxes}

    def forward_raw(
        self, images: Tensor, *, settings: Mapping[str, Any], train: bool = False, rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        """feat_p2 to feat_p6, and with `rois` (n, 4), boxes of image 0, roi_features, roi_logits and keypoints; without
        them boxes0, scores0, keypoints0, ... of the persons found. `train` adds nothing: training needs no other layer.
        """
        batch = on_canvas(list(images))
        maps = self.network.backbone(batch.tensors)
        named = {f"feat_p{i}": level for i, level in enumerate(maps.values(), start=2)}
        if rois is None:
            return named | named_outputs(self._persons(batch, maps))
        rois, heads = refuse_huge(rois), self.network.roi_heads
        first = {name: level[:1] for name, level in maps.items()}
        features = heads.keypoint_roi_pool(first, [rois], batch.image_sizes[:1])
        logits = heads.keypoint_predictor(heads.keypoint_head(features))
        points, scores = detection.roi_heads.heatmaps_to_keypoints(logits, rois)
        keypoints = torch.cat([points[..., :2], scores[..., None]], dim=2)
        return {**named, "roi_features": features, "roi_logits": logits, "keypoints": keypoints}

    def macs(self, trace: Trace) -> np.ndarray:
        """Of each image: what its canvas costs, and linear in its proposals and its persons."""
        box = box_head_macs(_WIDTH * 7 * 7, _HIDDEN, 2 + 8)
        person = conv_macs(_WIDTH, _KEYPOINT, 3, _ROI) + 7 * conv_macs(_KEYPOINT, _KEYPOINT, 3, _ROI)
        return image_macs(trace, _canvas_macs, box, person + deconv_macs(_KEYPOINT, self.num_joints, 4, _ROI))


def _canvas_macs(canvas: Size) -> int:
    with torch.device("meta"):
        trunk = ResNet(*DEPTHS[50])  # torchvision's, layer by layer
    return pyramid_macs(trunk, _WIDTH, canvas) + proposal_macs(_WIDTH, _LEVELS, canvas)


def _fix_strides(pool: MultiScaleRoIAlign) -> None:
    """torchvision infers the strides from the first image that it sees, wrongly from one that its canvas is much
    larger than."""
    pool.scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    pool.map_levels = initLevelMapper(2, 5, canonical_scale=224, canonical_level=4)


_LAYOUTS = (
    Layout(
        "torchvision",
        matches=lambda keys: "roi_heads.keypoint_head.0.weight" in keys,
        to_own=names.from_torchvision,
        from_own=names.to_torchvision,
    ),
    Layout("own", matches=lambda keys: "network.roi_heads.keypoint_head.0.weight" in keys, to_own=dict, from_own=dict),
    Layout(
        "imagenet",  # torchvision's ResNet-50
        matches=lambda keys: "layer4.0.conv1.weight" in keys and "deconv_layers.0.weight" not in keys,
        to_own=partial(renamed, prefixes=(("", "network.backbone.body."),)),
        ignores=("fc.",),
        partial=True,
    ),
)

_OFFICIAL = Recipe(
    epochs=46,
    batch=16,
    lr=0.02,
    optimiser="sgd",
    momentum=0.9,
    weight_decay=1e-4,
    milestones=(36, 43),
    warmup_steps=1000,
    warmup_ratio=0.001,
    loss="torchvision's: RPN cross-entropy + smooth L1 (beta 1/9), boxes likewise, keypoints cross-entropy; weights 1",
    augmentation=ImageAugmentation(),
    trunk="imagenet",
    source="torchvision references/detection: 8 GPUs, 2 images each, 46 epochs, steps 36 and 43",
    differs=(
        "images of a step are not chosen by aspect ratio, and one labelled joint makes an image usable, not ten",
        "losses are normalised in each process, as torchvision's own are",
    ),
)

VARIANTS = (
    Variant(
        name="keypointrcnn_r50_tv",
        method="keypointrcnn",
        build=KeypointRCNN,
        input_size=(800, 1333),
        paradigm="one-stage",
        protocol=PoseProtocol(flip=False, rescore=False, nms="none", resizing="torchvision"),
        layouts=_LAYOUTS,
        recipes={"official": _OFFICIAL},
        source="arXiv 1703.06870",
    ),
)
