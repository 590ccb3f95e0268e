"""`run` and `plan`: a suite file becomes records, a table and a report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from harness.errors import MeasurementError, UserError
from harness.records.store import DEFAULT_FOLDER, Store
from harness.run.executors import HERE, Executor, OnEngine
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.stopping import graceful
from harness.suite.schema import load_suite
from harness.suite.sources import Sources, assignments

__all__ = ["plan", "run"]

SuitePath = Annotated[Path, typer.Argument(help="Suite file, for example suites/quickstart.yaml", show_default=False)]
Data = Annotated[list[str], typer.Option("--data", help="NAME=PATH: where the data root NAME of the suite is.")]
Weights = Annotated[list[str], typer.Option("--weights", help="VARIANT=PATH: weights file of a variant.")]
Set = Annotated[list[str], typer.Option("--set", help="key.path=value: change the suite, e.g. protocol.flip=false.")]
StoreFolder = Annotated[Path, typer.Option("--store", help="Folder of the records.")]
Limit = Annotated[int | None, typer.Option(help="Only the first N images.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


class Where(StrEnum):
    """Where cells are measured."""

    local = "local"
    ray = "ray"


class TerminalProgress(Progress):
    """Bars and lines on stderr; stdout stays data."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False)

    @contextmanager
    def task(self, text: str, total: int) -> Iterator[Callable[[int], None]]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self.console, transient=not sys.stderr.isatty()) as bars:
            handle = bars.add_task(text, total=total)
            yield lambda count: bars.advance(handle, count)


def run(
    suite: SuitePath,
    data: Data = [],  # noqa: B006
    weights: Weights = [],  # noqa: B006
    set_: Set = [],  # noqa: B006
    store: StoreFolder = DEFAULT_FOLDER,
    limit: Limit = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Persons in one forward pass of an accuracy run.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Threads that decode and crop images.")] = 2,
    report: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("results/reports"),
    results: Annotated[
        Path | None, typer.Option(help="Folder for COCO result files, one for each row: what the test server takes.")
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failed cell.")] = False,
    executor: Annotated[Where, typer.Option(help="Where cells are measured: in this process, or as Ray tasks.")] = (
        Where.local
    ),
    address: Annotated[
        str | None,
        typer.Option(help="Ray cluster: HOST:6379, or auto for the one of this machine.", show_default=False),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Processes that measure at a time; they share CPUs, and times are taken alone.")
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Measure what a suite file asks for and is missing; print the table, write the report.

    SIGTERM and Ctrl-C keep what is done, up to the last batch, or with --jobs and Ray the last task that ended
    (exit 143, 130); a second Ctrl-C stops at once.
    Exit 2 when a cell failed; its row says why, and all others are there.
    """
    from reports.report import ablation_tables, system_tables_of, table_of, verdict_tables, write_report
    from reports.tables import load_rows, to_console

    loaded, marked = load_suite(suite, set_, limit)
    sources = Sources(assignments(data, "--data"), assignments(weights, "--weights"))
    options = Options(device=device, batch=batch, workers=workers, fail_fast=fail_fast, results=results)
    keep, progress = Store(store), TerminalProgress()
    with graceful():
        manifest = run_suite(loaded, keep, sources, options, progress, marked, _executor(executor, address, jobs))
    for name in keep.quarantined:
        progress.say(f"damaged file set aside and measured again: {name}")
    rows = load_rows(keep, manifest)
    table, ablations = table_of(rows, manifest), ablation_tables(keep, manifest, rows)
    verdicts, systems = verdict_tables(manifest, rows), system_tables_of(keep, manifest)
    files = write_report(keep, manifest, report / loaded.name)
    if as_json:
        named = [str(file) for file in files]
        beside = (("verdicts", verdicts), ("systems", systems), ("ablations", ablations))
        more: dict[str, Any] = {name: [t.to_json() for t in of] for name, of in beside}
        more |= {"files": named}
        typer.echo(json.dumps({"manifest": manifest, "table": table.to_json(), **more}, indent=1))
    else:
        for shown in (table, *verdicts, *systems, *ablations):
            to_console(shown)
        for file in files:
            progress.say(f"wrote {file}")
    if failed := [row["label"] for row in manifest["rows"] if row["failed"]]:
        raise MeasurementError(f"{len(failed)} of {len(rows)} cells failed", where=", ".join(failed))


def _executor(where: Where, address: str | None, jobs: int) -> Executor:
    if where is Where.ray:
        if jobs > 1:
            raise UserError(f"--jobs {jobs} on a cluster", hint="the cluster says how many tasks a node takes")
        from harness.run.cluster import Cluster

        return OnEngine(Cluster(address))
    if address is not None:
        raise UserError(f"--address {address} without a cluster", hint="--executor ray")
    if jobs > 1:
        from harness.run.processes import Processes

        return OnEngine(Processes(jobs))
    return HERE


def plan(
    suite: SuitePath,
    data: Data = [],  # noqa: B006
    weights: Weights = [],  # noqa: B006
    set_: Set = [],  # noqa: B006
    store: StoreFolder = DEFAULT_FOLDER,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Show what `run` would do: cells, what is cached, shared passes. Runs nothing."""
    from harness.run.plan import plan_suite

    loaded, marked = load_suite(suite, set_, limit)
    sources = Sources(assignments(data, "--data"), assignments(weights, "--weights"))
    planned = plan_suite(loaded, Store(store), sources, marked)
    if as_json:
        typer.echo(json.dumps(planned.to_json(), indent=1))
        return
    Console().print(planned.to_rich())
