"""A record as a notebook shows it: its figures, what determines it, where it comes from. Torch-free."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.records.store import Record

__all__ = ["record_html"]

_LONGEST = 160  # characters of one field; ledgers and samples are cut


def record_html(record: Record) -> str:
    """A small HTML table with the figures, and the key, the whole result and the origin folded below it."""
    from harness.records.frame import flatten

    known = flatten(record)
    figures = {name: value for name, value in known.items() if value is not None and not name.startswith("knob_")}
    head = f"{record.kind} of {record.key.get('variant', 'several rows')}"
    parts = {"what determines it": record.key, "result": record.result, "origin": record.info}
    folded = "".join(
        f"<details><summary>{html.escape(title)}</summary>{_table(fields)}</details>" for title, fields in parts.items()
    )
    return f"<div><b>{html.escape(head)}</b> <code>{html.escape(record.id)}</code>{_table(figures)}{folded}</div>"


def _table(fields: Mapping[str, Any]) -> str:
    rows = (
        f'<tr><th style="text-align: left">{html.escape(str(name))}</th>'
        f'<td style="text-align: left">{html.escape(_text(value))}</td></tr>'
        for name, value in fields.items()
    )
    return f"<table>{''.join(rows)}</table>"


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text):,} characters)"
