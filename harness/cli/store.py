"""`paretopose store merge` and `store gc`: records of two machines into one folder; space without losing a record."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from harness.records.gc import Rubbish, find_rubbish, sweep
from harness.records.merge import Merge
from harness.records.merge import merge as merge_stores
from harness.records.store import DEFAULT_FOLDER, Store

__all__ = ["app", "gc", "merge"]

app = typer.Typer(no_args_is_help=True, add_completion=False)

StoreFolder = Annotated[Path, typer.Option("--store", help="Folder of the records.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


@app.command()
def merge(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Store of another machine, or the folder it is in.")],
    store: StoreFolder = DEFAULT_FOLDER,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would come in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring in the records of another store, with arrays, runs, predictions and trained weights.

    Nothing that is here is overwritten. Where both measured the same thing with another result, ours stays and theirs
    is kept in STORE/conflicts.
    """
    theirs = Store.find(other, read_only=True)
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("records", total=len(list((theirs.folder / "records").glob("*.json"))))
        done = merge_stores(Store(store), theirs, dry_run=dry_run, advance=lambda: progress.advance(task))
    print(json.dumps(done.to_json(), indent=1) if as_json else _told(done, dry_run))


def _told(done: Merge, dry_run: bool) -> str:
    brought = "would come in" if dry_run else "brought in"
    lines = [
        f"{len(done.records)} records, {len(done.arrays)} array files, {len(done.runs)} runs, {len(done.folders)} "
        f"passes and trainings {brought} ({done.bytes / 1e6:.1f} MB); {done.same} records were here already"
    ]
    lines += [f"run {name}" for name in done.runs]
    lines += [
        f"conflict {c.name}: {', '.join(c.differs)}: ours ({c.ours}) stays, theirs ({c.theirs}) is kept in conflicts/"
        for c in done.conflicts
    ]
    lines += [f"damaged in the other store, not brought in: {name}" for name in done.damaged]
    if done.outdated:
        lines.append(f"{len(done.outdated)} records of an older schema version not brought in; measure them again")
    return "\n".join(lines)


@app.command()
def gc(
    store: StoreFolder = DEFAULT_FOLDER,
    passes: Annotated[
        bool, typer.Option("--passes", help="Also stored predictions: thresholds can then no longer be replayed.")
    ] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete what is listed; without it nothing goes.")] = False,
    as_json: AsJson = False,
) -> None:
    """List what can go without a record being lost, and with --delete remove it."""
    found = find_rubbish(Store.find(store), passes=passes)
    freed = sweep(found) if delete else 0
    if as_json:
        items = [{"path": str(i.path), "why": i.why, "bytes": i.bytes} for i in found]
        print(json.dumps({"items": items, "deleted": delete, "freed": freed}, indent=1))
        return
    for line in _summary(found):
        print(line)
    total = sum(item.bytes for item in found)
    if delete:
        print(f"freed {freed / 1e6:.1f} MB", file=sys.stderr)
    elif found:
        print(f"{total / 1e6:.1f} MB; nothing was deleted: --delete does it", file=sys.stderr)


def _summary(found: list[Rubbish]) -> list[str]:
    if not found:
        return ["nothing to clean up"]
    return [f"{item.bytes / 1e6:9.3f} MB  {item.why}: {item.path}" for item in found]
