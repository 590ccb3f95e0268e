"""`paretopose methods`: every variant with its size, parameters, cost and published figures."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table

from harness import published
from harness.cli.published import show_figures
from harness.errors import UserError
from harness.method import Variant, variants

__all__ = ["methods"]

SCHEMA = 1


@dataclass(frozen=True)
class _Row:
    """`params` of inference, `params_train_only` beside them. `gmacs_note`: why there are none, or of which forward
    they are. Published: COCO val2017, detector boxes."""

    variant: str
    method: str
    paradigm: str
    input_size: tuple[int, int]
    params: int | None
    params_train_only: int
    gmacs: float | None
    gmacs_note: str
    published_ap: float | None
    published_gflops: str
    convention: str
    published_source: str
    note: str


def methods(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern with * and ?.")] = "*",
    figures: Annotated[
        bool, typer.Option("--published", help="Every published GFLOPs figure, and the convention that reproduces it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Every variant: input size, parameters, gmacs (convolution, linear, matrix products), published figures beside."""
    if figures:
        show_figures(pattern, as_json)
        return
    chosen = [v for name, v in variants().items() if fnmatchcase(name, pattern) or pattern in name]
    if not chosen:
        raise UserError(f"no method matches '{pattern}'", hint="`paretopose methods` lists all")
    console = Console(stderr=True)
    rows = [_row(v) for v in track(chosen, "building networks", console=console, transient=True)]
    if as_json:
        print(json.dumps({"schema": SCHEMA, "methods": [asdict(row) for row in rows]}))
    else:
        _print(rows)


def _row(variant: Variant) -> _Row:
    params, train_only, macs, note = _size(variant)
    beside = _published(variant)
    return _Row(
        variant.name,
        variant.method,
        variant.paradigm,
        variant.input_size,
        params,
        train_only,
        None if macs is None else macs / 1e9,
        note,
        beside.get("ap"),
        beside.get("gflops_text", ""),
        beside.get("convention", ""),
        beside.get("source", ""),
        variant.note,
    )


def _size(variant: Variant) -> tuple[int | None, int, int | None, str]:
    """(parameters of inference, those that only training uses, macs, remark on the macs).

    A network of constant cost is built without memory and not run.
    """
    from harness.cost.macs import parameters
    from harness.cost.size import constant_macs, unfilled

    if variant.build is None:
        return None, 0, None, "the network is a file"
    predictor = unfilled(variant, num_joints=17, input_size=variant.input_size)
    found, macs = parameters(predictor), constant_macs(predictor)
    params = (found.inference, found.total - found.inference)
    return (*params, *((macs, "") if macs is not None else _cost_of_a_run(variant)))


def _cost_of_a_run(variant: Variant) -> tuple[int | None, str]:
    """Closed form on the trace of a forward in which everybody is refined; a one-stage cost needs a real image."""
    if variant.paradigm == "one-stage":
        return None, "per image"
    from harness.cost.account import closed_form, sample_input
    from harness.train.checkpoints import open_variant

    settings = {knob.name: knob.default for knob in variant.knobs if knob.kind != "build"}
    if "quality_threshold" in settings:
        settings["quality_threshold"] = "always"
    predictor, _ = open_variant(variant, None)
    return closed_form(predictor, settings, sample_input(predictor, variant.paradigm)), "everybody refined"


def _published(variant: Variant) -> dict[str, Any]:
    """The published row beside a variant: COCO val2017 at its input size, the one that says most."""
    size = variant.input_size if variant.paradigm == "top-down" else None
    rows = published.rows_for(variant, size, dataset="COCO")
    rows = rows[(rows["split"] == "val2017") & rows["ap"].notna() & (rows["our_knobs"] == "")]
    rows = rows[~rows["boxes"].str.startswith("GT") & ~rows["note"].str.startswith("trained on")]
    if rows.empty:
        return {}
    said = rows["gflops"].notna().astype(int) * 2 + (rows["boxes"] == "person AP 56.4 det file").astype(int)
    row = rows.iloc[int(said.to_numpy().argmax())]
    return {"ap": float(row["ap"]), **{k: str(row[k]) for k in ("gflops_text", "convention", "source")}}


def _training_parts(row: _Row) -> str:
    million = row.params_train_only / 1e6
    return f"and {million:.2f} M parameters that only training uses" if million else ""


def _print(rows: list[_Row]) -> None:
    right = [Column(n, justify="right") for n in ("input", "params M", "gmacs", "AP published", "GFLOPs published")]
    table = Table("method", *right, "convention", "note")
    for r in rows:
        table.add_row(
            r.variant,
            f"{r.input_size[0]}x{r.input_size[1]}",
            "n/a" if r.params is None else f"{r.params / 1e6:.2f}",
            r.gmacs_note if r.gmacs is None else f"{r.gmacs:.3f}",
            "" if r.published_ap is None else f"{r.published_ap:.1f}",
            r.published_gflops,
            r.convention,
            "; ".join(filter(None, (r.gmacs_note if r.gmacs is not None else "", _training_parts(r), r.note))),
        )
    Console(width=None if Console().is_terminal else 160, highlight=False).print(table)
