"""The error tree. Every message says what happened, where, what was expected and what to do.

HarnessError                      exit 2
├── MeasurementError              exit 2  something could not be measured
│   ├── NonFiniteOutput                   a network wrote nan or inf: which image, which person
│   ├── JudgeDisagreement                 our matcher and the reference evaluator differ
│   └── CounterDisagreement               two operator counters differ in convolution or matrix work
└── UserError                     exit 3  something that was handed in is wrong
    ├── SuiteError                        suite file, knob, override
    ├── DataError                         annotations, images, boxes, predictions
    ├── WeightsError                      checkpoint files
    └── MissingPackage                    an optional package is not installed
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

__all__ = [
    "CounterDisagreement",
    "DataError",
    "HarnessError",
    "JudgeDisagreement",
    "MeasurementError",
    "MissingPackage",
    "NonFiniteOutput",
    "SuiteError",
    "UserError",
    "WeightsError",
    "is_out_of_memory",
    "told",
    "unknown_name",
]


class HarnessError(Exception):
    """What happened (`what`), where (file:line, image id, record), what was `expected`, and what to do (`hint`)."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", expected: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.expected, self.hint = what, where, expected, hint

    def __str__(self) -> str:
        lines = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if self.hint:
            lines.append(f"  to do: {self.hint}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        # keyword-only fields would be lost by the default pickling, and errors cross worker processes
        return _rebuild, (type(self), self.what, self.where, self.expected, self.hint)


def _rebuild(kind: type[HarnessError], what: str, where: str, expected: str, hint: str) -> HarnessError:
    error = HarnessError.__new__(kind)
    HarnessError.__init__(error, what, where=where, expected=expected, hint=hint)
    return error


class MeasurementError(HarnessError):
    """Something could not be measured."""


class NonFiniteOutput(MeasurementError):
    """A network wrote nan or inf, for this `person` of its batch."""

    person = 0


class JudgeDisagreement(MeasurementError):
    """Our statistics and the reference evaluator's differ."""


class CounterDisagreement(MeasurementError):
    """Operator counters differ in convolution or matrix work."""


class UserError(HarnessError):
    """Something that was handed in is wrong."""

    exit_code = 3


class SuiteError(UserError):
    """A suite file, a knob or an override."""


class DataError(UserError):
    """Annotations, images, boxes or predictions."""


class WeightsError(UserError):
    """A checkpoint file."""


class MissingPackage(UserError):
    """An optional package is not installed."""

    def __init__(self, feature: str, package: str, install: str) -> None:
        super().__init__(f"{feature} needs the package {package}, which is not installed", hint=install)


_NO_MEMORY = (
    "out of memory",  # CUDA
    "can't allocate memory", "cannot allocate memory", "not enough memory",  # torch on a CPU, the system
    "alloc_failed",  # cuBLAS, cuDNN
    "failed to allocate", "insufficient memory",  # onnxruntime, OpenCV
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice, of the machine or of a GPU. Libraries say it in words, not in a type."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _NO_MEMORY)


@contextmanager
def told(what: str, where: str = "", hint: str = "") -> Iterator[None]:
    """What goes wrong inside becomes a UserError: `what` was signed soundly, and is not what it should be."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{what} ({reason[:200]})", where=where, hint=hint) from error


def unknown_name(kind: str, name: str, known: Iterable[str], *, listing: str = "") -> tuple[str, str]:
    """(what, hint) for an unknown name: near ones first, then where all are listed.

    `listing` is the command that prints every known name; without it up to twenty are named.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else ""
    if listing:
        rest = f"`{listing}` lists all {len(names)}"
    else:
        rest = "known: " + ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    return f"unknown {kind} '{name}'", f"{hint} {rest}".strip()
