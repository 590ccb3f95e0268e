"""Translation of tensor names between the key layouts of different code bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["renamed"]


def renamed(state: Mapping[str, Any], prefixes: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """`state` with the first matching (old, new) prefix of each name exchanged.

    A name that no prefix matches is kept, so that it is reported as unexplained instead of lost.
    """
    return {_rename(key, prefixes): value for key, value in state.items()}


def _rename(key: str, prefixes: Sequence[tuple[str, str]]) -> str:
    for old, new in prefixes:
        if key.startswith(old):
            return new + key[len(old) :]
    return key
