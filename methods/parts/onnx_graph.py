"""What an ONNX graph says about itself: input, size of its work, number of weights. Needs the package onnx."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = [
    "UncountableError",
    "count_macs",
    "count_params",
    "external_data",
    "graph_inputs",
    "set_batch",
    "set_shape",
    "shape_of",
]

# operators that multiply and accumulate, and for which there is no rule below; anything outside ONNX's own
# domain is refused as well, because nobody can say what it does
_HEAVY = {
    "Attention", "ConvInteger", "DeformConv", "Einsum", "GRU", "If", "LSTM", "Loop", "MatMulInteger",
    "QLinearConv", "QLinearMatMul", "RNN", "Scan",
}  # fmt: skip
_OWN_DOMAINS = ("", "ai.onnx")


class UncountableError(Exception):
    """The work of an operator is not known."""


class _UnknownShape(UncountableError):
    """Because the shape of what it works on is not."""


def graph_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs a caller has to give; old files list the weights among the inputs too."""
    weights = {w.name for w in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in weights]


def shape_of(value: ValueInfoProto) -> tuple[int | None, ...]:
    """Dimensions; None where the file leaves one open."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.WhichOneof("value") == "dim_value" and d.dim_value > 0 else None for d in dims)


def external_data(model: ModelProto) -> tuple[str, str] | None:
    """(tensor, place) of a tensor that lies in another file, wherever in the file it is mentioned; None without one."""
    for tensor in _tensors(model):
        if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            return tensor.name, place
    return None


def _tensors(message: Any) -> Iterator[TensorProto]:
    """Every tensor in a message: weights, sparse weights, attributes, bodies of functions and branches."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            if field.message_type.name == "TensorProto":
                yield inner
            else:
                yield from _tensors(inner)


def set_batch(model: ModelProto, batch: int | None) -> ModelProto:
    """A copy whose input has that batch (None: any), with every shape that follows from it forgotten."""
    shape = shape_of(graph_inputs(model)[0])
    return set_shape(model, (batch, *shape[1:]))


def set_shape(model: ModelProto, *shapes: tuple[int | None, ...]) -> ModelProto:
    """A copy whose inputs have these shapes (None: open), with every shape that follows from them forgotten."""
    copy = type(model)()
    copy.CopyFrom(model)
    for value, shape in zip(graph_inputs(copy), shapes, strict=True):
        for i, (dim, size) in enumerate(zip(value.type.tensor_type.shape.dim, shape, strict=True)):
            dim.Clear()
            if size is None:
                dim.dim_param = f"open{i}"
            else:
                dim.dim_value = size
    del copy.graph.value_info[:]
    for output in copy.graph.output:
        output.type.tensor_type.ClearField("shape")
    return copy


def count_params(model: ModelProto) -> int:
    """Floating-point weights of the file, without the stored statistics of batch norm, as torch counts
    parameters.
    """
    from onnx import TensorProto

    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    statistics = {n for node in model.graph.node if node.op_type == "BatchNormalization" for n in node.input[3:5]}
    weights = (w for w in model.graph.initializer if w.data_type in kinds and w.name not in statistics)
    return sum(math.prod(w.dims) for w in weights)


def count_macs(model: ModelProto, *shapes: tuple[int, ...]) -> int:
    """Multiply-accumulates of convolutions and matrix products for inputs of these shapes.

    Raises UncountableError for an operator that multiplies matrices and has no rule here, or whose shapes the
    graph does not determine.
    """
    fixed = set_shape(model, *shapes)
    try:
        return _graph_macs(fixed)
    except _UnknownShape:
        return _graph_macs(_folded(fixed))


def _graph_macs(model: ModelProto) -> int:
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {v.name: shape_of(v) for v in (*graph.input, *graph.value_info, *graph.output)}
    shapes |= {w.name: tuple(w.dims) for w in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            shapes[node.output[0]] = next((tuple(a.t.dims) for a in node.attribute if a.name == "value"), (None,))
    return sum(_node_macs(node, shapes) for node in graph.node)


def _folded(model: ModelProto) -> ModelProto:
    """`model` with the sizes that it computes from shapes put in as numbers, by onnxruntime; no operator is fused."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "folded.onnx")
        try:
            onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        except Exception:  # onnxruntime's own exception classes share no public base
            return model
        return onnx.load(options.optimized_model_filepath, load_external_data=False)


def _node_macs(node: NodeProto, shapes: dict[str, tuple[int | None, ...]]) -> int:
    if node.domain not in _OWN_DOMAINS or node.op_type in _HEAVY:
        raise UncountableError(f"operator {node.domain or 'ai.onnx'}.{node.op_type} ('{node.name}')")
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    left, right, out = (_known(name, shapes, node) for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type == "Conv":  # weight (M, C/groups, kernel...): all of it once per output position
        return math.prod(right) * math.prod(out[2:]) * out[0]
    if node.op_type == "ConvTranspose":  # weight (C, M/groups, kernel...): all of it once per input position
        return math.prod(right) * math.prod(left[2:]) * left[0]
    transposed = any(a.name == "transA" and a.i for a in node.attribute)
    return math.prod(out) * left[0 if transposed else -1]


def _known(name: str, shapes: dict[str, tuple[int | None, ...]], node: NodeProto) -> tuple[int, ...]:
    shape = shapes.get(name, (None,))
    if any(size is None for size in shape):
        raise _UnknownShape(f"shape of '{name}' at operator {node.op_type} ('{node.name}')")
    return tuple(size for size in shape if size is not None)
