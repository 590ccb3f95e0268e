"""Valid files, and what is done to them: `fuzz.bytes` and `fuzz.trees` change them and read the result.

Reading may refuse with an error of ours and nothing else: no other exception, no more than `_SECONDS` of the processor,
no memory beyond `_BYTES`. The same examples on every run: 300 of each kind of file in an ordinary run, 10,000 in
`make test-slow`.
"""

from __future__ import annotations

import copy
import math
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.errors import HarnessError
from harness.method import variants

_SECONDS, _BYTES = 20, 4 << 30
_STEPS = st.lists(st.tuples(*[st.integers(0, 2**16 - 1)] * 3, st.integers(0, 255)), min_size=1, max_size=4)
Step = tuple[int, int, int, int]  # where, how far or from where, which of the hostile values; what to do

_TOKENS = [
    b"[" * 3000, b"{\"a\":" * 3000, b"9" * 5000, b"1e999", b"-", b"NaN", b"\0", b"\xff" * 8, b"\x7f\xff\xff\xff",
    b"\x80\x02cposix\nmkdir\n", b"!!python/object/apply:os.system ['true']", b"&a [*a, *a]", b"*a", b"<<: ", b"? ",
    b"../../", b"null", b"true", b"\"a\":1,\"a\":2", b"2001-99-99", b"\xed\xa0\x80",
    b"0x" + b"f" * 5000, b"r\xff\xff\xff\xff",
]  # fmt: skip
_VALUES: list[Any] = [
    None, True, -1, 0, 0.5, 1e308, -1e308, math.nan, math.inf, 10**30, 2**63, -(2**63), 10**400, "", "\0", "\ud800",
    "a" * 20_000, "../../etc/passwd", "/etc/passwd", "C:\\windows", "<script>x</script>", "\\input{x}", "NaN", "1",
    [], {}, [[]], [None], ["x"], {"a": {"b": [1]}}, [1, 2], "50000x50000", "always",
]  # fmt: skip


def changed_bytes(data: bytes, steps: Sequence[Step], other: bytes) -> bytes:
    """`data` with bits flipped, parts cut out, doubled, taken from `other`, and hostile tokens put in."""
    for place, far, which, what in steps:
        at = place * max(len(data), 1) >> 16
        end = at + 1 + (far * far * (len(data) - at) >> 32)
        match what % 7:
            case 0 | 1:
                data = data[:at] + bytes([data[at] ^ 1 << which % 8]) + data[at + 1 :] if data else data
            case 2:
                data = data[:at]
            case 3:
                data = data[:at] + data[end:]
            case 4:
                data = data[:end] + data[at:end] + data[end:]
            case 5:
                start = which * len(other) >> 16
                data = data[:at] + other[start : start + end - at] + data[end:]
            case _:
                data = data[:at] + _TOKENS[which % len(_TOKENS)] + data[end if what % 2 else at :]
    return data


def changed_tree(tree: Any, steps: Sequence[Step]) -> Any:
    """A copy of `tree` with values of another type, without some, with doubled, wrapped and exchanged ones."""
    tree = copy.deepcopy(tree)
    for place, far, which, what in steps:
        places = list(_places(tree))
        if not places:
            return _VALUES[which % len(_VALUES)]
        holder, key = places[place * len(places) >> 16]
        match what % 8:
            case 0 | 1 | 2 | 3:
                holder[key] = copy.deepcopy(_VALUES[which % len(_VALUES)])
            case 4:
                del holder[key]
            case 5:
                holder[key] = [holder[key]] * (1 + which % 3)
            case 6:
                other, name = places[far * len(places) >> 16]
                holder[key] = copy.deepcopy(other[name])
            case _:
                if isinstance(holder, list):
                    holder.append(copy.deepcopy(holder[key]))
                else:
                    holder[f"{key}x"] = holder.pop(key)
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


@contextmanager
def _bounds() -> Iterator[None]:
    """No more memory than now and `_BYTES` on top."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


class Late(BaseException):
    """Too long; no `except Exception` takes it for a damaged file."""


def _late(*_: Any) -> None:
    raise Late(f"longer than {_SECONDS} s")


def _survives(read: Callable[[Any], object], hostile: Any) -> None:
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    try:
        read(hostile)
    except HarnessError as error:
        assert str(error)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class Fuzz:
    """`examples` changes each; the files that are changed take turns."""

    def __init__(self, examples: int) -> None:
        self.examples = examples

    def bytes(self, valid: Sequence[bytes], read: Callable[[bytes], object]) -> None:
        def change(which: int, steps: Sequence[Step]) -> bytes:
            return changed_bytes(valid[which % len(valid)], steps, valid[(which + 1) % len(valid)])

        self._run(change, read)

    def trees(self, valid: Sequence[Any], read: Callable[[Any], object]) -> None:
        self._run(lambda which, steps: changed_tree(valid[which % len(valid)], steps), read)

    def _run(self, change: Callable[[int, Sequence[Step]], Any], read: Callable[[Any], object]) -> None:
        @settings(
            max_examples=self.examples, derandomize=True, database=None, deadline=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.integers(0, 99), _STEPS)
        def hostile(which: int, steps: Sequence[Step]) -> None:
            _survives(read, change(which, steps))

        variants()  # the networks are imported before the clock runs
        before = signal.signal(signal.SIGPROF, _late)
        try:
            with _bounds():
                hostile()
        finally:
            signal.signal(signal.SIGPROF, before)


@pytest.fixture(params=[300, pytest.param(10_000, marks=pytest.mark.slow)])
def fuzz(request) -> Fuzz:
    """Changes valid files and reads them; see the top of this file. The tests of a module share the examples."""
    return Fuzz(-(-request.param // sum(name.startswith("test_") for name in vars(request.module))))
