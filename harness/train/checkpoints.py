"""Checkpoint files: read safely, recognised by layout, checked against the network, written atomically.

Reading the bytes is in `harness.train.files`; here names and shapes are given a meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import UserError, WeightsError
from harness.foreign.json_text import loads
from harness.method import Layout, Predictor, Size, Variant, variants
from harness.provenance import file_sha256
from harness.train.files import read, write

__all__ = [
    "Fit",
    "LoadReport",
    "Translation",
    "fitting_variants",
    "infer_joints",
    "load_into",
    "open_variant",
    "read",
    "translate",
    "wanted_protocol",
    "write",
]

Shapes = dict[str, tuple[int, ...]]
_MOST_JOINTS = 1000  # an empty tensor may have any shape, and a network for so many joints no place


class Translation(NamedTuple):
    """A state dict under our names: the `layout` it came in, `state`, and the names `ignored` by the layout's
    rule.
    """

    layout: Layout
    state: dict[str, Tensor]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class LoadReport:
    """What happened when a file was loaded.

    `unexplained`: tensors of the file that have no place in the network and no rule of the layout; `ignored`:
    those that a rule leaves out; `missing`: tensors that kept their start value (ImageNet trunks only).
    `protocol`: fields in which these weights want another protocol than the variant's. `notes`: what the
    network changed to fit the file (`adapt_state`). `trained_on`: name of the data, where the file tells.
    """

    layout: str
    unexplained: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    protocol: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    sha256: str = ""
    trained_on: str = ""


class Fit(NamedTuple):
    """A variant whose tensors have the names and shapes of a file."""

    variant: Variant
    layout: Layout
    joints: int | None
    unexplained: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()


def translate(variant: Variant, state: Mapping[str, Tensor], where: str = "") -> Translation:
    """`state` under the names of `variant`. WeightsError when no layout of the variant recognises it."""
    for layout in _layouts(variant):
        if layout.matches(state):
            ignored = tuple(key for key in state if key.startswith(layout.ignores)) if layout.ignores else ()
            kept = {key: value for key, value in state.items() if key not in ignored}
            return Translation(layout, layout.to_own(kept), ignored)
    raise WeightsError(
        f"no key layout of {variant.name} is recognised{_looks_like(state)}",
        where=where,
        expected="one of the layouts " + ", ".join(layout.name for layout in variant.layouts),
        hint="`paretopose weights inspect FILE` shows what is in the file",
    )


def _layouts(variant: Variant) -> tuple[Layout, ...]:
    """The layouts of a variant; one that names none has its own names only."""
    return variant.layouts or (Layout("own", matches=lambda keys: True, to_own=dict, from_own=dict),)


def infer_joints(variant: Variant, state: Mapping[str, Tensor], **options: Any) -> int | None:
    """Number of joints of `state` (our names), or None where no tensor tells.

    The network is built, without memory, for two and for three joints: a dimension that differs grows
    linearly with the number, which is then read from the file.
    """
    two, three = (_shapes(variant, num_joints=n, **options) for n in (2, 3))
    for name, shape in two.items():
        for dim, (a, b) in enumerate(zip(shape, three.get(name, shape), strict=False)):
            if a == b or name not in state or state[name].ndim != len(shape):
                continue
            joints, rest = divmod(state[name].shape[dim] - (a - 2 * (b - a)), b - a)
            return joints if rest == 0 and 0 < joints <= _MOST_JOINTS else None
    return None


def fitting_variants(state: Mapping[str, Tensor]) -> list[Fit]:
    """Every variant that a file's tensors (foreign names) fit completely."""
    return [fit for variant in variants().values() for fit in _fit(variant, state)]


def load_into(predictor: Predictor, variant: Variant, path: Path, *, initialise: bool = False) -> LoadReport:
    """Load the file at `path` into `predictor`, a network of `variant`.

    A layout that holds only a trunk is accepted with `initialise`. Raises WeightsError when the file is
    unreadable, of another variant, for another number of joints, or incomplete. Counters
    `num_batches_tracked` may be missing: files from before PyTorch 0.4.1 have none, and inference does not
    use them.
    """
    state, metadata = read(path)
    layout, own, ignored = translate(variant, state, str(path))
    if layout.partial and not initialise:
        raise WeightsError(
            f"this is only a trunk (layout {layout.name}), asked for all of {variant.name}",
            where=str(path),
            hint="a trunk can start a training, it cannot be measured",
        )
    assert isinstance(predictor, nn.Module)
    wanted = _shapes_of(predictor.state_dict())
    fits = _size_in(metadata) == tuple(predictor.input_size) and _shapes_of(own) == wanted  # nothing to adapt
    own, notes = (own, ()) if fits else _adapt(predictor, own, state, str(path))
    missing = tuple(n for n in wanted if n not in own and not n.endswith("num_batches_tracked"))
    unexplained = tuple(n for n in own if n not in wanted)
    _check(own, wanted, missing, unexplained, layout.partial, _Asked(predictor, variant, str(path), state))
    predictor.load_state_dict({n: own[n] for n in wanted if n in own}, strict=False)
    protocol = {**layout.protocol, **_own_protocol(variant, metadata, str(path))}
    return LoadReport(
        layout.name, unexplained, missing, ignored, protocol, notes, file_sha256(path), metadata.get("data_name", "")
    )


