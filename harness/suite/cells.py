"""Suite -> Cells: every combination that its design asks for, with a value for every knob and protocol field."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import ValidationError

from harness.errors import SuiteError, UserError, unknown_name
from harness.method import Knob, PoseProtocol, Variant, find_variant
from harness.pose.codecs import check_codec, check_targets
from harness.suite.file import Marked
from harness.suite.schema import BoxesFrom, Cell, MethodSpec, Suite, TrainSpec

__all__ = ["expand"]

_WORDED = {bool: "true or false", int: "a whole number", float: "a number", str: "a name"}


def expand(suite: Suite, marked: Marked | None = None) -> list[Cell]:
    """The cells of a suite in the order of the file. SuiteError: unknown variant, knob, value or protocol field."""
    cells: list[Cell] = []
    _check_seeds(suite, marked)
    _check_boxes(suite, marked)
    _check_detector(suite, marked)
    for index, spec in enumerate(suite.methods):
        where = _Where(marked, index)
        variant = find_variant(spec.variant, where("variant"))
        if suite.train is not None:
            _check_recipe(variant, suite.train.recipe, marked.where(("train", "recipe")) if marked else "")
        _check_applying(variant, spec, where)
        for seed in suite.seeds:
            for values in _design(suite.design, spec, where):
                training = _training(suite.train, {**spec.set, **values}, where)
                cells.append(_cell(suite, spec, variant, values, (index, seed, training), where))
                if training is not None:
                    _check_targets(variant, cells[-1], training, where)
    return cells


def _check_boxes(suite: Suite, marked: Marked | None) -> None:
    """Boxes of another row: it is there, and it finds boxes."""
    if not isinstance(suite.data.boxes, BoxesFrom):
        return
    where, name = marked.where(("data", "boxes", "from")) if marked else "", suite.data.boxes.variant
    if find_variant(name, where).paradigm != "one-stage":
        raise SuiteError(f"{name} finds no boxes", where=where, expected="a one-stage variant")
    if name not in {spec.variant for spec in suite.methods}:
        raise SuiteError(
            f"the boxes of {name} are asked for, and the suite has no such row",
            where=where,
            hint=f"add `- {{variant: {name}}}` to methods",
        )


def _check_detector(suite: Suite, marked: Marked | None) -> None:
    """A detector that the report names is a one-stage row."""
    name = suite.report.detector
    if isinstance(name, str):
        where = marked.where(("report", "detector")) if marked else ""
        if find_variant(name, where).paradigm != "one-stage" or name not in {s.variant for s in suite.methods}:
            raise SuiteError(
                f"the detector {name} is no one-stage row of the suite",
                where=where,
                expected="a one-stage variant of methods, or {cost: ID, latency: ID}",
            )


def _check_seeds(suite: Suite, marked: Marked | None) -> None:
    where = marked.where(("seeds",)) if marked else ""
    if len(set(suite.seeds)) < len(suite.seeds):
        raise SuiteError(f"seeds {list(suite.seeds)}", where=where, expected="each seed once")
    if len(suite.seeds) > 1 and suite.train is None:
        raise SuiteError(
            f"{len(suite.seeds)} seeds, but nothing is trained",
            where=where,
            expected="one seed: without `train` every seed has the same weights",
            hint="add `train: {recipe: ...}`",
        )


def _training(train: TrainSpec | None, chosen: Mapping[str, Any], where: _Where) -> TrainSpec | None:
    """The suite's `train` with what a line sets or sweeps of it: `train.epochs`."""
    changes = {n.removeprefix("train."): v for n, v in chosen.items() if n.startswith("train.")}
    if not changes:
        return train
    if train is None:
        raise SuiteError("the suite trains nothing", where=where(), hint="add `train: {recipe: ...}`")
    try:
        return TrainSpec.model_validate({**train.model_dump(), **changes})
    except ValidationError as error:
        fault = error.errors()[0]
        raise SuiteError(f"train.{'.'.join(map(str, fault['loc']))}: {fault['msg']}", where=where()) from None


def _check_recipe(variant: Variant, name: str, where: str) -> None:
    if not variant.recipes:
        raise SuiteError(
            f"{variant.name} has no training recipe", where=where, hint="`paretopose methods` lists what can be trained"
        )
    if name not in variant.recipes:
        what, hint = unknown_name(f"recipe of {variant.name}", name, variant.recipes)
        raise SuiteError(what, where=where, hint=hint)


