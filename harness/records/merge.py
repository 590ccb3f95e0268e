"""The records of another store into this one: nothing that is here is overwritten, nothing that is there is lost.

A measurement that both have with different results is a conflict: ours stays, theirs is kept in STORE/conflicts.
Whatever a record needs is copied before the record itself, each file atomically, so a merge may be killed and repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.foreign.places import ends_below
from harness.provenance import content_id
from harness.records.store import Record, Store, load_arrays, write_atomically

__all__ = ["Conflict", "Merge", "merge"]

_SEALS = {"passes": "complete.json", "trained": "*.safetensors"}  # what a folder has when it is whole


@dataclass(frozen=True)
class Conflict:
    """One measurement with two results."""

    name: str
    ours: str
    """when our record was made, and by which revision"""
    theirs: str
    differs: tuple[str, ...]
    """fields of the result that are not the same"""


@dataclass
class Merge:
    """What a merge brought in (or would bring in)."""

    records: list[str] = field(default_factory=list)
    same: int = 0
    arrays: list[str] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    outdated: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    """passes and trainings"""
    bytes: int = 0

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "conflicts": [vars(c) for c in self.conflicts]}


def merge(ours: Store, theirs: Store, *, dry_run: bool = False, advance: Callable[[], None] = lambda: None) -> Merge:
    """Bring in what `theirs` (opened read-only) has and `ours` lacks; a `dry_run` only tells.

    Raises UserError for one store given twice and for records of a newer schema, before anything is written.
    """
    if ours.folder.resolve() == theirs.folder.resolve():
        raise UserError("a store cannot be merged with itself", where=str(ours.folder), expected="another folder")
    records = list(theirs.records())
    if not dry_run:
        ours.check_writable()
    work = _Work(ours.folder, theirs.folder, dry_run)
    work.done.damaged, work.done.outdated = theirs.quarantined, theirs.outdated
    for record in records:
        work.record(record, ours.by_id(record.kind, record.id))
        advance()
    for path in sorted(p for p in (theirs.folder / "runs").glob("*.json") if p.is_file()):
        work.run(path)
    for kind, seal in _SEALS.items():
        for path in sorted(p for p in (theirs.folder / kind).glob("*") if p.is_dir()):
            work.sealed(path, seal)
    return work.done


class _Work:
    """The copying of one merge."""

    def __init__(self, ours: Path, theirs: Path, dry_run: bool) -> None:
        self.ours, self.theirs, self.dry_run = ours, theirs, dry_run
        self.done = Merge()

    def record(self, record: Record, known: Record | None) -> None:
        name = f"{record.kind}-{record.id}"
        if known is not None and known.digest != record.digest:
            self._conflict(record, known)
            return
        self._arrays(record.id)
        if known is not None:
            self.done.same += 1
            return
        self._copy(self.theirs / "records" / f"{name}.json", self.ours / "records" / f"{name}.json")
        self.done.records.append(name)

    def _arrays(self, identity: str) -> None:
        source, target = (folder / "arrays" / f"{identity}.npz" for folder in (self.theirs, self.ours))
        if source.is_file() and load_arrays(target) is None and load_arrays(source) is not None:
            self._copy(source, target)
            self.done.arrays.append(identity)

    def _conflict(self, record: Record, known: Record) -> None:
        name = f"{record.kind}-{record.id}"
        fields = {*record.result, *known.result}
        differs = tuple(sorted(f for f in fields if record.result.get(f) != known.result.get(f)))
        self.done.conflicts.append(Conflict(name, _origin(known), _origin(record), differs))
        kept = self.ours / "conflicts"
        arrays = self.theirs / "arrays" / f"{record.id}.npz"
        if arrays.is_file():
            self._copy(arrays, kept / f"{name}.{record.digest}.npz")
        self._copy(self.theirs / "records" / f"{name}.json", kept / f"{name}.{record.digest}.json")

    def run(self, path: Path) -> None:
        """A run manifest; where ours of that suite is another one, theirs gets its content into its name."""
        content, target = path.read_bytes(), self.ours / "runs" / path.name
        if target.is_file() and target.read_bytes() != content:
            target = target.with_name(f"{path.stem}.{content_id(content.decode(errors='replace'))[:8]}.json")
        if not target.is_file():
            self._copy(path, target)
            self.done.runs.append(target.stem)

    def sealed(self, folder: Path, seal: str) -> None:
        """A folder that is whole when it has its `seal`, which is copied last."""
        target = self.ours / folder.parent.name / folder.name
        if not any(folder.glob(seal)) or any(target.glob(seal)):
            return
        files = sorted((p for p in folder.iterdir() if p.is_file()), key=lambda p: (p.match(seal), p.name))
        for path in files:
            self._copy(path, target / path.name)
        self.done.folders.append(f"{folder.parent.name}/{folder.name}")

    def _copy(self, source: Path, target: Path) -> None:
        if not ends_below(source, self.theirs):
            what = "the other store holds a link to a place outside it; nothing more is brought in"
            raise UserError(what, where=str(source), hint="delete the link, or copy what it points to")
        self.done.bytes += source.stat().st_size
        if not self.dry_run:
            write_atomically(target, source.read_bytes())


def _origin(record: Record) -> str:
    return f"{record.info.get('created', 'unknown time')}, revision {record.info.get('revision', 'unknown')}"
