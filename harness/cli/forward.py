"""`paretopose forward`: raw outputs of a network for given arrays; checks a checkpoint against other code."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from harness.errors import DataError, UserError
from harness.foreign.arrays import read_npy
from harness.method import Predictor, Size, Variant, find_variant
from harness.records.files import save_arrays
from harness.suite.file import named_value, parse_value

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["forward", "parse_settings", "parse_size"]

_SEED = 0  # of the random start when no weights are given


def forward(
    method: str = typer.Argument(help="variant, as `paretopose methods` lists it"),
    images: Path = typer.Option(..., help=".npy, (N, 3, H, W) float32, already normalised"),
    out: Path = typer.Option(..., help=".npz to write"),
    weights: Path | None = typer.Option(None, help="checkpoint; without it a random start with a fixed seed"),
    input_size: str | None = typer.Option(None, help="HxW; default: the variant's"),
    settings: list[str] | None = typer.Option(None, "--set", help="knob=value, repeatable"),
    rois: Path | None = typer.Option(None, help=".npy, (n, 4) boxes x1 y1 x2 y2 for a one-stage method"),
    train: bool = typer.Option(False, "--train", help="add the outputs that training uses, train0, ..."),
    as_json: bool = typer.Option(False, "--json", help="names and shapes as JSON"),
) -> None:
    """Write exit0, exit1, ..., quality and trace_* of one forward pass to an .npz file.

    Batch norm uses its stored statistics, with --train too.
    """
    variant = find_variant(method)
    build, other = parse_settings(variant, settings or [])
    size = parse_size(input_size) if input_size else build.pop("input_size", None)
    array, boxes = _images(images), _rois(rois) if rois else None
    network, report = _open(variant, weights, size, build)
    _check_size(variant, network, array, images)
    arrays = raw_outputs(network, array, other, train=train, rois=boxes)
    save_arrays(out, arrays)
    shapes = {name: list(a.shape) for name, a in arrays.items()}
    if as_json:
        print(json.dumps({"schema": 1, "variant": variant.name, "out": str(out), "outputs": shapes, **report}))
    else:
        print("\n".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items()))


def parse_size(text: str) -> Size:
    """'256x192' -> (256, 192), height first. Raises UserError."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise UserError(f"input size '{text}'", expected="height x width in pixels, as in 256x192")
    return int(match[1]), int(match[2])


def parse_settings(variant: Variant, pairs: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`knob=value` texts -> (build knobs, run and select knobs with the variant's defaults), checked.

    Values are read as YAML scalars. Raises SuiteError for an unknown knob or a value out of range.
    """
    build: dict[str, Any] = {}
    other = {knob.name: knob.default for knob in variant.knobs if knob.kind != "build"}
    for pair in pairs:
        name, text = named_value(pair, "--set", "knob=value")
        knob = variant.knob(name, "--set")
        value = parse_size(text) if name == "input_size" else knob.check(parse_value(text, f"--set {name}"), "--set")
        (build if knob.kind == "build" else other)[name] = value
    return build, other


def raw_outputs(
    network: Predictor,
    images: np.ndarray,
    settings: Mapping[str, Any],
    *,
    train: bool = False,
    rois: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """exit0, exit1, ..., quality, trace_* of `network` for `images` (N, 3, H, W).

    A network with `forward_raw(images, *, settings, train, rois) -> dict` names its own outputs. Raises
    UserError for `train` or `rois` with a network that has none.
    """
    import torch

    batch = torch.from_numpy(images)
    own = getattr(network, "forward_raw", None)
    with torch.inference_mode():
        if own is not None:
            found = own(batch, settings=settings, train=train, rois=None if rois is None else torch.from_numpy(rois))
        elif train or rois is not None:
            raise UserError(f"{type(network).__name__} has no {'training outputs' if train else 'regions'} of its own")
        else:
            found = _named(network.predict(batch, settings))
    return {
        name: value.float().numpy() if value.is_floating_point() else value.numpy() for name, value in found.items()
    }


def _named(output: Any) -> dict[str, Tensor]:
    """A TopDownOutput or a list of OneStageOutput as named tensors."""
    import torch

    if isinstance(output, list):
        named: dict[str, Tensor] = {}
        for i, one in enumerate(output):
            named |= {f"{part}{i}": getattr(one, part) for part in ("boxes", "scores", "keypoints")}
            named |= {f"trace_{name}{i}": torch.tensor(value) for name, value in one.trace.items()}
        return named
    named = {f"exit{i}": maps for i, maps in enumerate(output.exits)}
    if output.quality is not None:
        named["quality"] = output.quality
    return named | {f"trace_{name}": torch.as_tensor(value) for name, value in output.trace.items()}


def read_array(path: Path) -> np.ndarray:
    """The array of a .npy file. DataError for every other file."""
    try:
        return read_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), expected="one array, .npy") from error


def _images(path: Path) -> np.ndarray:
    array = read_array(path)
    if array.ndim != 4 or array.shape[1] != 3 or array.dtype != np.float32:
        raise DataError(
            f"shape {array.shape}, {array.dtype}",
            where=str(path),
            expected="(N, 3, H, W) float32, normalised",
        )
    return array


def _rois(path: Path) -> np.ndarray:
    array = read_array(path)
    expected = "(n, 4) float32, x1 y1 x2 y2 in pixels of image 0"
    if array.ndim != 2 or array.shape[1] != 4 or array.dtype != np.float32:
        raise DataError(f"shape {array.shape}, {array.dtype}", where=str(path), expected=expected)
    bad = ~np.isfinite(array).all(axis=1) | (array[:, 2:] < array[:, :2]).any(axis=1)
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise DataError(f"box {row} is {array[row].tolist()}", where=str(path), expected=f"finite, {expected}")
    return array


def _open(
    variant: Variant, weights: Path | None, size: Size | None, build: dict[str, Any]
) -> tuple[Predictor, dict[str, Any]]:
    """The network, and what loading said, for the JSON output; warnings go to stderr."""
    import torch

    from harness.train.checkpoints import open_variant

    torch.manual_seed(_SEED)
    network, report = open_variant(variant, weights, input_size=size, **build)
    if report is None:
        if weights is None:
            print(f"warning: no --weights: {variant.name} has random weights (seed {_SEED})", file=sys.stderr)
        return network, {"layout": None, "unexplained": [], "ignored": []}
    if report.unexplained:
        names = ", ".join(report.unexplained[:5])
        print(f"warning: {len(report.unexplained)} tensors of the file are not used: {names}", file=sys.stderr)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    said = {"layout": report.layout, "unexplained": list(report.unexplained), "ignored": list(report.ignored)}
    return network, said


def _check_size(variant: Variant, network: Predictor, array: np.ndarray, path: Path) -> None:
    """A top-down network is built for one size; one-stage ones take any."""
    given, size = tuple(array.shape[2:]), tuple(network.input_size)
    if variant.paradigm == "top-down" and given != size:
        raise DataError(
            f"images are {given[0]}x{given[1]}, {variant.name} is built for {size[0]}x{size[1]}",
            where=str(path),
            hint=f"add --input-size {given[0]}x{given[1]}",
        )
