"""FasterPose, a reconstruction: Dai et al., 'FasterPose: A Faster Simple Baseline for Human Pose Estimation', 2021.

Only the abstract of the paper is public: no code, formula or table. What it states, a ResNet whose heatmaps are
inferred from its coarse features at almost no cost, and a cross-entropy for continuous targets, is built here from
those words; card fasterpose.md says what each choice rests on. Nothing may be compared with the paper's AP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError
from harness.method import Knob, Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import quick, resnet_names
from methods.parts.arithmetic import conv_macs, deconv_macs
from methods.parts.heads import deconv_layers
from methods.parts.losses import MAP_LOSSES, OTHER_LOSSES, as_heatmaps, heatmap_loss, start_from_prior
from methods.parts.resnet import DEPTHS, TINY, ResNet

__all__ = ["HEADS", "VARIANTS", "FasterPose"]

_HEATMAP_STRIDE = 4
_MIDDLE = 256  # channels of project_shuffle
_THIN = (64, 32)  # channels of thin_deconv: after the projection, of the transposed convolutions


def _project_shuffle(channels: int, joints: int, factor: int) -> nn.Sequential:
    """Channels are projected first, then one 1x1 convolution writes the factor^2 sub-cells of every joint."""
    project = nn.Conv2d(channels, _MIDDLE, 1, bias=False)
    write = nn.Conv2d(_MIDDLE, joints * factor**2, 1)
    return nn.Sequential(project, nn.BatchNorm2d(_MIDDLE), nn.ReLU(inplace=True), write, nn.PixelShuffle(factor))


def _shuffle_first(channels: int, joints: int, factor: int) -> nn.Sequential:
    """Every sub-cell has channels / factor^2 of the trunk's channels to itself, fewer than joints are refused."""
    left, rest = divmod(channels, factor**2)
    if rest or left < joints:
        raise UserError(
            f"head shuffle_first: the {channels} channels of this trunk leave {channels / factor**2:g} for each of the "
            f"{factor}x{factor} sub-cells, which cannot hold {joints} joints",
            expected=f"a multiple of {factor**2}, at least {joints * factor**2}",
            hint="take another head, or a trunk with more channels (r50 and above have 2048)",
        )
    return nn.Sequential(nn.PixelShuffle(factor), nn.Conv2d(left, joints, 1))


def _direct_shuffle(channels: int, joints: int, factor: int) -> nn.Sequential:
    """project_shuffle without the projection."""
    return nn.Sequential(nn.Conv2d(channels, joints * factor**2, 1), nn.PixelShuffle(factor))


def _thin_deconv(channels: int, joints: int, factor: int) -> nn.Sequential:
    """SimpleBaseline's head, thinned until it costs next to nothing."""
    middle, width = _THIN
    doublings = factor.bit_length() - 1
    project = [nn.Conv2d(channels, middle, 1, bias=False), nn.BatchNorm2d(middle), nn.ReLU(inplace=True)]
    return nn.Sequential(*project, *deconv_layers(middle, (width,) * doublings), nn.Conv2d(width, joints, 1))


def _bilinear(channels: int, joints: int, factor: int) -> nn.Sequential:
    """Negative control: an enlarged map has its peaks near the coarse cells' centres only."""
    enlarge = nn.Upsample(scale_factor=factor, mode="bilinear", align_corners=False)
    return nn.Sequential(nn.Conv2d(channels, joints, 1), enlarge)


HEADS: dict[str, Callable[[int, int, int], nn.Sequential]] = {
    "project_shuffle": _project_shuffle,
    "shuffle_first": _shuffle_first,
    "direct_shuffle": _direct_shuffle,
    "thin_deconv": _thin_deconv,
    "bilinear": _bilinear,
}
"""`head(channels, joints, factor)`: (B, channels, h, w) -> (B, joints, factor h, factor w). Card, section 3."""