def _check_targets(variant: Variant, cell: Cell, train: TrainSpec, where: _Where) -> None:
    """What is trained on can be learned by this network, and is what its crops at test time ask for."""
    if variant.paradigm == "one-stage":
        return
    encoder = str(train.set.get("target.encoder", variant.recipes[train.recipe].target.encoder))
    for codec in (variant.protocol.codec, cell.protocol.codec):
        try:
            check_targets(encoder, codec, cell.build.get("loss"))
        except UserError as error:
            raise SuiteError(error.what, where=where(), expected=error.expected, hint=error.hint) from None


class _Where:
    """`file:line` of a key of one method line."""

    def __init__(self, marked: Marked | None, index: int) -> None:
        self._marked, self._index = marked, index

    def __call__(self, *path: str | int) -> str:
        return self.suite("methods", self._index, *path)

    def suite(self, *path: str | int) -> str:
        """`file:line` of a key of the whole suite."""
        return self._marked.where(path) if self._marked else ""


def _design(design: str, spec: MethodSpec, where: _Where) -> Iterator[dict[str, Any]]:
    """Each combination of swept values that the design asks for."""
    for name, values in spec.sweep.items():
        if not values:
            raise SuiteError(f"sweep of {name} has no values", where=where("sweep", name))
        if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
            raise SuiteError(
                f"sweep of {name} has a value twice", where=where("sweep", name), expected="each value once"
            )
    if design == "grid":
        for combination in itertools.product(*spec.sweep.values()):
            yield dict(zip(spec.sweep, combination))
        return
    base = {name: values[0] for name, values in spec.sweep.items()}
    yield base
    for name, values in spec.sweep.items():
        others = values[1:]
        if design == "leave_one_out" and len(others) != 1:
            raise SuiteError(
                f"{name} has {len(values)} values", where=where("sweep", name), expected="two: with, without"
            )
        for value in others:
            yield {**base, name: value}


def _cell(
    suite: Suite,
    spec: MethodSpec,
    variant: Variant,
    values: Mapping[str, Any],
    origin: tuple[int, int, TrainSpec | None],
    where: _Where,
) -> Cell:
    """The cell of these swept values; `origin`: its method line, seed and training."""
    line, seed, training = origin
    chosen = {**spec.set, **values}
    changes = _changes(suite, spec, chosen, where)
    knobs = {k.name: k.default for k in variant.knobs}
    for name, value in chosen.items():
        if name.startswith(("protocol.", "train.")) or name in ("decoder", "flip", "input_size"):
            continue
        place = where("sweep", name) if name in values else where("set", name)
        knob = variant.knob(name, place)
        knobs[name] = knob.check(value, place)
        _check_exclusive(knob, chosen, place)
    kinds = {name: variant.knob(name).kind for name in knobs}
    run = {"dtype": "float32", "runtime": "eager"} | {n: v for n, v in knobs.items() if kinds[n] == "run"}
    size = _size(chosen.get("input_size") or variant.input_size, where("set", "input_size"))
    return Cell(
        label=_label(variant.title, spec, values),
        variant=variant.name,
        input_size=size,
        build={n: v for n, v in knobs.items() if kinds[n] == "build"},
        run=run,
        select={n: v for n, v in knobs.items() if kinds[n] == "select"},
        protocol=_protocol(suite, spec, variant, changes, where),
        data=suite.data,
        seed=seed,
        weights=spec.weights,
        chosen=tuple(sorted({*changes, *({"input_size"} & chosen.keys())})),
        swept=dict(values),
        line=line,
        train=training,
    )


def _check_exclusive(knob: Knob, chosen: Mapping[str, Any], where: str) -> None:
    """Two answers to one question in one cell are refused."""
    for other in knob.excludes:
        if chosen.get(knob.name) is not None and chosen.get(other) is not None:
            raise SuiteError(
                f"{knob.name} and {other} are both set",
                where=where,
                expected=f"one of them: {knob.name} decides what {other} is",
                hint="sweep them in two method lines",
            )


