"""The report of a run: a page of Markdown, tables for a paper and a spreadsheet, figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.errors import UserError, told
from harness.records.store import Record, Store, write_atomically
from harness.suite.schema import PaperSpec
from reports.ablation import Ablated, load_ablations, stems
from reports.formats import escape_markdown, to_csv, to_latex, to_markdown
from reports.model import Table
from reports.paper import paper_ap, paper_of, paper_table, verdict_table
from reports.published import published_ap
from reports.rows import RowData, load_rows, plain_text
from reports.system import load_system, system_tables
from reports.tables import build_table

__all__ = ["ablation_tables", "system_tables_of", "table_of", "verdict_tables", "write_report"]

_STRANGE = "the run or one of its records does not hold what a report is made of"


def table_of(rows: Sequence[RowData], manifest: Mapping[str, Any]) -> Table:
    """The table of a run as its suite asks for it."""
    with told(_STRANGE):
        suite = manifest.get("suite") or {}
        report = suite.get("report") or {}
        return build_table(rows, title=_title(suite), published=bool(report.get("published")))


def verdict_tables(manifest: Mapping[str, Any], rows: Sequence[RowData]) -> list[Table]:
    """Ours against the published table that the suite names, figure by figure; none where it names none."""
    spec = paper_of(manifest)
    return [verdict_table(spec, rows)] if spec else []


def ablation_tables(store: Store, manifest: Mapping[str, Any], rows: Sequence[RowData]) -> list[Table]:
    """The tables of the ablations of a run, in the order of its suite; none where nothing was swept."""
    return [table for _, table in stems(load_ablations(store, manifest, rows))]


def system_tables_of(store: Store, manifest: Mapping[str, Any]) -> list[Table]:
    """The cost of a whole image and where one-stage becomes cheaper; none in a run of one paradigm."""
    return list(system_tables(load_system(store, manifest)).values())


def write_report(
    store: Store,
    manifest: Mapping[str, Any],
    folder: Path,
    *,
    figures: bool = True,
    rows: Sequence[RowData] | None = None,
    table: Table | None = None,
) -> list[Path]:
    """Write report.md, the tables and the figures into `folder`; the files, report.md first.

    `rows`, `table`: those of the manifest, where they were read already: a large run takes seconds to read.
    The same manifest and records give the same bytes. Raises UserError for what is no run manifest, and for a folder
    that cannot be written.
    """
    rows = load_rows(store, manifest) if rows is None else rows
    table = table or table_of(rows, manifest)
    with told(_STRANGE):
        files = _files(store, manifest, rows, table, figures)
    _write(folder, files)
    return [folder / name for name in files]


def _files(
    store: Store, manifest: Mapping[str, Any], rows: Sequence[RowData], table: Table, figures: bool
) -> dict[str, bytes]:
    """The content of each file of the report, report.md first."""
    ablations = load_ablations(store, manifest, rows)
    system = load_system(store, manifest)
    spec = paper_of(manifest)
    paper = {**_paper_tables(spec, rows), **system_tables(system)}
    drawn = {**_draw(rows, manifest, spec), **_draw_system(system)} if figures else {}
    page = _page(rows, manifest, table, [name for name in drawn if name.endswith(".png")], paper, ablations, figures)
    files = {"report.md": page.encode()}
    for stem, shown in [("table", table), *paper.items(), *stems(ablations)]:
        files |= {f"{stem}.csv": to_csv(shown).encode(), f"{stem}.tex": to_latex(shown).encode()}
    if figures:
        drawn |= _draw_effects(ablations)
    return {**files, **drawn}


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        for name, data in files.items():
            write_atomically(folder / name, data)
    except OSError as error:
        what = f"cannot write the report: {error.strerror}"
        raise UserError(what, where=str(folder), expected="a folder", hint="another one with --out") from None


def _paper_tables(spec: PaperSpec | None, rows: Sequence[RowData]) -> dict[str, Table]:
    """By file name: the published table with ours beside it, and the verdicts."""
    return {"paper": paper_table(spec, rows), "verdicts": verdict_table(spec, rows)} if spec else {}


def _draw(rows: Sequence[RowData], manifest: Mapping[str, Any], spec: PaperSpec | None) -> dict[str, bytes]:
    from reports.canvas import save
    from reports.families import families
    from reports.figures import tradeoff
    from reports.points import figure_axes
    from reports.strips import latency_distributions

    report = (manifest.get("suite") or {}).get("report") or {}
    published = paper_ap(spec, rows) if spec else published_ap if report.get("published") else None
    axes = report.get("axes") or ("gmacs", "ap")
    drawn = {stem: tradeoff(rows, x=x, y=y, published=published) for stem, x, y in figure_axes(rows, axes)}
    drawn |= families(rows)
    drawn["latency_distributions"] = latency_distributions(rows)
    kept = {stem: save(figure) for stem, figure in drawn.items() if figure is not None}
    return {f"{stem}.{kind}": data for stem, files in kept.items() for kind, data in files.items()}


def _draw_system(record: Record | None) -> dict[str, bytes]:
    from reports.canvas import save
    from reports.system_figure import system_figure

    figure = system_figure(record) if record else None
    return {f"system.{kind}": data for kind, data in save(figure).items()} if figure else {}


def _draw_effects(ablations: Sequence[Ablated]) -> dict[str, bytes]:
    from reports.canvas import save
    from reports.forest import forest

    figure = forest(ablations)
    return {f"forest.{kind}": data for kind, data in save(figure).items()} if figure else {}


def _title(suite: Mapping[str, Any]) -> str:
    report = suite.get("report") or {}
    return plain_text(report.get("title") or suite.get("name") or "paretopose")


def _page(
    rows: Sequence[RowData],
    manifest: Mapping[str, Any],
    table: Table,
    pictures: Sequence[str],
    paper: Mapping[str, Table],
    ablations: Sequence[Ablated],
    figures: bool,
) -> str:
    suite = manifest.get("suite") or {}
    parts = [f"# {escape_markdown(_title(suite))}"]
    if suite.get("description"):
        parts.append(escape_markdown(plain_text(suite["description"])))
    parts.append(to_markdown(replace(table.narrow(1).telling(), title="")).rstrip())
    parts += [f"![{name.removesuffix('.png').replace('_', ' ')}]({name})" for name in pictures]
    if figures and not pictures:
        parts.append("No figure: no row has both an AP and a cost.")
    for shown in paper.values():
        parts += [f"## {escape_markdown(shown.title)}", to_markdown(replace(shown, title="")).rstrip()]
    parts += _ablation_section(ablations, figures)
    parts += ["## All columns", to_markdown(_all_columns(table)).rstrip()]
    return "\n\n".join([*parts, "## How to reproduce", *_origin(rows, manifest)]) + "\n"


def _all_columns(table: Table) -> Table:
    """The columns that tell something; a remark names the others."""
    shown = table.telling()
    left = [column.title for column in table.columns if column not in shown.columns]
    remark = f"Left out, as no row has a value or all are zero: {', '.join(left)}."
    return replace(shown, title="", remarks=(remark,) if left else ())


def _ablation_section(ablations: Sequence[Ablated], figures: bool) -> list[str]:
    parts = []
    for _, shown in stems(ablations):
        parts += [f"## {escape_markdown(shown.title)}", to_markdown(replace(shown, title="")).rstrip()]
    if figures and any(ablated.effects for ablated in ablations):
        parts.append("![effects](forest.png)")
    return parts


def _origin(rows: Sequence[RowData], manifest: Mapping[str, Any]) -> list[str]:
    """Command, code, versions, machine, and the records that the table was made of."""
    records = {r.id: r for row in rows for r in row.records.values()}
    lines = [
        f"Command: {_code(manifest.get('command'))}",
        f"Suite: {_code((manifest.get('suite') or {}).get('name'))}, run {_code(manifest.get('created'))}",
        f"Code: revision {', '.join(_distinct(r.info.get('revision') for r in records.values())) or 'unknown'}",
    ]
    versions = _distinct(
        ", ".join(f"{k} {v}" for k, v in (r.info.get("versions") or {}).items()) for r in records.values()
    )
    lines += [f"Versions: {escape_markdown(v)}" for v in versions if v]
    machines = _distinct(_machine(r.result.get("machine")) for r in records.values() if r.result.get("machine"))
    lines += [f"Machine: {escape_markdown(m)}" for m in machines]
    lines.append(f"Records: {len(records)}, named row by row in table.csv")
    return ["\n".join(f"- {line}" for line in lines)]


def _machine(facts: Any) -> str:
    known = ((n, facts.get(n)) for n in ("cpu", "cores", "memory_gib", "gpus", "os", "torch", "cuda"))
    return ", ".join(f"{n.replace('_', ' ')} {plain_text(v)}" for n, v in known if v not in (None, [], ""))


def _distinct(texts: Any) -> list[str]:
    return list(dict.fromkeys(plain_text(t) for t in texts if t))


def _code(text: Any) -> str:
    """A code span that its content cannot end."""
    plain = plain_text(text or "unknown").replace("`", "'")
    return f"`{plain}`"
