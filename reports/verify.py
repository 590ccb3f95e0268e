"""A written report against what its records give now: every number of every file, by row and column."""

from __future__ import annotations

import csv
import io
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.records.store import Record, Store
from harness.run.recompute import Check, recompute
from reports.report import write_report
from reports.rows import load_rows, record_of

__all__ = ["verify_files", "verify_records"]

_TEXT = (".csv", ".md", ".tex")


def verify_records(
    store: Store, manifest: Mapping[str, Any], advance: Callable[[], None] = lambda: None
) -> Iterator[Check]:
    """Checks of all derived numbers of the records that a run consists of; a damaged or absent record is one too."""
    rows = load_rows(store, manifest)
    records = {r.id: r for row in rows for r in row.records.values()}
    for row, named in zip(rows, manifest["rows"]):
        for name, identity in named.get("records", {}).items():
            here = identity if name in row.records else "damaged or not in the store"
            yield Check(f"{row.label}, {name}", "record", identity, here)
    for record in [*records.values(), *_of_the_run(store, manifest)]:
        yield from recompute(record, store, list(records.values()))
        advance()


def _of_the_run(store: Store, manifest: Mapping[str, Any]) -> list[Record]:
    """Its effects and its system record, where it has them."""
    found = [record_of(store, kind, manifest.get(kind)) for kind in ("effects", "system")]
    return [record for record in found if record]


def verify_files(store: Store, manifest: Mapping[str, Any], folder: Path) -> list[Check]:
    """Checks of the text files that a report wrote into `folder`; none where nothing was written."""
    written = sorted(path for path in folder.glob("*") if path.suffix in _TEXT)
    if not written:
        return []
    with tempfile.TemporaryDirectory() as place:
        figures = any(folder.glob("*.png"))
        again = {path.name: path for path in write_report(store, manifest, Path(place), figures=figures)}
        checks: list[Check] = []
        for path in written:
            if path.name in again:
                checks += _compare(path.name, path.read_text(encoding="utf-8"), again[path.name].read_text("utf-8"))
        absent = sorted(name for name in again if Path(name).suffix in _TEXT and not (folder / name).is_file())
    return [*checks, *(Check(name, "file", "not there", "written by `report`") for name in absent)]


def _compare(name: str, written: str, now: str) -> list[Check]:
    if name.endswith(".csv"):
        return list(_cells(name, written, now))
    lines = itertools.zip_longest(written.splitlines(), now.splitlines(), fillvalue="")
    return [Check(name, f"line {number}", a, b) for number, (a, b) in enumerate(lines, start=1)]


def _cells(name: str, written: str, now: str) -> Iterator[Check]:
    """A check for each entry of a CSV table, named by its row and column."""
    old, new = (list(csv.reader(io.StringIO(text))) for text in (written, now))
    heads = [table[0] if table else [] for table in (old, new)]
    yield Check(name, "columns", heads[0], heads[1])
    yield Check(name, "rows", len(old), len(new))
    for a, b in zip(old[1:], new[1:]):
        for column in dict.fromkeys(itertools.chain(*heads)):
            before, after = (_entry(head, row, column) for head, row in zip(heads, (a, b)))
            yield Check(f"{name}, {b[0] if b else ''}", column, before, after)


def _entry(head: list[str], row: list[str], column: str) -> str | None:
    return row[head.index(column)] if column in head and head.index(column) < len(row) else None
