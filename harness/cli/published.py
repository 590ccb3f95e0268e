"""`paretopose methods --published`: every GFLOPs figure in print, and the convention under which it is reproduced."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from harness.errors import UserError
from harness.published import load, records, size_of

__all__ = ["figures", "show_figures"]

SCHEMA = 1


def figures(pattern: str = "*") -> list[dict[str, Any]]:
    """One entry for each printed figure of each network that `pattern` selects, ours by name, others by their own.

    `verdict`: `reproduced` under `convention`, `no convention`, or `not in project`. `paretopose cost VARIANT` counts.
    """
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in records(load()):
        entry = _entry(row)
        if row["gflops_text"] and (fnmatchcase(entry["network"], pattern) or pattern in entry["network"]):
            key = (entry["network"], entry["input"], entry["printed"], entry["convention"])
            found.setdefault(key, entry)["sources"].append(row["source"])
    return list(found.values())


def _entry(row: Mapping[str, Any]) -> dict[str, Any]:
    words = dict.fromkeys(w for w in (row["method"], row["variant"], row["backbone"]) if w)
    size, none = size_of(row), row["convention"] == "none"
    verdict = "not in project" if not row["our_variant"] else "no convention" if none else "reproduced"
    return {
        "network": " ".join(filter(None, (row["our_variant"], row["our_knobs"]))) or " ".join(words),
        "input": f"{size[0]}x{size[1]}" if size else "", "printed": row["gflops_text"], "verdict": verdict,
        "convention": "" if none else row["convention"], "note": row["note"], "sources": [],
    }  # fmt: skip


def show_figures(pattern: str, as_json: bool) -> None:
    """On stdout; UserError when no network has that name."""
    found = figures(pattern)
    if not found:
        raise UserError(f"no published GFLOPs of '{pattern}'", hint="`paretopose methods --published` lists all")
    if as_json:
        print(json.dumps({"schema": SCHEMA, "figures": found}))
        return
    right = [Column(name, justify="right") for name in ("input", "GFLOPs printed")]
    table = Table("network", *right, "verdict", "convention", "source")
    for f in found:
        more = f" (and {len(f['sources']) - 1} more)" if len(f["sources"]) > 1 else ""
        source = "; ".join(filter(None, (f["sources"][0] + more, f["note"])))
        table.add_row(f["network"], f["input"], f["printed"], f["verdict"], f["convention"], source)
    Console(width=None if Console().is_terminal else 200, highlight=False).print(table)
