"""What a whole image costs: the lines of every row, and the number of persons from which one-stage is cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.records.store import Record, Store
from reports.model import Column, Table, Value
from reports.rows import plain_text, record_of

__all__ = ["crossing_table", "load_system", "system_table", "system_tables"]


def load_system(store: Store, manifest: Mapping[str, Any]) -> Record | None:
    """The system record of a run, None where there is none."""
    return record_of(store, "system", str(manifest.get("system") or ""))


def system_tables(record: Record | None) -> dict[str, Table]:
    """By file name; none without a record."""
    return {"system": system_table(record), "crossings": crossing_table(record)} if record else {}


def system_table(record: Record) -> Table:
    """Each row as a system: what an image costs with nobody on it, and every person, in gmacs and milliseconds."""
    persons = record.result["persons_per_image"]
    columns = [Column("system", "system", "text"), Column("paradigm", "paradigm", "text")]
    for unit in ("gmacs", "ms"):
        columns += [Column(f"{unit}_{what}", f"{unit} per {what}", digits=2) for what in ("image", "person")]
        if persons is not None:
            columns.append(Column(f"{unit}_typical", f"{unit} at {persons:.1f} persons", digits=1))
    rows = []
    for row in record.result["rows"]:
        entries = [Value(text=plain_text(row["label"])), Value(text=row["paradigm"])]
        for unit in ("gmacs", "ms"):
            names = ("fixed", "each", *(("typical",) if persons is not None else ()))
            entries += [_number(row[unit], name) for name in names]
        rows.append(tuple(entries))
    about = (f"{record.kind}-{record.id}",)
    return Table(tuple(columns), tuple(rows), (about,) * len(rows), tuple(_remarks(record)), "Cost of a whole image")


def _number(found: Mapping[str, Any], name: str) -> Value:
    if "reason" in found:
        return Value.missing(plain_text(found["reason"]))
    return Value.number(found.get(name))


def _remarks(record: Record) -> list[str]:
    result = record.result
    detector = result["detector"]
    found = f"the part of {plain_text(detector['name'])} that does not depend on persons" if detector else "none"
    lines = [
        "Top-down: detector + persons x (crop + pose, both forwards of a flip test); one-stage: trunk, proposals and "
        f"boxes + persons x pose head. Detector of the top-down rows: {found}"
        + ("." if detector else ": their boxes are given, and finding them costs nothing here.")
    ]
    lines.append("gmacs: of the average image that was scored, or of the image that operators were counted on; exact.")
    scope = result["latency"]
    if scope:
        lines.append(f"ms: lines through the timed calls ({scope['name']}, scope {scope['scope']}). {_crops(result)}")
    return lines


def _crops(result: Mapping[str, Any]) -> str:
    shares = [row["parts"]["crop_share"] for row in result["rows"] if "crop_share" in row["parts"]]
    if not shares:
        return ""
    low, high = (f"{100 * s:.1f}" for s in (min(shares), max(shares)))
    span = low if low == high else f"{low} to {high}"
    return f"Cropping and normalising are {span} % of a top-down person's milliseconds."


def crossing_table(record: Record) -> Table:
    """For each one-stage row beside each top-down row: from how many persons on it is the cheaper one."""
    columns = (
        Column("one_stage", "one-stage", "text"),
        Column("top_down", "top-down", "text"),
        Column("gmacs_from", "cheaper from (persons, gmacs)"),
        Column("ms_from", "cheaper from (persons, ms)", "interval"),
    )
    rows = [
        (
            Value(text=plain_text(pair["one_stage"])),
            Value(text=plain_text(pair["top_down"])),
            _crossing(pair["gmacs"]),
            _crossing(pair["ms"]),
        )
        for pair in record.result["crossings"]
    ]
    note = (
        "Cheaper from: persons on an image from which on the one-stage network costs less; in milliseconds with the "
        "95 % interval of a bootstrap over the latency rounds."
    )
    about = (f"{record.kind}-{record.id}",)
    return Table(columns, tuple(rows), (about,) * len(rows), (note,), "From how many persons one-stage is cheaper")


def _crossing(found: Mapping[str, Any]) -> Value:
    if "reason" in found:
        return Value.missing(plain_text(found["reason"]))
    shares = found.get("shares") or {}
    others = {v: s for v, s in shares.items() if v != found["verdict"] and s > 0}
    note = "; ".join(f"{v} in {100 * s:.0f} % of the resamples" for v, s in others.items())
    note = plain_text(found.get("warning") or note)
    if found["verdict"] == "from":
        return Value(value=found["persons"], low=found.get("low"), high=found.get("high"), note=note)
    text = f"only up to {found['persons']:.1f}" if found["verdict"] == "up to" else str(found["verdict"])
    return Value(text=text, note=note)
