"""YAML -> Suite -> Cells. A cell is one fully determined measurement; all knobs of a cell have a value."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from harness.errors import SuiteError, unknown_name
from harness.method import PoseProtocol, Variant, find_variant
from harness.pose.codecs import check_codec
from harness.suite_file import Marked, override, read, validate

__all__ = ["AccuracySpec", "Cell", "DataSpec", "LatencySpec", "Suite", "TrainData", "TrainSpec", "expand", "load_suite"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSpec(_Frozen):
    """Which images, annotations and boxes. `root` names a folder given as --data NAME=PATH."""

    name: str = "coco_val2017"
    """label of the set; `synthetic` is the built-in one and needs nothing else"""
    root: str = "coco"
    annotations: str = "annotations/person_keypoints_val2017.json"
    images: str = "val2017"
    boxes: str = "ground-truth"
    """`ground-truth`, or a COCO detection file below the root"""
    where: dict[str, str] = Field(default_factory=dict)
    """only images whose record holds these fields, for example {gt: complete}"""
    limit: int | None = Field(None, gt=0)
    """only the first N images"""
    missing: Literal["error", "skip"] = "error"
    """what to do about an image file that is not there"""


class AccuracySpec(_Frozen):
    """How AP is measured."""

    bootstrap: int = Field(1000, ge=0)
    seed: int = 0
    judge: bool = True
    """compare with pycocotools or xtcocotools and fail on a difference above 1e-9"""


class LatencySpec(_Frozen):
    """How milliseconds are measured; `scope` says what is inside the timer."""

    scope: Literal["network", "crop+network+decode", "end-to-end"] = "network"
    batch: tuple[int, ...] = (1,)
    threads: int | None = Field(None, gt=0)
    rounds: int = Field(30, ge=3)
    seconds: float = Field(30.0, gt=0)
    """time limit for each batch size, over all methods"""

    @field_validator("batch", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


class MeasureSpec(_Frozen):
    """What to measure; `true` takes the defaults, `false` leaves it out."""

    accuracy: AccuracySpec | bool = True
    cost: bool = True
    latency: LatencySpec | bool = False


class TrainData(_Frozen):
    """The images to train on. `root` names a folder given as --data NAME=PATH."""

    root: str = "coco"
    annotations: str = "annotations/person_keypoints_train2017.json"
    images: str = "train2017"


class TrainSpec(_Frozen):
    """How the networks of a suite are trained before they are measured, from random weights drawn from the seed."""

    recipe: str
    """`official`, `quick`: a recipe that every variant of the suite has"""
    data: Literal["synthetic"] | TrainData = "synthetic"
    limit: int | None = Field(None, gt=0)
    """only the first N images"""
    epochs: int | None = Field(None, gt=0)
    """another length than the recipe's; milestones in proportion"""
    precision: Literal["float32", "bfloat16"] = "float32"


class MethodSpec(_Frozen):
    """One line of a suite: a variant, knobs that are fixed (`set`) and knobs that are swept (`sweep`)."""

    variant: str
    set: dict[str, Any] = Field(default_factory=dict)
    sweep: dict[str, list[Any]] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    """file below the weights root, when it is not VARIANT.safetensors"""


class ReportSpec(_Frozen):
    """What the report shows."""

    title: str = ""
    axes: tuple[str, str] = ("gmacs", "ap")
    published: bool = False


class Suite(_Frozen):
    """A suite file. Unknown keys are refused."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    description: str = ""
    data: DataSpec = DataSpec()
    measure: MeasureSpec = MeasureSpec()
    methods: tuple[MethodSpec, ...] = Field(min_length=1)
    protocol: dict[str, Any] = Field(default_factory=dict)
    """overrides of every method's published test-time protocol"""
    weights: str = ""
    """`quickstart`: the tiny weights of the project; otherwise only --weights names files"""
    design: Literal["grid", "one_factor", "leave_one_out"] = "grid"
    train: TrainSpec | None = None
    """trains every network of the suite, once for each seed; without it weights are files"""
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    report: ReportSpec = ReportSpec()


