"""SRPose and the SR head: Wang et al., 'Lightweight Super-Resolution Head for Human Pose Estimation', ACM MM 2023.

Heatmaps as large as the input: from the four stages of a trunk, coarse to fine (SRPose), or in one step from one
feature map of another network (the SR head). Card: srpose.md. Tensor names are the official code's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.method import Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import quick, resnet_names, vit, vit_names
from methods.parts.hrnet import HRNet, HRNetShape
from methods.parts.losses import mse_half
from methods.parts.names import renamed
from methods.parts.resnet import DEPTHS, TINY, ResNet
from methods.parts.srhead import CoarseToFineHead, SRHead, Stages

__all__ = ["VARIANTS", "SRHeadPose", "SRPose"]

_STRIDE = 32  # of the coarsest map of a ResNet or HRNet
_LOSS_WEIGHTS = (1e-4, 1.0, 1.0, 1.0, 1.0)  # of the five training outputs, coarse to fine
_DECONVS = (256, 256, 256)
TrunkOf = Callable[[Size], nn.Module]


class SRPose(nn.Module):
    """(B, 3, H, W) -> heatmaps (B, K, H, W), linear; with a smaller last factor in `stages`, smaller ones.

    `trunk(input_size)` is a network with `stages` at strides 4 to 32. While training, every stage answers: maps at
    H/32, three times at H/4, at H. What only those need is named in `train_only` and not run in `predict`.
    Raises UserError unless H and W are multiples of 32.
    """

    def __init__(self, trunk: TrunkOf, stages: Stages, *, num_joints: int = 17, input_size: Size = (256, 192)) -> None:
        super().__init__()
        _check_size(input_size, _STRIDE)
        self.input_size, self.num_joints = input_size, num_joints
        self.backbone = trunk(input_size)
        self.keypoint_head = CoarseToFineHead(self.backbone.channels, num_joints, stages)
        self.train_only = tuple(f"keypoint_head.{prefix}" for prefix in self.keypoint_head.train_only)

    def forward(self, images: Tensor) -> Tensor:
        return self.keypoint_head(self.backbone.stages(images))

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        return TopDownOutput(exits=[self(images)])

    def forward_raw(
        self, images: Tensor, *, settings: Mapping[str, Any], train: bool = False, rois: Tensor | None = None
    ) -> dict[str, Tensor]:
        """exit0; with `train` the five training outputs as train0 to train4, coarse to fine."""
        if rois is not None:
            raise UserError("SRPose has no regions of its own")
        if not train:
            return {"exit0": self(images)}
        outputs = self._all_outputs(images)
        return {"exit0": outputs[-1]} | {f"train{i}": maps for i, maps in enumerate(outputs)}

    def macs(self, trace: Trace) -> int:
        """The same for every person; without the training outputs."""
        height, width = self.input_size
        sizes = [(height // stride, width // stride) for stride in (4, 8, 16, 32)]
        return self.backbone.trunk_macs(self.input_size) + self.keypoint_head.macs(sizes)

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """JointsMSE without the factor 0.5 at every stage; a small map's target is the block mean (card 2.3)."""
        outputs = self._all_outputs(batch.images)
        pooled = {maps.shape[2:]: F.adaptive_avg_pool2d(batch.target, maps.shape[2:]) for maps in outputs[:2]}
        targets = [pooled.get(maps.shape[2:], batch.target) for maps in outputs]
        return {
            f"hp{i}_2d_loss": factor * 2 * mse_half(maps, target, batch.weight)
            for i, (factor, maps, target) in enumerate(zip(_LOSS_WEIGHTS, outputs, targets, strict=True))
        }

    def _all_outputs(self, images: Tensor) -> list[Tensor]:
        return self.keypoint_head.all_outputs(self.backbone.stages(images))


