"""YAML -> Suite, and the Cell: one fully determined measurement, in which every knob has a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from harness.method import PoseProtocol
from harness.suite.file import Fault, Marked, override, read, validate

__all__ = [
    "AccuracySpec",
    "BoxesFrom",
    "Cell",
    "ClaimSpec",
    "DataSpec",
    "LatencySpec",
    "MethodSpec",
    "PaperSpec",
    "Suite",
    "TrainData",
    "TrainSpec",
    "load_suite",
]

_MOST_ROWS = 100_000
_Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BoxesFrom(_Frozen):
    """The boxes that a one-stage row of the suite found."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    variant: str = Field(alias="from")


class DataSpec(_Frozen):
    """Which images, annotations and boxes. `root` names a folder given as --data NAME=PATH."""

    name: str = "coco_val2017"
    """label of the set; `synthetic` is the built-in one and needs nothing else"""
    root: str = "coco"
    annotations: str = "annotations/person_keypoints_val2017.json"
    images: str = "val2017"
    boxes: str | BoxesFrom = "ground-truth"
    """`ground-truth`, a COCO detection file below the root, or {from: VARIANT}: a one-stage row of the suite"""
    where: dict[str, str] = Field(default_factory=dict)
    """only images whose record holds these fields, for example {gt: complete}"""
    limit: int | None = Field(None, gt=0)
    """only the first N images"""
    missing: Literal["error", "skip"] = "error"
    """what to do about an image file that is not there"""
    heads: str = ""
    """MPII: the mat file with head boxes, below the root"""
    joints: Literal["common"] | dict[str, str] | None = None
    """a network with other joints than the data set is evaluated on those that both name, or on these: {joint of the
    data set: joint of the network}; without it such a network is refused"""

    @cached_property
    def text(self) -> str:
        """All of it as one string, to tell specifications apart."""
        return self.model_dump_json()


class AccuracySpec(_Frozen):
    """How AP is measured."""

    bootstrap: int = Field(1000, ge=0, le=100_000)
    seed: _Seed = 0
    judge: bool = True
    """compare with pycocotools or xtcocotools and fail on a difference above 1e-9"""


class LatencySpec(_Frozen):
    """How milliseconds are measured; `scope` says what is inside the timer."""

    scope: Literal["network", "crop+network+decode", "end-to-end"] = "network"
    batch: tuple[Annotated[int, Field(ge=1, le=65_536)], ...] = (1,)
    threads: int | None = Field(None, gt=0, le=65_536)
    rounds: int = Field(30, ge=3, le=1_000_000)
    seconds: float = Field(30.0, gt=0)
    """time limit for each batch size, over all methods"""

    @field_validator("batch", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return (value,) if isinstance(value, int) else value


class MeasureSpec(_Frozen):
    """What to measure; `true` takes the defaults, `false` leaves it out."""

    accuracy: AccuracySpec | None = AccuracySpec()
    cost: bool = True
    latency: LatencySpec | None = None

    @field_validator("accuracy", "latency", mode="before")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        return {True: {}, False: None}[value] if isinstance(value, bool) else value


class TrainData(_Frozen):
    """The images to train on. `root` names a folder given as --data NAME=PATH."""

    root: str = "coco"
    annotations: str = "annotations/person_keypoints_train2017.json"
    images: str = "train2017"


class TrainSpec(_Frozen):
    """How the networks of a suite are trained before they are measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    recipe: str
    """`official`, `quick`: a recipe that every variant of the suite has"""
    start: Literal["", "quickstart", "weights"] = Field("", alias="from")
    """the weights to start from: random ones drawn from the seed, the tiny ones of the project, those of --weights"""
    set: dict[str, Any] = Field(default_factory=dict)
    """fields of the recipe: {lr: 5.0e-4, augmentation.rotation: 30}"""
    data: Literal["synthetic"] | TrainData = "synthetic"
    limit: int | None = Field(None, gt=0)
    """only the first N images"""
    epochs: int | None = Field(None, ge=0, le=1_000_000)
    """another length than the recipe's; milestones in proportion; 0: the weights of `from` as they are"""
    precision: Literal["float32", "bfloat16"] = "float32"

    @field_validator("epochs")
    @classmethod
    def _from_something(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value == 0 and not info.data.get("start"):
            raise Fault("0 epochs need weights to start from", hint="`from: quickstart` or `from: weights`")
        return value


class MethodSpec(_Frozen):
    """One line of a suite: a variant, knobs that are fixed (`set`) and knobs that are swept (`sweep`)."""

    variant: str
    set: dict[str, Any] = Field(default_factory=dict)
    sweep: dict[str, list[Any]] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    weights: str | None = None
    """file below the weights root, when it is not VARIANT.safetensors"""


class ClaimSpec(_Frozen):
    """A sentence of a paper that compares two networks in one number."""

    text: str
    """the claim in words, as a row of the table"""
    row: str
    against: str
    """variants of the suite: what is praised, and beside what"""
    quantity: Literal["gflops", "params_m", "ap", "latency_ms"]
    measure: Literal["percent_less", "times_less", "more"]
    printed: str
    source: str
    convention: str = ""
    """gflops: the counting convention of the paper"""
    unclear: str = ""
    """what the source leaves open; then ours stands beside it and there is no verdict"""


class PaperSpec(_Frozen):
    """A published table as a target. `rows` select rows of results/published by patterns on their columns, in order."""

    caption: str
    rows: tuple[dict[str, str], ...] = ()
    columns: tuple[Literal["params_m", "gflops", "ap", "ap50", "ap75", "apm", "apl", "ar", "latency_ms"], ...] = (
        "params_m", "gflops", "ap",
    )  # fmt: skip
    claims: tuple[ClaimSpec, ...] = ()


class DetectorRecords(_Frozen):
    """A detector whose cost was recorded: ids of a cost record and of a latency record."""

    cost: str
    latency: str | None = None


class ReportSpec(_Frozen):
    """What the report shows."""

    title: str = ""
    axes: tuple[str, str] = ("gmacs", "ap")
    published: bool = False
    detector: str | DetectorRecords | None = None
    """what finds the persons for top-down rows where a system's cost is compared: a one-stage variant of the suite, or
    {cost: ID, latency: ID}, records of the store; default: where the boxes come from, if that is a row"""
    paper: PaperSpec | None = None


class Suite(_Frozen):
    """A suite file. Unknown keys are refused."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
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
    seeds: tuple[_Seed, ...] = Field((0,), min_length=1)
    report: ReportSpec = ReportSpec()

    @model_validator(mode="after")
    def _countable(self) -> Suite:
        together = math.prod if self.design == "grid" else sum
        rows = [together([len(values) for values in spec.sweep.values()]) for spec in self.methods]
        if max(sum(rows), 1) * len(self.seeds) > _MOST_ROWS:
            most = rows.index(max(rows))
            raise Fault(
                f"more than {_MOST_ROWS:,} combinations of knobs and seeds",
                place=("seeds",) if len(self.seeds) > rows[most] else ("methods", most, "sweep"),
                hint="sweep fewer values, `design: one_factor` instead of the whole grid, or divide it among suites",
            )
        return self


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
