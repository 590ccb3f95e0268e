"""What the page shows, as plain values: rows, axes, records, pictures. The browser does the rest."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reports import quantities as q
from reports.formats import entry
from reports.grounds import persons_of, timing_of, worded
from reports.model import NOT_HERE, Table, Value
from reports.origin import origin_of
from reports.page.pool import Pool
from reports.published import published_ap
from reports.rows import RowData, plain_text

__all__ = ["Picture", "content"]

_METRICS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AP_easy", "AP_medium", "AP_hard", q.PCKH, "PCKh@0.1")
_GAP = "no value"


@dataclass(frozen=True)
class Picture:
    """One person of one row: a JPEG, what it shows, and which case it is."""

    row: str
    """label of the row"""
    kind: str
    """worst, middle, best"""
    caption: str
    jpeg: bytes


def content(
    rows: Sequence[RowData], table: Table, pictures: Sequence[Picture] = (), remarks: Sequence[str] = ()
) -> dict[str, Any]:
    """The page's data, JSON-ready. `remarks`: what was passed over, said at the top."""
    pool, table = Pool(), table.telling()
    grounds = [persons_of(row) if "accuracy" in row.records else None for row in rows]
    known = list(dict.fromkeys(ground for ground in grounds if ground))
    methods = list(dict.fromkeys(row.method for row in rows))
    axes, metrics = _axes(rows), [m for m in _METRICS if any(m in _stats(row) for row in rows)]
    listed = []
    for i, (row, ground) in enumerate(zip(rows, grounds)):
        listed.append(
            {
                "label": row.label,
                "method": methods.index(row.method),
                "note": row.note,
                "ground": known.index(ground) if ground else -1,
                "cells": [_cell(row, v, c.key, entry(v, c), pool) for v, c in zip(table.rows[i], table.columns)],
                "x": {axis["key"]: _numbers(axis["value"](row)) for axis in axes},
                "y": {name: _numbers(q.stat(row, name)) for name in metrics},
                "records": [[name, pool.record(record)] for name, record in row.records.items()],
                "protocol": pool.fields(_protocol(row)),
                **_published(row),
            }
        )
    return {
        "title": table.title,
        "columns": [
            {"key": c.key, "title": c.title, "text": c.kind == "text", "level": c.level} for c in table.columns
        ],
        "axes": [{"key": a["key"], "title": a["title"], "unit": a["unit"], "note": a["note"]} for a in axes],
        "metrics": metrics,
        "grounds": worded(known),
        "methods": methods,
        "rows": listed,
        "notes": list(table.remarks),  # what belongs to one entry is told there
        "remarks": list(remarks),
        "pictures": _pictures(rows, pictures),
        **pool.to_json(),
    }


def _published(row: RowData) -> dict[str, float]:
    """The published AP of the same images, kind of boxes and flip test, where there is one."""
    found = published_ap(row)
    return {} if found is None or found.value is None else {"published": found.value}


def _stats(row: RowData) -> Mapping[str, Any]:
    return row.result("accuracy").get("stats") or {}


def _numbers(value: Value) -> list[float] | None:
    """[value, low, high] to seven digits; bounds are left out where there are none."""
    if value.value is None:
        return None
    numbers = [value.value] if value.low is None or value.high is None else [value.value, value.low, value.high]
    return [float(f"{n:.7g}") for n in numbers]


def _cell(row: RowData, value: Value, column: str, text: str, pool: Pool) -> list[int]:
    """[text, origin, remark] as indices, -1 for none; what is not there at the end is left out."""
    origin = origin_of(row, column)
    remark = "; ".join(part for part in (value.reason, value.note) if part)
    found = [
        pool.text(text or NOT_HERE),
        -1 if origin is None else pool.origin(origin.record, origin.field, origin.how),
        pool.text(remark) if remark else -1,
    ]
    while found[-1] == -1:
        found.pop()
    return found


def _axes(rows: Sequence[RowData]) -> list[dict[str, Any]]:
    """What a trade-off can be drawn over: work, size, and every way in which the rows were timed."""
    one = "one forward of one person (one-stage: of one image)"
    axes: list[dict[str, Any]] = [
        {"key": "gmacs", "title": "gmacs", "unit": "gmacs", "note": one, "value": q.gmacs},
        {"key": "gflops", "title": "gflops", "unit": "gflops", "note": f"{one}; 2 x gmacs", "value": _gflops},
        {"key": "params", "title": "parameters", "unit": "M", "note": "millions, of the forward", "value": q.params},
    ]
    if len({row.paradigm for row in rows}) > 1:  # a person's cost and an image's do not compare
        note = "mean over the images, all their persons; top-down: without its detector"
        whole = {"key": "gmacs_per_image", "title": "gmacs per image", "unit": "gmacs", "note": note}
        axes.insert(0, {**whole, "value": q.gmacs_per_image})
    for name in sorted({n for row in rows for n in row.records if n.startswith("latency_")}, key=_by_batch):
        axes.append(_latency_axis(name, rows))
    return [axis for axis in axes if any(axis["value"](row).value is not None for row in rows)]


def _gflops(row: RowData) -> Value:
    return q.gmacs(row, scale=2)


def _by_batch(name: str) -> tuple[int, str]:
    batch = name.removeprefix("latency_b").partition("~")[0]
    return (int(batch) if batch.isdigit() else 0, name)


def _latency_axis(name: str, rows: Sequence[RowData]) -> dict[str, Any]:
    batch = name.removeprefix("latency_b").partition("~")[0]
    ways = worded(list(dict.fromkeys(timing_of(row.records[name]) for row in rows if name in row.records)))
    note = "median of one call; " + (ways[0] if len(ways) == 1 else f"NOT comparable, timed in {len(ways)} ways")
    title = f"latency, batch {plain_text(batch)}" + (f" ({name.partition('~')[2]})" if "~" in name else "")
    return {"key": name, "title": title, "unit": "ms", "note": note, "value": _median(name)}


def _median(name: str) -> Any:
    return lambda row: q.from_latency(row, name, "median")


def _protocol(row: RowData) -> list[tuple[str, str, str]]:
    """What stands around the network, and what sets it apart: what two rows are compared by."""
    scored = row.records["accuracy"].key if "accuracy" in row.records else {}
    data = scored.get("data") or {}
    boxes = q.boxes(row).text or _GAP
    network = {"variant": row.variant, "input size": row.input_size, **row.knobs, "weights": scored.get("weights")}
    found = [("network", plain_text(name), _known(value)) for name, value in network.items()]
    found += [("protocol", plain_text(name).replace("_", " "), _known(v)) for name, v in row.protocol.items()]
    found += [
        ("data", "data set", _known(data.get("name") or row.data.get("name"))),
        ("data", "images and annotations", _known(data.get("dataset"))),
        ("data", "boxes", boxes),
        ("data", "boxes, fingerprint", _known(data.get("boxes_digest"))),
        ("data", "seed of training", str(row.seed)),
    ]
    spec = scored.get("spec") or {}
    found += [("interval", plain_text(name), _known(value)) for name, value in spec.items()]
    for name, record in row.records.items():
        if record.kind == "latency":
            words, machine = timing_of(record)
            found += [("time", plain_text(name), words), ("time", f"{plain_text(name)}, machine", machine)]
    return found


def _known(value: Any) -> str:
    return _GAP if value in (None, "") else plain_text(value)


def _pictures(rows: Sequence[RowData], pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    labels = [row.label for row in rows]
    return [
        {
            "row": labels.index(picture.row),
            "kind": picture.kind,
            "caption": picture.caption,
            "src": f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}",
        }
        for picture in pictures
        if picture.row in labels
    ]
