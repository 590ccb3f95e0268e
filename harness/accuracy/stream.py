"""A JSON array of any length, one element at a time: memory holds a chunk of the text, never the whole file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from harness.accuracy.checks import parse_json
from harness.errors import DataError
from harness.foreign.json_text import decoder

__all__ = ["stream_json"]

_CHUNK = 1 << 20  # characters
_LONGEST = 16 * _CHUNK  # of one element: a faulty file must not fill the memory either
_NEAR_END = 16  # a word or number that the chunk cuts fails at most this far before its end
_ARRAY, _VALUE = object(), object()
_DECODER = decoder(constants=True)
_AFTER = tuple(" \t\n\r,]")
_SPACE = re.compile(r"[ \t\n\r]*")


def stream_json(path: str | Path) -> Iterable[Any]:
    """The elements of the JSON array in a file, decoded while they are asked for; any other JSON value as it is.

    Raises DataError with path and line, at once or while elements are taken, when the file is missing, not UTF-8,
    not JSON or cut short.
    """
    elements = _elements(Path(path))
    kind = next(elements)
    return elements if kind is _ARRAY else next(elements)


def _elements(path: Path) -> Iterator[Any]:
    """`_ARRAY` and then the elements, or `_VALUE` and then the value. Opens once, as pipes can be read once."""
    try:
        with path.open(encoding="utf-8") as file:
            window = _Window(file, str(path))
            if window.at_array():
                yield _ARRAY
                yield from window.elements()
            else:
                yield _VALUE
                yield parse_json(window.rest(), path)
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=str(path), expected="a JSON file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot be read: {error}", where=str(path), expected="a UTF-8 JSON file") from error


class _Window:
    """The part of the text that is not decoded yet, from `at` on, and the lines before it."""

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._text, self._at, self._lines, self._ended = "", 0, 1, False

    def at_array(self) -> bool:
        return self._next() == "["

    def rest(self) -> str:
        return self._text[self._at :] + self._file.read()

    def elements(self) -> Iterator[Any]:
        self._at += 1
        if self._next() == "]":
            self._at += 1
        else:
            yield self._element()
            while self._next() == ",":
                self._at += 1
                yield self._element()
            if self._next() != "]":
                raise self._fault("Expecting ',' delimiter", self._at)
            self._at += 1
        if self._next():
            raise self._fault("Extra data", self._at)

    def _next(self) -> str:
        """The next character that is not space, which is then at `_at`; empty at the end of the file."""
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _element(self) -> Any:
        self._next()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                unended = error.msg.startswith("Unterminated")
                near_end = error.pos >= len(self._text) - _NEAR_END
                ahead = error.pos - self._at
                if not ((unended or near_end) and self._more(_LONGEST)):
                    raise self._fault(error.msg, self._at + ahead, unended=unended) from error
            except RecursionError as error:
                raise self._fault("nested too deeply", self._at) from error
            except ValueError as error:
                raise self._fault(str(error), self._at) from error
            else:
                # a number at the end of the chunk may go on in the next: 1 is then the beginning of 1.5e3
                if self._text[end : end + 1] in _AFTER or not self._more(_LONGEST):
                    self._at = end
                    return value

    def _more(self, longest: int = 0) -> bool:
        """Reads on; False at the end of the file, or when the rest is longer than `longest` already."""
        if self._ended or (longest and len(self._text) - self._at > longest):
            return False
        self._lines += self._text.count("\n", 0, self._at)
        read = self._file.read(_CHUNK)
        self._text, self._at, self._ended = self._text[self._at :] + read, 0, not read
        return bool(read)

    def _fault(self, message: str, position: int, *, unended: bool = False) -> DataError:
        cut = self._ended and (unended or position >= len(self._text.rstrip()))
        return DataError(
            "the JSON ends too early" if cut else f"not valid JSON: {message}",
            where=f"{self._name}:{self._lines + self._text.count(chr(10), 0, position)}",
            expected="one complete JSON document",
            hint="the program that wrote it may have been stopped: write the file again" if cut else "",
        )
