"""`--set name=value` for a training: build knobs of the network, and fields of its recipe."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError
from torch import nn

from harness.errors import SuiteError, UserError, unknown_name
from harness.method import Variant
from harness.pose.codecs import check_targets
from harness.suite.file import named_value, parse_value
from harness.train import recipes
from harness.train.recipes import Recipe, with_epochs

__all__ = ["Settings", "check_parts", "settled", "with_fields"]

_OWN = ("groups", "differs", "source")  # not for the command line


class Settings(NamedTuple):
    """What is trained: the recipe, the network's build knobs, and its input size (None: the variant's own)."""

    recipe: Recipe
    build: dict[str, Any]
    input_size: tuple[int, int] | None


def settled(variant: Variant, recipe: Recipe, assignments: Sequence[str]) -> Settings:
    """`recipe` and the variant's build knobs with `assignments` applied: `head=bilinear`, `epochs=3`,
    `augmentation.rotation=30`, `input_size=384x288`. What a recipe loses by it is stated in its `differs`.

    A recipe of another `input_size` is taken over when the size is assigned as well as the recipe's own
    (`recipe.input_size=384x288`). SuiteError for an unknown name or a value that is not allowed.
    """
    knobs = {k.name: k for k in variant.knobs if k.kind == "build"}
    build, size = {name: knob.default for name, knob in knobs.items()}, None
    for assignment in assignments:
        name, text = named_value(assignment, "--set", "--set name=value, for example epochs=3")
        where = f"--set {assignment}"
        value = parse_value(text, where)
        if name in knobs:
            build[name] = knobs[name].check(value, where)
        elif name == "input_size":
            size = _size(text, where)
        else:
            recipe = _changed(recipe, name.removeprefix("recipe."), value, where, [*knobs, "input_size"])
    other = [f"{n} {build[n]} in place of {knob.default}" for n, knob in knobs.items() if build[n] != knob.default]
    recipe = dataclasses.replace(recipe, differs=(*recipe.differs, *other))
    check_parts(variant, recipe, build, variant.protocol.codec, "--set")
    return Settings(recipe, build, size)


def check_parts(variant: Variant, recipe: Recipe, build: Mapping[str, Any], codec: str, where: str) -> None:
    """SuiteError, with the reason, where target, crop, loss and network of a training do not go together."""
    if variant.paradigm == "one-stage":
        return
    try:
        check_targets(recipe.target.encoder, codec, build.get("loss"))
    except UserError as error:
        raise SuiteError(error.what, where=where, expected=error.expected, hint=error.hint) from None


def with_fields(recipe: Recipe, values: Mapping[str, Any], where: str = "train.set") -> Recipe:
    """`recipe` with fields set by name (`lr`, `target.sigma`). SuiteError as `settled`."""
    for name, value in values.items():
        recipe = _changed(recipe, name, value, f"{where}.{name}", ())
    return recipe


def _size(text: str, where: str) -> tuple[int, int]:
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 0 < int(part) <= 8192 for part in parts):
        raise SuiteError(f"input_size is {text!r}", where=where, expected="height and width: 256x192")
    return int(parts[0]), int(parts[1])


def _changed(recipe: Recipe, path: str, value: Any, where: str, knobs: Sequence[str]) -> Recipe:
    """`recipe` with the field at `path` (`lr`, `target.sigma`) set to `value`."""
    group, dot, name = path.rpartition(".")
    holder: Any = getattr(recipe, group) if dot and group in ("target", "augmentation") else recipe
    known = [f.name for f in dataclasses.fields(holder) if f.name not in _OWN]
    if (dot and holder is recipe) or name not in known or (not dot and name in ("target", "augmentation")):
        fields = [*known, *_nested(recipe, "target"), *_nested(recipe, "augmentation")] if holder is recipe else known
        what, hint = unknown_name("knob or field of the recipe", path, [*fields, *knobs])
        raise SuiteError(what, where=where, hint=hint)
    if holder is recipe and name == "input_size":
        size = _size(str(value), where)
        note = f"input size {size[0]}x{size[1]}, everything else as for the recipe's own"
        return dataclasses.replace(recipe, input_size=size, differs=(*recipe.differs, note))
    checked = _checked(type(holder), name, value, where)
    if holder is recipe and name == "epochs":
        return with_epochs(recipe, checked)
    note = f"{path} {checked} in place of {getattr(holder, name)}"
    changed = dataclasses.replace(holder, **{name: checked})
    changes = {group: changed} if dot else {name: checked}
    return dataclasses.replace(recipe, **changes, differs=(*recipe.differs, note))


def _nested(recipe: Recipe, group: str) -> list[str]:
    return [f"{group}.{f.name}" for f in dataclasses.fields(getattr(recipe, group))]


def _checked(kind: type, name: str, value: Any, where: str) -> Any:
    hints = typing.get_type_hints(kind, {**vars(recipes), "nn": nn})
    try:
        return TypeAdapter(hints[name]).validate_python(value)
    except ValidationError as error:
        raise SuiteError(f"{name} is {value!r}", where=where, expected=error.errors()[0]["msg"]) from None
