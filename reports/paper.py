"""A published table as a target: its rows and columns in its order, ours beside them, and a verdict for each figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from pydantic import ValidationError

from harness.errors import UserError, unknown_name
from harness.published import COLUMNS, load, records, size_of
from harness.suite.schema import PaperSpec
from reports.claims import Claim, judge_claim
from reports.formats import entry
from reports.model import NOT_HERE, Column, Table, Value
from reports.published import Published, PublishedAp, comparable_ap, fits, published_ap, source_note
from reports.rows import RowData, plain_text
from reports.verdicts import NOT_IN_PROJECT, NOT_PUBLISHED, Judgement, judge

__all__ = ["PaperRow", "paper_ap", "paper_of", "paper_rows", "paper_table", "verdict_table"]

_TITLES = {
    "params_m": "params (M)", "gflops": "GFLOPs (source's count)", "ap": "AP", "ap50": "AP50", "ap75": "AP75",
    "apm": "APm", "apl": "APl", "ar": "AR", "latency_ms": "ms",
}  # fmt: skip
_VERDICTS = (
    "reproduced: AP within our 95 % interval and its rounding; parameters and GFLOPs within one unit of the last "
    "printed digit, GFLOPs under the counting convention of their source. differs: it is not. not published: no source "
    "prints it. not in project: a network that this project does not have."
)


@dataclass(frozen=True)
class PaperRow:
    """A row of a published table and ours of the same network; either may be missing."""

    published: Published | None
    row: RowData | None

    @property
    def foreign(self) -> bool:
        """Whether the network is not in the project."""
        return self.published is not None and not self.published["our_variant"]

    @property
    def title(self) -> str:
        """As the source calls it; empty for what nobody published."""
        p = self.published
        if p is None:
            return ""
        words = [plain_text(p[name]) for name in ("method", "variant", "backbone", "post_process")]
        return " ".join(w for i, w in enumerate(words) if w and not any(w in other for other in words[i + 1 :]))

    @property
    def size(self) -> str:
        """Input size, ours or the source's."""
        size = self.row.input_size if self.row else size_of(self.published or {})
        return f"{size[0]}x{size[1]}" if size else ""


def paper_of(manifest: Mapping[str, Any]) -> PaperSpec | None:
    """The published table that the suite of a run names; UserError when it is malformed."""
    found = ((manifest.get("suite") or {}).get("report") or {}).get("paper")
    if found is None:
        return None
    try:
        return PaperSpec.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(("report", "paper", *map(str, first["loc"])))
        raise UserError(f"no published table: {first['msg']}", where=where, hint="see suites/paper") from None


def paper_rows(spec: PaperSpec, rows: Sequence[RowData]) -> list[PaperRow]:
    """The rows of the table in its order, each with ours, then the rows of ours that no source prints.

    Raises UserError for a pattern on an unknown column, or one that selects no published row.
    """
    found = [PaperRow(p, next((r for r in rows if fits(p, r)), None)) for p in _selected(spec)]
    placed = {id(pair.row) for pair in found}
    return [*found, *(PaperRow(None, row) for row in rows if id(row) not in placed)]


def _selected(spec: PaperSpec) -> list[Published]:
    table = records(load())
    chosen: list[Published] = []
    for patterns in spec.rows:
        for name in patterns:
            if name not in COLUMNS:
                what, hint = unknown_name("column of results/published", name, COLUMNS)
                raise UserError(what, where="report.paper.rows", hint=hint)
        own = [row for row in table if all(fnmatchcase(_text(row[n]), p) for n, p in patterns.items())]
        if not own:
            raise UserError(
                f"no published row has {dict(patterns)}", where="report.paper.rows", hint="see results/published"
            )
        chosen += [row for row in own if any(row[c] == row[c] for c in spec.columns) and row not in chosen]
    return chosen


def _text(value: Any) -> str:
    """A cell as patterns see it: whole numbers without decimals, nothing for what is not there."""
    return str(value) if isinstance(value, str) else "" if value != value else f"{value:g}"


def paper_ap(spec: PaperSpec, rows: Sequence[RowData]) -> PublishedAp:
    """The AP of this table's own row of a network where it has one, else what another source prints."""
    own = {id(pair.row): pair.published for pair in paper_rows(spec, rows) if pair.published is not None}

    def ap_of(row: RowData) -> Value | None:
        return comparable_ap(row, own[id(row)]) if id(row) in own else published_ap(row)

    return ap_of


