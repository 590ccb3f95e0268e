"""`paretopose export`: a network as an ONNX file that gives the same numbers."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.cost import AsJson, InputSize, Set
from harness.cli.forward import parse_settings, parse_size
from harness.errors import SuiteError, WeightsError
from harness.method import COMMON_KNOBS, Variant, find_variant
from harness.provenance import PROJECT
from harness.suite.sources import own_weights

if TYPE_CHECKING:
    from harness.export.files import Exported
    from harness.train.checkpoints import LoadReport

__all__ = ["SCHEMA", "export"]

SCHEMA = 1


def export(
    method: Annotated[str, typer.Argument(help="Variant, as `paretopose methods` lists it.")],
    onnx: Annotated[Path, typer.Option(help="File to write; a network of several parts: OUT.PART.onnx each.")],
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint in any known layout; default: the project's own of the tiny ones.")
    ] = None,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Without weights: a file that is only good for taking times.")
    ] = False,
    input_size: InputSize = None,
    set_: Set = [],  # noqa: B006
    batch: Annotated[int | None, typer.Option(min=1, help="Fix the batch; default: the file takes any.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write ONNX, run it in onnxruntime, and keep it only if it gives the network's numbers (1e-4 relative).

    The file holds its protocol: `--weights onnx=FILE` in a suite runs it as `onnx`, beside the network.
    """
    from harness.export import files
    from harness.export.graph import check_exportable
    from harness.train.checkpoints import open_variant

    variant = find_variant(method)
    build, settings = _settings(variant, set_)
    size = parse_size(input_size) if input_size else build.pop("input_size", None)
    check_exportable(variant)
    files.check_out(onnx)
    path = None if random_weights else _weights(variant, weights)
    network, report = open_variant(variant, path, input_size=size, **build)
    _tell(report)
    wanted, digest = (report.protocol, report.sha256) if report else ({}, "")
    origin = files.origin_of(network, variant, build, wanted, digest)
    done = files.export(network, origin, onnx, settings, batch=batch, say=_say)  # type: ignore[arg-type]
    if as_json:
        data = {"schema": SCHEMA, "origin": origin.model_dump(mode="json"), "files": [one.to_dict() for one in done]}
        print(json.dumps(data))
    else:
        print("\n".join(_text(done)))


def _settings(variant: Variant, pairs: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build knobs, and the method's own others. SuiteError for a knob that belongs to running the file."""
    build, other = parse_settings(variant, pairs)
    foreign = [k.name for k in COMMON_KNOBS if k.kind != "build" and k.name in other]
    if foreign:
        raise SuiteError(
            f"{foreign[0]} changes nothing in the file",
            where="--set",
            expected="a knob of the network",
            hint="set it where the file is run: in the suite",
        )
    return build, other


def _weights(variant: Variant, given: Path | None) -> Path:
    path = given or own_weights(variant.name)
    if path is None:
        raise WeightsError(
            f"{variant.name} has no weights here",
            hint="give --weights FILE, or --random-weights for a file to take times with",
        )
    if not path.is_file():
        raise WeightsError("there is no such weights file", where=str(path))
    return path


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def _tell(report: LoadReport | None) -> None:
    if report is None:
        _say("warning: random weights: the file is only good for taking times")
        return
    if report.unexplained:
        _say(
            f"warning: {len(report.unexplained)} tensors of the file are not used: {', '.join(report.unexplained[:5])}"
        )
    for note in report.notes:
        _say(f"note: {note}")


def _text(done: list[Exported]) -> list[str]:
    lines = []
    for one in done:
        shapes = {name: f"{name} {'x'.join(map(str, shape))}" for name, shape in one.shapes.items()}
        inputs = ", ".join(text for name, text in shapes.items() if name not in one.part.outputs)
        outputs = ", ".join(shapes[name] for name in one.part.outputs)
        lines.append(f"{one.path}: {len(one.content) / 1e6:.1f} MB, {inputs} -> {outputs}")
        lines.append(f"  largest difference to the network: {max(one.differences.values()):.1e} of the largest value")
    glue = next((one.part.used_by for one in done if one.part.used_by), "")
    if glue:
        lines.append(f"joined by {os.path.relpath(PROJECT / glue)} (numpy and onnxruntime only): copy it beside them")
    return lines
