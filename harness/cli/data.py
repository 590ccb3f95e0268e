"""`paretopose data check` and `paretopose data synth`."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from harness.data.check import Fault
from harness.errors import UserError

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

_EXAMPLES = 3  # of each kind in the table; --json has all


@app.command()
def check(
    root: Path | None = typer.Argument(
        None, help="COCO, CrowdPose or MPII root, or a folder of person_keypoints*.json."
    ),
    annotations: Path | None = typer.Option(None, help="One annotation file instead of a root."),
    images: Path | None = typer.Option(None, help="The image folder of --annotations."),
    heads: Path | None = typer.Option(None, help="MPII: the mat file with head boxes, which PCKh needs."),
    as_json: bool = typer.Option(False, "--json", help="All faults as JSON."),
) -> None:
    """Say everything that is wrong with a data set: exit 0 when nothing is, 3 otherwise."""
    if (root is None) == (annotations is None):
        raise UserError(
            "nothing to check" if root is None else "both ROOT and --annotations",
            expected="ROOT, or --annotations FILE --images DIR",
        )
    faults, looked_at = _check(annotations or root or Path(), images, heads)
    if as_json:
        print(json.dumps({"schema": 1, "counts": _counts(faults), "faults": [asdict(f) for f in faults]}, indent=1))
    elif faults:
        _print_table(faults)
    else:
        print(f"no faults: {looked_at} images and their annotations are in order")
    raise typer.Exit(3 if faults else 0)


def _check(target: Path, images: Path | None, heads: Path | None) -> tuple[list[Fault], int]:
    """The faults, and how many image files were looked at."""
    from harness.data.check import check as find_faults

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images", total=None)
        steps: list[int] = [0]

        def advance(done: int, total: int) -> None:
            steps.append(done)
            progress.update(task, completed=done, total=total)

        faults = find_faults(target, images, advance, heads)
    # each set counts from its beginning
    return faults, sum(b - a if b >= a else b for a, b in itertools.pairwise(steps))


def _counts(faults: list[Fault]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for fault in faults:
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return counts


def _print_table(faults: list[Fault]) -> None:
    table = Table(title=f"{len(faults)} faults", show_lines=True)
    for column in ("fault", "count", "first examples", "what to do"):
        table.add_column(column, overflow="fold")
    for kind, count in _counts(faults).items():
        of_kind = [fault for fault in faults if fault.kind == kind]
        examples = "\n".join(f"{fault.where}: {fault.what}" for fault in of_kind[:_EXAMPLES])
        table.add_row(kind, str(count), examples, of_kind[0].hint)
    Console(markup=False).print(table)


@app.command()
def synth(
    folder: Path = typer.Argument(..., help="Where to write; COCO layout."),
    images: int = typer.Option(100, min=1, help="How many images."),
    seed: int = typer.Option(0, help="The same seed gives the same files."),
    as_json: bool = typer.Option(False, "--json", help="What was written, as JSON."),
) -> None:
    """Make the synthetic set: drawn people with exact keypoints, boxes and areas."""
    from harness.data.synthetic import write

    with Console(stderr=True).status(f"drawing {images} images"):
        write(folder, images=images, seed=seed)
    if as_json:
        print(json.dumps({"schema": 1, "folder": str(folder), "images": images, "seed": seed}))
    else:
        print(f"{images} images in {folder}")
