"""Files that start a ResNet trunk, the `backbone` of a network, as options of a Layout."""

from __future__ import annotations

from functools import partial
from typing import Any

from methods.parts.names import renamed

__all__ = ["SIMPLEBASELINE", "TORCHVISION"]

_TO_BACKBONE = partial(renamed, prefixes=(("", "backbone."),))
_DECONVS = "deconv_layers.0.weight"

TORCHVISION: dict[str, Any] = {
    "name": "torchvision",
    "matches": lambda keys: "layer4.0.conv1.weight" in keys and _DECONVS not in keys,
    "to_own": _TO_BACKBONE,
    "ignores": ("fc.",),
    "partial": True,
}
"""ImageNet classifiers."""
SIMPLEBASELINE: dict[str, Any] = {
    "name": "simplebaseline",
    "matches": lambda keys: "layer1.0.conv1.weight" in keys and _DECONVS in keys,
    "to_own": _TO_BACKBONE,
    "ignores": ("deconv_layers.", "final_layer."),
    "partial": True,
}
"""SimpleBaseline's own files, whose deconvolutions are not taken."""
