"""`paretopose cost` and `paretopose latency`: where multiply-accumulates are, and milliseconds under a protocol."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from harness import published
from harness.cli.forward import parse_settings, parse_size
from harness.errors import UserError
from harness.method import Size, Variant, find_variant

if TYPE_CHECKING:
    from harness.cost.account import Account
    from harness.cost.latency import Execution, LatencyResult
    from harness.cost.statistics import Quantile
    from harness.method import Predictor

__all__ = ["cost", "latency"]

SCHEMA = 1

InputSize = Annotated[str | None, typer.Option(help="HxW; default: the variant's.")]
Set = Annotated[list[str], typer.Option("--set", help="knob=value, repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]


def _console() -> Console:
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
        """Printed GFLOPs of this network at this size, each with what reproduces it; one entry per figure."""
        from harness.cost.conventions import figures, reproducing

        rows = published.rows_for(self.variant, self.input_size)
        rows = rows[(rows["gflops_text"] != "") & (rows["our_knobs"] == "")]
        found: dict[str, dict[str, Any]] = {}
        ours = figures(self.account.counts)
        for row in rows.itertuples():
            names = reproducing(str(row.gflops_text), self.account.counts) or [str(row.convention)]
            figure = {"printed": row.gflops_text, "convention": names[0] or None, "ours": ours.get(names[0])}
            found.setdefault(str(row.gflops_text), {**figure, "sources": []})["sources"].append(row.source)
        return list(found.values())


def _predictor(method: str, input_size: str | None, pairs: list[str], weights: Path | None = None) -> tuple[Any, ...]:
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

    variant, size, knobs, settings, predictor = _predictor(method, input_size, pairs, weights)
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
    console = _console()
    _print_one(console, counted)
    if other:
        console.print()
        _print_one(console, other)
        _print_against(console, counted, other)


def _reductions(counted: _Counted, other: _Counted) -> dict[str, float]:
    """How much cheaper `counted` is, in per cent, under each convention and in parameters."""
    ours, theirs = counted.account.counts, other.account.counts
    found = {name: 100 * (1 - ours[name] / theirs[name]) for name in ours if theirs.get(name)}
    if counted.account.params and other.account.params:
        found["params"] = 100 * (1 - counted.account.params / other.account.params)
    return found


def _print_one(console: Console, counted: _Counted) -> None:
    account, ledger = counted.account, counted.account.ledger
    note = f" ({counted.variant.note})" if counted.variant.note else ""
    console.print(f"[bold]{counted.variant.name}[/] {counted.input_size[0]}x{counted.input_size[1]}{note}, one forward")
    if account.params is not None:
        console.print(f"parameters {account.params:,}, of which at inference {account.params_inference:,}")
    if ledger:
        table = Table("operator", "class", *_right("macs", "fvcore", "torch", "calls"))
        for row in ledger.operators:
            torch_saw = "" if row.torch is None else f"{row.torch:,}"
            table.add_row(row.operator, row.status, f"{row.macs:,}", f"{row.fvcore:,}", torch_saw, _text(row.calls))
        for group, (fvcore, torch) in ledger.groups.items():
            table.add_row(f"= {group}", "both agree", f"{fvcore:,}", f"{fvcore:,}", f"{torch:,}", "")
        console.print(table)
        modules = Table("module", "type", *_right("macs", "share", "fvcore", "torch"))
        for part in ledger.top_level():
            share = f"{100 * part.macs / max(ledger.macs, 1):.1f} %"
            modules.add_row(part.module, part.kind, f"{part.macs:,}", share, f"{part.fvcore:,}", f"{part.torch:,}")
        console.print(modules)
    console.print(f"closed form {account.closed_form:,} macs, counted {account.macs:,}")
    if account.trace:
        console.print("what this forward did: " + ", ".join(f"{k} {v}" for k, v in account.trace.items()), markup=False)
    if account.as_published is not None:
        console.print(f"the published code does {account.as_published:,} macs for the same")
    _print_conventions(console, counted)


def _print_conventions(console: Console, counted: _Counted) -> None:
    from harness.cost.conventions import CONVENTIONS, figures

    table = Table("convention", *_right("giga", "count"), "what it counts")
    giga = figures(counted.account.counts)
    for name, value in counted.account.counts.items():
        table.add_row(name, f"{giga[name]:.3f}", f"{value:,}", CONVENTIONS[name].help)
    console.print(table)
    for figure in counted.published():
        ours = f" (ours {figure['ours']:.3f})" if figure["ours"] else ""
        how = f"{figure['convention']}{ours}" if figure["convention"] else "no convention"
        console.print(
            f"published {figure['printed']} GFLOPs: reproduced under {how}; {figure['sources'][0]}", markup=False
        )


def _print_against(console: Console, counted: _Counted, other: _Counted) -> None:
    from harness.cost.conventions import figures

    table = Table("convention", *_right(other.variant.name, counted.variant.name, "change"))

    ours, theirs = figures(counted.account.counts), figures(other.account.counts)
    for name, percent in _reductions(counted, other).items():
        if name == "params":
            a, b = (other.account.params or 0) / 1e6, (counted.account.params or 0) / 1e6
        else:
            a, b = theirs[name], ours[name]
        table.add_row("params (M)" if name == "params" else name, f"{a:.3f}", f"{b:.3f}", f"{-percent:+.1f} %")
    console.print(table)


def _right(*names: str) -> list[Any]:
    from rich.table import Column

    return [Column(name, justify="right") for name in names]


def _text(value: Any) -> str:
    return "" if value is None else str(value)


# latency ------------------------------------------------------------------------------------------------------------


def latency(
    methods: Annotated[list[str], typer.Argument(help="Variants; ratios are to the first.")],
    batch: Annotated[int, typer.Option(help="Images in one forward.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: as torch has them.")] = None,
    rounds: Annotated[int, typer.Option(help="Interleaved rounds.")] = 30,
    seconds: Annotated[float, typer.Option(help="Time budget, warm-up included.")] = 120.0,
    input_size: InputSize = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    runtime: Annotated[str, typer.Option(help="eager or compile.")] = "eager",
    set_: Set = [],  # noqa: B006
    images: Annotated[Path | None, typer.Option(help=".npy of real, normalised crops (N, 3, H, W).")] = None,
    as_json: AsJson = False,
) -> None:
    """Milliseconds of one forward pass (no cropping, no decoding), methods interleaved."""
    from harness.cost.latency import Execution, measure
    from harness.cost.machine import machine, machine_id, passing

    execution = Execution(
        device=device, batch=batch, threads=threads, dtype=dtype, runtime=runtime, rounds=rounds, seconds=seconds,
        scope="network: one forward of a batch, no cropping, no decoding, no flip test",
    )  # fmt: skip
    for name, value in (("dtype", dtype), ("runtime", runtime)):
        find_variant(methods[0]).knob(name).check(value, f"--{name}")
    if len(set(methods)) < len(methods):
        raise UserError("a method is named twice", expected="different variants")
    callables = {name: _forward(name, input_size, set_, execution, images) for name in methods}
    print(f"timing {', '.join(methods)}: at most {seconds:g} s", file=sys.stderr)
    results = measure(callables, execution)
    if as_json:
        facts = {"machine": machine(), "machine_id": machine_id(), "passing": passing()}
        print(json.dumps({"schema": SCHEMA, **facts, "results": {n: r.to_dict() for n, r in results.items()}}))
    else:
        _print_latency(results)


def _forward(
    name: str, input_size: str | None, pairs: list[str], execution: Execution, images: Path | None
) -> Callable[[], Any]:
    """One forward of a batch on the execution's device and number format."""
    import torch

    variant, _, _, settings, predictor = _predictor(name, input_size, pairs)
    batch = _batch(variant, predictor, execution, images)
    if isinstance(predictor, torch.nn.Module):
        predictor.to(execution.device).eval()
        if execution.runtime == "compile":
            predictor.compile()
    kind, dtype = execution.device.partition(":")[0], getattr(torch, execution.dtype)

    def call() -> Any:
        number_format = nullcontext() if dtype is torch.float32 else torch.autocast(kind, dtype)
        with torch.inference_mode(), number_format:
            return predictor.predict(batch, settings)

    if images is None:
        _refuse_noise(variant, settings, call())
    return call


