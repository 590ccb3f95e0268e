"""The ablation of a run: a base row, what changes beside it, the main effect of every factor. Reads records only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.records.store import Record, Store
from harness.words import counted
from reports import quantities as q
from reports.model import NOT_HERE, Column, Table, Value
from reports.rows import SURE, RowData, plain_text, record_of

__all__ = ["Ablated", "ablation_table", "effects_table", "load_ablations", "stems"]

_FEW_SEEDS = 5


@dataclass(frozen=True)
class Ablated:
    """One method line of a suite: its rows, and the estimates of the effects record for it."""

    title: str
    rows: tuple[RowData, ...]
    record: Record
    settings: tuple[Mapping[str, Any], ...]
    effects: tuple[Mapping[str, Any], ...]
    train: Mapping[str, Any]

    @property
    def factors(self) -> list[str]:
        """The swept knobs that have more than one value."""
        values = {name: {_text(row.swept.get(name)) for row in self.rows} for name in self.rows[0].swept}
        return [name for name, found in values.items() if len(found) > 1]

    @property
    def crossed(self) -> bool:
        """Whether a main effect is a mean over settings of the other factors, so no row of the table states it."""
        return any(effect["over"] > 1 for effect in self.effects)


def load_ablations(store: Store, manifest: Mapping[str, Any], rows: Sequence[RowData]) -> list[Ablated]:
    """The ablations of a run, in the order of its suite; none when it swept nothing or scored nothing."""
    record = record_of(store, "effects", manifest.get("effects"))
    if record is None:
        return []
    train = (manifest.get("suite") or {}).get("train") or {}
    found = []
    for line in record.result["lines"]:
        own = tuple(row for row in rows if row.line == line["line"])
        known = line["ablation"] or {"settings": (), "effects": ()}
        if own:
            estimates = tuple(known["settings"]), tuple(known["effects"])
            found.append(Ablated(f"Ablation of {_name(own[0])}", own, record, *estimates, train))
    return found


def stems(ablations: Sequence[Ablated]) -> Iterator[tuple[str, Table]]:
    """(file name without ending, table) of every table: `ablation`, `effects`, `ablation_2`, ..."""
    for number, ablated in enumerate(ablations, start=1):
        ending = f"_{number}" if number > 1 else ""
        yield f"ablation{ending}", ablation_table(ablated)
        if ablated.crossed:
            yield f"effects{ending}", effects_table(ablated)


def ablation_table(ablated: Ablated) -> Table:
    """The base first, then every other setting named by what it changes: AP, paired difference, p, work."""
    columns = [
        Column("setting", "setting", "text"),
        Column("ap", q.main_stat(ablated.rows[0]), "interval"),
        Column("ap_difference", "difference", "interval", 2),
        Column("p", "p", digits=3),
        Column("gmacs_per_pose", "gmacs per pose", digits=3),
        Column("gmacs_difference", "difference (gmacs)", digits=3),
    ]
    by_setting: dict[str, list[RowData]] = {}
    for row in ablated.rows:
        by_setting.setdefault(_text(row.swept), []).append(row)
    base, *others = by_setting.values()
    entries = [_setting(ablated, base, base), *(_setting(ablated, rows, base) for rows in others)]
    records = [tuple(f"{r.kind}-{r.id}" for row in rows for r in row.records.values()) for rows in by_setting.values()]
    return Table(tuple(columns), tuple(entries), tuple(records), tuple(_remarks(ablated)), ablated.title)


def _setting(ablated: Ablated, rows: Sequence[RowData], base: Sequence[RowData]) -> tuple[Value, ...]:
    is_base, levels = rows is base, rows[0].swept
    named = [n for n in ablated.factors if is_base or _text(levels[n]) != _text(base[0].swept[n])]
    text = ", ".join(f"{_knob(n)}={plain_text(levels[n])}" for n in named)
    found = next((s for s in ablated.settings if _text(s["levels"]) == _text(levels)), None)
    work, least = _gmacs(rows), _gmacs(base)
    missing = Value(text=NOT_HERE)
    if is_base:
        return Value(text=f"base: {text}"), _ap(rows, found), missing, missing, work, missing
    more = _minus(work, least)
    if found is None:
        reason = "the base has no AP" if "accuracy" in rows[0].records else "not measured"
        return Value(text=text), _ap(rows, found), Value.missing(reason, NOT_HERE), missing, work, more
    difference = _tested(found["difference"])
    return Value(text=text), _ap(rows, found), difference, _p(found["difference"]), work, more


def effects_table(ablated: Ablated) -> Table:
    """One row for each level of each factor: the mean of its paired differences to the base level."""
    columns = [
        Column("factor", "factor", "text"),
        Column("level", "level", "text"),
        Column("base", "instead of", "text"),
        Column("effect", "main effect", "interval", 2),
        Column("p", "p", digits=3),
        Column("settings", "mean over", "text"),
    ]
    rows = []
    for e in ablated.effects:
        over = f"{counted(e['over'], 'setting')} of the others"
        texts = (Value(text=plain_text(t)) for t in (_knob(e["factor"]), e["level"], e["base"]))
        rows.append((*texts, _tested(e["estimate"]), _p(e["estimate"]), Value(text=over)))
    remark = (
        "main effect: AP at the level minus AP at the base level, x 100, mean over the settings of the other factors; "
        f"95 % percentile interval of the mean of the paired differences over {_units(ablated)}. "
        f"{_p_remark(len(rows))}"
    )
    title = ablated.title.replace("Ablation", "Main effects", 1)
    return Table(tuple(columns), tuple(rows), ((f"effects-{ablated.record.id}",),) * len(rows), (remark,), title)


def _remarks(ablated: Ablated) -> list[str]:
    count = sum(s["difference"] is not None for s in ablated.settings)
    remarks = [
        f"difference: AP minus that of the base, x 100, with its 95 % percentile interval over {_units(ablated)}; both "
        f"sides of a difference on the same draws. {_p_remark(count)}"
    ]
    if not ablated.crossed:
        remarks.append("Each row changes one factor, so its difference is the main effect of that level.")
    remarks.append("gmacs per pose: multiply-accumulates / 1e9 of all forwards of one pose; a flip test is two.")
    if ablated.train:
        remarks.append(_training(ablated))
    return remarks


def _p_remark(count: int) -> str:
    family = counted(count, "difference")
    return f"p: two-sided, from the same resamples, after Holm's correction over {family}; bold: p < {SURE}."


def _units(ablated: Ablated) -> str:
    seeds = len({row.seed for row in ablated.rows if "accuracy" in row.records})
    drawn = counted(ablated.record.result["resamples"], "resample")
    return f"images and {seeds} training seeds ({drawn})" if seeds > 1 else f"images ({drawn})"


def _training(ablated: Ablated) -> str:
    train, seeds = ablated.train, sorted({row.seed for row in ablated.rows})
    swept = sorted({name for row in ablated.rows for name in row.swept if name.startswith("train.")})
    length = f", {counted(train['epochs'], 'epoch')}" if train.get("epochs") else ""
    if "train.epochs" in swept:
        length = ", as many epochs as the row says (0: not trained)"
    limit = f", the first {counted(train['limit'], 'training image')}" if train.get("limit") else ""
    start = f"the weights '{plain_text(train['from'])}'" if train.get("from") else "random weights"
    text = f"The networks were trained by the run: recipe {plain_text(train.get('recipe'))}{length}{limit}, "
    text += f"from {start}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}."
    if len(seeds) == 1:
        return text + " One seed: the intervals do not say what another training would give."
    return text + (" From so few seeds the intervals are rough." if len(seeds) < _FEW_SEEDS else "")


def _ap(rows: Sequence[RowData], found: Mapping[str, Any] | None) -> Value:
    """As in the main table where there is one seed, else the mean over the seeds."""
    return q.stat(rows[0], q.main_stat(rows[0])) if len(rows) == 1 or found is None else _estimate(found["ap"])


def _estimate(found: Mapping[str, Any]) -> Value:
    return Value.number(found["value"], found["low"], found["high"], scale=100)


def _tested(found: Mapping[str, Any]) -> Value:
    """A paired difference; bold where its test says so."""
    return replace(_estimate(found), bold=found["p_holm"] is not None and found["p_holm"] < SURE)


def _p(found: Mapping[str, Any]) -> Value:
    if found["p_holm"] is None:
        return Value.missing("no resamples", NOT_HERE)
    return Value.number(found["p_holm"])


def _gmacs(rows: Sequence[RowData]) -> Value:
    values = [q.gmacs(row, "prediction") for row in rows]
    known = [v.value for v in values if v.value is not None]
    return Value.number(sum(known) / len(known)) if known else values[0]


def _minus(a: Value, b: Value) -> Value:
    if a.value is None or b.value is None:
        return Value(text=NOT_HERE)
    return Value.number(a.value - b.value)


def _name(row: RowData) -> str:
    """The label without its swept knobs."""
    swept = {_knob(name) for name in row.swept}
    return " ".join(part for part in row.label.split() if part.partition("=")[0] not in swept)


def _knob(name: str) -> str:
    return plain_text(name).removeprefix("protocol.")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
