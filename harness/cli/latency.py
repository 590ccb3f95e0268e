"""`paretopose latency`: milliseconds of forward passes under a stated protocol."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from harness.cli.cost import SCHEMA, AsJson, InputSize, Set, console, open_predictor, right
from harness.errors import UserError
from harness.method import Variant, find_variant

if TYPE_CHECKING:
    from harness.cost.latency import Execution, LatencyResult
    from harness.cost.statistics import Quantile
    from harness.method import Predictor

__all__ = ["latency"]


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
    from harness.provenance import versions

    execution = Execution(
        device=device, batch=batch, threads=threads, dtype=dtype, runtime=runtime, rounds=rounds, seconds=seconds,
        scope="network: one forward of a batch, no cropping, no decoding, no flip test",
    )  # fmt: skip
    for name, value in (("dtype", dtype), ("runtime", runtime)):
        find_variant(methods[0]).knob(name).check(value, f"--{name}")
    if len(set(methods)) < len(methods):
        raise UserError("a method is named twice", expected="different variants")
    forwards = {name: _Forward(name, input_size, set_, execution, images) for name in methods}
    print(f"timing {', '.join(methods)}: at most {seconds:g} s", file=sys.stderr)
    before = passing()
    results = measure(forwards, execution)
    after = passing()
    beside = {name: _beside(forwards[name], measured) for name, measured in results.items()}
    if as_json:
        facts = {"machine": machine(), "machine_id": machine_id(), "versions": versions()}
        facts["passing"] = {"before": before, "after": after}
        found = {name: {**measured.to_dict(), **beside[name]} for name, measured in results.items()}
        print(json.dumps({"schema": SCHEMA, **facts, "results": found}))
    else:
        _print_latency(results, beside)
        _print_machine(before, after)


class _Forward:
    """One forward of a batch on the execution's device and number format."""

    def __init__(
        self, name: str, input_size: str | None, pairs: list[str], execution: Execution, images: Path | None
    ) -> None:
        import torch

        from harness.passes.number_format import number_format

        variant, _, _, self._settings, self.predictor = open_predictor(name, input_size, pairs)
        self._images = _batch(variant, self.predictor, execution, images)
        if isinstance(self.predictor, torch.nn.Module):
            self.predictor.to(execution.device).eval()
        self._number_format = number_format(execution.dtype, execution.device)
        # `predict` and not the module: a method need not go through its own `forward`
        compiled = execution.runtime == "compile"
        self._predict = torch.compile(self.predictor.predict) if compiled else self.predictor.predict
        self.last = self()
        if images is None:
            _refuse_noise(variant, self._settings, self.last)

    def __call__(self) -> Any:
        import torch

        with torch.inference_mode(), self._number_format():
            self.last = self._predict(self._images, self._settings)
        return self.last


def _beside(forward: _Forward, measured: LatencyResult) -> dict[str, Any]:
    """Memory, energy and the rate, with the work of the very batch that was timed."""
    from harness.cost.account import performed
    from harness.cost.utilisation import utilisation

    execution = measured.execution
    macs = performed(forward.predictor, forward.last, execution.batch)
    return utilisation(forward, measured, forward.predictor, dtype=execution.dtype, macs=macs)


def _batch(variant: Variant, predictor: Predictor, execution: Execution, images: Path | None) -> Any:
    import numpy as np
    import torch

    from harness.cli.forward import read_array
    from harness.cost.account import sample_input

    if images is None:
        batch = sample_input(predictor, variant.paradigm, batch=execution.batch)
    else:
        crops = read_array(images)
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


def _print_latency(results: Mapping[str, LatencyResult], beside: Mapping[str, Mapping[str, Any]]) -> None:
    out = console()
    first = next(iter(results.values()))
    e = first.execution
    out.print(f"{e.scope}; {e.device}, batch {e.batch}, {first.settings['threads']} threads, {e.dtype}, {e.runtime}")
    out.print(f"interleaved rounds, synchronised, ms per batch with 95 % intervals, ratio to {next(iter(results))}")
    table = Table("method", *right("median", "p90", "p99", "ratio", "n", "starved", "cores busy", "warm-up"))
    for name, r in results.items():
        warm = f"{r.warmup}{'' if r.warmed_up else ' (not stationary)'}"
        cells = (_interval(r.median), _interval(r.p90), _interval(r.p99), _interval(r.ratio, 3))
        table.add_row(find_variant(name).title, *cells, str(r.median.n), str(r.rejected), f"{r.cpu_ratio:.2f}", warm)
    out.print(table)
    for name, r in results.items():
        if r.median.reason:
            out.print(f"{name}: {r.median.reason}")
    _print_beside(beside)


def _print_beside(beside: Mapping[str, Mapping[str, Any]]) -> None:
    out = console()
    table = Table("method", *right("peak MB", "J per batch", "gmacs/s", "of the machine's"))
    for name, found in beside.items():
        line = found["roofline"]
        share = "n/a" if line["share"] is None else f"{100 * line['share']:.1f} %"
        numbers = (found["peak_memory_mb"], found["energy"]["joules_per_call"], line["gmacs_per_second"])
        table.add_row(find_variant(name).title, *("n/a" if n is None else f"{n:.4g}" for n in numbers), share)
    out.print(table)
    for peak in next(iter(beside.values()))["roofline"]["peaks"]:
        rates = f"matrix product {peak['gemm']:.4g}, 3x3 convolution {peak['convolution']:.4g} gmacs/s"
        out.print(f"this machine in {peak['dtype']}, {peak['threads']} threads: {rates}")
    for name, found in beside.items():
        reasons = {"memory": found["memory"], "energy": found["energy"], "rate": found["roofline"]}
        for what, part in reasons.items():
            if part.get("reason") or part.get("warning"):
                out.print(f"{name}: {what}: {part.get('warning') or part['reason']}", markup=False)


def _print_machine(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    from harness.cost.machine import machine

    facts = machine()
    clocks = [f"{p['mhz'][0]:.0f} MHz" if p["mhz"] else p["mhz_source"] for p in (before, after)]
    parts = (
        f"{facts['cpu']}, {facts['affinity']} of {facts['cores']} cores",
        f"governor {facts['governor'] or 'n/a'}",
        f"first core before {clocks[0]}, after {clocks[1]}",
        f"torch {facts['torch']}, python {facts['python']}, {facts['os']}",
    )
    console().print("; ".join(parts), markup=False)


def _interval(quantile: Quantile | None, digits: int = 2) -> str:
    if quantile is None or quantile.value is None:
        return "-" if quantile is None else "n/a"
    if quantile.low is None or quantile.high is None:
        return f"{quantile.value:.{digits}f}"
    return f"{quantile.value:.{digits}f} [{quantile.low:.{digits}f}, {quantile.high:.{digits}f}]".replace("[", "\\[")
