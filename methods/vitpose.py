"""ViTPose: Xu, Zhang, Zhang, Tao, 'ViTPose: Simple Vision Transformer Baselines', NeurIPS 2022.

A plain vision transformer over 16x16 patches and a light decoder: two transposed convolutions (classic) or
one convolution after bilinear enlargement (simple). Card: vitpose.md. Own tensor names are the official ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import WeightsError
from harness.method import Layout, PoseProtocol, Size, TopDownOutput, Trace, Variant
from harness.train.recipes import Augmentation, Progress, Recipe, TargetSpec, TrainBatch
from methods.parts import vit
from methods.parts import vit_names as names
from methods.parts import vit_recipe as shared
from methods.parts.heads import deconv_head_macs, deconv_layers, final_layer, final_layer_macs
from methods.parts.input_checks import check_images, check_multiple
from methods.parts.losses import SQUARED_ERROR, mse
from methods.parts.vit_start import start_from_scratch

__all__ = ["VARIANTS", "ViTPose"]

_DECONVS = (256, 256)


class _ClassicHead(nn.Module):
    """Two doublings by transposed convolution, then 1x1: (B, D, h, w) -> (B, K, 4h, 4w)."""

    def __init__(self, dim: int, num_joints: int) -> None:
        super().__init__()
        self.deconv_layers = deconv_layers(dim, _DECONVS)
        self.final_layer = final_layer(_DECONVS[-1], num_joints)

    def forward(self, features: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(features))

    def macs(self, grid: Size) -> int:
        inputs = self.deconv_layers[0].in_channels
        final = final_layer_macs(_DECONVS[-1], self.final_layer.out_channels, (4 * grid[0], 4 * grid[1]))
        return deconv_head_macs(inputs, _DECONVS, 4, grid) + final


class _SimpleHead(nn.Module):
    """ReLU, bilinear enlargement to the heatmap size, then 3x3: (B, D, h, w) -> (B, K, s h, s w)."""

    def __init__(self, dim: int, num_joints: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.final_layer = final_layer(dim, num_joints, kernel=3)

    def forward(self, features: Tensor) -> Tensor:
        large = F.interpolate(F.relu(features), scale_factor=self.factor, mode="bilinear", align_corners=False)
        return self.final_layer(large)

    def macs(self, grid: Size) -> int:
        layer = self.final_layer
        size = (self.factor * grid[0], self.factor * grid[1])
        return final_layer_macs(layer.in_channels, layer.out_channels, size, kernel=3)


@dataclass(frozen=True)
class _Size:
    """`layer_decay` belongs to the recipe; `stem`: widths of convolutions in place of the patch kernel."""

    dim: int
    depth: int
    heads: int
    drop_path: float = 0.0
    layer_decay: float = 1.0
    mlp_ratio: float = 4.0
    stem: tuple[int, ...] = ()


# QUIRK: S has 12 heads of 32, not the 6 of DeiT and timm: the authors trained it so, and no shape in a file tells.
_SIZES = {
    "s": _Size(384, 12, 12, drop_path=0.1, layer_decay=0.80),
    "b": _Size(768, 12, 12, drop_path=0.3, layer_decay=0.75),
    "l": _Size(1024, 24, 16, drop_path=0.5, layer_decay=0.80),
    "h": _Size(1280, 32, 16, drop_path=0.55, layer_decay=0.85),
}
_SIX_HEADS = "an image classifier of width 384 (DeiT, timm): its attention has 6 heads"
_TINY = _Size(96, 4, 3, mlp_ratio=2.0, stem=(24, 48))


class ViTPose(nn.Module):
    """(B, 3, H, W) -> heatmaps (B, K, H/4, W/4), linear.

    `simple` chooses the decoder. Raises UserError when H or W is not a multiple of the patch size.
    """

    def __init__(
        self,
        size: _Size,
        *,
        simple: bool,
        num_joints: int = 17,
        input_size: Size = (256, 192),
        patch: int = 16,
    ) -> None:
        super().__init__()
        check_multiple(input_size, patch, "the patch size")
        self.input_size, self.num_joints, self.size = input_size, num_joints, size
        self.backbone = vit.PoseViT(
            size.dim,
            size.depth,
            size.heads,
            input_size,
            size.drop_path,
            mlp_ratio=size.mlp_ratio,
            patch=patch,
            stem=size.stem,
        )
        head = _SimpleHead(size.dim, num_joints, patch // 4) if simple else _ClassicHead(size.dim, num_joints)
        self.keypoint_head = head

    def forward(self, images: Tensor) -> Tensor:
        return self.keypoint_head(self.backbone(images))

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        """UserError for images of another size: the position embedding is tied to the grid."""
        check_images(images, self.input_size)
        return TopDownOutput(exits=[self(images)])

    def macs(self, trace: Trace) -> int:
        """The same for every person."""
        return self.backbone.trunk_macs(self.input_size) + self.keypoint_head.macs(self.backbone.grid)

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """JointsMSE of mmpose, without the factor 0.5 (card, 4)."""
        return {"heatmap": mse(self(batch.images), batch.target, batch.weight)}

    def adapt_state(self, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """`state` (own names) fitted to this input size, and notes on what was changed or cannot be known.

        The position embedding is interpolated to this grid, smaller patch kernels are padded with zeros.
        Raises WeightsError for a file of another size, head or joint set.
        """
        _check_same_network(_describe(state), _describe(self.state_dict()))
        if names.has_six_heads(state):
            raise WeightsError(_SIX_HEADS, expected="12 heads, as in the authors' own MAE-small file")
        state, notes = self.backbone.adapt_state(state, "backbone.")
        kernel, patch = state.get("backbone.patch_embed.proj.weight"), self.backbone.patch
        if kernel is not None and kernel.shape[-1] < patch:
            state["backbone.patch_embed.proj.weight"] = vit.pad_patches(kernel, patch)
            notes.append(f"patch kernels padded from {kernel.shape[-1]} to {patch} pixels")
        if self.size.dim == 384:
            notes.append(
                "a file does not tell its number of heads: this network has 12, DeiT's and timm's small have 6"
            )
        return state, notes


_PATCHES = {"proj.weight": "a kernel", "layers.0.weight": "convolutions"}


def _describe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the names and shapes of own tensors tell; fields of absent parts are missing."""
    blocks = {int(name.split(".")[2]) for name in state if name.startswith("backbone.blocks.")}
    found: dict[str, Any] = {"depth": len(blocks)} if blocks else {}
    if "backbone.pos_embed" in state:
        found["width"] = state["backbone.pos_embed"].shape[-1]
    for name, by in _PATCHES.items():
        if f"backbone.patch_embed.{name}" in state:
            found["patches"] = by
    if "keypoint_head.final_layer.weight" in state:
        found["head"] = "classic" if "keypoint_head.deconv_layers.0.weight" in state else "simple"
        found["joints"] = state["keypoint_head.final_layer.weight"].shape[0]
    return found


