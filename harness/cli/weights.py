"""`paretopose weights inspect` and `weights convert`: what is in a checkpoint file, and the same in another
layout.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from harness.errors import UserError, WeightsError, unknown_name
from harness.method import Layout, Variant, find_variant

if TYPE_CHECKING:
    from torch import Tensor

    from harness.train.checkpoints import Fit

__all__ = ["app", "convert", "inspect"]

app = typer.Typer(no_args_is_help=True, add_completion=False)
_LONG = 200  # characters; a longer fact of a file is in --json


@app.command()
def inspect(
    file: Path = typer.Argument(help="checkpoint file"),
    as_json: bool = typer.Option(False, "--json", help="as JSON"),
) -> None:
    """Layout, method, variants that fit, tensors, parameters, tensors that nothing explains."""
    from harness.provenance import file_sha256
    from harness.train.checkpoints import fitting_variants, read

    state, metadata = read(file)
    fits = fitting_variants(state)
    found = {
        "schema": 1,
        "file": str(file),
        "sha256": file_sha256(file),
        "tensors": len(state),
        "values": sum(v.numel() for k, v in state.items() if not _is_buffer(k)),
        "fits": [_describe(fit) for fit in fits],
        "metadata": metadata,
    }
    print(json.dumps(found, indent=2) if as_json else _text(found, state))


def _text(found: dict[str, Any], state: Mapping[str, Tensor]) -> str:
    lines = [
        f"{found['file']}: {found['tensors']} tensors, {found['values']:,} values without counters and statistics, "
        f"sha256 {found['sha256'][:16]}"
    ]
    for fit in found["fits"]:
        joints = f", {fit['joints']} joints" if fit["joints"] else ""
        lines.append(f"  {fit['variant']} ({fit['method']}), layout {fit['layout']}{joints}")
        lines += [f"    {kind}: {name}" for kind in ("ignored", "unexplained") for name in fit[kind]]
    lines += [f"  {name}: {text}" for name, text in sorted(found["metadata"].items()) if len(text) < _LONG]
    if not found["fits"]:
        lines.append("  fits no variant; its first tensors are:")
        lines += [f"    {name} {tuple(value.shape)}" for name, value in list(state.items())[:10]]
    return "\n".join(lines)


def _is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


@app.command()
def convert(
    file: Path = typer.Argument(help="checkpoint file in any known layout"),
    out: Path = typer.Argument(help=".safetensors or .pth"),
    layout: str | None = typer.Option(None, help="layout to write; default: ours"),
    as_variant: str | None = typer.Option(None, "--as", help="variant, where more than one fits"),
    half: bool = typer.Option(False, "--half", help="store float16: half the size, about three digits"),
    as_json: bool = typer.Option(False, "--json", help="as JSON"),
) -> None:
    """Write the same weights under our names or those of another layout."""
    import torch

    from harness.records.files import writing
    from harness.train.checkpoints import open_variant, read, write

    if out.suffix not in (".safetensors", ".pth"):
        raise UserError(f"cannot write {out.name}", expected="a name that ends in .safetensors or .pth")
    state, metadata = read(file)
    variant = find_variant(as_variant) if as_variant else _only_fit(file, state)
    network, report = open_variant(variant, file)
    assert isinstance(network, torch.nn.Module) and report is not None
    target = _layout(variant, layout) if layout else None
    tensors = target.from_own(network.state_dict()) if target and target.from_own else network.state_dict()
    if half:
        tensors = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    wanted = _wanted_protocol(variant, report.protocol)
    if out.suffix == ".safetensors":
        write(out, tensors, {**metadata, "variant": variant.name, "protocol": json.dumps(wanted)})
    else:
        _warn_of_lost_protocol(out, wanted, _wanted_protocol(variant, target.protocol if target else {}))
        with writing(out) as stream:
            torch.save(dict(tensors), stream)
    said = {
        "schema": 1,
        "variant": variant.name,
        "from": report.layout,
        "to": layout or "own",
        "out": str(out),
    }
    said |= {"unexplained": list(report.unexplained), "ignored": list(report.ignored), "protocol": wanted}
    print(json.dumps(said) if as_json else f"{out}: {variant.name}, {said['from']} -> {said['to']}")


def _describe(fit: Fit) -> dict[str, Any]:
    return {
        "variant": fit.variant.name,
        "method": fit.variant.method,
        "layout": fit.layout.name,
        "partial": fit.layout.partial,
        "joints": None if fit.layout.partial else fit.joints,
        "unexplained": list(fit.unexplained),
        "ignored": list(fit.ignored),
    }


def _only_fit(file: Path, state: Mapping[str, Tensor]) -> Variant:
    """The one variant that all of `state` fits; several or none are an error that names them."""
    from harness.train.checkpoints import fitting_variants

    names = [fit.variant.name for fit in fitting_variants(state) if not fit.layout.partial]
    if len(names) != 1:
        what = f"fits {', '.join(names)}" if names else "fits no variant completely"
        raise WeightsError(what, where=str(file), hint="name the variant: --as VARIANT")
    return find_variant(names[0])


def _layout(variant: Variant, name: str) -> Layout:
    """The layout of that name that can be written, or a UserError with the near ones."""
    known = {layout.name: layout for layout in variant.layouts if layout.from_own is not None}
    if name not in known:
        what, hint = unknown_name(f"layout of {variant.name} to write", name, known)
        raise UserError(what, hint=hint)
    return known[name]


def _wanted_protocol(variant: Variant, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The protocol fields in which the layouts of `variant` differ, with the values these weights want."""
    fields = {field for layout in variant.layouts for field in layout.protocol}
    return {field: overrides.get(field, getattr(variant.protocol, field)) for field in sorted(fields)}


def _warn_of_lost_protocol(out: Path, wanted: Mapping[str, Any], implied: Mapping[str, Any]) -> None:
    """A .pth has no place for the protocol; a reader would take the one its layout implies."""
    for field, value in wanted.items():
        if implied[field] != value:
            print(
                f"warning: {out.name} wants {field}={value}, its layout implies {implied[field]}",
                file=sys.stderr,
            )
