"""What a table is, before it is Markdown, LaTeX, CSV or HTML: columns, values with their uncertainty, notes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from string import ascii_lowercase
from typing import Any, Literal

__all__ = ["NOT_HERE", "Column", "Note", "Table", "Value"]

Kind = Literal["text", "interval", "spread", "number", "bounded"]
NOT_HERE = "–"
"""what stands for a quantity that was not asked for or that a row does not have; its reason is in CSV and JSON"""
_SILENT = ("", "n/a", NOT_HERE, "reference")  # a column of these alone tells nothing


@dataclass(frozen=True)
class Value:
    """One entry: a text or a finite number with its bounds, or neither and the `reason`.

    `low`, `high`: interval, or for a quantity that varies between persons the 5th and 95th percentile beside `sd`.
    `text` of a missing number is what stands in its place ('no weights', 'failed', 'n/a').
    `note`: a remark on this entry, printed below the table. `digits`: decimals, where the entry has its own.
    `bold`: a paired test says that this number differs from what the row is compared with.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    text: str = ""
    reason: str = ""
    note: str = ""
    digits: int | None = None
    bold: bool = False

    @classmethod
    def number(cls, value: Any, low: Any = None, high: Any = None, sd: Any = None, *, scale: float = 1.0) -> Value:
        """A number from a record, times `scale`; null, nan and infinity are n/a."""
        number = _finite(value, scale)
        if number is None:
            return cls.missing("no number was recorded")
        return cls(number, _finite(low, scale), _finite(high, scale), _finite(sd, scale))

    @classmethod
    def missing(cls, reason: str, text: str = "n/a") -> Value:
        """No value, and why."""
        return cls(text=text, reason=reason)

    def to_json(self) -> dict[str, Any]:
        """Only what is there; `value` of a number is always there, null when missing."""
        if self.value is None and not self.reason:
            return {"text": self.text} | ({"note": self.note} if self.note else {})
        rest = {n: getattr(self, n) for n in ("low", "high", "sd", "text", "reason", "note", "bold")}
        return {"value": self.value} | {n: v for n, v in rest.items() if v not in (None, "", False)}


def _finite(value: Any, scale: float) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value) * scale


def _tells(value: Value) -> bool:
    return bool(value.value) or value.text not in _SILENT


@dataclass(frozen=True)
class Column:
    """`key` names it in CSV and JSON, `title` for people.

    `kind`: `text`; `interval` and `spread` (mean, sd, percentiles) print their bounds; `number` prints the value only,
    `bounded` does so too and keeps its bounds for CSV.
    `level`: 0 everywhere, 1 where a paper's width allows, 2 only in full tables.
    `spare`: people are spared it where it tells nothing: no row has a value, or all are zero.
    """

    key: str
    title: str
    kind: Kind = "number"
    digits: int = 1
    level: int = 0
    spare: bool = False


@dataclass(frozen=True)
class Note:
    """A line below the table; `mark` refers to it from entries, empty for what concerns the whole table."""

    text: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """`rows` hold one Value for each of `columns`; `records` names the records of each row."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    records: tuple[tuple[str, ...], ...]
    remarks: tuple[str, ...] = ()
    title: str = ""

    @cached_property
    def marks(self) -> dict[str, str]:
        """Marks a, b, ..., z, aa, ... of what needs a line below: notes, and reasons that the entry does not tell."""
        values = (value for row in self.rows for value in row)
        texts = dict.fromkeys(text for value in values if (text := _footnote(value)))
        return {text: _letters(i) for i, text in enumerate(texts)}

    @property
    def notes(self) -> list[Note]:
        """What is printed below: the marked lines, then the remarks on the whole table."""
        return [*(Note(text, mark) for text, mark in self.marks.items()), *map(Note, self.remarks)]

    def mark(self, value: Value) -> str:
        """The mark that stands behind an entry, empty for none."""
        return self.marks.get(_footnote(value), "")

    def narrow(self, level: int) -> Table:
        """With the columns up to `level` only, and their notes."""
        return self._of([i for i, column in enumerate(self.columns) if column.level <= level])

    def telling(self) -> Table:
        """Without the spare columns that tell nothing."""
        every = enumerate(self.columns)
        return self._of([i for i, c in every if not c.spare or any(_tells(row[i]) for row in self.rows)])

    def only(self, keys: tuple[str, ...]) -> Table:
        """With the columns of these keys; one that ends in `_b` (a batch size) is the beginning of several. The whole
        table where it has other columns."""
        ends = tuple(key for key in keys if key.endswith("_b"))
        keep = [i for i, c in enumerate(self.columns) if c.key in keys or (ends and c.key.startswith(ends))]
        if not keep or self.columns[0].key not in keys:
            return self
        return self._of(keep)

    def _of(self, keep: Sequence[int]) -> Table:
        """The columns of these places."""
        rows = tuple(tuple(row[i] for i in keep) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in keep), rows=rows)

    def to_json(self) -> dict[str, Any]:
        """Columns, rows as {column: entry}, notes; numbers as for people (AP 0 to 100)."""
        rows = [
            {c.key: v.to_json() for c, v in zip(self.columns, row, strict=True)} | {"records": list(records)}
            for row, records in zip(self.rows, self.records, strict=True)
        ]
        return {
            "title": self.title,
            "columns": [{"key": c.key, "title": c.title, "kind": c.kind} for c in self.columns],
            "rows": rows,
            "notes": [{"mark": n.mark, "text": n.text} if n.mark else {"text": n.text} for n in self.notes],
        }


def _footnote(value: Value) -> str:
    if value.note:
        return value.note
    return "" if value.text in (value.reason, NOT_HERE) else value.reason


def _letters(index: int) -> str:
    rest, last = divmod(index, 26)
    return (_letters(rest - 1) if rest else "") + ascii_lowercase[last]
