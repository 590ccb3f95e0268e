"""Rows -> the table: which columns there are, and what stands below. Every format prints this one model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from reports import quantities as q
from reports.footnotes import general_notes
from reports.formats import to_console, to_csv, to_html, to_latex, to_markdown
from reports.model import NOT_HERE, Column, Note, Table, Value
from reports.published import published_columns
from reports.rows import RowData, load_rows, plain_text

__all__ = [
    "Column",
    "Note",
    "RowData",
    "Table",
    "Value",
    "build_table",
    "latency_names",
    "load_rows",
    "to_console",
    "to_csv",
    "to_html",
    "to_latex",
    "to_markdown",
]

_LONG_NOTE = 24  # characters; a longer note of a variant stands below the table
_PAPER = ("AP50", "AP75", "AR")
_CROWDED = ("AP_easy", "AP_medium", "AP_hard")
_STATS = (*_PAPER, *_CROWDED, "APm", "APl")
_PCKH = {q.PCKH: "pckh", "PCKh@0.1": "pckh_01"}
_PERCENTAGES = {"ap", "box_ap", *map(str.lower, _STATS), "refined_percent", "published_ap", "published_difference"}
_LATENCY = re.compile(r"latency_b(\d+)")
_BESIDE: tuple[tuple[str, str, str, Callable[..., Value]], ...] = (
    ("peak_memory_mb", "peak_memory_mb", "memory MB", q.peak_memory),
    ("roofline", "peak_share_percent", "of the machine's peak (%)", q.peak_share),
    ("energy", "joules", "J", q.energy),
)
_FIELDS = {"flip": "flip test", "nms": "NMS", "nms_threshold": "NMS at", "box_score_threshold": "boxes from score"}


@dataclass(frozen=True)
class _Filled:
    """A column and how a row fills it."""

    column: Column
    fill: Callable[[RowData], Value]


def build_table(rows: Sequence[RowData], *, title: str = "", published: bool = False) -> Table:
    """The table of `rows`, in their order.

    Columns for what was asked of any row; protocol fields, seeds and number formats in which the rows differ get
    their own. `published` adds the published AP and the difference to it.
    """
    filled = [*_identity(), *_cost(rows), *_accuracy(rows), *_differing(rows), *_latency(rows)]
    columns = [f.column for f in filled]
    values = [[f.fill(row) for f in filled] for row in rows]
    remarks = general_notes(rows, {c.key for c in columns})
    if published:
        extra, entries, remark = published_columns(rows)
        columns += extra
        values = [[*v, *e] for v, e in zip(values, entries, strict=True)]
        remarks.append(remark)
    if any(value.text == NOT_HERE for row in values for value in row):
        remarks.append(f"{NOT_HERE}: not measured, or the row does not have it.")
    columns = [_with_digits(c, [v[i] for v in values]) for i, c in enumerate(columns)]
    records = tuple(tuple(f"{r.kind}-{r.id}" for r in row.records.values()) for row in rows)
    return Table(tuple(columns), tuple(map(tuple, values)), records, tuple(remarks), plain_text(title))


def latency_names(rows: Iterable[RowData]) -> list[str]:
    """`latency_b1`, `latency_b32`, ... of any row, by batch size."""
    found = {name for row in rows for name in (*row.records, *row.reasons)}
    batches = sorted(int(m[1]) for name in found if (m := _LATENCY.fullmatch(name)))
    return [f"latency_b{b}" for b in batches]


def _identity() -> list[_Filled]:
    return [
        _Filled(Column("method", "method", "text"), _method),
        _Filled(Column("input", "input", "text"), lambda row: Value(text=plain_text(row.input_size))),
    ]


def _method(row: RowData) -> Value:
    if row.note in row.label:
        return Value(text=row.label)
    if len(row.note) <= _LONG_NOTE:
        return Value(text=f"{row.label} ({row.note})" if row.note else row.label)
    return Value(text=row.label, note=row.note)


def _cost(rows: Sequence[RowData]) -> list[_Filled]:
    if not _asked(rows, "cost") and not any(row.result("accuracy").get("cost") for row in rows):
        return []
    columns = [_Filled(Column("params_m", "params (M)"), q.params)]
    if any((q.train_only_params(row).value or 0) > 0 for row in rows):
        columns.append(_Filled(Column("params_train_only_m", "train only (M)", spare=True), q.train_only_params))
    columns.append(_Filled(Column("gmacs", "gmacs", "spread"), q.gmacs))
    columns.append(_Filled(Column("gflops", "gflops"), lambda row: q.gmacs(row, scale=2)))
    if any(row.result("accuracy").get("cost") for row in rows):
        per_pose = Column("gmacs_per_pose", "gmacs per pose", "spread", level=2)
        columns.append(_Filled(per_pose, lambda row: q.gmacs(row, "prediction")))
    return columns


def _accuracy(rows: Sequence[RowData]) -> list[_Filled]:
    if not _asked(rows, "accuracy"):
        return []
    measured = list(dict.fromkeys(name for row in rows for name in row.result("accuracy").get("stats", {})))
    columns = [_Filled(Column("ap", "AP", "interval"), partial(_main, name="AP"))]
    if q.PCKH in measured and "AP" not in measured:
        columns = []
    for name in _STATS:
        if name in measured:
            level = 1 if name in (*_PAPER, *_CROWDED) else 2
            column = Column(name.lower(), name.replace("AP_", "AP "), "bounded", level=level, spare=True)
            columns.append(_Filled(column, partial(q.stat, name=name)))
    columns += _pckh(measured)
    if any("box_ap" in row.result("accuracy") for row in rows):
        columns.append(_Filled(Column("box_ap", "box AP", "interval", spare=True), q.box_ap))
    if any("refined_share" in row.result("accuracy") for row in rows):
        columns.append(_Filled(Column("refined_percent", "refined (%)", spare=True), q.refined_share))
    if any(row.knobs.get("exit_rate") is not None for row in rows):
        columns.append(_Filled(Column("quality_threshold", "threshold", "text", spare=True), _threshold))
    return [*columns, _Filled(Column("boxes", "boxes", "text"), q.boxes)]


def _pckh(measured: Sequence[str]) -> Iterator[_Filled]:
    """Columns of MPII's figures: the means, and in full tables every joint."""
    for name in measured:
        mean, _, joint = name.partition(" ")
        if mean in _PCKH and not joint:
            fill = partial(_main if mean == q.PCKH else q.stat, name=name)
            yield _Filled(Column(_PCKH[mean], name, "interval"), fill)
        elif mean in _PCKH:
            column = Column(f"{_PCKH[mean]}_{joint}", name.replace("_", " "), "bounded", level=2)
            yield _Filled(column, partial(q.stat, name=name))


