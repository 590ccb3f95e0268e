"""What may leave a store without a record being lost, also while others write into it.

What is left over follows from the store's content; age, by the clock of its file system, only keeps away from what is
being written. Where a clock is wrong, writers notice what was taken from them and write it again.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from harness.records.store import Store

__all__ = ["Rubbish", "find_rubbish", "sweep"]

_SETTLED = 3600.0  # seconds; what is younger may be in the making by another process
_ORPHAN = "arrays without a record"


@dataclass(frozen=True)
class Rubbish:
    """A file or folder that may go: why, and how many bytes that frees."""

    path: Path
    why: str
    bytes: int


def find_rubbish(store: Store, *, passes: bool = False, now: float | None = None) -> list[Rubbish]:
    """Left-over temporary files, arrays without a record, damaged files that were set aside.

    `passes`: also the stored predictions. Every record stays; but another threshold or decoder is then no longer
    answered without running the network again, and a run that was stopped begins anew.
    """
    folder = store.folder
    known = {path.stem.rpartition("-")[2] for path in (folder / "records").glob("*.json")}
    found = {path: "left over by a killed write" for path in _files(folder) if path.match(".*.tmp")}
    found |= {path: _ORPHAN for path in sorted((folder / "arrays").glob("*.npz")) if path.stem not in known}
    found |= dict.fromkeys(sorted((folder / "quarantine").glob("*")), "damaged file that was set aside")
    if passes:
        found |= {path: "stored predictions" for path in sorted((folder / "passes").glob("*")) if path.is_dir()}
    latest = (_now(folder) if now is None else now) - _SETTLED
    measured = ((path, why, [stat for file in _files(path) if (stat := _stat(file))]) for path, why in found.items())
    settled = ((p, why, s) for p, why, s in measured if s and max(each.st_mtime for each in s) < latest)
    return [
        Rubbish(path, why, sum(each.st_size for each in stats if S_ISREG(each.st_mode))) for path, why, stats in settled
    ]


def sweep(items: Sequence[Rubbish]) -> int:
    """Remove them; the bytes that this freed."""
    freed = 0
    for item in items:
        if item.path.is_dir():
            shutil.rmtree(item.path, ignore_errors=True)
        elif item.why == _ORPHAN:
            _remove_orphan(item.path)
        else:
            item.path.unlink(missing_ok=True)
        freed += 0 if item.path.exists() else item.bytes
    return freed


def _remove_orphan(path: Path) -> None:
    """Out of the way first: a record that comes now finds its arrays missing and writes them again."""
    away = path.with_name(f".{path.name}.gone.tmp")
    try:
        path.rename(away)
    except FileNotFoundError:
        return
    if any((path.parent.parent / "records").glob(f"*-{path.stem}.json")):  # it came before that
        away.rename(path)
    else:
        away.unlink(missing_ok=True)


def _files(place: Path) -> Iterator[Path]:
    """The place itself and all files below it, whatever comes and goes meanwhile."""
    yield place
    for folder, _, names in os.walk(place):
        yield from (Path(folder) / name for name in sorted(names))


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _now(folder: Path) -> float:
    """By the clock of the file system, which the times of its files come from."""
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            return os.fstat(probe.fileno()).st_mtime
    except OSError:  # nothing can be written here, so nothing will be removed
        return time.time()
