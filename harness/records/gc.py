"""What may leave a store without a record being lost."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.records.store import Store

__all__ = ["Rubbish", "find_rubbish", "sweep"]

_SETTLED = 3600.0  # seconds; what is younger may be in the making by another process


@dataclass(frozen=True)
class Rubbish:
    """A file or folder that may go: why, and how many bytes that frees."""

    path: Path
    why: str
    bytes: int


def find_rubbish(store: Store, *, passes: bool = False, now: float | None = None) -> list[Rubbish]:
    """Left-over temporary files, arrays without a record, damaged records that were set aside.

    `passes`: also the stored predictions. Every record stays; but another threshold or decoder is then no longer
    answered without running the network again, and a run that was stopped begins anew.
    """
    found = [*_temporary(store.folder), *_orphans(store.folder), *_damaged(store.folder)]
    if passes:
        found += [
            Rubbish(p, "stored predictions", _size(p))
            for p in sorted((store.folder / "passes").glob("*"))
            if p.is_dir()
        ]
    latest = (time.time() if now is None else now) - _SETTLED
    return [item for item in found if _touched(item.path) < latest]


def sweep(items: Sequence[Rubbish]) -> int:
    """Remove them; the bytes that this freed."""
    freed = 0
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        else:
            item.path.unlink(missing_ok=True)
        freed += 0 if item.path.exists() else item.bytes
    return freed


def _temporary(folder: Path) -> Iterator[Rubbish]:
    for path in sorted(folder.rglob(".*.tmp")):
        yield Rubbish(path, "left over by a killed write", _size(path))


def _orphans(folder: Path) -> Iterator[Rubbish]:
    known = {path.stem.rpartition("-")[2] for path in (folder / "records").glob("*.json")}
    for path in sorted((folder / "arrays").glob("*.npz")):
        if path.stem not in known:
            yield Rubbish(path, "arrays without a record", _size(path))


def _damaged(folder: Path) -> Iterator[Rubbish]:
    for path in sorted((folder / "quarantine").glob("*")):
        yield Rubbish(path, "damaged record that was set aside", _size(path))


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _touched(path: Path) -> float:
    """The latest modification of a file, or of anything in a folder."""
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return max(file.stat().st_mtime for file in files)
