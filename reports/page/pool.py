"""Values that occur many times in a page are stored once: texts by index, records by the names of their fields."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from harness.records.store import Record
from reports.explain import SECTIONS, facts

__all__ = ["Pool"]


class Pool:
    """`text`, `origin`, `record` and `shape` give the index of a value in the lists that `to_json` returns."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Hashable, int]] = {"texts": {}, "origins": {}, "shapes": {}}
        self._records: dict[str, int] = {}
        self._contents: list[dict[str, Any]] = []

    def _index(self, table: str, value: Hashable) -> int:
        known = self._tables[table]
        return known.setdefault(value, len(known))

    def text(self, value: str) -> int:
        return self._index("texts", value)

    def origin(self, record: str, field: str, how: str) -> int:
        return self._index("origins", (record, field, how))

    def fields(self, named: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
        """(group, name, text) triples: the shape holds groups and names, the values are texts."""
        shape = self._index("shapes", tuple((group, name) for group, name, _ in named))
        return {"shape": shape, "values": [self.text(text) for _, _, text in named]}

    def record(self, record: Record) -> int:
        """All fields of a record by section."""
        if record.id not in self._records:
            self._records[record.id] = len(self._contents)
            fields = [(fact.section, fact.name, fact.text) for fact in facts(record)]
            self._contents.append({"name": f"{record.kind}-{record.id}", **self.fields(fields)})
        return self._records[record.id]

    def to_json(self) -> dict[str, Any]:
        lists = {name: [*table] for name, table in self._tables.items()}
        return {**lists, "records": self._contents, "sections": list(SECTIONS)}
