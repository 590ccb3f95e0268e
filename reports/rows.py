"""A run manifest and the store's records -> rows of plain values, checked and safe to print."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import UserError
from harness.records.store import SCHEMA, Record, Store

__all__ = ["SURE", "RowData", "load_rows", "plain_text", "record_of"]

SURE = 0.05  # p below which a paired difference is told by bold type
_KINDS = ("accuracy", "cost", "latency")
_ID = re.compile(r"[0-9a-f]{16}")


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class _Cell(_Lenient):
    variant: str
    input_size: tuple[int, int]
    build: dict[str, Any] = Field(default_factory=dict)
    run: dict[str, Any] = Field(default_factory=dict)
    select: dict[str, Any] = Field(default_factory=dict)
    protocol: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    seed: int = 0
    swept: dict[str, Any] = Field(default_factory=dict)
    line: int = 0


class _Row(_Lenient):
    label: str
    note: str = ""
    method: str = ""
    paradigm: str = "top-down"
    cell: _Cell
    records: dict[str, str] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)


class _Manifest(_Lenient):
    rows: tuple[_Row, ...]
    schema_version: int = SCHEMA


@dataclass(frozen=True)
class RowData:
    """One line of a table. `records` and `reasons` are named `accuracy`, `cost`, `latency_b1`, `latency_b32`, ..."""

    label: str
    note: str
    method: str
    variant: str
    input_size: tuple[int, int]
    knobs: Mapping[str, Any]
    """build, run and select knobs"""
    swept: Mapping[str, Any]
    protocol: Mapping[str, Any]
    data: Mapping[str, Any]
    seed: int
    records: Mapping[str, Record] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    line: int = 0
    """which method line of the suite it comes from"""
    paradigm: str = "top-down"
    leads: bool = False
    """its AP is the best, and paired tests tell it from that of every other row"""

    def result(self, name: str) -> Mapping[str, Any]:
        """The result of one of its records, empty when there is none."""
        record = self.records.get(name)
        return record.result if record else {}


def load_rows(store: Store, manifest: Mapping[str, Any]) -> list[RowData]:
    """The rows of a run manifest in its order, with their records.

    A record that the store does not hold becomes a reason. Raises UserError for what is no run manifest.
    """
    try:
        checked = _Manifest.model_validate(manifest)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"no run manifest: {place}: {first['msg']}", hint="`paretopose run SUITE` writes one") from None
    if checked.schema_version != SCHEMA:
        way_out = "run the suite again" if checked.schema_version < SCHEMA else "update paretopose"
        what = f"run manifest of schema version {checked.schema_version}"
        raise UserError(what, where=_name_of(manifest), expected=f"version {SCHEMA}", hint=way_out)
    known: dict[tuple[str, str], Record | None] = {}  # many rows share a cost record
    best = _leading(store, manifest)
    return [_row(store, row, known, best) for row in checked.rows]


def _leading(store: Store, manifest: Mapping[str, Any]) -> str:
    """Id of the accuracy record that leads all others of the run; empty where none does, or nobody compared them."""
    record = record_of(store, "effects", manifest.get("effects"))
    found = record.result.get("lead") if record else None
    if record is None or not found or not all((d["p_holm"] or 1.0) < SURE for d in found["differences"]):
        return ""
    return str(record.key["rows"][found["best"]])


def _name_of(manifest: Mapping[str, Any]) -> str:
    suite = manifest.get("suite")
    return plain_text(suite.get("name", "")) if isinstance(suite, Mapping) else ""


def _row(store: Store, row: _Row, known: dict[tuple[str, str], Record | None], best: str) -> RowData:
    cell = row.cell
    records: dict[str, Record] = {}
    reasons = {name: plain_text(text) for name, text in row.reasons.items()}
    for name, identity in row.records.items():
        record = _find(store, name, identity, known)
        if record is None:
            reasons[name] = f"the store has no record {plain_text(name)}-{plain_text(identity)}"
        else:
            records[name] = record
    return RowData(
        label=plain_text(row.label),
        note=plain_text(row.note),
        method=plain_text(row.method or cell.variant),
        variant=plain_text(cell.variant),
        input_size=cell.input_size,
        knobs={**cell.build, **cell.run, **cell.select},
        swept=cell.swept,
        protocol=cell.protocol,
        data=cell.data,
        seed=cell.seed,
        records=records,
        reasons={name: text for name, text in reasons.items() if name not in records},
        line=cell.line,
        paradigm=plain_text(row.paradigm),
        leads=bool(best) and row.records.get("accuracy") == best,
    )


def record_of(store: Store, kind: str, identity: object) -> Record | None:
    """The record of that kind and id, None when there is none or the id is none: never a path out of the store."""
    return store.by_id(kind, identity) if isinstance(identity, str) and _ID.fullmatch(identity) else None


def _find(store: Store, name: str, identity: str, known: dict[tuple[str, str], Record | None]) -> Record | None:
    kind = name.partition("_")[0]
    if kind not in _KINDS or not _ID.fullmatch(identity):  # never a path out of the store
        return None
    if (kind, identity) not in known:
        known[kind, identity] = store.by_id(kind, identity)
    return known[kind, identity]


def plain_text(value: Any) -> str:
    """`value` as one printable line; sizes as 256x192, the parts of an error message joined by semicolons."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ("x" if all(isinstance(v, int) for v in value) else "/").join(map(plain_text, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    if text.isprintable():  # also: of one line
        return text.strip()
    lines = "; ".join(part.strip() for part in text.splitlines() if part.strip())
    return "".join(c if c.isprintable() else "?" for c in lines)
