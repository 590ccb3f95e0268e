"""Published figures beside ours: matched by variant, input size and knobs, compared only under the same boxes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.published import rows_for
from reports import quantities as q
from reports.model import NOT_HERE, Column, Value
from reports.rows import RowData, plain_text

__all__ = ["published_columns"]

_DATA, _SPLIT = "COCO", "val2017"
_OURS = "coco_val2017"  # name of the same images in a suite


@dataclass(frozen=True)
class _Named:
    name: str
    published: tuple[tuple[str, str], ...] = ()


def published_columns(rows: Sequence[RowData]) -> tuple[list[Column], list[list[Value]], str]:
    """The columns 'published AP' and 'difference' (ours minus published), their entries by row, and a note."""
    columns = [Column("published_ap", "published AP"), Column("published_difference", "difference")]
    note = (
        f"Published AP: {_DATA} {_SPLIT}, as printed in the source that the mark names. Difference: ours minus "
        "published, given only for the same images and the same kind of person boxes."
    )
    return columns, [_entries(row) for row in rows], note


def _entries(row: RowData) -> list[Value]:
    found = _candidates(row)
    if not found:
        return [Value.missing("no published figure of this network at this input size", NOT_HERE)] * 2
    kind = _kind(q.boxes(row).text)
    best = next((f for f in found if _kind(f["boxes"]) == kind), found[0])
    boxes, decoding = best["boxes"] or "not stated", best["post_process"] or "not stated"
    about = f"{best['source']}; boxes: {boxes}; decoding: {decoding}"
    published = Value(value=float(best["ap"]), note=f"published: {plain_text(about)}")
    return [published, _difference(row, float(best["ap"]), kind, _kind(best["boxes"]))]


def _candidates(row: RowData) -> list[dict[Any, Any]]:
    table = rows_for(_Named(row.variant), row.input_size, dataset=_DATA)
    table = table[(table["split"] == _SPLIT) & table["ap"].notna()]
    return [dict(r) for r in table.to_dict("records") if _same_knobs(r["our_knobs"], row)]


def _same_knobs(text: str, row: RowData) -> bool:
    pairs = (part.partition("=") for part in re.split(r"[;,\s]+", text) if part)
    return all(plain_text(row.knobs.get(name)) == value for name, _, value in pairs)


def _kind(boxes: str) -> str:
    if boxes.startswith(("ground-truth", "GT")):
        return "ground truth"
    return "detections" if boxes else "unknown"


def _difference(row: RowData, published: float, ours: str, theirs: str) -> Value:
    ap = q.stat(row, "AP")
    if ap.value is None:
        return Value.missing(ap.reason, ap.text)
    if row.data.get("name") != _OURS or row.data.get("limit") or row.data.get("where"):
        return Value.missing("other images than the published figure's", "n/a")
    if ours != theirs:
        return Value.missing(f"boxes differ: {ours} here, {theirs} in the source", "boxes differ")
    return Value(value=ap.value - published)
