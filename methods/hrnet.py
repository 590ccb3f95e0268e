"""HRNet: Sun et al., 'Deep High-Resolution Representation Learning for Human Pose Estimation', CVPR 2019.

The trunk keeps a stride-4 branch throughout, the head is one 1x1 convolution on it. Card: hrnet.md A, E, F.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from harness.method import Knob, Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import quick
from methods.parts.heads import final_layer, final_layer_macs
from methods.parts.hrnet import HRNet, HRNetShape
from methods.parts.losses import MAP_LOSSES, OTHER_LOSSES, SQUARED_ERROR, as_heatmaps, heatmap_loss, start_from_prior
from methods.parts.names import renamed

__all__ = ["VARIANTS", "HRNetPose"]

_STRIDE = 32  # of the coarsest branch


class HRNetPose(HRNet):
    """(B, 3, H, W) -> heatmaps (B, K, H/4, W/4), linear; logits where `loss` is one on logits.

    Raises UserError unless H and W are multiples of 32.
    """

    def __init__(
        self, shape: HRNetShape, *, num_joints: int = 17, input_size: Size = (256, 192), loss: str = "mse_half"
    ) -> None:
        if input_size[0] % _STRIDE or input_size[1] % _STRIDE:
            raise UserError(f"input size {input_size[0]}x{input_size[1]}", expected=f"multiples of {_STRIDE}")
        super().__init__(shape)
        self.input_size, self.num_joints, self.loss = input_size, num_joints, loss
        self.final_layer = final_layer(self.channels[0], num_joints)
        start_from_prior(self.final_layer, loss)

    def forward(self, images: Tensor) -> Tensor:
        return self.final_layer(self.stages(images)[0])

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        return TopDownOutput(exits=[as_heatmaps(self(images), self.loss)])

    def macs(self, trace: Trace) -> int:
        """The same for every person."""
        finest = (self.input_size[0] // 4, self.input_size[1] // 4)
        return self.trunk_macs(self.input_size) + final_layer_macs(self.channels[0], self.num_joints, finest)

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """JointsMSE with the factor 0.5 (card E), or the loss of the knob."""
        return {"heatmap": heatmap_loss(self.loss, self(batch.images), batch, progress)}


def _build(shape: HRNetShape, **options: Any) -> nn.Module:
    return HRNetPose(shape, **options)


def _mmpose(name: str, head: str) -> Layout:
    return Layout(
        name,
        matches=lambda keys: f"{head}.final_layer.weight" in keys and "backbone.transition1.0.0.weight" in keys,
        to_own=partial(renamed, prefixes=((f"{head}.", ""), ("backbone.", ""))),
        from_own=partial(renamed, prefixes=(("final_layer.", f"{head}.final_layer."), ("", "backbone."))),
        ignores=("data_preprocessor.",),
    )


_LAYOUTS = (
    Layout(
        "official",
        matches=lambda keys: "final_layer.weight" in keys and "transition1.0.0.weight" in keys,
        to_own=dict,
        from_own=dict,
    ),
    _mmpose("mmpose0", "keypoint_head"),
    _mmpose("mmpose1", "head"),
    Layout(
        "imagenet",  # the official classification files, and timm's, which have the same names
        matches=lambda keys: "final_layer.weight" not in keys and "transition1.0.0.weight" in keys,
        to_own=dict,
        # a classifier uses all four outputs of the last module and puts its own layers behind them
        ignores=(
            *(f"stage4.2.fuse_layers.{i}." for i in (1, 2, 3)),
            "incre_modules.",
            "downsamp_modules.",
            "final_layer.",
            "classifier.",
        ),
        partial=True,
    ),
)

_OFFICIAL = Recipe(
    epochs=210,
    batch=128,
    lr=1e-3,
    milestones=(170, 200),
    target=TargetSpec("msra", 2.0, 4),
    augmentation=Augmentation(scale=0.35, rotation=45.0, half_body=0.3),
    loss=f"0.5 x {SQUARED_ERROR}",
    trunk="imagenet",
    source="leoxiaobin/deep-high-resolution-net.pytorch@6f69e46, experiments/coco/hrnet",
    differs=(
        "weight decay 0: the YAML's 1e-4 is used by SGD only, never by Adam",
        "the rate drops at the stated epochs; the official code under torch >= 1.1 drops one epoch early",
    ),
)
_MMPOSE0 = replace(
    _OFFICIAL,
    batch=512,
    lr=5e-4,
    warmup_steps=500,
    augmentation=Augmentation("mmpose0", scale=0.5, rotation=40.0, shift=0.2, shift_prob=0.3),
    source="mmpose 0.x, topdown_heatmap/coco/hrnet_w*_coco_256x192 (8 GPUs x 64, W48 8 x 32)",
    differs=("the loss keeps HRNet's factor 0.5, which Adam does not feel",),
)
_MMPOSE1 = replace(
    _MMPOSE0,
    augmentation=Augmentation("mmpose1", scale=0.5, rotation=80.0, shift=0.16, shift_prob=0.3),
    source="mmpose 1.x, topdown_heatmap/coco/td-hm_hrnet-w*_8xb*-210e_coco-256x192",
    differs=(
        *_MMPOSE0.differs,
        "ground-truth boxes are cleaned as HRNet's code does it, which makes them a pixel smaller",
    ),
)
_LIGHT = Augmentation(**quick.LIGHT)
_QUICK = Recipe(epochs=40, target=TargetSpec("unbiased", 1.5, 4), augmentation=_LIGHT, **quick.QUICK)

_LOSS = Knob(
    "loss", "build", "mse_half", "training loss; those on logits answer their sigmoid", MAP_LOSSES, OTHER_LOSSES
)


def _recipes(width: int) -> dict[str, Recipe]:
    """Those for 256x192 and, with targets as wide in image pixels and W48's smaller batch, the one for 384x288."""
    small, large = (256, 192), (384, 288)
    total = 256 if width == 48 else 512
    return {
        "official": replace(_OFFICIAL, input_size=small),
        "official_384x288": replace(
            _OFFICIAL, input_size=large, batch=96 if width == 48 else 128, target=TargetSpec("msra", 3.0, 4)
        ),
        "mmpose0": replace(_MMPOSE0, input_size=small, batch=total),
        "mmpose1": replace(_MMPOSE1, input_size=small, batch=total),
        "quick": _QUICK,
    }


def _variant(width: int) -> Variant:
    return Variant(
        name=f"hrnet_w{width}",
        method="hrnet",
        build=partial(_build, HRNetShape(width)),
        knobs=(_LOSS,),
        layouts=_LAYOUTS,
        recipes=_recipes(width),
        source="arXiv 1902.09212",
        published=(("HRNet", f"*[Ww]{width}*"),),
    )


_TINY = HRNetShape(width=16, modules=(1, 1, 1), blocks=1, stem=32, planes=32, first_blocks=1)

VARIANTS = (
    _variant(32),
    _variant(48),
    Variant(
        name="hrnet_tiny",
        method="hrnet",
        build=partial(_build, _TINY),
        input_size=(128, 96),
        # at 32x24 a heatmap pixel is four image pixels: the sub-pixel step is worth more than on the published sizes
        protocol=PoseProtocol(codec="unbiased", decoder="dark", blur_kernel=7),
        knobs=(_LOSS,),
        layouts=_LAYOUTS[:1],
        recipes={"quick": _QUICK, "official": replace(_OFFICIAL, trunk="")},
        note="small enough to train on a CPU in minutes; not a published network",
        source="arXiv 1902.09212, scaled down",
    ),
)