class SRHeadPose(nn.Module):
    """(B, 3, H, W) -> heatmaps (B, K, H, W), linear: the SR head on the last map of `trunk(input_size)`.

    `deconvs` double that map, of `channels` channels, to stride 4. Raises UserError unless H and W are multiples of
    `multiple`.
    """

    def __init__(
        self,
        trunk: TrunkOf,
        channels: int,
        deconvs: Sequence[int],
        *,
        multiple: int = _STRIDE,
        num_joints: int = 17,
        input_size: Size = (256, 192),
    ) -> None:
        super().__init__()
        _check_size(input_size, multiple)
        self.input_size, self.num_joints, self.stride = input_size, num_joints, 4 << len(deconvs)
        self.backbone = trunk(input_size)
        self.keypoint_head = SRHead(channels, num_joints, deconvs=deconvs)

    def forward(self, images: Tensor) -> Tensor:
        return self.keypoint_head(self.backbone.stages(images)[-1])

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        return TopDownOutput(exits=[self(images)])

    def macs(self, trace: Trace) -> int:
        """The same for every person."""
        height, width = self.input_size
        head = self.keypoint_head.macs((height // self.stride, width // self.stride))
        return self.backbone.trunk_macs(self.input_size) + head

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """JointsMSE without the factor 0.5, as the last output of SRPose."""
        return {"heatmap": 2 * mse_half(self(batch.images), batch.target, batch.weight)}

    def adapt_state(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """`state` (own names) with its position embedding on this grid, where the trunk has one."""
        adapt = getattr(self.backbone, "adapt_state", None)
        return adapt(state, "backbone.") if adapt else (dict(state), [])


def _check_size(size: Size, multiple: int) -> None:
    if size[0] % multiple or size[1] % multiple:
        raise UserError(f"input size {size[0]}x{size[1]}", expected=f"multiples of {multiple}")


def _resnet(depth: int, size: Size) -> nn.Module:
    return ResNet(*DEPTHS[depth])


def _hrnet(width: int, multiscale: bool, size: Size) -> nn.Module:
    return HRNet(HRNetShape(width), multiscale_output=multiscale)


def _vit_b(size: Size) -> nn.Module:
    return vit.PoseViT(768, 12, 12, size, drop_path=0.3)


def _tiny_trunk(size: Size) -> nn.Module:
    # simplebaseline_tiny's three stages, whose weights they start from, and a fourth, as the head joins four maps
    return ResNet(TINY["block"], (*TINY["blocks"], 1), (*TINY["widths"], 128))


# maps half as large as the input: at full size a CPU spends most of a training on targets and loss
_TINY_STAGES = Stages(widths=(64, 48, 32, 32), embeddings=(4, 4, 4, 4), kernels=(3, 3, 3, 3), factors=(8, 4, 2, 2))


def _build_srpose(trunk: TrunkOf, stages: Stages, **options: Any) -> nn.Module:
    return SRPose(trunk, stages, **options)


def _build_srhead(trunk: TrunkOf, channels: int, deconvs: Sequence[int], **options: Any) -> nn.Module:
    return SRHeadPose(trunk, channels, deconvs, **options)


_CLASSIFIER = ("incre_modules.", "downsamp_modules.", "final_layer.", "classifier.")


def _official(head_key: str, trunk_key: str) -> Layout:
    return Layout(
        "official",
        matches=lambda keys: f"keypoint_head.{head_key}" in keys and f"backbone.{trunk_key}" in keys,
        to_own=dict,
        from_own=dict,
    )


def _imagenet(multiscale: bool) -> Layout:
    """HRNet's classification files, which use all four outputs of the last module."""
    coarser = () if multiscale else tuple(f"stage4.2.fuse_layers.{i}." for i in (1, 2, 3))
    return Layout(
        "imagenet",
        matches=lambda keys: "final_layer.weight" not in keys and "transition1.0.0.weight" in keys,
        to_own=partial(renamed, prefixes=(("", "backbone."),)),
        ignores=(*coarser, *_CLASSIFIER),
        partial=True,
    )


_SRPOSE, _SRHEAD = "converge.3.conv.weight", "heatmap_head.weight"
_RESNET, _HRNET, _VIT = "layer4.0.conv1.weight", "transition1.0.0.weight", "blocks.0.attn.qkv.weight"

# QUIRK: the official code adds the quarter offset whatever its configuration says (its rows "w/o Post." need
# decoder argmax). Its flip shift copies a tensor onto itself in place, which smears it on a CPU; ours does not.
# Of a map without a positive value it answers the last cell, ours (0, 0) as HRNet's code does; the score is 0 or less
# either way.
_PROTOCOL = PoseProtocol(codec="biased", decoder="quarter", dialect="hrnet")

_OFFICIAL = Recipe(
    epochs=210,
    batch=256,
    lr=5e-4,
    milestones=(170, 200),
    warmup_steps=500,
    target=TargetSpec("msra", sigma=8.0, stride=1),
    augmentation=Augmentation(dialect="mmpose0", scale=0.5, rotation=40.0, shift=0.2, shift_prob=0.3),
    loss="squared error of each of the five outputs, mean over persons, joints and pixels; weights 0.0001, 1, 1, 1, 1",
    source="haonanwang0522/SRPose@30d6cfe, SRPose configs for COCO 256x192",
    differs=("batch 256 is 32 on each of 8 devices; the configuration states 32, its launch script 8",),
)
_SRHEAD_OFFICIAL = replace(
    _OFFICIAL,
    loss="squared error, mean over persons, joints and pixels of the heatmap",
    differs=(*_OFFICIAL.differs, "no top-down configuration of the SR head is published: SRPose's"),
)
_LIGHT = Augmentation(**quick.LIGHT)
_QUICK = Recipe(
    epochs=30, target=TargetSpec("msra", sigma=6.0, stride=1), augmentation=_LIGHT, **quick.QUICK | {"lr": 1e-3}
)
_TINY_QUICK = Recipe(
    epochs=8,
    target=TargetSpec("unbiased", sigma=3.0, stride=2),
    trunk="simplebaseline",
    augmentation=_LIGHT,
    **quick.TINY | {"differs": quick.differs("made for simplebaseline_tiny's trunk")},
)


def _variant(
    name: str, build: Callable[..., Any], layouts: tuple[Layout, ...], recipe: Recipe, note: str = ""
) -> Variant:
    trunk = next((layout.name for layout in layouts if layout.partial), "")
    return Variant(
        name=name,
        method="srpose",
        build=build,
        protocol=_PROTOCOL,
        layouts=layouts,
        recipes={
            "official": replace(recipe, trunk=trunk, input_size=(256, 192)),
            "quick": _QUICK,
        },
        note=note,
        source="arXiv 2307.16765",
    )


def _srpose(name: str, trunk: TrunkOf, layouts: tuple[Layout, ...]) -> Variant:
    return _variant(name, partial(_build_srpose, trunk, Stages()), layouts, _OFFICIAL)


VARIANTS = (
    _srpose("srpose_r50", partial(_resnet, 50), (_official(_SRPOSE, _RESNET), Layout(**resnet_names.TORCHVISION))),
    *(
        _srpose(f"srpose_hrnet_w{w}", partial(_hrnet, w, True), (_official(_SRPOSE, _HRNET), _imagenet(True)))
        for w in (32, 48)
    ),
    _variant(
        "simplebaseline_r50_srhead",
        partial(_build_srhead, partial(_resnet, 50), 2048, _DECONVS),
        (_official(_SRHEAD, _RESNET), Layout(**resnet_names.TORCHVISION)),
        _SRHEAD_OFFICIAL,
    ),
    _variant(
        "hrnet_w32_srhead",
        partial(_build_srhead, partial(_hrnet, 32, False), 32, ()),
        (_official(_SRHEAD, _HRNET), _imagenet(False)),
        _SRHEAD_OFFICIAL,
    ),
    _variant(
        "vitpose_b_srhead",
        partial(_build_srhead, _vit_b, 768, _DECONVS[:2], multiple=16),
        (_official(_SRHEAD, _VIT), Layout(**vit_names.MAE)),
        _SRHEAD_OFFICIAL,
        note="the SR head behind ViTPose's trunk and deconvolutions; not a published network",
    ),
    Variant(
        name="srpose_tiny",
        method="srpose",
        build=partial(_build_srpose, _tiny_trunk, _TINY_STAGES),
        input_size=(128, 96),
        # trained on unbiased targets, whose sub-pixel step at 64x48 is worth more than at full size
        protocol=PoseProtocol(codec="unbiased", decoder="dark", blur_kernel=17),  # DARK's kernel for sigma 3
        layouts=(_official(_SRPOSE, _RESNET), Layout(**resnet_names.SIMPLEBASELINE)),
        recipes={
            "quick": _TINY_QUICK,
            "official": replace(_OFFICIAL, target=TargetSpec("msra", sigma=4.0, stride=2)),
        },
        note="small enough to train on a CPU in minutes, heatmaps half as large as the input; not a published network",
        source="arXiv 2307.16765, scaled down",
    ),
)
