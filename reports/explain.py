"""Where a number comes from: every field of a record in words, ordered by what it says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from harness.errors import UserError, unknown_name
from harness.records.store import Record
from reports.rows import plain_text

__all__ = ["SECTIONS", "Fact", "facts", "field", "sections"]

SECTIONS = (
    "figures",
    "network",
    "code",
    "weights",
    "data",
    "boxes",
    "protocol",
    "execution",
    "machine",
    "command",
    "versions",
)
_PLACES: tuple[tuple[str, str], ...] = (
    # the first prefix that fits names the section
    ("key.code", "code"),
    ("key.score_code", "code"),
    ("info.revision", "code"),
    ("key.weights", "weights"),
    ("key.data.boxes", "boxes"),
    ("result.box_source", "boxes"),
    ("result.boxes", "boxes"),
    ("result.skipped_boxes", "boxes"),
    ("result.skipped_images", "data"),
    ("key.data", "data"),
    ("key.missing", "data"),
    ("result.images", "data"),
    ("result.persons", "data"),
    ("key.protocol", "protocol"),
    ("key.execution", "execution"),
    ("key.run", "execution"),
    ("key.spec", "execution"),
    ("result.execution", "execution"),
    ("result.settings", "execution"),
    ("result.inside_timer", "execution"),
    ("result.machine", "machine"),
    ("key.machine", "machine"),
    ("result.passing", "machine"),
    ("info.versions", "versions"),
    ("info", "command"),
    ("key", "network"),
    ("result", "figures"),
)
_ORDER = {name: place for place, name in enumerate(SECTIONS)}
_DOUBLE = ("key.crop",)  # the same values as in the protocol
_BULK = {"samples", "ledger", "persons_per_call", "modules", "operators"}  # counted, not listed


@dataclass(frozen=True)
class Fact:
    """One field of a record: its section, its name there, and its value as people read it."""

    section: str
    name: str
    text: str


def facts(record: Record) -> list[Fact]:
    """All fields of a record, by section; long lists are counted."""
    parts = {"key": record.key, "result": record.result, "info": record.info}
    found = [Fact("figures", "record", f"{record.kind}-{record.id}")]
    for path, value in _flat(parts):
        place = _place(path)
        if place:
            found.append(Fact(place, path.partition(".")[2], value))
    return sorted(found, key=lambda fact: _ORDER[fact.section])


@lru_cache(maxsize=4096)
def _place(path: str) -> str | None:
    """The section of a field; None for what stands elsewhere already."""
    if path.startswith(_DOUBLE):
        return None
    return next((s for prefix, s in _PLACES if path == prefix or path.startswith(f"{prefix}.")), None)


def sections(record: Record) -> dict[str, list[Fact]]:
    """The facts of a record by section; one that this kind of measurement does not have is empty."""
    known: dict[str, list[Fact]] = {name: [] for name in SECTIONS}
    for fact in facts(record):
        known[fact.section].append(fact)
    return known


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, text) of every leaf."""
    if isinstance(value, dict) and value:
        for name, part in value.items():
            where = f"{path}.{name}" if path else str(name)
            if name in _BULK:
                yield where, _counted(part)
            else:
                yield from _flat(part, where)
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        for number, part in enumerate(value):
            yield from _flat(part, f"{path}.{number}")
    else:
        yield path, _text(value)


def _counted(value: Any) -> str:
    return f"{len(value)} entries, in the record" if isinstance(value, list | dict) else plain_text(value)


def _text(value: Any) -> str:
    if value is None or value == "" or value == [] or value == {}:
        return "none"
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return ", ".join(_text(v) for v in value)
    return plain_text(value)


def field(record: Record, path: str) -> Any:
    """The value at a dotted path of the result (`stats.AP.value`), or of the record (`key.protocol.flip`).

    Raises UserError that names the near fields of the level that does not have it.
    """
    whole = {"key": record.key, "info": record.info, "result": record.result, "kind": record.kind, "id": record.id}
    names = re.split(r"\.(?!\d)|(?<!@\d)\.", path)  # the point of PCKh@0.5 is part of a name
    value: Any = whole if names[0] in whole else record.result
    for depth, name in enumerate(names):
        if isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        elif isinstance(value, Mapping) and name in value:
            value = value[name]
        else:
            known = (
                value if isinstance(value, Mapping) else map(str, range(len(value) if isinstance(value, list) else 0))
            )
            what, hint = unknown_name("field", ".".join(names[: depth + 1]), known)
            raise UserError(what, where=f"{record.kind}-{record.id}", hint=hint)
    return value
