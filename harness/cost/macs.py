"""Multiply-accumulates of a real forward: two counters, reconciled module by module, and the ledger they give."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from harness.cost.free import FREE
from harness.cost.witnesses import (
    CONVOLUTION,
    MATRIX,
    Forward,
    FvcoreCount,
    count_with_fvcore,
    count_with_torch,
)
from harness.errors import CounterDisagreement, MeasurementError

__all__ = ["Ledger", "ModuleRow", "OperatorRow", "Parameters", "count", "parameters"]

Status = Literal["counted", "free", "unknown"]


_CARRIES_MATRIX_WORK = re.compile(
    r"conv|mm|matmul|linear|att(entio)?n|transformer|lstm|gru|rnn|mv|dot|bilinear|fft|kron|cdist|einsum|solve"
)
_NAMESPACES = ("aten", "prim", "prims")  # torch's own; of an operator from elsewhere nobody knows what it does


@dataclass(frozen=True)
class OperatorRow:
    """One kind of operator. `macs` is what we charge, `fvcore` what that counter charges (norms, resizing),
    `torch` what FlopCounterMode saw (None: its dispatcher does not tell the kind apart, see `Ledger.groups`)."""

    operator: str
    status: Status
    macs: int
    fvcore: int
    torch: int | None = None
    calls: int | None = None


@dataclass(frozen=True)
class ModuleRow:
    """One submodule with everything below it; name '' is the whole forward."""

    module: str
    kind: str
    macs: int
    convolution: int
    matrix: int
    fvcore: int
    torch: int


@dataclass(frozen=True)
class Ledger:
    """What one forward did. `groups`: (fvcore, torch) macs of 'convolution' and 'matrix work', always equal.
    `facts`: element counts that only conventions use."""

    operators: tuple[OperatorRow, ...]
    modules: tuple[ModuleRow, ...]
    groups: Mapping[str, tuple[int, int]]
    facts: Mapping[str, int]

    @property
    def macs(self) -> int:
        """Convolution + linear + matrix products, of the whole input batch."""
        return sum(row.macs for row in self.operators)

    def operator(self, name: str) -> int:
        """Macs of one kind of operator; 0 where the forward has none."""
        return sum(row.macs for row in self.operators if row.operator == name)

    def module(self, name: str) -> ModuleRow:
        """The row of one submodule; KeyError when it was not part of the network."""
        return {row.module: row for row in self.modules}[name]

    def top_level(self) -> tuple[ModuleRow, ...]:
        """Direct children of the network that did work, in the order they are declared, and what is in none of them.

        A child that is never called itself (a list, a trunk whose stages are called one by one) is the sum of what is.
        """
        children = [row for row in self.modules if row.module and "." not in row.module]
        found = [_sum_of(child.module, child.kind, self._called(child.module)) for child in children]
        rest = _minus(self.module(""), found)
        return tuple(row for row in (*found, rest) if row.fvcore)

    def _called(self, name: str) -> list[ModuleRow]:
        """The outermost modules at or below `name` that did work."""
        chosen: list[ModuleRow] = []
        inside = [row for row in self.modules if f"{row.module}.".startswith(f"{name}.") and row.fvcore]
        for row in sorted(inside, key=lambda row: row.module.count(".")):
            if not any(f"{row.module}.".startswith(f"{other.module}.") for other in chosen):
                chosen.append(row)
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "macs": self.macs,
            "groups": {name: {"fvcore": a, "torch": b} for name, (a, b) in self.groups.items()},
            "operators": [asdict(row) for row in self.operators],
            "modules": [asdict(row) for row in self.modules],
        }


_COUNTS = ("macs", "convolution", "matrix", "fvcore", "torch")


def _sum_of(name: str, kind: str, rows: Sequence[ModuleRow]) -> ModuleRow:
    return ModuleRow(name, kind, *(sum(getattr(row, count) for row in rows) for count in _COUNTS))


def _minus(whole: ModuleRow, rows: Sequence[ModuleRow]) -> ModuleRow:
    left = _sum_of("", "", rows)
    return ModuleRow("(elsewhere)", "", *(getattr(whole, name) - getattr(left, name) for name in _COUNTS))


def count(target: Callable[..., Any], inputs: Sequence[Any], *, network: nn.Module | None = None) -> Ledger:
    """The ledger of `target(*inputs)`, run for real under both counters.

    target: a module, or any callable that returns tensors (nested in dicts, lists, dataclasses); then `network` is
    the module whose submodules name the rows. inputs: arguments; tensors may be nested, anything else is passed on.
    Raises CounterDisagreement when the counters differ in convolution or matrix work (the deepest module is named),
    MeasurementError when the forward cannot be traced or holds an operator with matrix work that nobody counts.
    """
    if network is None and isinstance(target, nn.Module):
        network = target
    forward = Forward(target, inputs, network)
    ours, theirs = count_with_fvcore(forward), _canonical(count_with_torch, forward)
    _refuse_uncounted(ours.unsupported)
    _reconcile(ours, theirs, forward)
    return Ledger(
        operators=_operator_rows(ours, theirs[""]),
        modules=_module_rows(ours, theirs, forward),
        groups={group: (_group(ours.modules[""], group), theirs[""][group]) for group in _GROUPS},
        facts={key[1:]: value for key, value in ours.modules[""].items() if key.startswith("+")},
    )


_GROUPS: dict[str, tuple[str, ...]] = {"convolution": CONVOLUTION, "matrix work": MATRIX}


def _canonical(counter: Callable[[Forward], dict[str, Counter[str]]], forward: Forward) -> dict[str, Counter[str]]:
    """torch names a shared module by its last place, fvcore by its first; both under the first."""
    first = {id(module): name for name, module in reversed(list(forward.named_modules(remove_duplicate=False)))}
    places = dict(forward.named_modules(remove_duplicate=False))
    merged: dict[str, Counter[str]] = {"": Counter()}
    for name, counts in counter(forward).items():
        key = first[id(places[name])] if name in places else name
        merged[key] = merged.get(key, Counter()) + counts
    return merged


def _group(counts: Counter[str], group: str) -> int:
    return sum(counts[operator] for operator in _GROUPS[group])


def _refuse_uncounted(unsupported: Counter[str]) -> None:
    for name in unsupported:
        foreign = name.partition("::")[0] not in _NAMESPACES
        if name not in FREE and (foreign or _CARRIES_MATRIX_WORK.search(name.lower())):
            does = "may do" if foreign else "does"
            raise MeasurementError(
                f"operator {name} {does} matrix work that neither counter knows",
                expected="convolution, linear, matrix products or scaled_dot_product_attention",
                hint="write the layer with those, or teach harness/cost/witnesses.py the operator",
            )


def _reconcile(ours: FvcoreCount, theirs: Mapping[str, Counter[str]], forward: Forward) -> None:
    kinds = {name: type(module).__name__ for name, module in forward.named_modules()}
    for name in sorted(kinds, key=lambda n: -n.count(".") - (n != "")):
        counts = ours.modules.get(name, Counter())
        for group in _GROUPS:
            a, b = _group(counts, group), theirs.get(name, Counter())[group]
            if a != b:
                raise CounterDisagreement(
                    f"{group}: fvcore counts {a:,} macs, torch {b:,}",
                    where=f"module {_public(name) or 'the whole forward'} ({kinds[name]})",
                    expected="the same work seen by both counters",
                    hint="work inside a scripted function is hidden from fvcore: write it in plain Python",
                )


def _public(name: str) -> str:
    return name.removeprefix("network").removeprefix(".")


def _operator_rows(ours: FvcoreCount, theirs: Counter[str]) -> tuple[OperatorRow, ...]:
    whole = ours.modules[""]
    rows = []
    for operator in (*CONVOLUTION, *MATRIX):
        if whole[operator]:
            torch_saw = theirs["convolution"] if operator in CONVOLUTION else None
            rows.append(OperatorRow(operator, "counted", whole[operator], whole[operator], torch_saw))
    for operator in sorted(k for k in whole if k[0] != "+" and k not in (*CONVOLUTION, *MATRIX)):
        rows.append(OperatorRow(operator, "free", 0, whole[operator], 0))
    for operator, calls in sorted(ours.unsupported.items()):
        rows.append(OperatorRow(operator, "free" if operator in FREE else "unknown", 0, 0, 0, calls))
    return tuple(rows)


def _module_rows(ours: FvcoreCount, theirs: Mapping[str, Counter[str]], forward: Forward) -> tuple[ModuleRow, ...]:
    rows = []
    for name, module in forward.named_modules():
        # the whole forward is the root; work a callable does outside its network's __call__ is counted there
        if name == "network":
            continue
        module = forward.get_submodule("network") if name == "" and hasattr(forward, "network") else module
        counts, seen = ours.modules.get(name, Counter()), theirs.get(name, Counter())
        convolution, matrix = _group(counts, "convolution"), _group(counts, "matrix work")
        charged = sum(value for key, value in counts.items() if key[0] != "+")
        rows.append(
            ModuleRow(
                _public(name),
                type(module).__name__,
                convolution + matrix,
                convolution,
                matrix,
                charged,
                seen.total(),
            )
        )
    return tuple(rows)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters: all, and those that inference needs."""

    total: int
    inference: int


def parameters(module: nn.Module) -> Parameters:
    """Parameter counts. Names under a prefix in `module.train_only` (a tuple, where the module has one) serve
    training alone: published tables differ in whether they count them (SRPose README leaves them out)."""
    prefixes = tuple(getattr(module, "train_only", ()))
    sizes = {name: p.numel() for name, p in module.named_parameters()}
    training = sum(n for name, n in sizes.items() if any(f"{name}.".startswith(f"{p}.") for p in prefixes))
    return Parameters(sum(sizes.values()), sum(sizes.values()) - training)
