"""Mask R-CNN for keypoints (He et al., ICCV 2017) and the refined one (arXiv 2301.04842): one network, whole images.

Trunk and pyramid -> proposals -> boxes -> keypoints of every box. The paper's changes are knobs of the last step.
The arithmetic is detectron2's. Card: maskrcnn.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNPredictor

from harness.errors import WeightsError
from harness.method import Knob, Layout, OneStageOutput, PoseProtocol, Size, Trace, Variant
from harness.train.recipes import ImageAugmentation, ImageBatch, Progress, Recipe
from methods.parts import rcnn_names as names
from methods.parts.rcnn import (
    ProposalNetwork,
    Pyramid,
    RCNNShape,
    image_macs,
    named_outputs,
    on_canvas,
    proposal_macs,
    pyramid_macs,
)
from methods.parts.rcnn_boxes import BoxBranch, Positives, targets_of
from methods.parts.rcnn_keypoints import SIZE, decoded, keypoint_head, keypoint_head_macs, keypoint_loss
from methods.parts.rcnn_regions import beyond_edges, enlarged, pooled, refuse_huge
from methods.parts.resnet import BasicBlock

__all__ = ["VARIANTS", "Changes", "MaskRCNN"]

_AT_ONCE = 128  # regions in one forward of the keypoint head, when not training
_SCORE, _PROPOSALS = 0.05, 1000


@dataclass(frozen=True)
class Changes:
    """What the refined Mask R-CNN changes about the keypoint branch; the defaults are the baseline (card 2)."""

    keypoint_levels: str = "p2-p5"
    enlarge: float = 1.0
    border_pad: bool = False
    gcm: str = "none"


class MaskRCNN(nn.Module):
    """Images -> persons: box, score, keypoints. `input_size` is that of a typical image; any size is accepted."""

    def __init__(self, shape: RCNNShape, changes: Changes, *, num_joints: int, input_size: Size) -> None:
        super().__init__()
        self.input_size, self.num_joints, self.shape = input_size, num_joints, shape
        self.backbone = Pyramid(shape)
        self.rpn = ProposalNetwork(shape)
        self.box = BoxBranch(shape)
        self.keypoint = KeypointBranch(shape, changes, num_joints)

    def predict(self, images: Sequence[Tensor], settings: Mapping[str, Any]) -> list[OneStageOutput]:
        """Images (3, h, w), normalised -> their persons, at most 100 each. All are padded to one canvas: together they
        give what each gives alone on a canvas of that size. UserError for a canvas that is too large."""
        if not images:
            return []
        batch = on_canvas(images)
        return self._persons(batch, self.backbone(batch.tensors), settings)

    def _persons(self, batch: ImageList, maps: Sequence[Tensor], settings: Mapping[str, Any]) -> list[OneStageOutput]:
        proposals, _ = self.rpn.propose(batch, maps)
        proposals = [boxes[: int(settings.get("proposals", _PROPOSALS))] for boxes in proposals]
        threshold = settings.get("score_threshold", _SCORE)
        boxes, scores = self.box(maps[:4], proposals, batch.image_sizes, threshold)
        keypoints = self.keypoint(maps[:4], boxes).split([len(b) for b in boxes])
        height, width = batch.tensors.shape[2:]
        traces = [
            {"height": int(height), "width": int(width), "proposals": len(p), "persons": len(b)}
            for p, b in zip(proposals, boxes, strict=True)
        ]
        return [OneStageOutput(*parts) for parts in zip(boxes, scores, keypoints, traces, strict=True)]

    def losses(self, batch: ImageBatch, progress: Progress) -> dict[str, Tensor]:
        """The five losses of detectron2, each with weight 1 (card 1). `batch.crowd` is not looked at.

        QUIRK: as in detectron2, a crowd's annotation is dropped, and what is found in it counts as background.
        """
        extent = [(b[:, 2:] > b[:, :2]).all(dim=1) for b in batch.boxes]  # a box without one has no logarithm
        boxes, joints, visible = (
            [one[e] for one, e in zip(part, extent, strict=True)] for part in (batch.boxes, batch.joints, batch.visible)
        )
        canvas, targets = on_canvas(batch.images), targets_of(boxes)
        maps = self.backbone(canvas.tensors)
        proposals, found = self.rpn.propose(canvas, maps, targets)
        judged, positives = self.box.losses(maps[:4], proposals, targets, progress.pooled)
        return found | judged | {"loss_keypoint": self.keypoint.loss(maps[:4], positives, joints, visible, progress)}

    def forward_raw(
        self, images: Tensor, *, settings: Mapping[str, Any], train: bool = False, rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        """feat_p2 to feat_p6, and with `rois` (n, 4), boxes of image 0, roi_features, roi_logits and keypoints; without
        them boxes0, scores0, keypoints0, ... of the persons found. `train` adds train0 and train1, objectness logits
        (B, A) and deltas (B, A, 4) of all anchors.
        """
        batch = on_canvas(list(images))
        maps = self.backbone(batch.tensors)
        named = {f"feat_p{i}": level for i, level in enumerate(maps, start=2)}
        if train:
            named["train0"], named["train1"] = self.rpn.raw(maps)
        if rois is None:
            return named | named_outputs(self._persons(batch, maps, settings))
        first = [level[:1] for level in maps[:4]]
        regions = self.keypoint.regions([rois])
        named["roi_features"] = self.keypoint.features(first, regions)
        named["roi_logits"] = self.keypoint.logits(named["roi_features"])
        return named | {"keypoints": decoded(named["roi_logits"], regions[0])}

    def adapt_state(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """`state` as it is. WeightsError where its keypoint head has other parts than this network's (knob `gcm`)."""
        surplus, missing = names.head_difference(state, self.state_dict())
        if surplus or missing:
            raise WeightsError(
                f"the keypoint head of the weights is another one than gcm={self.keypoint.changes.gcm}",
                expected="; ".join([*(f"no {key}" for key in surplus[:2]), *missing[:2]]),
                hint="set the knob gcm to what the weights were trained with",
            )
        return dict(state), []

    def macs(self, trace: Trace) -> np.ndarray:
        """Of each image: what its canvas costs, and linear in its proposals and its persons."""
        return image_macs(trace, self._canvas_macs, self.box.macs(), self.keypoint.macs())

    def _canvas_macs(self, canvas: Size) -> int:
        width = self.shape.pyramid
        return pyramid_macs(self.backbone.body, width, canvas) + proposal_macs(width, self.rpn.levels, canvas)


