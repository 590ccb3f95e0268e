"""The table as text: console, Markdown, LaTeX, CSV, HTML. Whatever a name contains, it is only ever text."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from reports.model import Column, Table, Value

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["entry", "to_console", "to_csv", "to_html", "to_latex", "to_markdown"]


def entry(value: Value, column: Column) -> str:
    """An entry in plain characters: `74.4 [73.1, 75.6]`, `8.31 ± 1.20 (5.94 to 10.02)`, or its text."""
    if value.value is None:
        return value.text
    number = f"{value.value:.{column.digits}f}"
    if value.low is None or value.high is None or column.kind in ("number", "bounded"):
        return number
    low, high = f"{value.low:.{column.digits}f}", f"{value.high:.{column.digits}f}"
    if value.sd is not None:
        return f"{number} ± {value.sd:.{column.digits}f} ({low} to {high})"
    return f"{number} [{low}, {high}]"


def to_console(table: Table, console: Console | None = None) -> None:
    """Print on stdout, with as many columns as fit, but always those that every format has."""
    from rich.console import Console as RichConsole
    from rich.measure import Measurement

    console = console or RichConsole()
    for level in (2, 1, 0):
        shown = table.narrow(level)
        drawn = _rich(shown)
        needed = Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum
        if needed <= console.width:
            break
    if needed > console.width and not console.is_terminal:  # a file or a pipe has no width
        console.width = needed
    console.print(drawn)
    for note in shown.notes:
        console.print(f"{note.mark}) {note.text}" if note.mark else note.text, markup=False, highlight=False)


def _rich(table: Table):  # type: ignore[no-untyped-def] # noqa: ANN202
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(table.title) if table.title else None, title_justify="left")
    for column in table.columns:
        drawn.add_column(Text(column.title), justify="left" if column.kind == "text" else "right")
    for row in table.rows:
        drawn.add_row(*(Text(text + _superscript(mark)) for text, mark in _marked(table, row)))
    return drawn


def _superscript(mark: str) -> str:
    return f" {mark})" if mark else ""


def _marked(table: Table, row: tuple[Value, ...]) -> Iterator[tuple[str, str]]:
    for column, value in zip(table.columns, row, strict=True):
        yield entry(value, column), table.mark(value)


# -- Markdown ------------------------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """A GitHub table and its notes."""
    lines = [f"**{escape_markdown(table.title)}**", ""] if table.title else []
    lines.append(_piped(escape_markdown(c.title) for c in table.columns))
    lines.append(_piped("---" if c.kind == "text" else "---:" for c in table.columns))
    lines += [_piped(_markdown_entries(table, row)) for row in table.rows]
    notes = ((f"<sup>{n.mark}</sup> " if n.mark else "") + escape_markdown(n.text) for n in table.notes)
    return "\n".join([*lines, "", *(line + "\n" for line in notes)])


def _markdown_entries(table: Table, row: tuple[Value, ...]) -> Iterator[str]:
    for value, (text, mark) in zip(row, _marked(table, row), strict=True):
        shown = text if value.value is not None else escape_markdown(text)
        yield shown + (f" <sup>{mark}</sup>" if mark else "")


def _piped(entries: Iterator[str]) -> str:
    return f"| {' | '.join(entries)} |"


def escape_markdown(text: str) -> str:
    """Text that GitHub shows as it is: no HTML, links, emphasis, mathematics or table cells come out of it."""
    safe = html.escape(text, quote=False)
    safe = re.sub(r"([\\`*\[\]|~$#])", r"\\\1", safe)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", safe)  # inside a word it stands for itself


# -- LaTeX ---------------------------------------------------------------------------------------------------------

_TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$", "×": r"$\times$", "–": "--", "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}", "[": "{[}", "]": "{]}",
}  # fmt: skip


def to_latex(table: Table) -> str:
    r"""A document of its own with a booktabs table; `\usepackage{booktabs,standalone}` lets a paper \input it."""
    shown = table.narrow(1)
    align = "".join("l" if c.kind == "text" else "r" for c in shown.columns)
    body = [_tex_row(escape_latex(c.title) for c in shown.columns), r"\midrule"]
    body += [_tex_row(_tex_entries(shown, row)) for row in shown.rows]
    notes = [
        (rf"\textsuperscript{{{n.mark}}}\," if n.mark else "") + escape_latex(n.text) + r"\par" for n in shown.notes
    ]
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage{textcomp,booktabs}",
            r"\usepackage[a3paper,landscape,margin=15mm]{geometry}",
            r"\setlength{\parindent}{0pt}",
            r"\begin{document}",
            rf"\begin{{tabular}}{{{align}}}",
            r"\toprule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip\footnotesize",
            *notes,
            r"\end{document}",
            "",
        ]
    )


def _tex_row(entries: Iterator[str]) -> str:
    return " & ".join(entries) + r" \\"


def _tex_entries(table: Table, row: tuple[Value, ...]) -> Iterator[str]:
    for column, value in zip(table.columns, row, strict=True):
        mark = table.mark(value)
        yield _tex_entry(value, column) + (rf"\textsuperscript{{{mark}}}" if mark else "")


def _tex_entry(value: Value, column: Column) -> str:
    """`$74.4 \\pm 1.2$`, or `$74.4_{-1.3}^{+1.1}$` where the interval is not symmetrical at the printed digits."""
    if value.value is None or value.low is None or value.high is None or column.kind in ("number", "bounded"):
        return escape_latex(entry(value, column))
    number, low, high = (f"{v:.{column.digits}f}" for v in (value.value, value.low, value.high))
    if value.sd is not None:
        return rf"${number} \pm {value.sd:.{column.digits}f}$ ({low}--{high})"
    below, above = (f"{v:.{column.digits}f}" for v in (value.value - value.low, value.high - value.value))
    spread = rf" \pm {below}" if below == above else f"_{{-{below}}}^{{+{above}}}"
    return f"${number}{spread}$"


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; characters that pdfLaTeX has no glyph for become their code point."""
    return "".join(_TEX.get(c) or (c if c.isascii() else f"(U+{ord(c):04X})") for c in text)


