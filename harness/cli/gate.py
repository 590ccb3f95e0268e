"""`paretopose gate`: has the candidate become worse than the baseline?"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.accuracy.checks import read_json
from harness.cli.report import find_manifest
from harness.errors import MeasurementError, UserError
from harness.gate.measure import Bench, add_runs, confirm
from harness.gate.report import headline, markdown, to_junit, wording
from harness.gate.runs import exit_code, judge
from harness.gate.snapshot import Snapshot, read_snapshot, take
from harness.gate.verdict import Limits, Verdict
from harness.records.store import DEFAULT_FOLDER, Store, write_atomically

__all__ = ["gate"]

BaselineName = Annotated[str, typer.Argument(metavar="BASELINE", help="Baseline file (.json), or like CANDIDATE.")]
CandidateName = Annotated[str, typer.Argument(metavar="CANDIDATE", help="Suite name, suite file or run manifest.")]
Margin = Annotated[float, typer.Option(help="Tolerated loss of AP, on the scale 0 to 100.", min=0, max=100)]
Tolerance = Annotated[float, typer.Option(help="Tolerated slowdown, in %.", min=0)]
Repeat = Annotated[int, typer.Option(help="Time the candidate so many times more, and judge by all.", min=0)]
ConfirmFlag = Annotated[bool, typer.Option("--confirm", help="Measure again before calling a regression.")]
RecordFlag = Annotated[bool, typer.Option("--record", help="Write the candidate as the baseline; judge nothing.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit 4 when a verdict is inconclusive.")]
Device = Annotated[str, typer.Option(help="For --repeat and --confirm: cpu, cuda, cuda:1 ...")]


def gate(
    baseline: BaselineName,
    candidate: CandidateName,
    margin: Margin = 0.2,
    tolerance: Tolerance = 5.0,
    repeat: Repeat = 0,
    confirm_: ConfirmFlag = False,
    record: RecordFlag = False,
    strict: Strict = False,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append a Markdown summary ($GITHUB_STEP_SUMMARY).")] = None,
    store: Annotated[Path, typer.Option("--store", help="Folder of the records.")] = DEFAULT_FOLDER,
    data: Annotated[list[str], typer.Option("--data", help="NAME=PATH, for --confirm.")] = [],  # noqa: B006
    weights: Annotated[list[str], typer.Option("--weights", help="VARIANT=PATH, for --repeat, --confirm.")] = [],  # noqa: B006
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")] = False,
) -> None:
    """Verdict for each metric: exit 0 pass, 1 regression, 2 could not measure, 3 bad input, 4 inconclusive (--strict).

    A BASELINE file that does not exist is written from the candidate: recorded, not judged.
    """
    keep = Store(store)
    after, manifest = _open(candidate, keep)
    bench = _bench(manifest, candidate, data, weights, device) if repeat or confirm_ else None
    if bench is not None and repeat:
        after = add_runs(after, [bench.measure({"latency"}) for _ in range(repeat)])
    path = Path(baseline)
    if record or (path.suffix == ".json" and not path.exists()):
        _record(after, path, summary, strict=strict and not record, as_json=as_json)
        return
    before, _ = _open(baseline, keep)
    limits = Limits(margin=margin / 100, tolerance=tolerance / 100)
    verdicts = judge(before, after, limits)
    if bench is not None and confirm_:
        verdicts = confirm(verdicts, before, bench, limits)
    code = exit_code(verdicts, strict=strict)
    if junit:
        write_atomically(junit, to_junit(verdicts, after.suite).encode())
    if summary:
        _append(summary, markdown(verdicts, before, after))
    _show(verdicts, code, as_json)
    raise typer.Exit(code)


def _open(name: str, store: Store) -> tuple[Snapshot, dict[str, Any] | None]:
    """A baseline file, or a run: its snapshot, and the manifest of a run."""
    path = Path(name)
    if path.suffix == ".json":
        content = read_json(path)
        if not isinstance(content, dict) or content.get("kind") or not isinstance(content.get("suite"), dict):
            return read_snapshot(content, name), None
    manifest = find_manifest(store, name)
    return take(manifest, store), manifest


def _bench(manifest: dict[str, Any] | None, name: str, data: list[str], weights: list[str], device: str) -> Bench:
    if manifest is None:
        raise UserError(
            "a baseline file cannot be measured again", where=name, expected="a suite's run for --repeat and --confirm"
        )
    from harness.cli.run import TerminalProgress
    from harness.run.rows import Options
    from harness.suite.sources import Sources, assignments

    sources = Sources(assignments(data, "--data"), assignments(weights, "--weights"))
    return Bench(manifest, sources, Options(device=device), TerminalProgress())


def _record(found: Snapshot, path: Path, summary: Path | None, *, strict: bool, as_json: bool) -> None:
    if path.suffix != ".json":
        raise UserError("a baseline is a file", where=str(path), expected="a name that ends in .json")
    if not any(row.accuracy or row.cost or row.speed for row in found.rows):
        raise MeasurementError("nothing was measured, so there is nothing to record", where=found.suite)
    found.write(path)
    text = f"recorded {len(found.rows)} configurations as {path}: not judged"
    if summary:
        _append(summary, f"### Gate `{found.suite}`: no baseline yet\n\n{text}\n")
    print(text, file=sys.stderr)
    code = 4 if strict else 0
    if as_json:
        print(json.dumps({"overall": "recorded", "exit_code": code, "baseline": str(path), "verdicts": []}, indent=1))
    raise typer.Exit(code)


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text)


_OVERALL = {0: "pass", 1: "regression", 2: "could not measure", 4: "inconclusive"}
_STYLES = {"pass": "green", "regression": "bold red", "inconclusive": "yellow", "unmeasured": "magenta", "new": "cyan"}


def _show(verdicts: list[Verdict], code: int, as_json: bool) -> None:
    if as_json:
        answer = {"overall": _OVERALL[code], "exit_code": code, "verdicts": [v.to_json() for v in verdicts]}
        print(json.dumps(answer, indent=1, allow_nan=False))
        return
    table = Table(title=headline(verdicts), title_justify="left")
    for column in ("", "metric", "baseline", "candidate", "difference", "98 % interval", "loss visible", "verdict"):
        table.add_column(column)
    for v in verdicts:
        verdict = f"[{_STYLES[v.verdict]}]{v.verdict}[/]" + (f"\n[dim]{escape(v.note)}[/dim]" if v.note else "")
        table.add_row(escape(v.label), v.metric, *wording(v), verdict)
    console = Console()
    Console(width=None if console.is_terminal else 160).print(table)
