"""A network -> its ONNX files: written only when all of them give the network's numbers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import MeasurementError, UserError
from harness.export.contract import ExportPart, Origin
from harness.export.graph import TOLERANCE, difference, parts_of, to_onnx
from harness.provenance import versions
from harness.records.store import write_atomically

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Exported", "check_out", "export", "origin_of"]


@dataclass(frozen=True)
class Exported:
    """One file. `shapes`: of inputs and outputs, a name where any size fits. `differences`: by output, the largest
    relative difference to the network."""

    path: Path
    part: ExportPart
    origin: Origin
    content: bytes
    shapes: Mapping[str, list[int | str]]
    differences: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "file": str(self.path),
            "part": self.part.name,
            "bytes": len(self.content),
            "inputs": {name: self.shapes[name] for name in self.shapes if name not in self.part.outputs},
            "outputs": {name: self.shapes[name] for name in self.part.outputs},
            "differences": dict(self.differences),
            "used_by": self.part.used_by or None,
        }


def check_out(out: Path) -> None:
    """UserError, before anything is computed, when `out` cannot be a file to write."""
    if out.suffix != ".onnx":
        raise UserError(f"cannot write {out.name}", where="--onnx", expected="a name that ends in .onnx")
    folder = out.parent
    while not folder.exists():
        folder = folder.parent
    if out.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        what = "is a folder" if out.is_dir() else f"cannot write in {folder}"
        raise UserError(what, where=f"--onnx {out}", hint="choose another place")


def export(
    network: nn.Module,
    origin: Origin,
    out: Path,
    settings: Mapping[str, Any],
    *,
    batch: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Exported]:
    """Write `network` to `out`; a network of several parts to out.PART.onnx, one file each.

    MeasurementError, and nothing is written, when a file differs from the network by more than `TOLERANCE`.
    """
    parts = parts_of(network, settings)
    if len(parts) > 1 and batch is not None and batch > 1:
        raise UserError(
            f"--batch {batch}: a stage of {origin.variant} runs for those persons who need it",
            expected="an open batch, or 1",
        )
    done: list[Exported] = []
    companions: dict[str, str] = {}
    for part in reversed(parts):  # so that the first file can name what the others hold
        path = out.with_suffix(f".{part.name}.onnx") if part.name else out
        say(f"translating {origin.variant} {part.name}".rstrip())
        about = {"part": part.name, "facts": dict(part.facts), "companions": dict(companions)}
        done.insert(0, _checked(path, part, origin.model_copy(update=about), batch))
        companions[part.name] = hashlib.sha256(done[0].content).hexdigest()
    for exported in done:
        write_atomically(exported.path, exported.content)
    return done


def _checked(path: Path, part: ExportPart, origin: Origin, batch: int | None) -> Exported:
    model = to_onnx(part, origin, batch)
    content = model.SerializeToString()
    differences = difference(content, part, (1, 3) if batch is None else (batch,))
    name, worst = max(differences.items(), key=lambda item: item[1])
    if worst > TOLERANCE:
        raise MeasurementError(
            f"output {name} of the file differs from the network by {worst:.2g} of its largest value",
            where=path.name,
            expected=f"at most {TOLERANCE:g}",
            hint="nothing was written",
        )
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    return Exported(path, part, origin, content, shapes, differences)


def origin_of(network: Any, variant: Any, knobs: Mapping[str, Any], wanted: Mapping[str, Any], sha256: str) -> Origin:
    """What the files of `network` say about themselves. `wanted`: protocol fields that its weights want otherwise."""
    protocol = variant.protocol.model_copy(update=dict(wanted)).applying(variant.paradigm)
    used = {name: found for name in ("torch", "onnxruntime") if (found := versions().get(name))}
    with suppress(PackageNotFoundError):  # run from a folder that was never installed
        used["paretopose"] = version("paretopose")
    return Origin(
        variant=variant.name, input_size=network.input_size, num_joints=network.num_joints, knobs=dict(knobs),
        protocol=protocol, weights=sha256, versions=used,
    )  # fmt: skip