class KeypointBranch(nn.Module):
    """Boxes of each image (n, 4), on the maps p2 to p5 -> keypoints (N, K, 3) x y score, image after image."""

    def __init__(self, shape: RCNNShape, changes: Changes, num_joints: int) -> None:
        super().__init__()
        self.changes, self.num_joints = changes, num_joints
        sizes = shape.pyramid, shape.keypoint_width, shape.keypoint_convs
        self.head = keypoint_head(*sizes, changes.gcm, shape.attention_heads)
        self.predictor = KeypointRCNNPredictor(shape.keypoint_width, num_joints)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        regions = self.regions(boxes)
        return decoded(self.logits(self.features(maps, regions)), torch.cat(regions))

    def regions(self, boxes: Sequence[Tensor]) -> list[Tensor]:
        """What of the image the branch looks at for each box. UserError for one that no machine could decode."""
        return [refuse_huge(enlarged(one, self.changes.enlarge)) for one in boxes]

    def features(self, maps: Sequence[Tensor], regions: Sequence[Tensor]) -> Tensor:
        """(N, C, 14, 14)."""
        canvas = (4 * maps[0].shape[2], 4 * maps[0].shape[3])
        levels = maps[:1] if self.changes.keypoint_levels == "p2" else maps
        beyond = beyond_edges(regions, canvas) if self.changes.border_pad else None
        return pooled(levels, regions, SIZE, beyond)

    def logits(self, features: Tensor) -> Tensor:
        """(N, K, 56, 56). Many regions go through the head in parts; norms must see all of a training batch."""
        parts = (features,) if self.training else features.split(_AT_ONCE)
        return torch.cat([self.predictor(self.head(part)) for part in parts]).float()

    def loss(
        self,
        maps: Sequence[Tensor],
        positives: Positives,
        joints: Sequence[Tensor],
        visible: Sequence[Tensor],
        progress: Progress,
    ) -> Tensor:
        """`keypoint_loss` over the positive proposals that hold a visible joint of their person. `joints` (n, K, 2)
        and `visible` (n, K) of the annotated persons of each image."""
        boxes, truth, seen = [], [], []
        for box, person, places, v in zip(positives.boxes, positives.persons, joints, visible, strict=True):
            points, flags = places[person], v[person]
            inside = ((points >= box[:, None, :2]) & (points <= box[:, None, 2:])).all(dim=2)
            useful = (inside & (flags > 0)).any(dim=1)
            boxes.append(box[useful])
            truth.append(points[useful])
            seen.append(flags[useful])
        regions = self.regions(boxes)
        logits = self.logits(self.features(maps, regions))
        return keypoint_loss(logits, torch.cat(regions), torch.cat(truth), torch.cat(seen), progress.pooled)

    def macs(self) -> int:
        """Of one region."""
        return keypoint_head_macs(self.head, self.num_joints)


def _build(
    shape: RCNNShape,
    *,
    num_joints: int = 17,
    input_size: Size = (800, 1333),
    **changes: Any,
) -> nn.Module:
    return MaskRCNN(shape, Changes(**changes), num_joints=num_joints, input_size=input_size)


_BASELINE = Changes()
_REFINED = Changes("p2", 1.3, True, "both")


def _knobs(changes: Changes) -> tuple[Knob, ...]:
    return (
        Knob("keypoint_levels", "build", changes.keypoint_levels, "maps that keypoint features are taken from: by "
             "the size of the person, or the finest alone", ("p2-p5", "p2")),
        Knob("enlarge", "build", changes.enlarge, "boxes grow by this for the keypoint branch", low=0.5, high=5),
        Knob("border_pad", "build", changes.border_pad, "the world outside the image is zero to the keypoint branch, "
             "not the image's last cell", (True, False)),
        Knob("gcm", "build", changes.gcm, "global context modules in the keypoint head: none, before the first "
             "convolution, and in the middle too", ("none", "first", "both")),
        Knob("score_threshold", "run", _SCORE, "persons below this score get no keypoints", low=0, high=1),
        Knob("proposals", "run", _PROPOSALS, "proposals of an image that the box head looks at", low=1, high=1000),
    )  # fmt: skip


