"""`paretopose cost`: where multiply-accumulates are."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness import published
from harness.cli.forward import parse_settings, parse_size
from harness.method import Size, Variant, find_variant

if TYPE_CHECKING:
    from harness.cost.account import Account

__all__ = ["SCHEMA", "AsJson", "InputSize", "Set", "console", "cost", "open_predictor", "right"]

SCHEMA = 1

InputSize = Annotated[str | None, typer.Option(help="HxW; default: the variant's.")]
Set = Annotated[list[str], typer.Option("--set", help="knob=value, repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def console() -> Console:
    """What tables are printed on."""
    # a pipe has no width: tables are not to be cut there
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


@dataclass(frozen=True)
class _Counted:
    variant: Variant
    input_size: Size
    knobs: Mapping[str, Any]
    account: Account

    def to_dict(self) -> dict[str, Any]:
        return {
            "variant": self.variant.name,
            "note": self.variant.note,
            "input_size": list(self.input_size),
            "knobs": dict(self.knobs),
            **self.account.to_dict(),
            "published": self.published(),
        }

    def published(self) -> list[dict[str, Any]]:
        """Printed GFLOPs of this network at this size, each with the convention that reproduces it, None where none
        does (then `nearest`); one entry per figure."""
        from harness.cost.conventions import figures

        ours = figures(self.account.counts)
        found: dict[str, dict[str, Any]] = {}
        for row in self._published_rows():
            hit = published.reproduction(row, ours)
            figure = {
                "printed": row["gflops_text"], "convention": hit.convention if hit.reproduced else None,
                "nearest": hit.convention, "ours": hit.figure, "note": row["note"], "sources": [],
            }  # fmt: skip
            found.setdefault(f"{row['gflops_text']} {row['convention']}", figure)["sources"].append(row["source"])
        return list(found.values())

    def _published_rows(self) -> list[Mapping[str, Any]]:
        rows = published.fitting(published.records(published.rows_for(self.variant)), self.knobs)
        return [r for r in rows if r["gflops_text"] and published.size_of(r) == tuple(self.input_size)]


def open_predictor(
    method: str, input_size: str | None, pairs: list[str], weights: Path | None = None
) -> tuple[Any, ...]:
    """(variant, size, build knobs, run settings, predictor)."""
    from harness.train.checkpoints import open_variant

    variant = find_variant(method)
    knobs, settings = parse_settings(variant, pairs)
    size = parse_size(input_size) if input_size else knobs.pop("input_size", None)
    settings = {k: v for k, v in settings.items() if k in {knob.name for knob in variant.knobs}}
    predictor, _ = open_variant(variant, weights, input_size=size, **knobs)
    return variant, predictor.input_size, knobs, settings, predictor


def _count(method: str, input_size: str | None, pairs: list[str], weights: Path | None) -> _Counted:
    from harness.cost.account import measure

    variant, size, knobs, settings, predictor = open_predictor(method, input_size, pairs, weights)
    print(f"counting {variant.name} at {size[0]}x{size[1]}", file=sys.stderr)
    account = measure(predictor, settings, paradigm=variant.paradigm)
    return _Counted(variant, size, {**knobs, **settings}, account)


def cost(
    method: Annotated[str, typer.Argument(help="Variant, as `paretopose methods` lists it.")],
    input_size: InputSize = None,
    set_: Set = [],  # noqa: B006
    against: Annotated[str | None, typer.Option(help="Variant to compare with, same input size.")] = None,
    weights: Annotated[Path | None, typer.Option(help="File of a method that is a file (ONNX).")] = None,
    as_json: AsJson = False,
) -> None:
    """Operators and modules with both counters, the closed form, every convention, parameters, published figures."""
    counted = _count(method, input_size, set_, weights)
    other = _count(against, f"{counted.input_size[0]}x{counted.input_size[1]}", [], None) if against else None
    if as_json:
        data = {"schema": SCHEMA, **counted.to_dict()}
        if other:
            data |= {"against": other.to_dict(), "reduction_percent": _reductions(counted, other)}
        print(json.dumps(data))
        return
    out = console()
    _print_one(out, counted)
    if other:
        out.print()
        _print_one(out, other)
        _print_against(out, counted, other)


def _reductions(counted: _Counted, other: _Counted) -> dict[str, float]:
    """How much cheaper `counted` is, in per cent, under each convention and in parameters."""
    ours, theirs = counted.account.counts, other.account.counts
    found = {name: 100 * (1 - ours[name] / theirs[name]) for name in ours if theirs.get(name)}
    if counted.account.params and other.account.params:
        found["params"] = 100 * (1 - counted.account.params / other.account.params)
    return found


def _print_one(out: Console, counted: _Counted) -> None:
    account, ledger = counted.account, counted.account.ledger
    note = f" ({counted.variant.note})" if counted.variant.note else ""
    out.print(f"[bold]{counted.variant.name}[/] {counted.input_size[0]}x{counted.input_size[1]}{note}, one forward")
    if account.params is not None:
        out.print(f"parameters {account.params:,}, of which at inference {account.params_inference:,}")
    if ledger:
        table = Table("operator", "class", *right("macs", "fvcore", "torch", "calls"))
        for row in ledger.operators:
            torch_saw = "" if row.torch is None else f"{row.torch:,}"
            table.add_row(row.operator, row.status, f"{row.macs:,}", f"{row.fvcore:,}", torch_saw, _text(row.calls))
        for group, (fvcore, torch) in ledger.groups.items():
            table.add_row(f"= {group}", "both agree", f"{fvcore:,}", f"{fvcore:,}", f"{torch:,}", "")
        out.print(table)
        modules = Table("module", "type", *right("macs", "share", "fvcore", "torch"))
        for part in ledger.top_level():
            share = f"{100 * part.macs / max(ledger.macs, 1):.1f} %"
            modules.add_row(part.module, part.kind, f"{part.macs:,}", share, f"{part.fvcore:,}", f"{part.torch:,}")
        modules.add_row("= all", "", f"{ledger.macs:,}", "100.0 %", "", "")
        out.print(modules)
    out.print(f"closed form {account.closed_form:,} macs, counted {account.macs:,}")
    if account.trace:
        out.print("what this forward did: " + ", ".join(f"{k} {v}" for k, v in account.trace.items()), markup=False)
    if account.as_published is not None:
        out.print(f"the published code does {account.as_published:,} macs for the same")
    _print_conventions(out, counted)


def _print_conventions(out: Console, counted: _Counted) -> None:
    from harness.cost.conventions import CONVENTIONS, figures

    table = Table("convention", *right("giga", "count"), "what it counts")
    giga = figures(counted.account.counts)
    for name, value in counted.account.counts.items():
        table.add_row(name, f"{giga[name]:.3f}", f"{value:,}", CONVENTIONS[name].help)
    out.print(table)
    for figure in counted.published():
        how = "reproduced under" if figure["convention"] else "not reproduced by any convention, nearest"
        ours = f"{figure['nearest']} (ours {figure['ours']:.3f})"
        about = "; ".join(filter(None, (figure["sources"][0], figure["note"])))
        out.print(f"published {figure['printed']} GFLOPs: {how} {ours}; {about}", markup=False)


def _print_against(out: Console, counted: _Counted, other: _Counted) -> None:
    from harness.cost.conventions import figures

    table = Table("convention", *right(other.variant.name, counted.variant.name, "change"))

    ours, theirs = figures(counted.account.counts), figures(other.account.counts)
    for name, percent in _reductions(counted, other).items():
        if name == "params":
            a, b = (other.account.params or 0) / 1e6, (counted.account.params or 0) / 1e6
        else:
            a, b = theirs[name], ours[name]
        table.add_row("params (M)" if name == "params" else name, f"{a:.3f}", f"{b:.3f}", f"{-percent:+.1f} %")
    out.print(table)


def right(*names: str) -> list[Any]:
    """Columns of numbers."""
    from rich.table import Column

    return [Column(name, justify="right") for name in names]


def _text(value: Any) -> str:
    return "" if value is None else str(value)
