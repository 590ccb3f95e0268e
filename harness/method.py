"""The contract between the instrument and a network, and the registry that finds networks by name.

A method is one file. It exports `VARIANTS`, a tuple of `Variant`; each builds an object that follows `Predictor`,
and `Trainable` when it can be trained. Built-in files are those of the package `methods`; an outside package adds
its own through the entry-point group `paretopose.methods` (the entry point names a module with `VARIANTS`).
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from harness.errors import SuiteError, UserError, unknown_name

if TYPE_CHECKING:
    from torch import Tensor

    from harness.train.recipes import Progress, Recipe, TrainBatch

__all__ = [
    "EARLY_EXIT_KNOBS",
    "Knob",
    "Layout",
    "OneStageOutput",
    "PoseProtocol",
    "Predictor",
    "TopDownOutput",
    "Trainable",
    "Variant",
    "find_variant",
    "variants",
]

Paradigm = Literal["top-down", "one-stage"]
Size = tuple[int, int]  # (height, width) in pixels
Trace = Mapping[str, np.ndarray]


class PoseProtocol(BaseModel):
    """Everything outside a network that moves AP. The defaults are HRNet's published top-down protocol."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    codec: str = "biased"
    """crop transform + target encoder + flip shift: biased, unbiased, udp, udp_combined, simcc"""
    decoder: str = "quarter"
    """argmax, quarter, dark, udp_dark, udp_combined, simcc, soft_argmax"""
    dialect: Literal["hrnet", "mmpose0", "mmpose1"] = "hrnet"
    """whose border rules the decoder follows, where the code lines differ"""
    blur_kernel: int = Field(11, ge=1, le=255)
    """Gaussian kernel of dark, udp_dark, udp_combined and megvii, in heatmap pixels"""
    beta: float = Field(20.0, gt=0, allow_inf_nan=False)
    """of soft_argmax: softmax(beta x map). 1 is for networks trained with it; maps of a squared error lie in 0 to 1,
    where only a large beta keeps the background from pulling every joint to the centre"""
    flip: bool = True
    """average with the mirrored image"""
    box_padding: float = Field(1.25, gt=0, le=100)
    """a person box is enlarged by this before cropping"""
    box_cleaning: Literal["hrnet", "mmpose1", "none"] = "hrnet"
    """how ground-truth boxes are clipped to the image; detector boxes are used raw"""
    box_score_threshold: float = 0.0
    """detector boxes below this score are not cropped, persons of a one-stage network below it not kept"""
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """normalisation of pixel values in 0..1, in the order of `colour`"""
    rescore: bool = True
    """person score = box score x mean of the joint scores above `joint_score_threshold`"""
    joint_score_threshold: float = 0.2
    nms: Literal["oks", "soft_oks", "none"] = "oks"
    nms_threshold: float = 0.9
    results_with_bbox: bool = False
    """write `bbox` into result files: moves APm and APl (COCO takes the detection's area from it)"""
    shortest_edge: int = Field(800, ge=1, le=8192)
    """one-stage: the image is scaled until its shorter side has as many pixels ..."""
    longest_edge: int = Field(1333, ge=1, le=8192)
    """... or its longer side this many, whichever comes first"""
    resizing: Literal["detectron2", "torchvision"] = "detectron2"
    """one-stage: whose rounding of the size, bilinear filter and place of a joint in its pixel"""
    max_persons: int = Field(100, ge=1, le=10_000)
    """one-stage: the best persons of an image that are kept"""

    def applying(self, paradigm: Paradigm) -> dict[str, Any]:
        """The fields that networks of this paradigm are run by, as JSON values: `beta` where the decoder reads it."""
        fields = self.model_dump(mode="json")
        unread = {"beta"} if self.decoder != "soft_argmax" else set()
        return {name: fields[name] for name in PoseProtocol.fields_of(paradigm) if name not in unread}

    @staticmethod
    @lru_cache(maxsize=2)
    def fields_of(paradigm: Paradigm) -> list[str]:
        """Names of the fields that have a meaning for networks of this paradigm."""
        if paradigm == "one-stage":
            return [*_ONE_STAGE, *_SHARED]
        return [name for name in PoseProtocol.model_fields if name not in _ONE_STAGE]


_ONE_STAGE = ("shortest_edge", "longest_edge", "resizing", "max_persons")
_SHARED = ("box_score_threshold", "colour", "mean", "std", "results_with_bbox")