# detectron2 feeds 0 to 255, BGR, minus the mean
_PROTOCOL = PoseProtocol(
    flip=False,
    rescore=False,
    nms="none",
    colour="bgr",
    mean=(103.53 / 255, 116.28 / 255, 123.675 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    results_with_bbox=True,
    shortest_edge=800,
    longest_edge=1333,
    resizing="detectron2",
)

_LAYOUTS = tuple(Layout(**layout) for layout in names.LAYOUTS)


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, object]]:
    """No weight decay for norms (detectron2: WEIGHT_DECAY_NORM 0)."""
    norms = {id(p) for m in network.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    trained = [p for p in network.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in norms]},
        {"params": [p for p in trained if id(p) in norms], "weight_decay": 0.0},
    ]


_LOSS = (
    "RPN: cross-entropy + L1 of sampled anchors; boxes: cross-entropy + smooth L1 (beta 0.5) of sampled proposals; "
    "keypoints: cross-entropy over 56 x 56 cells by visible joint; weights 1"
)


def _official(batch: int, source: str, *differs: str) -> Recipe:
    """detectron2's 3x schedule: 270,000 steps of 16 images, and for another batch as many images at a rate in
    proportion. The 1,000 steps of warm-up stay."""
    return Recipe(
        epochs=76,  # of the 56,599 images of COCO train2017 that have keypoints
        steps=270_000 * 16 // batch,
        batch=batch,
        lr=0.02 * batch / 16,
        optimiser="sgd",
        momentum=0.9,
        weight_decay=1e-4,
        milestones=(210_000 * 16 // batch, 250_000 * 16 // batch),
        warmup_steps=1000,
        warmup_ratio=0.001,
        loss=_LOSS,
        augmentation=ImageAugmentation(),
        groups=_groups,
        trunk="msra",
        source=source,
        differs=("images of a step are not chosen by aspect ratio, as detectron2's loader does", *differs),
    )


_OFFICIAL = _official(16, "facebookresearch/detectron2@55c0078, COCO-Keypoints/keypoint_rcnn_R_50_FPN_3x")
_REFINED_OFFICIAL = _official(
    2,
    "lingl-space/maskrcnn_keypoint_refined@03b89d8, README: one GPU, 2 images a step",
    "the ring around a region depends on its own image alone, in the published code on all of a step",
)
_QUICK = Recipe(
    epochs=20,
    batch=8,
    lr=2e-3,
    optimiser="adamw",
    weight_decay=1e-2,
    clip_norm=5.0,
    schedule="cosine",
    warmup_steps=100,
    warmup_ratio=0.05,
    loss=_LOSS,
    augmentation=ImageAugmentation(short_sides=(176, 192), longest=256),
    groups=_groups,
    differs=("own recipe for the synthetic set: short, AdamW, no pretrained trunk, norms are trained",),
)


def _variant(depth: int, refined: bool) -> Variant:
    blocks = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}[depth]
    changes = _REFINED if refined else _BASELINE
    return Variant(
        name=f"maskrcnn_{'refined_' if refined else ''}r{depth}",
        method="maskrcnn",
        build=partial(_build, RCNNShape(blocks=blocks), **vars(changes)),
        input_size=(800, 1333),
        paradigm="one-stage",
        protocol=_PROTOCOL,
        knobs=_knobs(changes),
        layouts=_LAYOUTS,
        recipes={"official": _REFINED_OFFICIAL if refined else _OFFICIAL},
        source="arXiv 2301.04842" if refined else "arXiv 1703.06870",
    )


_TINY = RCNNShape(
    block=BasicBlock,
    blocks=(1, 1, 1, 1),
    widths=(16, 32, 64, 96),
    frozen=False,
    pyramid=32,
    anchors=(40, 72, 120, 190),
    fc=64,
    keypoint_width=32,
    keypoint_convs=4,
    attention_heads=1,
    candidates=(200, 200),
    proposals=(100, 50),
    sampled_anchors=64,
    sampled_boxes=32,
)

VARIANTS = (
    *(_variant(depth, refined) for refined in (False, True) for depth in (50, 101)),
    Variant(
        name="maskrcnn_tiny",
        method="maskrcnn",
        build=partial(_build, _TINY, **vars(_REFINED)),
        input_size=(192, 256),
        paradigm="one-stage",
        protocol=_PROTOCOL.model_copy(update={"shortest_edge": 192, "longest_edge": 256}),
        knobs=_knobs(_REFINED),
        layouts=_LAYOUTS[:1],
        recipes={"quick": _QUICK, "official": replace(_REFINED_OFFICIAL, trunk="")},
        note="small enough to train on a CPU in minutes; not a published network",
        source="arXiv 2301.04842, scaled down",
    ),
)