class Cell(_Frozen):
    """One fully determined measurement. `build`, `run` and `select` hold a value for every knob of the variant."""

    label: str
    variant: str
    input_size: tuple[int, int]
    build: dict[str, Any]
    run: dict[str, Any]
    select: dict[str, Any]
    protocol: PoseProtocol
    data: DataSpec
    seed: int
    weights: str | None = None
    chosen: tuple[str, ...] = ()
    """protocol fields (and `input_size`) that the suite sets itself; the others follow variant and weights"""
    swept: dict[str, Any] = Field(default_factory=dict)
    """the swept knobs and their values here, for tables and ablations"""
    line: int = 0
    """which of the suite's method lines it comes from; the first cell of a line is the base of its ablation"""
    train: TrainSpec | None = None

    def network_key(self) -> dict[str, Any]:
        """What determines the network: variant, input size, build knobs."""
        return {"variant": self.variant, "input_size": list(self.input_size), "build": self.build}


def load_suite(path: Path, assignments: Sequence[str] = (), limit: int | None = None) -> tuple[Suite, Marked]:
    """The suite of a file with `--set` assignments applied; SuiteErrors carry file:line."""
    values = read(path)
    override(values, assignments)
    if limit is not None:
        override(values, [f"data.limit={limit}"])
    return validate(Suite, values), values


def expand(suite: Suite, marked: Marked | None = None) -> list[Cell]:
    """The cells of a suite in the order of the file. SuiteError: unknown variant, knob, value or protocol field."""
    cells: list[Cell] = []
    _check_seeds(suite, marked)
    for index, spec in enumerate(suite.methods):
        where = _Where(marked, index)
        variant = find_variant(spec.variant, where("variant"))
        if suite.train is not None:
            _check_recipe(variant, suite.train.recipe, marked.where(("train", "recipe")) if marked else "")
        for seed in suite.seeds:
            for values in _design(suite.design, spec, where):
                cell = _cell(suite, spec, variant, values, seed, where)
                cells.append(cell.model_copy(update={"line": index, "train": suite.train}))
    return cells


def _check_seeds(suite: Suite, marked: Marked | None) -> None:
    where = marked.where(("seeds",)) if marked else ""
    if len(set(suite.seeds)) < len(suite.seeds):
        raise SuiteError(f"seeds {list(suite.seeds)}", where=where, expected="each seed once")
    if len(suite.seeds) > 1 and suite.train is None:
        raise SuiteError(
            f"{len(suite.seeds)} seeds, but nothing is trained",
            where=where,
            expected="one seed: without `train` every seed has the same weights",
            hint="add `train: {recipe: ...}`",
        )


def _check_recipe(variant: Variant, name: str, where: str) -> None:
    if not variant.recipes:
        raise SuiteError(
            f"{variant.name} has no training recipe", where=where, hint="`paretopose methods` lists what can be trained"
        )
    if name not in variant.recipes:
        what, hint = unknown_name(f"recipe of {variant.name}", name, variant.recipes)
        raise SuiteError(what, where=where, hint=hint)


class _Where:
    """`file:line` of a key of one method line."""

    def __init__(self, marked: Marked | None, index: int) -> None:
        self._marked, self._index = marked, index

    def __call__(self, *path: str | int) -> str:
        return self._marked.where(("methods", self._index, *path)) if self._marked else ""


def _design(design: str, spec: MethodSpec, where: _Where) -> Iterator[dict[str, Any]]:
    """Each combination of swept values that the design asks for."""
    for name, values in spec.sweep.items():
        if not values:
            raise SuiteError(f"sweep of {name} has no values", where=where("sweep", name))
    if design == "grid":
        for combination in itertools.product(*spec.sweep.values()):
            yield dict(zip(spec.sweep, combination))
        return
    base = {name: values[0] for name, values in spec.sweep.items()}
    yield base
    for name, values in spec.sweep.items():
        others = values[1:]
        if design == "leave_one_out" and len(others) != 1:
            raise SuiteError(
                f"{name} has {len(values)} values", where=where("sweep", name), expected="two: with, without"
            )
        for value in others:
            yield {**base, name: value}


