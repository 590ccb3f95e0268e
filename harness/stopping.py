"""A run that is asked to stop (SIGTERM, Ctrl-C) finishes its batch, keeps it and leaves with the signal's exit code.

Signals belong to the process, so what was asked is kept here, once for all that works in it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "asked", "check", "graceful", "postponed"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SAID = b"\nfinishing this batch, then stopping; Ctrl-C now stops at once\n"
_asked = 0  # the signal, 0 while there was none
_postponed = False


class Stopped(SystemExit):
    """Raised where all that was done is on the disk. The code is 128 + signal: 143 for SIGTERM, 130 for Ctrl-C."""


def asked() -> bool:
    """Somebody wants this process to stop."""
    return _asked != 0 and not _postponed


def check() -> None:
    """Stopped, when somebody wants this process to stop. Called where nothing is lost by it."""
    if asked():
        raise Stopped(128 + _asked)


@contextmanager
def postponed() -> Iterator[None]:
    """Within it nobody is told to stop: what belongs to a step that is saved as a whole."""
    global _postponed
    before, _postponed = _postponed, True
    try:
        yield
    finally:
        _postponed = before


@contextmanager
def graceful() -> Iterator[None]:
    """Within it SIGTERM and the first Ctrl-C only ask (`asked`, `check`); the next Ctrl-C interrupts at once.

    Outside the main thread, which alone may handle signals, it changes nothing.
    """
    global _asked
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        global _asked
        if os.getpid() != owner:  # a worker that was forked: whoever started it decides
            return
        if _asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not _asked:
            os.write(2, _SAID)  # print might have been interrupted in the middle of its own buffer
        _asked = number

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
        check()
    except Stopped:
        print("stopped; what was done is kept, and the same command goes on from there", file=sys.stderr)
        raise
    finally:
        _asked = 0
        for number, handler in before.items():
            signal.signal(number, handler)
