"""Pickles of plain arrays, numbers, texts and containers, read by stand-ins: no callable of numpy or any other package
can be reached from a file.

numpy's own `dtype` and `ndarray` are no stand-ins: a file chooses the state of both, and an array whose dtype was told
that it holds no objects takes any bytes for pointers.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from harness.foreign import Refused

__all__ = ["ADMITTED", "Array", "RefusedName", "check_opcodes", "load_plain", "names_in"]

_KIND = re.compile(r"[<>=|]?(?:\?|b1|[iu][1248]|f[248]|c(?:8|16)|[SU]\d{1,6})")
_LONGEST_WORD = 5000
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD}}}")


class RefusedName(Refused):
    """A pickle named something that is not admitted."""

    def __init__(self, name: str) -> None:
        super().__init__(f"it wants to use {name}")
        self.name = name


class Dtype:
    """Stands for `numpy.dtype`: numbers and texts of a fixed size, nothing with fields or objects."""

    def __init__(self, text: Any, align: Any = False, copy: Any = False) -> None:
        if not isinstance(text, str) or not _KIND.fullmatch(text):
            raise RefusedName(f"an array of {str(text)[:40]}")
        self.plain = np.dtype(text)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.plain = self.plain.newbyteorder(state[1])


class Array:
    """Stands for `numpy.ndarray`: `values` are made from the bytes of the file, as many as there are."""

    values = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if isinstance(raw, list):
            raise RefusedName("an array of objects")
        flat = np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else bytes(raw), dtype.plain)
        if min(shape, default=1) < 0 or math.prod(shape) != flat.size:
            raise ValueError(f"an array of shape {shape} has {flat.size} values")
        self.values = flat.reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> Array:
    return Array()


def _scalar(dtype: Dtype, raw: Any) -> Any:
    """A number that numpy made, as Python's."""
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype.plain)[0].item()


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":  # idna needs hours for a long text
        raise RefusedName(f"the encoding {encoding[:40]}")
    return text.encode("latin1")


ADMITTED: Mapping[str, Any] = {
    **{
        f"numpy.{core}.multiarray.{name}": stand_in
        for core in ("core", "_core")
        for name, stand_in in (("_reconstruct", _reconstruct), ("scalar", _scalar))
    },
    "numpy.ndarray": Array,
    "numpy.dtype": Dtype,
    "_codecs.encode": _encode,
}
"""What a pickle may name, and what it gets instead."""


class _Unpickler(pickle.Unpickler):
    """Containers need no name: pickle makes them itself."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        full = f"{module}.{name}"
        if full not in ADMITTED:
            raise RefusedName(full)
        return ADMITTED[full]


class _Nothing:
    """Takes every call and every state, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Nothing:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _Lister(pickle.Unpickler):
    """Gives `_Nothing` for every name."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self.names: list[str] = []

    def find_class(self, module: str, name: str) -> Any:
        self.names.append(f"{module}.{name}")
        return _Nothing


def names_in(data: bytes) -> list[str]:
    """What a pickle names that is not admitted, as far as it can be read; nothing of it is executed."""
    lister = _Lister(data)
    try:
        check_opcodes(io.BytesIO(data), len(data))
        lister.load()
    except Exception:  # a damaged pickle raises almost anything
        pass
    return [name for name in dict.fromkeys(lister.names) if name not in ADMITTED]


def load_plain(data: bytes) -> Any:
    """The content of a pickle, arrays as `Array`. RefusedName for what it names, any exception for damage."""
    check_opcodes(io.BytesIO(data), len(data))
    # latin1: detectron2's model zoo was pickled by Python 2
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()


def check_opcodes(stream: IO[bytes], size: int) -> None:
    """Raises for a pickle that would cost its reader more than its `size` is worth; the stream is then behind it."""
    for opcode, argument, _ in pickletools.genops(stream):
        # the memo is a table: one opcode with a large index would fill the memory
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > size:
            raise ValueError(f"{opcode.name} {argument} in {size} bytes")
        # torch searches its own messages, which quote such a word, in time that grows with its square
        if isinstance(argument, str) and len(argument) > _LONGEST_WORD and _LONG_WORD.search(argument):
            raise RefusedName(f"a word of more than {_LONGEST_WORD} letters")
