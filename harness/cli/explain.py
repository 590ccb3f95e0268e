"""`explain`: where a number comes from, down to code, weights, data, protocol, machine and command."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.report import find_manifest
from harness.errors import UserError, unknown_name
from harness.records.store import DEFAULT_FOLDER, Record, Store

if TYPE_CHECKING:
    from reports.model import Table
    from reports.rows import RowData

__all__ = ["explain"]

_RECORD = re.compile(r"(?:(?P<kind>[a-z]+)-)?(?P<id>[0-9a-f]{4,16})")
_NONE = "not part of this measurement"
_STORED = "stored: `paretopose report --verify` recomputes AP and interval from them"
_NOT_STORED = "not stored here: AP and interval are as recorded and cannot be recomputed"
_TARGET = "Record id (as in table.csv, or its first digits), or the label of a table's row."
Target = Annotated[str, typer.Argument(metavar="RECORD|ROW", help=_TARGET)]
Cell = Annotated[str | None, typer.Argument(metavar="COLUMN", help="Column of the row as in CSV: ap, gmacs, ...")]


def explain(
    target: Target,
    column: Cell = None,
    run: Annotated[str | None, typer.Option(help="Suite whose table ROW is in; default: the latest run.")] = None,
    field: Annotated[str | None, typer.Option(help="One field of the record, for example stats.AP.value.")] = None,
    store: Annotated[Path, typer.Option("--store", help="Folder of the records.")] = DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Say where a record, or an entry of a table, comes from."""
    keep = Store(store)
    found = None if column else _record(keep, target)
    answer = _of_record(keep, found, field) if found else _of_entry(keep, target, column, run, field)
    print(json.dumps(answer, indent=1) if as_json else "\n".join(_lines(answer)))


def _record(keep: Store, target: str) -> Record | None:
    """The record that a (shortened) id names; None for what is no id or is not there."""
    named = _RECORD.fullmatch(target)
    if named is None:
        return None
    pattern = f"{named['kind'] or '*'}-{named['id']}*.json"
    paths = sorted((keep.folder / "records").glob(pattern))
    if len(paths) > 1:
        raise UserError(
            f"{len(paths)} records begin with '{target}'",
            where=str(keep.folder),
            expected="one of " + ", ".join(path.stem for path in paths[:8]),
        )
    if not paths:
        return None
    record = keep.by_id(*paths[0].stem.rsplit("-", 1))
    if record is None:
        raise UserError("; ".join(keep.remarks()), where=paths[0].stem, hint="`paretopose run SUITE` measures it again")
    return record


def _of_record(keep: Store, record: Record, field: str | None) -> dict[str, Any]:
    from reports.explain import field as value_at
    from reports.explain import sections

    answer: dict[str, Any] = {"record": f"{record.kind}-{record.id}"}
    if record.kind == "accuracy":
        answer["matches"] = _STORED if keep.has_arrays(record.id) else _NOT_STORED
    if field:
        answer |= {"field": field, "value": value_at(record, field)}
    found = sections(record)
    if field:
        found["figures"] = []
    return answer | {"origin": {name: {f.name: f.text for f in own} for name, own in found.items()}}


def _of_entry(keep: Store, label: str, column: str | None, run: str | None, field: str | None) -> dict[str, Any]:
    """The entry of a row and column with its record; without a column what the row's columns are made of."""
    from reports.formats import entry
    from reports.origin import origin_of
    from reports.report import table_of
    from reports.rows import load_rows

    manifest = find_manifest(keep, run)
    rows = load_rows(keep, manifest)
    table = table_of(rows, manifest)
    at = _row_of(rows, label, str(manifest["suite"]["name"]))
    if column is None:
        return {"row": label, "entries": dict(_entries(table, rows[at], at))}
    keys = [c.key for c in table.columns]
    titles = {c.title.lower(): c.key for c in table.columns} | {key.lower(): key for key in keys}
    column = titles.get(column.lower(), column)
    if column not in keys:
        what, hint = unknown_name("column", column, keys)
        raise UserError(what, where=f"table of {manifest['suite']['name']}", hint=hint)
    value, shown = table.rows[at][keys.index(column)], table.columns[keys.index(column)]
    answer: dict[str, Any] = {"row": label, "column": column, "entry": entry(value, shown)}
    answer |= {name: text for name, text in (("reason", value.reason), ("note", value.note)) if text}
    origin = origin_of(rows[at], column)
    if origin is None:
        return answer
    record = rows[at].records[origin.record]
    return answer | {"how": origin.how} | _of_record(keep, record, field or origin.field)


def _row_of(rows: list[RowData], label: str, suite: str) -> int:
    """Index of the row of that label; of a variant that has one row only."""
    found = [i for i, row in enumerate(rows) if row.label == label]
    found = found or [i for i, row in enumerate(rows) if row.variant == label]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(f"'{rows[i].label}'" for i in found[:8])
        raise UserError(f"{len(found)} rows are of '{label}'", where=suite, expected=f"one of {names}")
    what, hint = unknown_name("record or row", label, [row.label for row in rows])
    raise UserError(what, where=f"run {suite}", hint=hint)


def _entries(table: Table, row: RowData, at: int) -> Iterator[tuple[str, dict[str, str]]]:
    from reports.formats import entry
    from reports.model import NOT_HERE
    from reports.origin import origin_of

    for value, column in zip(table.rows[at], table.columns):
        origin = origin_of(row, column.key)
        if origin and value.text != NOT_HERE:
            record = row.records[origin.record]
            made = {"record": f"{record.kind}-{record.id}", "field": origin.field}
            yield column.key, {"entry": entry(value, column), **made}


def _lines(answer: dict[str, Any]) -> Iterator[str]:
    """The answer for people."""
    if "entries" in answer:
        yield answer["row"]
        entries = answer["entries"]
        wide = [max(map(len, texts), default=0) for texts in (entries, [made["entry"] for made in entries.values()])]
        for key, made in entries.items():
            yield f"  {key:<{wide[0]}}  {made['entry']:<{wide[1]}}  {made['record']}, {made['field']}"
        return
    if "row" in answer:
        yield f"{answer['row']}, {answer['column']}: {answer['entry']}"
    for name in ("how", "reason", "note", "record", "matches"):
        if name in answer:
            yield f"  {name}: {answer[name]}"
    if "field" in answer:
        yield f"  field {answer['field']}: {json.dumps(answer['value'])}"
    for section, facts in answer.get("origin", {}).items():
        if facts or section != "figures":
            yield f"{section}"
            yield from (f"  {name}: {text}" for name, text in facts.items()) if facts else iter([f"  {_NONE}"])