def _changes(suite: Suite, spec: MethodSpec, chosen: Mapping[str, Any], where: _Where) -> dict[str, Any]:
    """Protocol fields that suite, line and knobs set, in this order."""
    changes = {**suite.protocol, **spec.protocol}
    changes |= {n.removeprefix("protocol."): v for n, v in chosen.items() if n.startswith("protocol.")}
    changes |= {n: chosen[n] for n in ("decoder", "flip") if chosen.get(n) is not None}
    for name in changes:
        if name not in PoseProtocol.model_fields:
            what, hint = unknown_name("protocol field", name, PoseProtocol.model_fields)
            raise SuiteError(what, where=_place(suite, spec, name, where), hint=hint)
    return changes


def _check_applying(variant: Variant, spec: MethodSpec, where: _Where) -> None:
    """A method line sets only what its network is run by; what the suite sets for all may concern the others."""
    own = {n.removeprefix("protocol."): n for n in (*spec.protocol, *spec.set, *spec.sweep)}
    for field in own.keys() & PoseProtocol.model_fields.keys() - set(PoseProtocol.fields_of(variant.paradigm)):
        place = where("protocol" if field in spec.protocol else "sweep" if own[field] in spec.sweep else "set")
        expected = f"what a {variant.paradigm} network is run by"
        raise SuiteError(f"{field} has no meaning for {variant.name}", where=place, expected=expected)


def _place(suite: Suite, spec: MethodSpec, field: str, where: _Where) -> str:
    """`file:line` of what sets a protocol field: the method line in its sweep, settings or protocol, or the suite."""
    for group, holder in (("sweep", spec.sweep), ("set", spec.set), ("protocol", spec.protocol)):
        for name in (field, f"protocol.{field}"):
            if name in holder:
                return where(group, name)
    return where.suite("protocol", field)


def _protocol(
    suite: Suite, spec: MethodSpec, variant: Variant, changes: Mapping[str, Any], where: _Where
) -> PoseProtocol:
    """The variant's published protocol with `changes`."""
    try:
        protocol = PoseProtocol.model_validate({**variant.protocol.model_dump(), **changes})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        place = _place(suite, spec, name, where)
        raise SuiteError(f"{name} is {changes[name]!r}", where=place, expected=_allowed(name)) from None
    if variant.paradigm == "top-down":
        try:
            check_codec(protocol.codec, protocol.decoder)
        except UserError as error:
            place = _place(suite, spec, "decoder" if "decoder" in changes else "codec", where)
            raise SuiteError(error.what, where=place, expected=error.expected, hint=error.hint) from None
        if protocol.codec not in variant.codecs:
            raise SuiteError(
                f"{variant.name} does not write the maps that codec '{protocol.codec}' reads",
                where=where("protocol"),
                expected="one of " + ", ".join(variant.codecs),
            )
    return protocol


def _allowed(field: str) -> str:
    """The values of a protocol field, in words."""
    kind: Any = PoseProtocol.model_fields[field].annotation
    if kind in _WORDED:
        return _WORDED[kind]
    if get_origin(kind) is tuple:
        return f"a list of {len(get_args(kind))} numbers"
    return "one of " + ", ".join(get_args(kind))


def _size(value: Any, where: str) -> tuple[int, int]:
    """(height, width) from [256, 192] or '256x192'."""
    parts = value.lower().split("x") if isinstance(value, str) else value
    try:
        height, width = (int(p) for p in parts)
    except (TypeError, ValueError):
        raise SuiteError(f"input_size is {value!r}", where=where, expected="height and width: '256x192'") from None
    if not (0 < height <= 4096 and 0 < width <= 4096):
        raise SuiteError(f"input_size is {value!r}", where=where, expected="1 to 4096 pixels a side")
    return height, width


def _label(name: str, spec: MethodSpec, values: Mapping[str, Any]) -> str:
    """`sharpose_s alpha=0.3 quality_threshold=0.9`: the variant and what sets this cell apart."""
    marks = {**spec.set, **{f"protocol.{k}": v for k, v in spec.protocol.items()}, **values}
    return " ".join([name, *(f"{k.removeprefix('protocol.')}={_short(v)}" for k, v in marks.items())])


def _short(value: Any) -> str:
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:g}"
    if isinstance(value, list):
        return "x".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
