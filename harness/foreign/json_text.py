"""JSON that everybody reads alike: no key twice, nothing that JSON does not have, no depth that breaks the reader."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Container
from functools import partial
from typing import Any, NoReturn

__all__ = ["decoder", "is_number", "loads"]


def loads(text: str | bytes, *, constants: bool = False, without: Container[str] = ()) -> Any:
    """The value of a JSON text; ValueError (JSONDecodeError where there is a position) for everything that is wrong.

    `constants`: NaN and Infinity are numbers, for those who list them as faults. `without`: keys that are dropped.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")
    try:
        return decoder(constants=constants, without=without).decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decoder(*, constants: bool = False, without: Container[str] = ()) -> json.JSONDecoder:
    """What `loads` decodes with; its own faults are ValueError and RecursionError."""
    pairs: Callable[[list[tuple[str, Any]]], Any] = partial(_object, without=without)
    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=float if constants else _refuse_constant)


def is_number(value: Any) -> bool:
    """A finite number that a float64 can hold; true and false are none."""
    # not math.isfinite: a whole number can be larger than every float
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _object(pairs: list[tuple[str, Any]], *, without: Container[str]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # readers disagree on which of the two counts
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double[:80]!r} is there twice in one object")
    if without:
        for key in found.keys() & without:  # type: ignore[operator]
            del found[key]
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
