"""`report --html`: the interactive page of a run, with pictures where its predictions and images are at hand."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError
from harness.records.store import Store, write_atomically

if TYPE_CHECKING:
    from reports.page import Picture

__all__ = ["write_page"]

_MOST_ROWS = 12  # with pictures; a page is to stay small


def write_page(keep: Store, manifest: Mapping[str, Any], path: Path, data: Sequence[str]) -> None:
    """Write the page of a run to `path`. `data`: NAME=PATH, where the images of its suite are.

    Raises UserError for a path that is no HTML file or cannot be written, MissingPackage without plotly.
    """
    from reports.page import build_page

    if path.suffix not in (".html", ".htm"):
        raise UserError(f"cannot write a page to {path.name}", where="--html", expected="a name that ends in .html")
    pictures = _pictures(keep, manifest, data)
    page = build_page(keep, manifest, pictures=pictures, remarks=keep.remarks())
    try:
        write_atomically(path, page.encode())
    except OSError as error:
        raise UserError(f"cannot write the page: {error.strerror}", where=str(path)) from None
    print(f"wrote {path} ({len(page.encode()) / 1e6:.1f} MB)", file=sys.stderr)


def _pictures(keep: Store, manifest: Mapping[str, Any], data: Sequence[str]) -> list[Picture]:
    """The worst, middle and best persons of the rows of the Pareto front, then of the others; few of each."""
    from harness.pictures.cases import cases_of
    from harness.run.stored import open_row
    from harness.suite.sources import Sources, assignments
    from reports.page import Picture
    from reports.points import pareto, points
    from reports.rows import load_rows

    found = points(load_rows(keep, manifest))
    best = [found[i].row.label for i in pareto([p.at for p in found])]
    order = sorted(manifest["rows"], key=lambda row: row["label"] not in best)
    sources = Sources(assignments(data, "--data"))
    pictures: list[Picture] = []
    reasons: dict[str, str] = {}
    for row in order:
        if len({p.row for p in pictures}) >= _MOST_ROWS:
            break
        stored = open_row(row, keep, sources)
        if isinstance(stored, str):
            reasons.setdefault(stored, row["label"])
            continue
        pictures += [Picture(row["label"], case.kind, case.caption, case.jpeg) for case in cases_of(stored)]
    if not pictures and reasons:
        reason, label = next(iter(reasons.items()))
        print(f"no pictures of persons: {label}: {reason}", file=sys.stderr)
    return pictures