def wanted_protocol(variant: Variant, path: Path) -> dict[str, Any]:
    """Protocol fields in which the weights at `path` want another value than the variant's published protocol.

    Their layout says so (weights of another code line expect another colour order), or their own metadata.
    """
    state, metadata = read(path)
    own = _own_protocol(variant, metadata, str(path))
    if not any(layout.protocol for layout in variant.layouts):
        return own
    return {**translate(variant, state, str(path)).layout.protocol, **own}


def _shapes_of(state: Mapping[str, Tensor]) -> Shapes:
    return {name: tuple(value.shape) for name, value in state.items()}


def _size_in(metadata: Mapping[str, str]) -> Size | None:
    """The input size that a file of this project was trained at."""
    try:
        height, width = loads(metadata["input_size"])
    except (KeyError, ValueError, TypeError):
        return None
    return height, width


def _own_protocol(variant: Variant, metadata: Mapping[str, str], where: str) -> dict[str, Any]:
    """The protocol fields that a file names in its metadata; WeightsError when they are none."""
    try:
        own = loads(metadata.get("protocol", "{}"))
        type(variant.protocol).model_validate({**variant.protocol.model_dump(), **own})
    except (ValueError, TypeError) as error:
        what = f"the protocol in its metadata is none ({str(error).splitlines()[0]})"
        raise WeightsError(what, where=where, expected='JSON of protocol fields, as in {"colour": "rgb"}') from None
    return own


