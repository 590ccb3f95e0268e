"""What a table is, before it is Markdown, LaTeX, CSV or HTML: columns, values with their uncertainty, notes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Column", "Note", "Table", "Value"]

Kind = Literal["text", "interval", "spread", "number"]


@dataclass(frozen=True)
class Value:
    """One entry: a text or a finite number with its bounds, or neither and the `reason`.

    `low`, `high`: interval, or for a quantity that varies between persons the 5th and 95th percentile beside `sd`.
    `text` of a missing number is what stands in its place ('no weights', 'failed', 'n/a').
    `note`: a remark on this entry, printed below the table.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    text: str = ""
    reason: str = ""
    note: str = ""

    @classmethod
    def number(cls, value: Any, low: Any = None, high: Any = None, sd: Any = None, *, scale: float = 1.0) -> Value:
        """A number from a record, times `scale`; null, nan and infinity are n/a."""
        plain = [_finite(v, scale) for v in (value, low, high, sd)]
        if plain[0] is None:
            return cls.missing("no number was recorded")
        return cls(*plain)

    @classmethod
    def missing(cls, reason: str, text: str = "n/a") -> Value:
        """No value, and why."""
        return cls(text=text, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Only what is there; `value` of a number is always there, null when missing."""
        if self.value is None and not self.reason:
            return {"text": self.text} | ({"note": self.note} if self.note else {})
        rest = {n: getattr(self, n) for n in ("low", "high", "sd", "text", "reason", "note")}
        return {"value": self.value} | {n: v for n, v in rest.items() if v not in (None, "")}


def _finite(value: Any, scale: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) * scale


@dataclass(frozen=True)
class Column:
    """`key` names it in CSV and JSON, `title` for people.

    `kind`: `text`; `interval` and `spread` (mean, sd, percentiles) print their bounds; `number` prints the value only.
    `detail`: left out where width is short (console, LaTeX).
    """

    key: str
    title: str
    kind: Kind = "number"
    digits: int = 1
    detail: bool = False


@dataclass(frozen=True)
class Note:
    """A line below the table; `mark` refers to it from entries, empty for what concerns the whole table."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """`rows` hold one Value for each of `columns`."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    notes: tuple[Note, ...] = ()
    title: str = ""
    marks: dict[str, str] = field(default_factory=dict)
    """text of a marked note -> its mark"""

    def mark(self, value: Value) -> str:
        """The mark that stands behind an entry, empty for none."""
        return self.marks.get(value.reason or value.note, "")

    def narrow(self) -> Table:
        """Without the detail columns."""
        keep = [i for i, column in enumerate(self.columns) if not column.detail]
        rows = tuple(tuple(row[i] for i in keep) for row in self.rows)
        return Table(tuple(self.columns[i] for i in keep), rows, self.notes, self.title, self.marks)

    def to_json(self) -> dict[str, Any]:
        """Columns, rows as {column: entry}, notes; numbers as in the cells for people (AP 0 to 100)."""
        return {
            "title": self.title,
            "columns": [{"key": c.key, "title": c.title, "kind": c.kind} for c in self.columns],
            "rows": [
                {c.key: v.to_json() for c, v in zip(self.columns, row, strict=True)} for row in self.rows
            ],
            "notes": [{"mark": n.mark, "text": n.text} if n.mark else {"text": n.text} for n in self.notes],
        }
