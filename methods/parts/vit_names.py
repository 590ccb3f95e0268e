"""Tensor names of ViTPose in other code bases <-> the official ones (card vitpose.md, 7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

__all__ = [
    "MAE",
    "from_hugging_face",
    "from_mae",
    "from_mmpose1",
    "has_six_heads",
    "merge_experts",
    "to_hugging_face",
    "to_mmpose1",
]

# (foreign, official) parts of names, exchanged in this order in both directions
_MMPOSE1 = (
    ("backbone.patch_embed.projection.", "backbone.patch_embed.proj."),
    ("backbone.layers.", "backbone.blocks."),
    ("backbone.ln1.", "backbone.last_norm."),
    (".ln1.", ".norm1."),
    (".ln2.", ".norm2."),
    (".ffn.layers.0.0.", ".mlp.fc1."),
    (".ffn.layers.1.", ".mlp.fc2."),
    ("head.", "keypoint_head."),
)
_HUGGING_FACE = (
    ("backbone.embeddings.position_embeddings", "backbone.pos_embed"),
    ("backbone.embeddings.patch_embeddings.projection.", "backbone.patch_embed.proj."),
    ("backbone.encoder.layer.", "backbone.blocks."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("backbone.layernorm.", "backbone.last_norm."),
    (".attention.output.dense.", ".attn.proj."),
    (".attention.attention.", ".attn."),
    ("head.deconv1.", "keypoint_head.deconv_layers.0."),
    ("head.batchnorm1.", "keypoint_head.deconv_layers.1."),
    ("head.deconv2.", "keypoint_head.deconv_layers.3."),
    ("head.batchnorm2.", "keypoint_head.deconv_layers.4."),
    ("head.conv.", "keypoint_head.final_layer."),
)


def from_mmpose1(state: Mapping[str, Any]) -> dict[str, Any]:
    """mmpose 1.x has already added the class slot to the patches; ours gets zeros."""
    own = _exchange(state, _MMPOSE1)
    positions = own["backbone.pos_embed"]
    own["backbone.pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
    return own


def to_mmpose1(state: Mapping[str, Any]) -> dict[str, Any]:
    """The class slot is added to the patches: the network is the same, the way back is lost."""
    positions = state["backbone.pos_embed"]
    merged = {**state, "backbone.pos_embed": positions[:, 1:] + positions[:, :1]}
    return _exchange(merged, [(own, foreign) for foreign, own in _MMPOSE1])


def from_hugging_face(state: Mapping[str, Any]) -> dict[str, Any]:
    """q, k and v are three layers there and one here."""
    own = _exchange(merge_experts(state), _HUGGING_FACE)
    for name in [name for name in own if ".attn.query." in name]:
        parts = [own.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        own[name.replace("query", "qkv")] = torch.cat(parts)
    return own


def to_hugging_face(state: Mapping[str, Any]) -> dict[str, Any]:
    """The reverse of `from_hugging_face` for a plain (not ViTPose++) network."""
    split: dict[str, Any] = {}
    for name, value in state.items():
        if ".attn.qkv." in name:
            parts = zip(("query", "key", "value"), value.chunk(3))
            split |= {name.replace("qkv", part): rows.clone() for part, rows in parts}
        else:
            split[name] = value
    return _exchange(split, [(own, foreign) for foreign, own in _HUGGING_FACE])


def from_mae(state: Mapping[str, Any]) -> dict[str, Any]:
    """Names of an MAE or timm encoder -> names of a `backbone`; the class token is dropped.

    A classifier stays as `backbone.head.*`, which tells `has_six_heads` whose file it is.
    """
    return {f"backbone.{name}": value for name, value in state.items() if name != "cls_token"}


def _is_mae(keys: Mapping[str, Any]) -> bool:
    return "blocks.0.attn.qkv.weight" in keys and "patch_embed.proj.weight" in keys


MAE: dict[str, Any] = {
    "name": "mae",
    "matches": _is_mae,
    "to_own": from_mae,
    "ignores": ("decoder_", "mask_token"),
    "partial": True,
}
"""The layout of pretrained encoders, as options of a Layout."""


def has_six_heads(own: Mapping[str, Any]) -> bool:
    """An image classifier of width 384 (DeiT's and timm's small ViT): 6 heads, where pose networks have 12."""
    classifier = own.get("backbone.head.weight")
    return classifier is not None and classifier.shape[1] == 384


_EXPERT = re.compile(r"\.mlp\.experts\.(?:experts\.)?(\d+)\.")


def merge_experts(state: Mapping[str, Any]) -> dict[str, Any]:
    """ViTPose++ -> plain: expert 0 (COCO) gives the last rows of `mlp.fc2`; the other experts are dropped."""
    plain = {name: value for name, value in state.items() if not _EXPERT.search(name)}
    for name, value in state.items():
        expert = _EXPERT.search(name)
        if expert and expert[1] == "0":
            target = _EXPERT.sub(".mlp.fc2.", name)
            plain[target] = torch.cat([plain[target], value])
    return plain


def _exchange(state: Mapping[str, Any], pairs: list[tuple[str, str]] | tuple[tuple[str, str], ...]) -> dict[str, Any]:
    renamed = {}
    for name, value in state.items():
        for old, new in pairs:
            name = name.replace(old, new)
        renamed[name] = value
    return renamed
