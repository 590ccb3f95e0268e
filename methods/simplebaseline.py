"""SimpleBaseline: Xiao, Wu, Wei, 'Simple Baselines for Human Pose Estimation and Tracking', ECCV 2018.

A ResNet, three transposed convolutions, one map per joint. Card: simplebaseline.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from harness.method import Knob, Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import quick, resnet_names
from methods.parts.heads import deconv_head_macs, deconv_layers, final_layer, final_layer_macs
from methods.parts.losses import MAP_LOSSES, OTHER_LOSSES, SQUARED_ERROR, as_heatmaps, heatmap_loss, start_from_prior
from methods.parts.names import renamed
from methods.parts.resnet import DEPTHS, TINY, BasicBlock, Bottleneck, ResNet

__all__ = ["VARIANTS", "SimpleBaseline"]


class SimpleBaseline(ResNet):
    """(B, 3, H, W) -> heatmaps (B, K, H/4, W/4), linear (no sigmoid); logits where `loss` is one on logits.

    `block`, `blocks`, `widths`, `style` describe the trunk (parts/resnet.py), `deconvs` the widths of the
    head: one fewer than the trunk has stages. Raises UserError when H or W is not a multiple of the trunk's
    stride (32).
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: Sequence[int],
        *,
        num_joints: int = 17,
        input_size: Size = (256, 192),
        widths: Sequence[int] = (64, 128, 256, 512),
        deconvs: Sequence[int] = (256, 256, 256),
        style: str = "pytorch",
        loss: str = "mse_half",
    ) -> None:
        super().__init__(block, blocks, widths, style)
        self.stride = 4 * 2 ** len(deconvs)  # of the trunk; the head doubles the size back to input/4
        if input_size[0] % self.stride or input_size[1] % self.stride:
            raise UserError(f"input size {input_size[0]}x{input_size[1]}", expected=f"multiples of {self.stride}")
        self.input_size, self.num_joints, self.deconvs, self.loss = input_size, num_joints, tuple(deconvs), loss
        self.deconv_layers = deconv_layers(self.channels[-1], deconvs)
        self.final_layer = final_layer(deconvs[-1], num_joints)
        start_from_prior(self.final_layer, loss)

    def forward(self, images: Tensor) -> Tensor:
        coarse = self.stages(images)[-1]  # (B, C, H/32, W/32)
        return self.final_layer(self.deconv_layers(coarse))  # (B, K, H/4, W/4)

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        return TopDownOutput(exits=[as_heatmaps(self(images), self.loss)])

    def macs(self, trace: Trace) -> int:
        """The same for every person."""
        height, width = self.input_size
        coarse = (height // self.stride, width // self.stride)
        head = deconv_head_macs(self.channels[-1], self.deconvs, 4, coarse)
        final = final_layer_macs(self.deconvs[-1], self.num_joints, (height // 4, width // 4))
        return self.trunk_macs(self.input_size) + head + final

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """JointsMSE with the factor 0.5 (card, Training), or the loss of the knob."""
        return {"heatmap": heatmap_loss(self.loss, self(batch.images), batch, progress)}


def _build(depth: int, **options: Any) -> nn.Module:
    block, blocks = DEPTHS[depth]
    return SimpleBaseline(block, blocks, **options)


def _build_tiny(**options: Any) -> nn.Module:
    return SimpleBaseline(**TINY, deconvs=(64, 64), **options)


# mmpose trains on RGB images, the official code on BGR ones (see _PROTOCOL)
_RGB = {"colour": "rgb"}


def _mmpose(name: str, head: str) -> Layout:
    to_own = ((f"{head}.", ""), ("backbone.", ""))
    from_own = (
        ("deconv_layers.", f"{head}.deconv_layers."),
        ("final_layer.", f"{head}.final_layer."),
        ("", "backbone."),
    )
    return Layout(
        name,
        matches=lambda keys: f"{head}.deconv_layers.0.weight" in keys and "backbone.layer1.0.conv1.weight" in keys,
        to_own=partial(renamed, prefixes=to_own),
        from_own=partial(renamed, prefixes=from_own),
        ignores=("data_preprocessor.",),
        protocol=_RGB,
    )


_LAYOUTS = (
    Layout(
        "official",
        matches=lambda keys: "deconv_layers.0.weight" in keys and "layer1.0.conv1.weight" in keys,
        to_own=dict,
        from_own=dict,
    ),
    _mmpose("mmpose0", "keypoint_head"),
    _mmpose("mmpose1", "head"),
    Layout(**resnet_names.TORCHVISION | {"to_own": dict}),
)

# QUIRK: the official code reads images with cv2 (BGR) and normalises them with the RGB mean and std without a
# swap, so weights in the official layout expect that order; mmpose's expect RGB and their layouts say so.
_PROTOCOL = PoseProtocol(colour="bgr")

_OFFICIAL = Recipe(
    epochs=140,
    batch=128,
    lr=1e-3,
    milestones=(90, 120),
    target=TargetSpec("msra", 2.0, 4),
    augmentation=Augmentation(scale=0.3, rotation=40.0, half_body=0.0),
    loss=f"0.5 x {SQUARED_ERROR}",
    trunk="torchvision",
    source="microsoft/human-pose-estimation.pytorch@49f3f44, experiments/coco/*/256x192*.yaml",
    differs=("weight decay 0: the YAML says 1e-4, but the official Adam never receives it",),
)
_MMPOSE1 = replace(
    _OFFICIAL,
    epochs=210,
    batch=512,
    lr=5e-4,
    milestones=(170, 200),
    warmup_steps=500,
    augmentation=Augmentation("mmpose1", scale=0.5, rotation=80.0, shift=0.16, shift_prob=0.3),
    source="mmpose 1.x, topdown_heatmap/coco/td-hm_res*_8xb64-210e_coco-256x192",
    differs=(
        "ground-truth boxes are cleaned as HRNet's code does it, which makes them a pixel smaller",
        "the loss keeps the factor 0.5, which Adam does not feel",
        "colours in the variant's order, BGR: mmpose 1.x trains on RGB",
    ),
)
_SMALL = (256, 192)
_RECIPES = {
    "official": replace(_OFFICIAL, input_size=_SMALL),
    "official_384x288": replace(_OFFICIAL, input_size=(384, 288), target=TargetSpec("msra", 3.0, 4)),
    "mmpose1": replace(_MMPOSE1, input_size=_SMALL),
}
_LIGHT = Augmentation(**quick.LIGHT)
_QUICK = Recipe(epochs=40, target=TargetSpec("msra", 1.5, 4), augmentation=_LIGHT, **quick.QUICK | {"lr": 1e-3})
_TINY_QUICK = Recipe(epochs=30, target=TargetSpec("unbiased", 1.5, 4), augmentation=_LIGHT, **quick.TINY)

_STYLE = Knob("style", "build", "pytorch", "which convolution of a bottleneck has the stride", ("pytorch", "caffe"))
_LOSS = Knob(
    "loss", "build", "mse_half", "training loss; those on logits answer their sigmoid", MAP_LOSSES, OTHER_LOSSES
)


def _variant(depth: int) -> Variant:
    return Variant(
        name=f"simplebaseline_r{depth}",
        method="simplebaseline",
        build=partial(_build, depth),
        protocol=_PROTOCOL,
        knobs=(_STYLE, _LOSS) if DEPTHS[depth][0] is Bottleneck else (_LOSS,),
        layouts=_LAYOUTS,
        recipes={**_RECIPES, "quick": _QUICK},
        source="arXiv 1804.06208",
        published=(("SimpleBaseline", f"*es[Nn]et[-_]{depth}*"),),
    )


VARIANTS = (
    *(_variant(depth) for depth in DEPTHS),
    Variant(
        name="simplebaseline_tiny",
        method="simplebaseline",
        build=_build_tiny,
        input_size=(128, 96),
        # at 32x24 a heatmap pixel is four image pixels: the sub-pixel step is worth more than on the published sizes
        protocol=PoseProtocol(codec="unbiased", decoder="dark", blur_kernel=7),
        knobs=(_LOSS,),
        layouts=_LAYOUTS[:1],
        recipes={"quick": _TINY_QUICK, "official": replace(_OFFICIAL, trunk="")},
        note="small enough to train on a CPU in minutes; not a published network",
        source="arXiv 1804.06208, scaled down",
    ),
)