def _main(row: RowData, name: str) -> Value:
    """AP or PCKh@0.5, and below the table which joints it is of."""
    value = q.stat(row, name)
    notes = [text for text in (value.note, q.joints_in_words(row)) if text]
    return replace(value, bold=row.leads, note="; ".join(notes))


def _threshold(row: RowData) -> Value:
    found = row.result("accuracy").get("quality_threshold")
    if found is None:
        return Value.missing("no threshold was chosen", NOT_HERE)
    return Value(text=f"{found:.4g}" if isinstance(found, float) else plain_text(found))


def _differing(rows: Sequence[RowData]) -> list[_Filled]:
    """Columns of the data, protocol fields, seeds and number formats that are not the same in all rows."""
    fields = dict.fromkeys(name for row in rows for name in row.protocol)
    columns = [
        _Filled(Column(f"protocol_{n}", _FIELDS.get(n, plain_text(n).replace("_", " ")), "text"), _field(n))
        for n in fields
        if len({plain_text(row.protocol[n]) for row in rows if n in row.protocol}) > 1
    ]
    if len({plain_text(row.data.get("name", "")) for row in rows}) > 1:  # all records of a store
        columns.insert(0, _Filled(Column("data", "data", "text"), _data))
    for name in ("dtype", "runtime"):
        if len({row.knobs.get(name) for row in rows}) > 1:
            columns.append(_Filled(Column(name, name, "text"), _knob(name)))
    if len({row.seed for row in rows}) > 1:
        columns.append(_Filled(Column("seed", "seed", "text"), lambda row: Value(text=str(row.seed))))
    return columns


def _data(row: RowData) -> Value:
    return Value(text=plain_text(row.data.get("name", "")))


def _field(name: str) -> Callable[[RowData], Value]:
    return lambda row: Value(text=plain_text(row.protocol.get(name, NOT_HERE)))


def _knob(name: str) -> Callable[[RowData], Value]:
    return lambda row: Value(text=plain_text(row.knobs.get(name, NOT_HERE)))


def _latency(rows: Sequence[RowData]) -> list[_Filled]:
    columns = []
    for name in latency_names(rows):
        batch = name.removeprefix("latency_b")
        for quantity, title in (("median", "ms"), ("p90", "p90 ms"), ("p99", "p99 ms"), ("ratio", "ratio")):
            key = f"ratio_b{batch}" if quantity == "ratio" else f"{name}_{quantity}_ms".replace("_median", "")
            extra = quantity != "median"
            column = Column(key, f"{title} (batch {batch})", "interval", level=2 if extra else 0, spare=extra)
            columns.append(_Filled(column, partial(q.from_latency, name=name, quantity=quantity)))
        columns += _beside_latency(rows, name, batch)
    return columns


def _beside_latency(rows: Sequence[RowData], name: str, batch: str) -> list[_Filled]:
    """Memory, share of the machine's peak, and energy where a counter was there."""
    results = [row.result(name) for row in rows]
    found = []
    if any(map(q.times_images, results)):
        per_person = f"ms per person (batch {batch})"
        column = Column(f"ms_per_person_b{batch}", per_person, "interval", level=2, spare=True)
        found.append(_Filled(column, partial(q.from_latency, name=name, quantity="ms_per_person")))
    for part, key, title, fill in _BESIDE:
        if any(part in result for result in results):
            column = Column(f"{key}_b{batch}", f"{title} (batch {batch})", level=2, spare=True)
            found.append(_Filled(column, partial(fill, name=name)))
    return found


def _asked(rows: Sequence[RowData], name: str) -> bool:
    return any(name in row.records or name in row.reasons for row in rows)


def _with_digits(column: Column, values: Sequence[Value]) -> Column:
    """Percentages have one decimal; other columns as many (1 to 4) as their smallest number needs for three digits."""
    if column.key in _PERCENTAGES or column.key.startswith("pckh") or column.kind == "text":
        return column
    smallest = min((abs(v.value) for v in values if v.value), default=1.0)
    digits = next((d for d, least in ((1, 10.0), (2, 1.0), (3, 0.1)) if smallest >= least), 4)
    return replace(column, digits=digits)
