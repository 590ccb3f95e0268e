"""Weights files of SHaRPose: which network a file holds, and a pretrained encoder fitted to both of its grids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness.errors import WeightsError
from methods.parts import vit, vit_names

__all__ = ["fitted", "from_vitpose"]

Size = tuple[int, int]

_SIX_HEADS = "an image classifier of width 384 (DeiT, timm): its attention has 6 heads"
_CLASSIFIER = ("backbone.head.", "backbone.fc_norm.")

# own tensor -> (what its first or second dimension tells, which dimension)
_FACTS = {
    "backbone.norm.weight": ("width", 0),
    "backbone.pos_embed_list.0": ("coarse patches", 1),
    "backbone.keypoint_tokens": ("joints", 1),
    "backbone.quality_predictor.mlp.6.weight": ("quality outputs", 0),
}


def from_vitpose(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trunk of a ViTPose under SHaRPose's names; the class slot, which it adds to every patch, goes into these.
    Of a ViTPose++ it is the trunk for COCO."""
    found = {
        name.replace("backbone.last_norm.", "backbone.norm."): value
        for name, value in vit_names.merge_experts(state).items()
        if name.startswith("backbone.")
    }
    positions = found["backbone.pos_embed"]
    slot = positions[:, :1]
    return found | {"backbone.pos_embed": torch.cat([slot, positions[:, 1:] + slot], dim=1)}


def fitted(state: Mapping[str, Tensor], own: Mapping[str, Tensor], grid: Size) -> tuple[dict[str, Tensor], list[str]]:
    """`state` (own names) fitted to the network of state `own` and coarse `grid`, and notes on what was changed or
    cannot be known.

    The single position embedding of a pretrained encoder is interpolated to both grids. Raises WeightsError for a
    file of another width, input size, head, joint set or quality predictor: the head is tied to its heatmap.
    """
    facts = _describe(own)
    _check_same_network(_describe(state), facts)
    if vit_names.has_six_heads(state):
        raise WeightsError(_SIX_HEADS, expected="12 heads, as in ViTPose's MAE-small file")
    found = {name: value for name, value in state.items() if not name.startswith(_CLASSIFIER)}
    notes = []
    positions = found.pop("backbone.pos_embed", None)
    if positions is not None:
        source = vit.grid_of(positions.shape[1] - 1, grid)
        for i in (0, 1):
            target = (grid[0] << i, grid[1] << i)
            found[f"backbone.pos_embed_list.{i}"] = vit.resize_positions(positions[:, 1:], source, target)
            notes += [vit.interpolated(source, target)] if source != target else []
    if facts["width"] == 384:
        notes.append("a file does not tell its number of heads: this network has 12, DeiT's small has 6")
    return found, notes


def _describe(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the names and shapes of own tensors tell; fields of absent parts are missing."""
    found: dict[str, Any] = {fact: state[n].shape[axis] for n, (fact, axis) in _FACTS.items() if n in state}
    blocks = {int(name.split(".")[2]) for name in state if name.startswith("backbone.blocks.")}
    found |= {"blocks": len(blocks)} if blocks else {}
    if "keypoint_head.heatmap_mlp.1.weight" in state:
        two = "keypoint_head.heatmap_mlp.4.bias" in state
        found["head"] = "two-layer" if two else "one-layer"
        found["heatmap cells"] = len(state[f"keypoint_head.heatmap_mlp.{4 if two else 1}.bias"])
    return found


def _check_same_network(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if any(found[fact] != own[fact] for fact in found):
        text = [", ".join(f"{fact} {value}" for fact, value in facts.items()) for facts in (found, own)]
        raise WeightsError(
            f"the file holds {_name(found)} ({text[0]})",
            expected=f"{_name(own)} ({text[1]})",
            hint="choose the variant, input size and quality knob of the file; SHaRPose cannot be resized",
        )


def _name(facts: Mapping[str, Any]) -> str:
    known = {(384, 3072): "SHaRPose-S 256x192", (768, 3072): "SHaRPose-B 256x192", (768, 6912): "SHaRPose-B 384x288"}
    return known.get((facts.get("width", 0), facts.get("heatmap cells", 0)), "a SHaRPose of another kind")
