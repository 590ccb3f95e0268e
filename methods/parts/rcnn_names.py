"""Tensor names of R-CNN checkpoints: detectron2's (also the refined fork's) and torchvision's, to ours and back."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "LAYOUTS",
    "from_detectron2",
    "from_msra",
    "from_torchvision",
    "head_difference",
    "to_detectron2",
    "to_torchvision",
]

_FIXED = (  # (detectron2, ours); the blocks of the trunk follow a rule
    ("backbone.bottom_up.stem.conv1.norm.", "backbone.body.bn1."),
    ("backbone.bottom_up.stem.conv1.", "backbone.body.conv1."),
    *((f"backbone.fpn_lateral{i + 2}.", f"backbone.fpn.inner_blocks.{i}.0.") for i in range(4)),
    *((f"backbone.fpn_output{i + 2}.", f"backbone.fpn.layer_blocks.{i}.0.") for i in range(4)),
    ("proposal_generator.rpn_head.conv.", "rpn.head.conv.0.0."),
    ("proposal_generator.rpn_head.objectness_logits.", "rpn.head.cls_logits."),
    ("proposal_generator.rpn_head.anchor_deltas.", "rpn.head.bbox_pred."),
    ("roi_heads.box_head.fc1.", "box.box_head.fc6."),
    ("roi_heads.box_head.fc2.", "box.box_head.fc7."),
    ("roi_heads.box_predictor.", "box.box_predictor."),
    ("roi_heads.keypoint_head.score_lowres.", "keypoint.predictor.kps_score_lowres."),
    ("roi_heads.keypoint_head.", "keypoint.head."),
)


def from_detectron2(state: Mapping[str, Any]) -> dict[str, Any]:
    """detectron2's names -> ours; names that are not its own are kept."""
    return {_exchanged(key, 0, 1, _res_to_layer): value for key, value in state.items()}


def to_detectron2(state: Mapping[str, Any]) -> dict[str, Any]:
    """Our names -> detectron2's."""
    return {_exchanged(key, 1, 0, _layer_to_res): value for key, value in state.items()}


def _exchanged(key: str, old: int, new: int, block: Callable[[str], str]) -> str:
    for names in _FIXED:
        if key.startswith(names[old]):
            return names[new] + key[len(names[old]) :]
    return block(key)


def _res_to_layer(key: str) -> str:
    found = re.fullmatch(r"backbone\.bottom_up\.res([2-5])\.(\d+)\.(shortcut|conv[123])\.(norm\.)?(\w+)", key)
    if not found:
        return key
    stage, block, part, norm, leaf = found.groups()
    if part == "shortcut":
        part = "downsample.1" if norm else "downsample.0"
    elif norm:
        part = f"bn{part[-1]}"
    return f"backbone.body.layer{int(stage) - 1}.{block}.{part}.{leaf}"


def _layer_to_res(key: str) -> str:
    found = re.fullmatch(r"backbone\.body\.layer([1-4])\.(\d+)\.(downsample\.[01]|conv[123]|bn[123])\.(\w+)", key)
    if not found:
        return key
    stage, block, part, leaf = found.groups()
    norm = "norm." if part in ("downsample.1", "bn1", "bn2", "bn3") else ""
    part = "shortcut" if part.startswith("downsample") else f"conv{part[-1]}"
    return f"backbone.bottom_up.res{int(stage) + 1}.{block}.{part}.{norm}{leaf}"


_EPS = 1e-5  # of a frozen norm


def from_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's names -> ours, which have `network.` before them.

    QUIRK: torchvision runs its published weights, whose norms are frozen, without the norm's epsilon. Our norm adds
    it, so it is taken off the stored variance; of a smaller variance than that (a dead channel: 1e-44 is met) nothing
    is left, and the scale makes up for it. Files with counters are of trainable norms, which do have it. Files
    from before torchvision 0.13 lack the `.0` of single convolutions.
    """
    frozen = not any(key.endswith("num_batches_tracked") for key in state)
    own = {}
    for key, value in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        key = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)$", r"\1.0.\2", key)
        key = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", key)
        own[f"network.{key}"] = value
    for key in [key for key in own if frozen and key.endswith("running_var")]:
        variance, scale = own[key], key.replace("running_var", "weight")
        own[key] = (variance - _EPS).clamp(min=0)
        small = variance < _EPS
        if scale in own and bool(small.any()):
            factor = (_EPS / variance.double()).sqrt().to(variance.dtype)
            own[scale] = torch.where(small, own[scale] * factor, own[scale])
    return own


def to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names -> torchvision's, the variance as its published weights have it."""
    return {
        key.removeprefix("network."): value + _EPS if key.endswith("running_var") else value
        for key, value in state.items()
    }


_LEAVES = {"w": "weight", "s": "weight", "gamma": "weight", "b": "bias", "beta": "bias"}
_CAFFE2 = re.compile(r"(conv1|res([2-5])_(\d+)_branch(1|2[abc]))_(bn_)?(w|s|b|gamma|beta|running_mean|running_var)")


def from_msra(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The ImageNet trunk in Caffe2's names (`res2_0_branch2a_w`) -> ours; other names are kept.

    Biases of convolutions are left out: a norm follows each. Norms that are folded (`_bn_s`) get mean 0, variance 1.
    """
    own = {}
    for key, value in state.items():
        found = _CAFFE2.fullmatch(key.replace("res_conv1_bn", "conv1_bn"))
        if not found:
            own[key] = value
        elif found[5] or found[6] != "b":
            name = _msra_name(found)
            own[name] = value
            if found[6] == "s":
                own[name.replace("weight", "running_mean")] = torch.zeros_like(value)
                own[name.replace("weight", "running_var")] = torch.ones_like(value) - _EPS
    return own


def _msra_name(found: re.Match[str]) -> str:
    _, stage, block, branch, norm, leaf = found.groups()
    leaf = _LEAVES.get(leaf, leaf)
    if stage is None:
        return f"backbone.body.{'bn1' if norm else 'conv1'}.{leaf}"
    if branch == "1":
        part = "downsample.1" if norm else "downsample.0"
    else:
        part = f"{'bn' if norm else 'conv'}{'abc'.index(branch[1]) + 1}"
    return f"backbone.body.layer{int(stage) - 1}.{block}.{part}.{leaf}"


_HEAD = "keypoint.head."


def head_difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names of the keypoint head that only `theirs` has, and that only `ours` has; none where `theirs` has no head."""
    a, b = ({k for k in s if k.startswith(_HEAD) and "num_batches" not in k} for s in (theirs, ours))
    return (sorted(a - b), sorted(b - a)) if a else ([], [])


LAYOUTS: tuple[dict[str, Any], ...] = (
    {
        "name": "own",
        "matches": lambda keys: "box.box_predictor.cls_score.weight" in keys,
        "to_own": dict,
        "from_own": dict,
    },
    {  # .pkl of the model zoo, .pth of a training; the refined fork has the same names
        "name": "detectron2",
        "matches": lambda keys: "backbone.fpn_lateral2.weight" in keys,
        "to_own": from_detectron2,
        "from_own": to_detectron2,
        "ignores": ("pixel_mean", "pixel_std", "proposal_generator.anchor_generator."),
    },
    {
        "name": "msra",  # the ImageNet trunk
        "matches": lambda keys: "res2_0_branch2a_w" in keys,
        "to_own": from_msra,
        "ignores": ("fc1000_",),
        "partial": True,
    },
)
"""Arguments of the layouts of detectron2's networks."""
