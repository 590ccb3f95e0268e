"""Trains variants one after the other in pieces of a few minutes, for machines that are lent for no longer.

python -m harness.cli.train_pieces --minutes 8 --out FOLDER VARIANT... -- OPTIONS OF `train`

A call lasts at most so many minutes; the same call goes on where the last one stopped. Runs with the interpreter that
is there and says which packages it lacks. Exit code 0: all are trained; 4: there is more to do.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["main"]

_NEEDED = ("cv2", "numpy", "pydantic", "rich", "safetensors", "scipy", "torch", "torchvision", "typer", "yaml")
_RESERVE = 30.0  # seconds to save a state and to end
_MORE = 4


def main(arguments: Sequence[str]) -> int:
    """Exit code."""
    own, options = _split(list(arguments))
    parsed = _parser().parse_args(own)
    lacking = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if lacking:
        print(f"error: {sys.executable} has no {', '.join(lacking)}\n  to do: {sys.executable} -m pip install -e .")
        return 3
    ends = time.monotonic() + parsed.minutes * 60
    for variant in parsed.variants:
        left = ends - time.monotonic() - _RESERVE
        if left <= 0:
            print(f"{variant}: the time is up before it began")
            return _MORE
        result = _train(variant, parsed.out / variant, left, options)
        if result is None:
            return 2
        speed, where = result["images_per_second"], f"{result['steps']} steps, loss {result['loss']:.4g}"
        print(f"{variant}: {'done' if result['done'] else 'so far'}, {where}, {speed:.0f} images/s", flush=True)
        if not result["done"]:
            return _MORE
    return 0


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """What stands before `--`, and the options of `train` behind it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("results/train"))
    return parser


def _train(variant: str, out: Path, seconds: float, options: Sequence[str]) -> dict[str, Any] | None:
    """What the verb `train` reports after at most `seconds`; None when it failed (its message is on stderr)."""
    command = [sys.executable, "-m", "harness", "train", variant, "--out", str(out), "--json", *options]
    done = subprocess.run([*command, "--minutes", f"{seconds / 60:.3f}"], stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout) if done.returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