class FasterPose(nn.Module):
    """(B, 3, H, W) -> logits (B, K, H/4, W/4); `predict` answers their sigmoid, in 0..1. With a squared error as
    `loss`, which reads no logits, they are the heatmaps themselves.

    `trunk` keeps its resolution low to the end, `head` is one of HEADS, `loss` one of MAP_LOSSES.
    Raises UserError when H or W is not a multiple of the trunk's stride, or when the head does not fit the trunk.
    """

    def __init__(
        self,
        trunk: ResNet,
        *,
        num_joints: int = 17,
        input_size: Size = (256, 192),
        head: str = "project_shuffle",
        loss: str = "rce_soft",
    ) -> None:
        super().__init__()
        self.stride = _HEATMAP_STRIDE << (len(trunk.channels) - 1)
        if input_size[0] % self.stride or input_size[1] % self.stride:
            raise UserError(f"input size {input_size[0]}x{input_size[1]}", expected=f"multiples of {self.stride}")
        self.input_size, self.num_joints, self.loss = input_size, num_joints, loss
        self.backbone = trunk
        self.head = HEADS[head](trunk.channels[-1], num_joints, self.stride // _HEATMAP_STRIDE)
        start_from_prior([layer for layer in self.head if isinstance(layer, nn.Conv2d)][-1], loss)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone.stages(images)[-1])

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        return TopDownOutput(exits=[as_heatmaps(self(images), self.loss)])

    def macs(self, trace: Trace) -> int:
        """The same for every person."""
        size = (self.input_size[0] // self.stride, self.input_size[1] // self.stride)
        return self.backbone.trunk_macs(self.input_size) + _head_macs(self.head, size)

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """Card, section 4: no formula is published."""
        return {"heatmap": heatmap_loss(self.loss, self(batch.images), batch, progress)}


def _head_macs(head: nn.Sequential, size: Size) -> int:
    """Layer by layer, from a map of `size`."""
    total = 0
    for layer in head:
        factor = 1
        if isinstance(layer, nn.Conv2d):
            total += conv_macs(layer.in_channels, layer.out_channels, layer.kernel_size[0], size)
        elif isinstance(layer, nn.ConvTranspose2d):
            total += deconv_macs(layer.in_channels, layer.out_channels, layer.kernel_size[0], size)
            factor = layer.stride[0]
        elif isinstance(layer, nn.PixelShuffle):
            factor = layer.upscale_factor
        size = (factor * size[0], factor * size[1])
    return total


def _build(depth: int, **options: Any) -> nn.Module:
    return FasterPose(ResNet(*DEPTHS[depth]), **options)


def _build_tiny(**options: Any) -> nn.Module:
    return FasterPose(ResNet(**TINY), **options)


_TAG = "reconstruction"

_LAYOUTS = (
    Layout(
        "own",
        # which layer of the head has the first weight depends on the head
        matches=lambda keys: "backbone.layer1.0.conv1.weight" in keys and any(k.startswith("head.") for k in keys),
        to_own=dict,
        from_own=dict,
    ),
    Layout(**resnet_names.TORCHVISION),
)

_PROTOCOL = PoseProtocol(codec="unbiased", decoder="dark", blur_kernel=11)

_ASSUMED = Recipe(
    epochs=140,
    batch=128,
    lr=1e-3,
    milestones=(90, 120),
    target=TargetSpec("unbiased", 2.0, 4),
    augmentation=Augmentation(scale=0.3, rotation=40.0, half_body=0.0),
    loss="regressive cross-entropy as read here (knob `loss`), mean over persons, joints and pixels",
    trunk="torchvision",
    source="none: reconstruction",
    differs=("no recipe is published: SimpleBaseline's, with DARK's targets (the first author's earlier work)",),
)
_TARGET = TargetSpec("unbiased", 1.5, 4)
_LIGHT = Augmentation(**quick.LIGHT)
_QUICK = Recipe(epochs=35, target=_TARGET, augmentation=_LIGHT, **quick.QUICK | {"lr": 1e-3})
_TINY_QUICK = Recipe(
    epochs=16,
    target=_TARGET,
    trunk="simplebaseline",
    augmentation=_LIGHT,
    **quick.TINY | {"differs": quick.differs("made for simplebaseline_tiny's trunk")},
)

_KNOBS = (
    Knob("head", "build", "project_shuffle", "how heatmaps are made from coarse features", tuple(HEADS)),
    Knob(
        "loss",
        "build",
        "rce_soft",
        "reading of the regressive cross-entropy (rce_*), or another loss to compare it with",
        MAP_LOSSES,
        OTHER_LOSSES,
    ),
)


def _variant(depth: int) -> Variant:
    return Variant(
        name=f"fasterpose_r{depth}",
        method="fasterpose",
        build=partial(_build, depth),
        protocol=_PROTOCOL,
        knobs=_KNOBS,
        layouts=_LAYOUTS,
        recipes={
            "official": replace(_ASSUMED, input_size=(256, 192)),
            "official_384x288": replace(_ASSUMED, input_size=(384, 288), target=TargetSpec("unbiased", 3.0, 4)),
            "quick": _QUICK,
        },
        tag=_TAG,
        note=_TAG,
        source="arXiv 2107.03215, abstract only",
    )


VARIANTS = (
    *(_variant(depth) for depth in DEPTHS),
    Variant(
        name="fasterpose_tiny",
        method="fasterpose",
        build=_build_tiny,
        input_size=(128, 96),
        protocol=_PROTOCOL.model_copy(update={"blur_kernel": 7}),  # DARK's kernel for sigma 1.5
        knobs=_KNOBS,
        layouts=(_LAYOUTS[0], Layout(**resnet_names.SIMPLEBASELINE)),
        recipes={"quick": _TINY_QUICK, "official": replace(_ASSUMED, trunk="")},
        tag=_TAG,
        note=f"{_TAG}, small enough to train on a CPU in minutes",
        source="arXiv 2107.03215, abstract only, scaled down",
    ),
)
