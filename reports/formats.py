"""The table as text: console, Markdown, LaTeX, CSV, HTML. Whatever a name contains, it is only ever text."""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from reports.model import Column, Table, Value

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["entry", "to_console", "to_csv", "to_html", "to_latex", "to_markdown"]


def entry(value: Value, column: Column) -> str:
    """An entry in plain characters: `74.4 [73.1, 75.6]`, `8.31 ± 1.20 (5.94 to 10.02)`, or its text."""
    if value.value is None:
        return value.text
    digits = _digits(value, column)
    number = _fixed(value.value, digits)
    if value.low is None or value.high is None or column.kind in ("number", "bounded"):
        return number
    low, high = f"{value.low:.{digits}f}", f"{value.high:.{digits}f}"
    if value.sd is not None:
        return f"{number} ± {value.sd:.{digits}f} ({low} to {high})"
    return f"{number} [{low}, {high}]"


def _fixed(number: float, digits: int) -> str:
    """With that many decimals; what rounds to zero has no sign."""
    text = f"{number:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _digits(value: Value, column: Column) -> int:
    return column.digits if value.digits is None else value.digits


def to_console(table: Table, console: Console | None = None) -> None:
    """Print on stdout, with as many columns as fit, but always those that every format has."""
    from rich.console import Console as RichConsole
    from rich.measure import Measurement

    console = console or RichConsole()
    for level in (2, 1, 0):
        shown = table.narrow(level).telling()
        drawn = _rich(shown)
        needed = Measurement.get(console, console.options.update(max_width=10_000), drawn).maximum
        if needed <= console.width:
            break
    hidden = 0
    if needed > console.width and not console.is_terminal:  # a file or a pipe has no width
        console.width = needed
    elif needed > console.width:
        least = shown.only(_LEAST)
        hidden = len(shown.columns) - len(least.columns)
        if hidden:
            shown, drawn = least, _rich(least)
    console.print(drawn)
    if hidden:
        console.print(f"{hidden} more columns in a wider window, and in the report", markup=False, highlight=False)
    for note in shown.notes:
        console.print(f"{note.mark}) {note.text}" if note.mark else note.text, markup=False, highlight=False)


_LEAST = ("method", "input", "gmacs", "ap", "refined_percent", "latency_b")  # what a narrow window shows


def _rich(table: Table):  # type: ignore[no-untyped-def] # noqa: ANN202
    from rich.table import Table as RichTable
    from rich.text import Text

    drawn = RichTable(title=Text(table.title) if table.title else None, title_justify="left")
    for column in table.columns:
        drawn.add_column(Text(column.title), justify="left" if column.kind == "text" else "right")
    for row in table.rows:
        drawn.add_row(
            *(
                Text(text + _superscript(mark), style="bold" if value.bold else "")
                for value, (text, mark) in zip(row, _marked(table, row), strict=True)
            )
        )
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
        shown = f"**{shown}**" if value.bold else shown
        yield shown + (f" <sup>{mark}</sup>" if mark else "")


def _piped(entries: Iterator[str]) -> str:
    return f"| {' | '.join(entries)} |"


@lru_cache(maxsize=10_000)
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
    "'": r"\textquotesingle{}", "[": "{[}", "]": "{]}", "ß": r"{\ss}", "ø": r"{\o}", "Ø": r"{\O}", "æ": r"{\ae}",
    "ł": r"{\l}", "Ł": r"{\L}",
}  # fmt: skip
_TEX_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
"""combining character -> LaTeX's command for it"""
_TEX_DOTLESS = {"i": r"\i", "j": r"\j"}  # their dot gives way to the accent


_MOST_LINES, _LONG_TEXT = 46, 40
_FIT = r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%"


def to_latex(table: Table) -> str:
    r"""A document of its own with a booktabs table; `\usepackage{booktabs,standalone}` lets a paper \input it.

    One run of pdflatex is enough. What is wider than the page is made smaller, long texts are set as paragraphs, and
    more rows than a page holds go on under the same head on the next.
    """
    shown = table.narrow(1).telling()
    notes = [
        (rf"\textsuperscript{{{n.mark}}}\," if n.mark else "") + escape_latex(n.text) + r"\par" for n in shown.notes
    ]
    return "\n".join(
        [
            r"\documentclass{article}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage{textcomp,booktabs,array,graphicx}",
            r"\usepackage[a3paper,landscape,margin=15mm]{geometry}",
            r"\setlength{\parindent}{0pt}",
            r"\begin{document}",
            *([escape_latex(shown.title) + r"\par\medskip"] if shown.title else []),
            ("\n" + r"\clearpage" + "\n").join(_tex_parts(shown)),
            r"\par\medskip\footnotesize",
            *notes,
            r"\end{document}",
            "",
        ]
    )


