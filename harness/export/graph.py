"""A network as an ONNX graph, and how far the graph's numbers are from the network's."""

from __future__ import annotations

import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.cost.account import sample_input
from harness.errors import MeasurementError, MissingPackage, UserError
from harness.export.contract import BATCH, METADATA, ExportPart, Origin
from harness.method import Size, Variant

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["INSTALL", "TOLERANCE", "check_exportable", "check_size", "difference", "parts_of", "to_onnx"]

INSTALL = 'pip install "paretopose[onnx]"'
TOLERANCE = 1e-4
"""the largest difference to the network that is accepted, relative to the largest value of an output"""
_OPSET = 20  # has Gelu; from 23 on attention is one operator, whose work cannot be read from its shapes
_LIMIT = 2**31  # bytes: one protocol-buffer file holds no more


def check_exportable(variant: Variant) -> None:
    """UserError with the reason where a variant is no fixed graph, MissingPackage without the extra `onnx`."""
    why = ""
    if variant.open_file is not None:
        why = "it is a file already"
    elif variant.paradigm == "one-stage":
        why = "how often its heads run depends on what it finds in the image, which no fixed graph can do"
    if why:
        raise UserError(f"{variant.name} cannot be exported: {why}", hint="top-down networks can be exported")
    for name in ("onnx", "onnxruntime", "onnxscript"):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise MissingPackage("the export to ONNX", name, INSTALL) from error


def parts_of(network: nn.Module, settings: Mapping[str, Any]) -> Sequence[ExportPart]:
    """The graphs that a top-down network consists of: what its `export_parts` names, else its only exit.

    UserError for a network without `export_parts` whose work depends on the person, or whose weights are too large.
    """
    check_size(network)
    own: Any = getattr(network, "export_parts", None)
    if own is not None:
        return own(settings)
    predictor: Any = network
    with torch.inference_mode():
        output = predictor.predict(sample_input(predictor, "top-down"), settings)
    if len(output.exits) > 1 or output.quality is not None or output.trace:
        raise UserError(
            f"{type(network).__name__} cannot be exported: what it runs depends on the person",
            expected="one exit and no trace, or a method `export_parts(settings)` that names its graphs",
        )
    return [ExportPart("", _Answer(network, settings), _random_images(predictor.input_size), ("heatmaps",))]


class _Answer(nn.Module):
    """images (B, 3, H, W) -> the heatmaps of the only exit."""

    def __init__(self, network: nn.Module, settings: Mapping[str, Any]) -> None:
        super().__init__()
        self.network, self.settings = network, settings

    def forward(self, images: Tensor) -> Tensor:
        return self.network.predict(images, self.settings).exits[-1]  # type: ignore[operator]


def _random_images(size: Size) -> Any:
    return lambda batch: {"images": torch.randn((batch, 3, *size), generator=torch.Generator().manual_seed(batch))}


def check_size(network: nn.Module) -> None:
    """UserError for a network whose weights one ONNX file cannot hold."""
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    if size >= _LIMIT:
        raise UserError(
            f"the network cannot be exported: its weights are {size / 2**30:.1f} GiB",
            expected="less than 2 GiB, which is what one ONNX file can hold",
            hint="tensors in other files are not opened by an `onnx` method, so none are written",
        )


def to_onnx(part: ExportPart, origin: Origin, batch: int | None = None) -> ModelProto:
    """The graph of `part`, for any batch or for `batch` images, with `origin` in its metadata.

    MeasurementError when torch cannot translate the network.
    """
    example = part.example(2 if batch is None else batch)
    try:
        with torch.no_grad(), _quiet():
            # not the TorchScript exporter: it is deprecated, and leaves shapes inside attention undetermined
            program = torch.onnx.export(
                part.module.eval(), tuple(example.values()), dynamo=True, verbose=False, external_data=False,
                input_names=list(example), output_names=list(part.outputs), opset_version=_OPSET,
                dynamic_shapes=_open_axes(part, example, batch),
            )  # fmt: skip
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise MeasurementError(f"torch cannot translate the network: {reason}", where=origin.variant) from error
    assert program is not None
    return _described(program.model_proto, origin)


def _open_axes(part: ExportPart, example: Mapping[str, Tensor], batch: int | None) -> tuple[dict[int, Any], ...]:
    """By input: its axes that any size fits."""
    named = [{**({0: BATCH} if batch is None else {}), **part.open_axes.get(name, {})} for name in example]
    dims = {name: torch.export.Dim(name) for name in sorted({n for axes in named for n in axes.values()})}
    return tuple({axis: dims[name] for axis, name in axes.items()} for axes in named)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's own reports; what matters of them is checked afterwards."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _described(model: ModelProto, origin: Origin) -> ModelProto:
    """`model` with its origin, and without what the exporter notes about source files of this machine."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        del value.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.metadata_props[:]
    model.graph.name = ".".join(filter(None, (origin.variant, origin.part)))
    model.producer_name, model.producer_version = "paretopose", origin.versions.get("paretopose", "")
    model.metadata_props.add(key=METADATA, value=origin.model_dump_json())
    return model


def difference(content: bytes, part: ExportPart, batches: Sequence[int]) -> dict[str, float]:
    """By output, the largest difference between the file `content` in onnxruntime and the network, relative to the
    output's largest value, over random inputs of these `batches`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    worst = dict.fromkeys(part.outputs, 0.0)
    for batch in batches:
        inputs = part.example(batch)
        with torch.inference_mode():
            ours = part.module(*inputs.values())
        ours = ours if isinstance(ours, tuple) else (ours,)
        theirs = session.run(list(part.outputs), {name: value.numpy() for name, value in inputs.items()})
        for name, own, found in zip(part.outputs, ours, theirs, strict=True):
            worst[name] = max(worst[name], _relative(own.numpy(), found))
    return worst


def _relative(own: np.ndarray, found: np.ndarray) -> float:
    """Infinite where shapes differ or a number is not finite."""
    if own.shape != found.shape or not (np.isfinite(own).all() and np.isfinite(found).all()):
        return float("inf")
    scale = float(np.abs(own).max()) or 1.0
    return float(np.abs(own - found).max()) / scale