# -- tables --------------------------------------------------------------------------------------------------------


def paper_table(spec: PaperSpec, rows: Sequence[RowData]) -> Table:
    """In the shape of the source: one line for each of its rows, ours and the published figure of every column."""
    pairs = paper_rows(spec, rows)
    columns = [*_names()]
    for name in spec.columns:
        columns += [Column(name, _TITLES[name], "interval"), Column(f"published_{name}", "published")]
    entries = []
    for pair in pairs:
        found = [judge(name, pair.row, pair.published) for name in spec.columns]
        entries.append((*_named(pair), *(v for j in found for v in (j.ours, j.published))))
    remarks = (
        "GFLOPs: ours under the counting convention that gives the published figure, else under the nearest; "
        "multiply-accumulates (macs) where none is published.",
    )
    return Table(tuple(columns), tuple(entries), _records(pairs), remarks, spec.caption)


def verdict_table(spec: PaperSpec, rows: Sequence[RowData]) -> Table:
    """One line for each figure: ours, published, difference, verdict, and the convention or reason; then the claims."""
    pairs = paper_rows(spec, rows)
    columns = (
        *_names(), Column("quantity", "quantity", "text"), Column("ours", "ours", "interval"),
        Column("published", "published"), Column("difference", "difference"), Column("verdict", "verdict", "text"),
        Column("how", "convention or reason", "text"),
    )  # fmt: skip
    entries: list[tuple[Value, ...]] = []
    sources: list[tuple[str, ...]] = []
    for pair, own in zip(pairs, _records(pairs), strict=True):
        judged: dict[str, Judgement] = {name: judge(name, pair.row, pair.published) for name in spec.columns}
        lines = [_foreign(judged)] if pair.foreign else [_judged(_TITLES[n], j) for n, j in judged.items()]
        entries += [(*_named(pair), *line) for line in lines]
        sources += [own] * len(lines)
    for claim in (Claim.of(c, rows) for c in spec.claims):
        entries.append((*_claimed(claim), *_judged(claim.quantity, judge_claim(claim))))
        sources.append(claim.records)
    found = Counter(row[-2].text for row in entries)
    counts = ", ".join(f"{number} {verdict}" for verdict, number in found.most_common())
    return Table(columns, tuple(entries), tuple(sources), (f"{counts}. {_VERDICTS}",), f"Verdicts: {spec.caption}")


def _names() -> tuple[Column, ...]:
    return (
        Column("method", "here", "text"),
        Column("published_as", "published as", "text"),
        Column("input", "input", "text"),
    )


def _named(pair: PaperRow) -> tuple[Value, ...]:
    source = source_note(pair.published) if pair.published else ""
    here = Value(text=pair.row.label if pair.row else NOT_HERE, note=pair.row.note if pair.row else "")
    return here, Value(text=pair.title or NOT_PUBLISHED, note=source), Value(text=pair.size or NOT_HERE)


def _claimed(claim: Claim) -> tuple[Value, ...]:
    here = f"{claim.spec.row} against {claim.spec.against}"
    title = Value(text=plain_text(claim.spec.text), note=f"published: {plain_text(claim.spec.source)}")
    return Value(text=plain_text(here), note=claim.note), title, Value(text=claim.size or NOT_HERE)


def _judged(quantity: str, judgement: Judgement) -> tuple[Value, ...]:
    j = judgement
    return (
        Value(text=quantity),
        j.ours,
        j.published,
        j.difference,
        Value(text=j.verdict),
        Value(text="" if j.how == j.verdict else plain_text(j.how)),
    )


def _foreign(judged: Mapping[str, Judgement]) -> tuple[Value, ...]:
    """One line for all figures of a network that is not in the project."""
    printed = ((_TITLES[name], j.published) for name, j in judged.items() if j.published.value is not None)
    figures = ", ".join(f"{title} {entry(value, Column('', ''))}" for title, value in printed)
    nothing = Value(text=NOT_HERE)
    return nothing, nothing, nothing, nothing, Value(text=NOT_IN_PROJECT), Value(text=figures)


def _records(pairs: Sequence[PaperRow]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(f"{r.kind}-{r.id}" for r in pair.row.records.values()) if pair.row else () for pair in pairs)
