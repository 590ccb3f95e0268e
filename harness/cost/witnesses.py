"""The two operator counters: fvcore reads a trace of the forward, torch's FlopCounterMode watches its dispatch.

Both run the real forward on the real input, so data-dependent shapes (masks, gathers) are counted as they happened.
fvcore by itself drops scaled_dot_product_attention, miscounts broadcast matmul, rounds einsum to three digits and
does not know vector products; the handlers here repair that. FlopCounterMode is blind to the fused encoder layer, so
its fast path is off while counting.
"""

from __future__ import annotations

import dataclasses
import logging
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch.utils.flop_counter import FlopCounterMode

from harness.errors import MeasurementError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # fvcore scripts functions on import, which torch deprecates
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import conv_flop_jit, elementwise_flop_counter, get_shape, linear_flop_jit

__all__ = ["CONVOLUTION", "MATRIX", "Forward", "FvcoreCount", "count_with_fvcore", "count_with_torch"]

CONVOLUTION = ("convolution",)
MATRIX = ("linear", "matrix product", "attention")
"""Operators whose macs are counted, in two groups: torch's dispatcher no longer tells linear from other products."""


class Forward(nn.Module):
    """`target(*inputs)` as a module of tensors: inputs flattened, every tensor of any nested output returned.

    `network` gives the module names; None where the callable has no modules worth naming.
    """

    def __init__(self, target: Callable[..., Any], inputs: Sequence[Any], network: nn.Module | None) -> None:
        super().__init__()
        leaves, self._spec = tree_flatten(tuple(inputs))
        self._tensor_at = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
        self._leaves, self._target = leaves, [target]  # in a list, so that a module is not registered twice
        self.tensors = tuple(leaves[i] for i in self._tensor_at)
        self.tracing = False
        if network is not None:
            self.network = network

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        leaves = list(self._leaves)
        for at, tensor in zip(self._tensor_at, tensors, strict=True):
            leaves[at] = tensor
        if not self.tracing:
            return tuple(_tensors_of(self._target[0](*tree_unflatten(leaves, self._spec))))
        with _Traceable() as traceable:
            output = _tensors_of(self._target[0](*tree_unflatten(leaves, self._spec)))
        return (*output, *traceable.kept)