@dataclass(frozen=True)
class Knob:
    """An option that a suite may sweep.

    `kind`: `build` changes the network, `run` the forward pass, `select` only chooses between stored results.
    `choices` lists the allowed values, `refused` says of values from elsewhere why they are not among them; else a
    finite number, `low <= value <= high` (`low_open`: low itself is excluded, -inf: no bound), or one of `words` that
    stand beside the numbers; None where that is the default.
    `excludes`: knobs that answer the same question, so that only one of them may be set.
    """

    name: str
    kind: Literal["build", "run", "select"]
    default: Any
    help: str
    choices: tuple[Any, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    words: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()

    def check(self, value: Any, where: str = "") -> Any:
        """`value`, or a SuiteError that names the knob, the range and the place."""
        if self.choices:
            if value not in self.choices:
                reason = self.refused.get(value, "") if isinstance(value, str) else ""
                raise SuiteError(
                    f"{self.name} is {value!r}" + (f": {reason}" if reason else ""),
                    where=where,
                    expected="one of " + ", ".join(map(str, self.choices)),
                )
            return value
        if (self.low is None and self.high is None) or (isinstance(value, str) and value in self.words):
            return value
        if value is None and self.default is None:
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not self._inside(value):
            raise SuiteError(f"{self.name} is {value!r}", where=where, expected=self.range_text())
        return value

    def _inside(self, value: float) -> bool:
        if not abs(value) <= sys.float_info.max:  # nan, inf, and whole numbers that are no float
            return False
        above = self.low is None or (value > self.low if self.low_open else value >= self.low)
        return above and (self.high is None or value <= self.high)

    def range_text(self) -> str:
        """`0 < alpha <= 1`, as people write it."""
        low, high = (None if bound is None or math.isinf(bound) else bound for bound in (self.low, self.high))
        left = f"{low:g} {'<' if self.low_open else '<='} " if low is not None else ""
        bounded = f"{left}{self.name}{f' <= {high:g}' if high is not None else ''}"
        numbers = bounded if bounded != self.name else "a finite number"
        return " or ".join([numbers, *(f"'{w}'" for w in self.words)])


@dataclass(frozen=True)
class TopDownOutput:
    """What a top-down forward pass gives.

    `exits`: heatmaps (B, K, h, w) float, cheapest exit first, the last one is the answer (a person who left early
    holds its early heatmap there). `quality`: (B,) predicted quality, or None. `trace`: arrays with first axis B.
    `rival`: (B,) what `quality` is compared with where the network knows no threshold but compares two numbers.
    """

    exits: list[Tensor]
    quality: Tensor | None = None
    trace: Mapping[str, Tensor] = field(default_factory=dict)
    rival: Tensor | None = None


@dataclass(frozen=True)
class OneStageOutput:
    """What a one-stage forward pass gives for one image.

    `boxes` (n, 4) x1 y1 x2 y2 in pixels of the image that was given, best first, `scores` (n,), `keypoints` (n, K, 3)
    x y score. `trace`: plain numbers, among them `persons` (regions that the pose head ran on; `macs` is linear in it)
    and `height`, `width` (the padded canvas).
    """

    boxes: Tensor
    scores: Tensor
    keypoints: Tensor
    trace: Mapping[str, int] = field(default_factory=dict)


@runtime_checkable
class Predictor(Protocol):
    """A network that answers. Torch networks are `nn.Module`s; an ONNX file need not pretend to be one."""

    input_size: Size

    def predict(self, images: Any, settings: Mapping[str, Any]) -> Any:
        """Top-down: `images` (B, 3, H, W) float32, normalised -> TopDownOutput. One-stage: a list of (3, H, W)
        images -> list of OneStageOutput. `settings` holds the method's own run and select knobs."""

    def macs(self, trace: Trace) -> np.ndarray | int:
        """Multiply-accumulates in closed form: one int64 per row of `trace`, or one int when all cost the same."""


@runtime_checkable
class Trainable(Protocol):
    """A network that can be trained by the common loop."""

    def losses(self, batch: TrainBatch, progress: Progress) -> dict[str, Tensor]:
        """Named scalar losses; their sum is minimised."""


@dataclass(frozen=True)
class Layout:
    """A foreign naming of a method's tensors.

    `matches(keys)` recognises it by key names; `to_own` renames to ours (dropping what we do not keep);
    `from_own`, where given, renames back. `partial` layouts (ImageNet trunks) initialise and are not a full network.
    `ignores`: prefixes of foreign names that belong to the layout and are known not to be needed; they are taken out
    before `to_own` and listed in the load report. `protocol`: fields of the variant's protocol that weights of this
    layout want otherwise (`{"colour": "rgb"}`).
    """

    name: str
    matches: Callable[[Mapping[str, Any]], bool]
    to_own: Callable[[Mapping[str, Any]], dict[str, Any]]
    from_own: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    partial: bool = False
    ignores: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Variant:
    """One size or trunk of a method, under its published name.

    `codecs` are those whose maps the network writes: one heatmap a joint, unless it says otherwise.
    `build(num_joints=, input_size=, **build_knobs)` gives a Predictor with random weights. A method that *is* a file
    (ONNX) sets `open_file(path, **build_knobs)` instead. The first of `recipes` is the one that `train` takes
    unless told. `tag` stands behind the name wherever the variant is shown
    ('reconstruction'), `note` says more below a table. `published` selects rows of results/published by
    (method, variant) patterns.
    """

    name: str
    method: str
    build: Callable[..., Predictor] | None
    input_size: Size = (256, 192)
    paradigm: Paradigm = "top-down"
    protocol: PoseProtocol = PoseProtocol()
    codecs: tuple[str, ...] = ("biased", "unbiased", "udp")
    knobs: tuple[Knob, ...] = ()
    layouts: tuple[Layout, ...] = ()
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    open_file: Callable[..., Predictor] | None = None
    tag: str = ""
    note: str = ""
    source: str = ""
    published: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What people are shown: the name, and the tag where there is one."""
        return f"{self.name} ({self.tag})" if self.tag else self.name

    def knob(self, name: str, where: str = "") -> Knob:
        """The knob of that name (own or common), or a SuiteError with the near ones."""
        known = {k.name: k for k in (*COMMON_KNOBS, *self.knobs)}
        if name not in known:
            what, hint = unknown_name(f"knob of {self.name}", name, known)
            raise SuiteError(what, where=where, hint=hint)
        return known[name]


COMMON_KNOBS: tuple[Knob, ...] = (
    Knob("input_size", "build", None, "input height and width in pixels, '256x192'"),
    Knob("dtype", "run", "float32", "number format of the forward pass", ("float32", "bfloat16", "float16")),
    Knob("runtime", "run", "eager", "how the forward pass runs", ("eager", "compile")),
    Knob("decoder", "select", None, "heatmap decoder; default: the published one"),
    Knob("flip", "select", None, "flip test; default: the published protocol", (None, True, False)),
)
"""Knobs of every method; a variant's own come on top."""

EARLY_EXIT_KNOBS: tuple[Knob, Knob] = (
    Knob(
        "quality_threshold",
        "select",
        None,
        "predicted quality from which a person leaves after the coarse stage: a number, 'always' (refine everybody) or "
        "'never'; default: published",
        low=-math.inf,
        words=("always", "never"),
    ),
    Knob(
        "exit_rate",
        "select",
        None,
        "share of forwards that leave after the coarse stage; becomes the highest quality threshold at which at least "
        "this share of those measured leaves",
        low=0,
        high=1,
        excludes=("quality_threshold",),
    ),
)
"""Knobs of a method that a person may leave early."""


def _modules() -> Sequence[tuple[str, Callable[[], Any]]]:
    folder = Path(__file__).resolve().parent.parent / "methods"
    found: list[tuple[str, Callable[[], Any]]] = []
    for info in pkgutil.iter_modules([str(folder)]):
        if not info.ispkg:
            found.append((f"methods.{info.name}", partial(importlib.import_module, f"methods.{info.name}")))
    for point in entry_points(group="paretopose.methods"):
        found.append((f"entry point {point.name} ({point.value})", point.load))
    return found


@lru_cache(maxsize=1)
def variants() -> dict[str, Variant]:
    """Every variant by name: the built-in files, then the entry points. Two of one name are an error."""
    table: dict[str, Variant] = {}
    origin: dict[str, str] = {}
    for source, load in _modules():
        for variant in getattr(load(), "VARIANTS", ()):
            if variant.name in table:
                raise UserError(f"two variants are named '{variant.name}'", where=f"{origin[variant.name]}, {source}")
            table[variant.name], origin[variant.name] = variant, source
    return table


def find_variant(name: str, where: str = "") -> Variant:
    """The variant of that name; an unknown one lists the near names."""
    table = variants()
    if name not in table:
        what, hint = unknown_name("method", name, table, listing="paretopose methods")
        raise SuiteError(what, where=where, hint=hint)
    return table[name]
