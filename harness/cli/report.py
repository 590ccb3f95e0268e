"""`report`: tables and figures of a run, from its records. Measures nothing."""

from __future__ import annotations

import json
import re
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import UserError, unknown_name
from harness.foreign.json_text import loads
from harness.records.store import DEFAULT_FOLDER, Store

__all__ = ["Format", "find_manifest", "report"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RUN_FIRST = (
    "`paretopose run SUITE` measures and writes records; --store names another folder that holds some, "
    "--store results/quickstart the project's own"
)


Target = Annotated[
    str | None,
    typer.Argument(
        metavar="SUITE", help="Suite name, suite file, run manifest or folder of records; default: the latest run."
    ),
]
Out = Annotated[Path, typer.Option("--out", help="The report goes into a folder of the suite's name in here.")]
Page = Annotated[Path | None, typer.Option("--html", help="Write the interactive page to this file, nothing else.")]
Data = Annotated[list[str], typer.Option("--data", help="NAME=PATH: images of the suite, for the persons of --html.")]


class Format(StrEnum):
    """What is printed on stdout."""

    console = "console"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    html = "html"
    json = "json"


def report(
    target: Target = None,
    store: Annotated[Path, typer.Option("--store", help="Folder of the records.")] = DEFAULT_FOLDER,
    out: Out = Path("results/reports"),
    format_: Annotated[Format, typer.Option("--format", help="What is printed on stdout.")] = Format.console,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the figures.")] = True,
    html: Page = None,
    data: Data = [],  # noqa: B006
    verify: Annotated[bool, typer.Option("--verify", help="Recompute every number; exit 1 where one differs.")] = False,
) -> None:
    """Write the tables and figures of a run from its records, and print the table.

    Of a suite of suites/paper the published table is printed: ours, published, difference, verdict.
    """
    from reports.report import table_of, verdict_tables, write_report
    from reports.tables import load_rows

    keep, manifest = open_target(store, target)
    if verify:
        from harness.cli.report_verify import verify as verify_run

        raise typer.Exit(verify_run(keep, manifest, out / manifest["suite"]["name"], as_json=as_json))
    if html:
        from harness.cli.report_page import write_page

        write_page(keep, manifest, html, data)
        return
    rows = load_rows(keep, manifest)
    table, verdicts = table_of(rows, manifest), verdict_tables(manifest, rows)
    files = write_report(keep, manifest, out / manifest["suite"]["name"], figures=figures, rows=rows, table=table)
    if as_json or format_ is Format.json:
        more = {"verdicts": [v.to_json() for v in verdicts], "files": [str(file) for file in files]}
        typer.echo(json.dumps({"manifest": manifest, "table": table.to_json(), **more}, indent=1))
    else:
        for shown in verdicts or [table]:
            _print(shown, format_)
    for remark in keep.remarks():
        print(remark, file=sys.stderr)
    for file in files:
        print(f"wrote {file}", file=sys.stderr)


def _print(table: Any, format_: Format) -> None:
    from reports import formats

    if format_ is Format.console:
        formats.to_console(table)
    else:
        typer.echo(getattr(formats, f"to_{format_.value}")(table), nl=False)


def open_target(folder: Path, target: str | None) -> tuple[Store, dict[str, Any]]:
    """The store and the manifest of a run in it; a target that is a folder of records stands for all of them."""
    if target is None or not Path(target).is_dir() or (folder / "runs" / f"{target}.json").is_file():
        keep = Store(folder)
        return keep, find_manifest(keep, target)
    from reports.joined import joined_manifest

    keep = Store.find(Path(target))
    return keep, joined_manifest(keep, Path(target).resolve().name)


def find_manifest(store: Store, target: str | None) -> dict[str, Any]:
    """The run manifest of a suite name, a suite file or a manifest file; without a target the latest of the store.

    What a suite file says about its report is taken from the file as it is now, not as it was when it ran.
    Raises UserError when there is none, or when the file is something else.
    """
    if target is None:
        return _latest(store)
    path = Path(target)
    if path.suffix == ".json":
        return _read(path)
    if path.suffix in (".yaml", ".yml"):
        manifest = _of_suite(store, _suite_name(path))
        return {**manifest, "suite": {**manifest["suite"], "report": _report_of(path)}}
    return _of_suite(store, target)


def _of_suite(store: Store, name: str) -> dict[str, Any]:
    known = sorted(p.stem for p in _runs(store))
    if name not in known:
        if not known:
            raise UserError(f"no run of suite '{name}'", where=str(store.folder), hint=_RUN_FIRST)
        what, hint = unknown_name("suite run", name, known)
        raise UserError(what, where=str(store.folder), hint=hint)
    return _read(store.folder / "runs" / f"{name}.json")


def _runs(store: Store) -> list[Path]:
    return [p for p in (store.folder / "runs").glob("*.json") if _NAME.fullmatch(p.name)]


def _latest(store: Store) -> dict[str, Any]:
    manifests = [_read(path) for path in sorted(_runs(store))]
    if not manifests:
        raise UserError("no run to report", where=str(store.folder), hint=_RUN_FIRST)
    return max(manifests, key=lambda m: str(m.get("created", "")))


def _read(path: Path) -> dict[str, Any]:
    try:
        manifest = loads(path.read_bytes())
        name = manifest["suite"]["name"]
    except OSError as error:
        raise UserError(f"cannot read the run manifest: {error.strerror}", where=str(path), hint=_RUN_FIRST) from None
    except (ValueError, TypeError, KeyError):
        raise UserError("no run manifest", where=str(path), expected="JSON with suite.name and rows") from None
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # it becomes the name of a folder
        raise UserError(f"suite name {name!r}", where=str(path), expected="letters, digits, '_', '.', '-'")
    return manifest


def _report_of(path: Path) -> dict[str, Any]:
    """The section `report` of a suite file. SuiteError for an unknown key or value in it."""
    from harness.suite.file import Marked, read, validate
    from harness.suite.schema import ReportSpec

    values = read(path)
    section = Marked(values.get("report") or {})
    section.source = values.source
    section.lines = {key[1:]: line for key, line in values.lines.items() if key[:1] == ("report",)}
    return validate(ReportSpec, section).model_dump(mode="json")


def _suite_name(path: Path) -> str:
    from harness.suite.file import read

    values = read(path)
    if "name" not in values:
        raise UserError("no suite file", where=str(path), expected="YAML with a `name:`")
    return str(values["name"])