def _tensors_of(output: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for leaf in tree_leaves(output):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            found += [t for field in dataclasses.fields(leaf) for t in _tensors_of(getattr(leaf, field.name))]
    return found


@contextmanager
def _plain_attention() -> Iterator[None]:
    """The fused encoder layer is one opaque operator for both counters; off while counting."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Traceable(TorchFunctionMode):
    """Makes a trace hold all that ran. `kept` collects a corner of each matrix result: a trace drops work that
    reaches no output, but the machine does it all the same."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.full, torch.full_like, Tensor.new_full):
            args = _without_bool(func, args, kwargs)
        result = func(*args, **kwargs)
        if _MATRIX_FUNCTION.search(getattr(func, "__name__", "")):
            self.kept += [t.reshape(-1)[:1].clone() for t in tree_leaves(result) if isinstance(t, Tensor)]
        return result


_MATRIX_FUNCTION = re.compile(r"conv|matmul|mm$|^linear$|attention|einsum|^mv$|^dot$|addmv")


def _without_bool(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Filling with a Python bool breaks torch.jit's alias analysis (an internal assertion); with 0 or 1 it does not."""
    at = 2 if func is Tensor.new_full else 1
    fill = kwargs.get("fill_value", args[at] if len(args) > at else None)
    if not isinstance(fill, bool):
        return args
    if func is torch.full:  # the only one whose dtype follows the fill value
        kwargs.setdefault("dtype", torch.bool)
    kwargs["fill_value"] = int(fill)
    return args[:at]


# fvcore -------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FvcoreCount:
    """Per module: counts by operator. Keys that begin with '+' are facts for conventions, not fvcore's own charge."""

    modules: Mapping[str, Counter[str]]
    unsupported: Counter[str]
    canonical: Callable[[str], str]


def count_with_fvcore(forward: Forward) -> FvcoreCount:
    """fvcore's counts of one forward, or a MeasurementError when it cannot be traced."""
    analysis = FlopCountAnalysis(forward, forward.tensors).set_op_handle(**_HANDLES)
    analysis.set_op_handle("aten::clone", None)  # a copy is free, and ours in `_Traceable` are not the network's
    analysis.ancestor_mode("caller").tracer_warnings("none")
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    logger = logging.getLogger("torch.jit")
    level = logger.level
    logger.setLevel(logging.ERROR)
    forward.tracing = True
    try:
        with _plain_attention():
            modules = analysis.by_module_and_operator()
    except MeasurementError:
        raise
    except Exception as error:
        raise MeasurementError(
            f"the forward cannot be traced for counting: {type(error).__name__}: {error}",
            expected="a forward of tensors that torch.jit.trace can follow",
            hint="give the real input the network is used with, and return tensors",
        ) from error
    finally:
        forward.tracing = False
        logger.setLevel(level)
    whole = {name: Counter({k: int(v) for k, v in counts.items()}) for name, counts in modules.items()}
    return FvcoreCount(whole, Counter(analysis.unsupported_ops()), analysis.canonical_module_name)


def _numel(value: Any) -> int:
    return prod(get_shape(value) or ())


def _convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    macs = int(conv_flop_jit(inputs, outputs)["conv"])
    batch, weight, out = get_shape(outputs[0])[0], get_shape(inputs[1]), get_shape(outputs[0])
    counts = Counter({"convolution": macs, "+convolution at output size": batch * prod(weight) * prod(out[2:])})
    if get_shape(inputs[2]) is not None:
        counts["+convolution bias"] = prod(out)
    return counts


def _matmul(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    # outputs x contracted length is right for vectors and for broadcast batches, where fvcore's own rule is not
    return Counter({"matrix product": _numel(outputs[0]) * get_shape(inputs[0])[-1]})


def _added_matmul(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"matrix product": _numel(outputs[0]) * get_shape(inputs[1])[-1]})


def _addbmm(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"matrix product": _numel(inputs[1]) * get_shape(inputs[2])[-1]})


def _linear(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    return Counter({"linear": int(linear_flop_jit(inputs, outputs))})


def _attention(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    query, key, value = (get_shape(v) for v in inputs[:3])
    rows = prod(get_shape(outputs[0])[:-1])  # batch x heads x queries
    return Counter({"attention": rows * key[-2] * (query[-1] + value[-1])})


def _einsum(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Two operands: output elements x contracted indices (torch sums one-sided indices before it multiplies)."""
    equation = inputs[0].toIValue().replace(" ", "")
    terms, _, result = equation.partition("->")
    operands = terms.split(",")
    shapes = [get_shape(v) for v in inputs[1].node().inputs()]
    if len(operands) == 1:
        return Counter()
    if len(operands) > 2 or "->" not in equation:
        raise MeasurementError(
            f"einsum '{equation}' cannot be counted",
            expected="two operands and an explicit result, 'ab,bc->ac'",
        )
    sizes: dict[str, int] = {}
    for term, shape in zip(operands, shapes, strict=True):
        head, _, tail = term.partition("...")
        sizes |= dict(zip(head, shape, strict=False)) | dict(zip(reversed(tail), reversed(shape), strict=False))
    contracted = (set(operands[0]) & set(operands[1])) - set(result) - {"."}
    # without a contracted index torch multiplies elementwise, which is free
    macs = _numel(outputs[0]) * prod(sizes[i] for i in contracted) if contracted else 0
    return Counter({"matrix product": macs})


def _batch_norm(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    per_element = (4 if inputs[5].toIValue() else 1) + (get_shape(inputs[1]) is not None)
    elements = _numel(inputs[0])
    return Counter({"batch_norm": per_element * elements, "+batch_norm elements": elements})


def _elements(name: str, charged: str = "") -> Callable[[list[Any], list[Any]], Counter[str]]:
    def handle(inputs: list[Any], _outputs: list[Any]) -> Counter[str]:
        return Counter({key: _numel(inputs[0]) for key in (name, charged) if key})

    return handle


_HANDLES: dict[str, Any] = {
    "aten::_convolution": _convolution,
    "aten::linear": _linear,
    **{f"aten::{name}": _matmul for name in ("matmul", "mm", "bmm", "mv", "dot")},
    **{f"aten::{name}": _added_matmul for name in ("addmm", "baddbmm", "addmv")},
    "aten::addbmm": _addbmm,
    "aten::einsum": _einsum,
    "aten::scaled_dot_product_attention": _attention,
    "aten::batch_norm": _batch_norm,
    **{f"aten::upsample_nearest{d}d": elementwise_flop_counter(0, 1) for d in (1, 3)},
    **{f"aten::{name}": _elements("+activation elements") for name in ("relu", "relu_", "relu6", "leaky_relu")},
    **{f"aten::{name}": _elements("+pooling elements") for name in ("max_pool2d", "avg_pool2d")},
    "aten::adaptive_avg_pool2d": _elements("+pooling elements", charged="adaptive_avg_pool2d"),
}


# torch --------------------------------------------------------------------------------------------------------------


def count_with_torch(forward: Forward) -> dict[str, Counter[str]]:
    """Macs per module name and group ('convolution', 'matrix work') by FlopCounterMode, halved from its flops."""
    with _plain_attention(), FlopCounterMode(display=False, custom_mapping=_FORMULAS) as counter:
        forward(*forward.tensors)
    root = type(forward).__name__
    modules: dict[str, Counter[str]] = {}
    for name, flops in counter.get_flop_counts().items():
        if name != "Global":
            grouped: Counter[str] = Counter()
            for operator, value in flops.items():
                grouped["convolution" if "conv" in str(operator) else "matrix work"] += value // 2
            modules[name.removeprefix(root).removeprefix(".")] = grouped
    return modules


def _vector_flops(matrix: Sequence[int], _vector: Sequence[int], **_: Any) -> int:
    return 2 * prod(matrix)


def _added_vector_flops(_added: Sequence[int], matrix: Sequence[int], _vector: Sequence[int], **_: Any) -> int:
    return 2 * prod(matrix)


def _addbmm_flops(_added: Sequence[int], left: Sequence[int], right: Sequence[int], **_: Any) -> int:
    return 2 * prod(left) * right[-1]


_FORMULAS: dict[Any, Any] = {
    torch.ops.aten.mv: _vector_flops,
    torch.ops.aten.dot: _vector_flops,
    torch.ops.aten.addmv: _added_vector_flops,
    torch.ops.aten.addbmm: _addbmm_flops,
}