def _cell(
    suite: Suite, spec: MethodSpec, variant: Variant, values: Mapping[str, Any], seed: int, where: _Where
) -> Cell:
    chosen = {**spec.set, **values}
    changes = _changes(suite, spec, chosen, where)
    knobs = {k.name: k.default for k in variant.knobs}
    for name, value in chosen.items():
        if name.startswith("protocol.") or name in ("decoder", "flip", "input_size"):
            continue
        place = where("sweep", name) if name in values else where("set", name)
        knobs[name] = variant.knob(name, place).check(value, place)
    kinds = {name: variant.knob(name).kind for name in knobs}
    run = {"dtype": "float32", "runtime": "eager"} | {n: v for n, v in knobs.items() if kinds[n] == "run"}
    size = _size(chosen.get("input_size") or variant.input_size, where("set", "input_size"))
    return Cell(
        label=_label(variant.name, spec, values),
        variant=variant.name,
        input_size=size,
        build={n: v for n, v in knobs.items() if kinds[n] == "build"},
        run=run,
        select={n: v for n, v in knobs.items() if kinds[n] == "select"},
        protocol=_protocol(variant, changes, where),
        data=suite.data,
        seed=seed,
        weights=spec.weights,
        chosen=tuple(sorted({*changes, *({"input_size"} & chosen.keys())})),
        swept=dict(values),
    )


def _changes(suite: Suite, spec: MethodSpec, chosen: Mapping[str, Any], where: _Where) -> dict[str, Any]:
    """Protocol fields that suite, line and knobs set, in this order."""
    changes = {**suite.protocol, **spec.protocol}
    changes |= {n.removeprefix("protocol."): v for n, v in chosen.items() if n.startswith("protocol.")}
    changes |= {n: chosen[n] for n in ("decoder", "flip") if chosen.get(n) is not None}
    for name in changes:
        if name not in PoseProtocol.model_fields:
            what, hint = unknown_name("protocol field", name, PoseProtocol.model_fields)
            raise SuiteError(what, where=where("protocol", name), hint=hint)
    return changes


def _protocol(variant: Variant, changes: Mapping[str, Any], where: _Where) -> PoseProtocol:
    """The variant's published protocol with `changes`."""
    try:
        protocol = PoseProtocol.model_validate({**variant.protocol.model_dump(), **changes})
    except ValueError as error:
        raise SuiteError(f"protocol: {error}", where=where("protocol")) from None
    if variant.paradigm == "top-down":
        check_codec(protocol.codec, protocol.decoder)
        if protocol.codec not in variant.codecs:
            raise SuiteError(
                f"{variant.name} does not write the maps that codec '{protocol.codec}' reads",
                where=where("protocol"),
                expected="one of " + ", ".join(variant.codecs),
            )
    return protocol


def _size(value: Any, where: str) -> tuple[int, int]:
    """(height, width) from [256, 192] or '256x192'."""
    parts = value.lower().split("x") if isinstance(value, str) else value
    try:
        height, width = (int(p) for p in parts)
    except (TypeError, ValueError):
        raise SuiteError(
            f"input_size is {value!r}", where=where, expected="height and width: '256x192'"
        ) from None
    if not (0 < height <= 4096 and 0 < width <= 4096):
        raise SuiteError(f"input_size is {value!r}", where=where, expected="1 to 4096 pixels a side")
    return height, width


def _label(name: str, spec: MethodSpec, values: Mapping[str, Any]) -> str:
    """`sharpose_s alpha=0.3 quality_threshold=0.9`: the variant and what sets this cell apart."""
    marks = {**spec.set, **{f"protocol.{k}": v for k, v in spec.protocol.items()}, **values}
    return " ".join([name, *(f"{k.removeprefix('protocol.')}={_short(v)}" for k, v in marks.items())])


def _short(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    if isinstance(value, list):
        return "x".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
