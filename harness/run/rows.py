"""What a run works on: the rows of its table, the options, and what is known of a cell once its weights are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import provenance
from harness.method import PoseProtocol, Size, Variant, find_variant
from harness.pose.codecs import check_codec
from harness.records.store import Record
from harness.suite.schema import Cell
from harness.train.checkpoints import open_variant, wanted_protocol

__all__ = ["Heard", "Options", "Progress", "Row", "code_of", "file_names", "fitted", "run_kind", "settings_of"]


class Progress:
    """What a run tells while it works; the command line shows it with rich, tests stay silent."""

    def say(self, text: str) -> None:
        """One line."""

    @contextmanager
    def task(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        """A bar of `total` steps; yields the function that advances it."""
        yield lambda count: None


class Heard(Progress):
    """Keeps the lines, for whoever is not here to read them."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


@dataclass(frozen=True)
class Options:
    """How to run: it moves numbers by rounding at most, and milliseconds. `results`: folder for COCO result files, one
    for each row."""

    device: str = "cpu"
    batch: int = 16
    workers: int = 2
    fail_fast: bool = False
    results: Path | None = None


@dataclass(eq=False)
class Row:
    """One line of the table: a cell, its records, and why one is missing. `lacking`: why there are no weights;
    `failed`: the measurements that were tried and went wrong."""

    cell: Cell
    variant: Variant
    weights: Path | None = None
    lacking: str = "no weights"
    records: dict[str, Record] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)

    def to_json(self) -> dict[str, Any]:
        """The row of a run manifest."""
        return {
            "label": self.cell.label,
            "note": self.variant.note,
            "method": self.variant.method,
            "paradigm": self.variant.paradigm,
            "cell": self._plain_cell(),
            "records": {name: record.id for name, record in self.records.items()},
            "reasons": self.reasons,
            "failed": sorted(self.failed),
        }

    def _plain_cell(self) -> dict[str, Any]:
        """The cell with the part of the protocol that its network is run by."""
        return {**self.cell.model_dump(mode="json"), "protocol": self.cell.protocol.applying(self.variant.paradigm)}


def fitted(cell: Cell, weights: Path | None) -> Row:
    """The row of a cell; what the suite leaves open follows the weights: the colour order, of an ONNX file the input
    size, of an exported one the whole protocol."""
    variant = find_variant(cell.variant)
    if weights is not None:
        stamp = provenance.stamp(weights) if weights.is_file() else ()
        asked = cell.input_size if "input_size" in cell.chosen else None
        size, wanted = _wanted(cell.variant, weights, stamp, asked, tuple(cell.build.items()))
        wishes = {name: value for name, value in wanted.items() if name not in cell.chosen}
        if wishes:
            protocol = PoseProtocol.model_validate({**cell.protocol.model_dump(), **wishes})
            if variant.paradigm == "top-down":
                check_codec(protocol.codec, protocol.decoder)
            cell = cell.model_copy(update={"protocol": protocol})
        if size and size != cell.input_size:
            cell = cell.model_copy(update={"input_size": size})
    return Row(cell, variant, weights)


@lru_cache(maxsize=256)
def _wanted(
    name: str, weights: Path, stamp: tuple[int, ...], asked: Size | None, build: tuple[tuple[str, Any], ...]
) -> tuple[Size | None, dict[str, Any]]:
    """The input size that a file has, where files have one, and the fields of the protocol that it asks for."""
    variant = find_variant(name)
    if variant.open_file is None:
        return None, wanted_protocol(variant, weights)
    network, report = open_variant(variant, weights, input_size=asked, **dict(build))
    return network.input_size, dict(report.protocol) if report else {}


def settings_of(cell: Cell) -> dict[str, Any]:
    """The method's own run knobs (dtype and runtime are the harness's)."""
    return {n: v for n, v in cell.run.items() if n not in ("dtype", "runtime")}


def run_kind(cell: Cell) -> dict[str, Any]:
    """The harness's run knobs: number format and runtime."""
    return {n: cell.run[n] for n in ("dtype", "runtime")}


def code_of(stage: str, variant: Variant) -> str:
    """Fingerprint of the code that a stage runs for this variant."""
    origin = variant.build or variant.open_file
    assert origin is not None
    return provenance.code(stage, _file_of(origin))


@lru_cache(maxsize=256)
def _file_of(origin: Callable[..., Any]) -> Path | None:
    file = inspect.getsourcefile(inspect.unwrap(getattr(origin, "func", origin)))
    return Path(file) if file else None


def file_names(rows: list[Row]) -> dict[Row, str]:
    """A file name for each row: its label without what a file system dislikes, numbered where two are alike."""
    names: dict[Row, str] = {}
    for row in rows:
        plain = re.sub(r"[^A-Za-z0-9_.=-]+", "_", row.cell.label).strip(".") or "row"
        taken = set(names.values())
        names[row] = next(n for n in (plain, *(f"{plain}_{i}" for i in range(2, len(rows) + 2))) if n not in taken)
    return names