def _tex_parts(table: Table) -> Iterator[str]:
    """A tabular for each page."""
    align = "".join(_tex_align(table, i) for i in range(len(table.columns)))
    head = [r"\toprule", _tex_row(escape_latex(c.title) for c in table.columns), r"\midrule"]
    for page in _pages(table.rows):
        rows = [_tex_row(_tex_entries(table, row)) for row in page]
        part = [_FIT, rf"\begin{{tabular}}{{{align}}}", *head, *rows, r"\bottomrule", r"\end{tabular}}"]
        yield "\n".join(part)


def _pages(rows: Sequence[tuple[Value, ...]]) -> list[list[tuple[Value, ...]]]:
    """As many rows as fit on each page, long texts counted by their lines; one page where there is no row."""
    pages: list[list[tuple[Value, ...]]] = [[]]
    free = _MOST_LINES
    for row in rows:
        lines = max(-(-len(value.text) // _LONG_TEXT) or 1 for value in row)
        if lines > free and pages[-1]:
            pages.append([])
            free = _MOST_LINES
        pages[-1].append(row)
        free -= lines
    return pages


def _tex_align(table: Table, index: int) -> str:
    column = table.columns[index]
    if column.kind != "text":
        return "r"
    return r">{\raggedright\arraybackslash}p{62mm}" if _is_long(table, index) else "l"


def _is_long(table: Table, index: int) -> bool:
    return max((len(row[index].text) for row in table.rows), default=0) > _LONG_TEXT


def _tex_row(entries: Iterator[str]) -> str:
    return " & ".join(entries) + r" \\"


def _tex_entries(table: Table, row: tuple[Value, ...]) -> Iterator[str]:
    for column, value in zip(table.columns, row, strict=True):
        mark = table.mark(value)
        shown = rf"\textbf{{\boldmath {_tex_entry(value, column)}}}" if value.bold else _tex_entry(value, column)
        yield shown + (rf"\textsuperscript{{{mark}}}" if mark else "")


def _tex_entry(value: Value, column: Column) -> str:
    """`$74.4 \\pm 1.2$`, or `$74.4_{-1.3}^{+1.1}$` where the interval is not symmetrical at the printed digits."""
    if value.value is None or value.low is None or value.high is None or column.kind in ("number", "bounded"):
        return _breakable(escape_latex(entry(value, column)))
    digits = _digits(value, column)
    number, low, high = (f"{v:.{digits}f}" for v in (value.value, value.low, value.high))
    if value.sd is not None:
        return rf"${number} \pm {value.sd:.{digits}f}$ ({low}--{high})"
    below, above = (f"{v:.{digits}f}" for v in (value.value - value.low, value.high - value.value))
    spread = rf" \pm {below}" if below == above else f"_{{-{below}}}^{{+{above}}}"
    return f"${number}{spread}$"


def _breakable(text: str) -> str:
    """Paths may break at a slash or an underscore where their column is narrow."""
    return re.sub(r"(/|\\_)(?=.)", r"\1\\allowbreak{}", text) if len(text) > _LONG_TEXT else text


def escape_latex(text: str) -> str:
    """Text that LaTeX sets as it is; characters that pdfLaTeX has no glyph for become their code point."""
    return "".join(_TEX.get(c) or (c if c.isascii() else _tex_letter(c)) for c in unicodedata.normalize("NFC", text))


def _tex_letter(letter: str) -> str:
    """A letter with an accent as LaTeX makes it of the two, in any font encoding; others as their code point."""
    parts = unicodedata.normalize("NFD", letter)
    base, accent = parts[0], parts[1:]
    if base.isascii() and base.isalpha() and accent in _TEX_ACCENTS:
        return rf"\{_TEX_ACCENTS[accent]}{{{_TEX_DOTLESS.get(base, base)}}}"
    return f"(U+{ord(letter):04X})"


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
    for column, value, (text, mark) in zip(table.columns, row, _marked(table, row), strict=True):
        style = "" if column.kind == "text" else ' style="text-align: right"'
        shown = f"<strong>{html.escape(text)}</strong>" if value.bold else html.escape(text)
        yield f"<td{style}>{shown}{f'<sup>{mark}</sup>' if mark else ''}</td>"