def _batch(variant: Variant, predictor: Predictor, execution: Execution, images: Path | None) -> Any:
    import numpy as np
    import torch

    from harness.cost.account import sample_input

    if images is None:
        batch = sample_input(predictor, variant.paradigm, batch=execution.batch)
    else:
        crops = np.load(images, allow_pickle=False)
        if crops.ndim != 4 or crops.shape[2:] != tuple(predictor.input_size) or len(crops) < execution.batch:
            expected = "(at least {}, 3, {}, {})".format(execution.batch, *predictor.input_size)
            raise UserError(f"array of shape {crops.shape}", where=str(images), expected=expected)
        batch = torch.from_numpy(np.asarray(crops[: execution.batch], dtype=np.float32))
    moved = [image.to(execution.device) for image in batch]
    return moved if variant.paradigm == "one-stage" else torch.stack(moved)


def _refuse_noise(variant: Variant, settings: Mapping[str, Any], output: Any) -> None:
    """An early exit on noise says nothing about real crops."""
    early = getattr(output, "quality", None) is not None
    if early and settings.get("quality_threshold") not in ("always", "never"):
        raise UserError(
            f"{variant.name} decides from the image how much it computes, and there is no image",
            expected="real crops, or an exit that is fixed",
            hint="--images CROPS.npy, or --set quality_threshold=always (or never); suites time real crops",
        )


def _print_latency(results: Mapping[str, LatencyResult]) -> None:
    console = _console()
    first = next(iter(results.values()))
    e = first.execution
    console.print(
        f"{e.scope}; {e.device}, batch {e.batch}, {first.settings['threads']} threads, {e.dtype}, {e.runtime}"
    )
    console.print(f"interleaved rounds, synchronised, ms per batch with 95 % intervals, ratio to {next(iter(results))}")
    table = Table("method", *_right("median", "p90", "p99", "ratio", "n", "starved", "cores busy", "warm-up"))
    for name, r in results.items():
        warm = f"{r.warmup}{'' if r.warmed_up else ' (not stationary)'}"
        cells = (_interval(r.median), _interval(r.p90), _interval(r.p99), _interval(r.ratio, 3))
        table.add_row(name, *cells, str(r.median.n), str(r.rejected), f"{r.cpu_ratio:.2f}", warm)
    console.print(table)
    for name, r in results.items():
        if r.median.reason:
            console.print(f"{name}: {r.median.reason}")


def _interval(quantile: Quantile | None, digits: int = 2) -> str:
    if quantile is None or quantile.value is None:
        return "-" if quantile is None else "n/a"
    if quantile.low is None or quantile.high is None:
        return f"{quantile.value:.{digits}f}"
    return f"{quantile.value:.{digits}f} [{quantile.low:.{digits}f}, {quantile.high:.{digits}f}]".replace("[", "\\[")