def open_variant(
    variant: Variant,
    path: Path | None,
    *,
    num_joints: int | None = None,
    input_size: Size | None = None,
    seed: int = 0,
    **build_knobs: Any,
) -> tuple[Predictor, LoadReport | None]:
    """A network of `variant` with the weights at `path` (None: the random start of `seed`), in evaluation mode.

    Without `num_joints` it is what the file has, 17 where nothing tells. A method that is a file is opened
    from it, with a report where the file says where it comes from (`predictor.origin`).
    """
    if variant.open_file is not None:
        if path is None:
            raise UserError(f"{variant.name} is a file", hint=f"give it: --weights {variant.name}=FILE")
        size = {"input_size": input_size} if input_size else {}
        return _opened(variant.open_file(path, **size, **build_knobs), path)
    assert variant.build is not None
    options = {"input_size": input_size or variant.input_size, **build_knobs}
    if num_joints is None and path is not None:
        num_joints = infer_joints(variant, translate(variant, read(path)[0], str(path)).state, **options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # without weights: the same random network on every call
        predictor = variant.build(num_joints=num_joints or 17, **options)
    report = load_into(predictor, variant, path) if path is not None else None
    if isinstance(predictor, nn.Module):
        predictor.eval()
    return predictor, report


def _opened(predictor: Predictor, path: Path) -> tuple[Predictor, LoadReport | None]:
    """A method that is a file, and what the file says of the protocol and of its origin."""
    origin = getattr(predictor, "origin", None)
    if origin is None:
        return predictor, None
    return predictor, LoadReport("exported", protocol=origin.protocol, notes=(origin.text(),), sha256=file_sha256(path))


class _Asked(NamedTuple):
    """What `load_into` was asked for, for its messages."""

    predictor: Predictor
    variant: Variant
    where: str
    state: Mapping[str, Tensor]


def _adapt(
    network: nn.Module, own: dict[str, Tensor], state: Mapping[str, Tensor], where: str
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """`own` fitted to the input size by the network itself, where it offers that; and its notes on what
    changed.
    """
    adapt = getattr(network, "adapt_state", None)
    if adapt is None:
        return own, ()
    try:
        adapted, notes = adapt(own)
    except WeightsError as error:
        raise WeightsError(
            error.what + _looks_like(state), where=where, expected=error.expected, hint=error.hint
        ) from None
    return adapted, tuple(notes)


def _check(
    own: Mapping[str, Tensor],
    wanted: Shapes,
    missing: tuple[str, ...],
    unexplained: tuple[str, ...],
    partial: bool,
    asked: _Asked,
) -> None:
    """WeightsError with the likeliest reason unless names and shapes fit."""
    wrong = [n for n in wanted if n in own and tuple(own[n].shape) != wanted[n]]
    depth = _of_another_depth(own, wanted, missing, unexplained)
    if not wrong and not depth and (partial or not missing):
        return
    what = f"the weights are not those of {asked.variant.name}"
    expected = [f"{n} {wanted[n]}, the file has {tuple(own[n].shape)}" for n in wrong[:3]]
    expected += [f"{n}, the file has none" for n in missing[:3]] if not partial else []
    expected += [f"no {n}" for n in unexplained[:3]]
    asked_joints = getattr(asked.predictor, "num_joints", None)
    fits = fitting_variants(asked.state)
    own_fit = [fit for fit in fits if fit.variant.name == asked.variant.name]
    if own_fit and own_fit[0].joints != asked_joints:
        what = f"the weights are for {own_fit[0].joints} joints, asked for {asked_joints}"
    elif fits:
        what = f"the file looks like {_names(fits)}, asked for {asked.variant.name}"
    raise WeightsError(what, where=asked.where, expected="; ".join(expected))


def _fit(variant: Variant, state: Mapping[str, Tensor]) -> list[Fit]:
    if variant.build is None or not any(layout.matches(state) for layout in variant.layouts):
        return []  # own names alone prove nothing
    layout, own, ignored = translate(variant, state)
    joints = infer_joints(variant, own)
    network = _on_meta(variant, num_joints=joints or 17)
    wanted = _shapes_of(network.state_dict())
    try:
        own, _ = _adapt(network, {name: value.to("meta") for name, value in own.items()}, {}, "")
    except WeightsError:
        return []
    needed = {n for n in wanted if layout.partial or not n.endswith("num_batches_tracked")}
    present = {n: tuple(value.shape) for n, value in own.items() if n in wanted}
    lacking = needed - present.keys()
    unexplained = tuple(n for n in own if n not in wanted)
    depth = _of_another_depth(own, wanted, lacking, unexplained)
    complete = not depth and (layout.partial or not lacking)
    fits = bool(present) and complete and all(wanted[n] == s for n, s in present.items())
    return [Fit(variant, layout, joints, unexplained, ignored)] if fits else []


def _of_another_depth(
    own: Iterable[str], wanted: Iterable[str], missing: Iterable[str], unexplained: Iterable[str]
) -> list[str]:
    """Names that make a file another network, whatever else fits: of a block that it lacks, of a block or a stage that
    it has too many. Whole stages may be `missing`: a trunk can start a network that has more of them.
    """
    known = set(own).intersection(wanted)
    blocks, stages = {_repeated(n) for n in known}, {_numbered(n) for n in known}
    lacking = [n for n in missing if _repeated(n) in blocks]
    return lacking + [n for n in unexplained if _numbered(n) in stages]


def _repeated(name: str) -> str:
    """The name of a block's tensor without the number of the block: layer3.5.conv1 -> layer3.#.conv1."""
    return re.sub(r"(?<=\.)\d+(?=\.)", "#", name)


def _numbered(name: str) -> str:
    """The name of a tensor without any number: layer3.5.conv1 -> layer#.#.conv#."""
    return re.sub(r"\d+", "#", name)


def _names(fits: list[Fit]) -> str:
    """Those that the file is complete for, where there are any: a trunk that it could start tells less."""
    fits = [fit for fit in fits if not fit.layout.partial] or fits
    return " or ".join(f"{f.variant.name} ({f.joints} joints)" if f.joints else f.variant.name for f in fits)


def _looks_like(state: Mapping[str, Tensor]) -> str:
    fits = fitting_variants(state)
    return f"; the file looks like {_names(fits)}" if fits else ""


def _shapes(variant: Variant, **options: Any) -> Shapes:
    return _shapes_of(_on_meta(variant, **options).state_dict())


def _on_meta(variant: Variant, **options: Any) -> nn.Module:
    """The network built on the meta device: names and shapes, no memory."""
    assert variant.build is not None
    options.setdefault("input_size", variant.input_size)
    with torch.device("meta"):
        module = variant.build(**options)
    assert isinstance(module, nn.Module)
    return module