# -- CSV -----------------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """Plain numbers, one column for each quantity and bound; a missing one is empty with its reason in `notes`."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    parts = [_parts(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    writer.writerow([name for column in parts for name, _ in column] + ["records", "notes"])
    for row, records in zip(table.rows, table.records, strict=True):
        plain = [_csv(read(value)) for value, column in zip(row, parts, strict=True) for _, read in column]
        writer.writerow([*plain, " ".join(records), _csv(_remarks(table, row))])
    return stream.getvalue()


def _parts(column: Column, values: list[Value]) -> list[tuple[str, Callable[[Value], float | str | None]]]:
    """(name, how to read it) of the CSV columns of a column."""
    if column.kind == "text":
        return [(column.key, lambda v: v.text)]
    parts: list[tuple[str, Callable[[Value], float | str | None]]] = [(column.key, lambda v: v.value)]
    if column.kind in ("interval", "bounded"):
        parts += [(f"{column.key}_low", lambda v: v.low), (f"{column.key}_high", lambda v: v.high)]
    if column.kind == "spread" and any(v.sd is not None for v in values):
        parts.append((f"{column.key}_sd", lambda v: v.sd))
        parts += [(f"{column.key}_p5", lambda v: v.low), (f"{column.key}_p95", lambda v: v.high)]
    return parts


def _csv(value: float | str | None) -> str:
    if isinstance(value, str):
        return f"'{value}" if value[:1] in tuple("=+-@") else value  # a spreadsheet would run it as a formula
    return "" if value is None else repr(round(value, 9))


def _remarks(table: Table, row: tuple[Value, ...]) -> str:
    found = [(c.title, v.note or v.reason) for c, v in zip(table.columns, row, strict=True) if v.note or v.reason]
    return "; ".join(f"{title}: {text}" for title, text in found)


# -- HTML ----------------------------------------------------------------------------------------------------------


def to_html(table: Table) -> str:
    """A `<table>` with its notes; everything that comes from a file is escaped."""
    head = "".join(f"<th>{html.escape(c.title)}</th>" for c in table.columns)
    rows = "\n".join(f"<tr>{''.join(_html_entries(table, row))}</tr>" for row in table.rows)
    notes = "\n".join(f"<p>{f'<sup>{n.mark}</sup> ' if n.mark else ''}{html.escape(n.text)}</p>" for n in table.notes)
    caption = f"<caption>{html.escape(table.title)}</caption>" if table.title else ""
    return f"<table>{caption}\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n{notes}\n"


def _html_entries(table: Table, row: tuple[Value, ...]) -> Iterator[str]:
    for column, (text, mark) in zip(table.columns, _marked(table, row), strict=True):
        style = "" if column.kind == "text" else ' style="text-align: right"'
        yield f"<td{style}>{html.escape(text)}{f'<sup>{mark}</sup>' if mark else ''}</td>"
