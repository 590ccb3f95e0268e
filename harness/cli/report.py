"""`report`: tables and figures of a run, from its records. Measures nothing."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.errors import SuiteError, UserError, unknown_name
from harness.store import DEFAULT_FOLDER, Store

__all__ = ["Format", "find_manifest", "report"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_RUN_FIRST = "`paretopose run SUITE` measures and writes records; --store names the folder that holds them"


Target = Annotated[
    str | None,
    typer.Argument(metavar="SUITE", help="Suite name, suite file or run manifest; default: the latest run."),
]
Out = Annotated[Path, typer.Option("--out", help="The report goes into a folder of the suite's name in here.")]


class Format(StrEnum):
    """What is printed on stdout."""

    console = "console"
    markdown = "markdown"
    latex = "latex"
    csv = "csv"
    json = "json"


def report(
    target: Target = None,
    store: Annotated[Path, typer.Option("--store", help="Folder of the records.")] = DEFAULT_FOLDER,
    out: Out = Path("results/reports"),
    format_: Annotated[Format, typer.Option("--format", help="What is printed on stdout.")] = Format.console,
    as_json: Annotated[bool, typer.Option("--json", help="Same as --format json.")] = False,
    figures: Annotated[bool, typer.Option("--figures/--no-figures", help="Draw the figures.")] = True,
) -> None:
    """Write the tables and figures of a run from its records, and print the table."""
    from reports.report import table_of, write_report
    from reports.tables import load_rows

    keep = Store(store)
    manifest = find_manifest(keep, target)
    table = table_of(load_rows(keep, manifest), manifest)
    files = write_report(keep, manifest, out / manifest["suite"]["name"], figures=figures)
    if as_json or format_ is Format.json:
        named = [str(file) for file in files]
        typer.echo(json.dumps({"manifest": manifest, "table": table.to_json(), "files": named}, indent=1))
    elif format_ is Format.console:
        from reports.tables import to_console

        to_console(table)
    else:
        typer.echo(_writer(format_)(table), nl=False)
    for name in keep.quarantined:
        print(f"damaged record set aside: {name}; `paretopose run` measures it again", file=sys.stderr)
    for file in files:
        print(f"wrote {file}", file=sys.stderr)


def _writer(format_: Format) -> Callable[[Any], str]:
    from reports import formats

    return {Format.markdown: formats.to_markdown, Format.latex: formats.to_latex, Format.csv: formats.to_csv}[format_]


def find_manifest(store: Store, target: str | None) -> dict[str, Any]:
    """The run manifest of a suite name, a suite file or a manifest file; without a target the latest of the store.

    Raises UserError when there is none, or when the file is something else.
    """
    if target is None:
        return _latest(store)
    path = Path(target)
    if path.suffix == ".json":
        return _read(path)
    name = _suite_name(path) if path.suffix in (".yaml", ".yml") else target
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
        manifest = json.loads(path.read_text(encoding="utf-8"))
        name = manifest["suite"]["name"]
    except OSError as error:
        raise UserError(f"cannot read the run manifest: {error.strerror}", where=str(path), hint=_RUN_FIRST) from None
    except (ValueError, TypeError, KeyError):
        raise UserError("no run manifest", where=str(path), expected="JSON with suite.name and rows") from None
    if not isinstance(name, str) or not _NAME.fullmatch(name):  # it becomes the name of a folder
        raise UserError(f"suite name {name!r}", where=str(path), expected="letters, digits, '_', '.', '-'")
    return manifest


def _suite_name(path: Path) -> str:
    import yaml

    try:
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = suite["name"]
    except OSError as error:
        raise SuiteError(f"cannot read the suite: {error.strerror}", where=str(path)) from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, KeyError):
        raise SuiteError("no suite file", where=str(path), expected="YAML with a `name:`") from None
    return str(name)
