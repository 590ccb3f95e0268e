"""Modules of this package as programs of their own: what happens in them ends with them."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

__all__ = ["ended", "program"]

_PROJECT = Path(__file__).resolve().parents[2]


def program(module: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """`args` and `env` for `subprocess`, from any folder. Not multiprocessing: that imports the user's script again."""
    places = os.pathsep.join([str(_PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {
        "args": [sys.executable, "-m", module, *arguments],
        "env": os.environ | {"PYTHONPATH": places} | environment,
    }


def ended(code: int) -> str:
    """How a process ended: SIGKILL, exit 1."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}"