def _check_same_network(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if any(found[field] != own[field] for field in found):
        raise WeightsError(
            f"the file holds a ViTPose {_name(found)}",
            expected=_name(own),
            hint="choose the variant that fits the file",
        )


def _name(facts: Mapping[str, Any]) -> str:
    """'B, classic head, 17 joints'."""
    sizes = {(size.dim, size.depth): name.upper() for name, size in _SIZES.items()}
    width, depth = facts.get("width"), facts.get("depth")
    parts = [sizes.get((width, depth), f"of width {width} and depth {depth}")]  # type: ignore[arg-type]
    parts += [f"{facts['head']} head", f"{facts['joints']} joints"] if "head" in facts else []
    parts += ["patches by convolutions"] if facts.get("patches") == "convolutions" else []
    return ", ".join(parts)


_LAYOUTS = (
    Layout(
        "vitpose++",
        matches=lambda keys: "backbone.blocks.0.mlp.experts.0.weight" in keys,
        to_own=names.merge_experts,
        ignores=("associate_keypoint_heads.",),
    ),
    Layout(  # also mmpose 0.x, of which the official code is a fork
        "official",
        matches=lambda keys: "backbone.blocks.0.attn.qkv.weight" in keys and "backbone.last_norm.weight" in keys,
        to_own=dict,
        from_own=dict,
    ),
    Layout(
        "mmpose1",
        matches=lambda keys: "backbone.layers.0.ln1.weight" in keys,
        to_own=names.from_mmpose1,
        from_own=names.to_mmpose1,
        ignores=("data_preprocessor.",),
    ),
    Layout(
        "huggingface",
        matches=lambda keys: "backbone.encoder.layer.0.layernorm_before.weight" in keys,
        to_own=names.from_hugging_face,
        from_own=names.to_hugging_face,
    ),
    Layout(**names.MAE),
)

_PROTOCOL = PoseProtocol(**shared.PROTOCOL)

_TARGET = TargetSpec("udp", sigma=2.0, stride=4)
_OFFICIAL = Recipe(
    batch=512,
    clip_norm=1.0,
    loss=SQUARED_ERROR,
    target=_TARGET,
    augmentation=Augmentation(dialect="mmpose0", scale=0.5, rotation=40.0, shift=0.2, shift_prob=0.3),
    source="ViTAE-Transformer/ViTPose@c050ed2, configs/body/2d_kpt_sview_rgb_img/topdown_heatmap/coco/ViTPose_*",
    **shared.OFFICIAL,
)
_QUICK = Recipe(
    epochs=34, target=replace(_TARGET, sigma=1.5), augmentation=Augmentation(**shared.LIGHT), **shared.QUICK
)


def _tiny(**options: Any) -> nn.Module:
    # patches of 8: as many tokens as 256x192 has of 16 pixels
    network = ViTPose(_TINY, simple=True, patch=8, **options)
    start_from_scratch(network, (network.backbone.pos_embed, network.backbone.grid))
    return network


def _build(size: _Size, simple: bool, **options: Any) -> nn.Module:
    return ViTPose(size, simple=simple, **options)


def _variant(name: str, simple: bool) -> Variant:
    size, decoder = _SIZES[name], "simple" if simple else "classic"
    recipe = replace(_OFFICIAL, groups=partial(shared.layer_decay_groups, rate=size.layer_decay))
    letter = name.upper()
    return Variant(
        name=f"vitpose_{name}{'_simple' if simple else ''}",
        method="vitpose",
        build=partial(_build, size, simple),
        protocol=_PROTOCOL,
        layouts=_LAYOUTS,
        recipes={
            "official": replace(recipe, input_size=(256, 192)),
            "official_384x288": replace(recipe, input_size=(384, 288), target=TargetSpec("udp", sigma=3.0, stride=4)),
        },
        source="arXiv 2204.12484",
        published=(
            ("ViTPose", f"ViTPose-{letter} (With {decoder} decoder*"),
            ("ViTPose", f"{letter} {decoder}*"),
            ("ViTPose", f"ViTPose-{letter} {decoder}*"),
        ),
    )


VARIANTS = (
    *(_variant(name, simple) for simple in (False, True) for name in _SIZES),
    Variant(
        name="vitpose_tiny",
        method="vitpose",
        build=_tiny,
        input_size=(128, 96),
        protocol=PoseProtocol(**shared.PROTOCOL | {"blur_kernel": 7}),  # DARK's kernel for sigma 1.5
        layouts=_LAYOUTS[1:2],
        recipes={
            "quick": _QUICK,
            "official": replace(_OFFICIAL, trunk="", groups=partial(shared.layer_decay_groups, rate=0.8)),
        },
        note="small enough to train on a CPU in minutes; not a published network",
        source="arXiv 2204.12484, scaled down",
    ),
)
