"""The state of a training run on disk: written whole or not at all, the last two kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from harness.errors import DataError, UserError
from harness.records.files import writing
from harness.train.recipes import flat

__all__ = ["clear", "load", "save", "tidy"]

_KEPT = 2


def save(folder: Path, step: int, state: Mapping[str, Any]) -> Path:
    """Write `state` (tensors and plain containers) as the state after `step` steps; older ones but one are dropped.

    The file appears under its name only when it is complete and on the disk, so a kill at any moment costs at most
    the steps since the last save. OSError when it cannot be written, a full disk for instance; the states before stay.
    """
    path = folder / f"state-{step:09d}.pt"
    with writing(path) as stream:
        _write(stream, {**state, "step": step})
    files = _files(folder)
    later = [file for file in files if file > path]  # damaged ones, passed over by `load`
    for old in [*later, *files[len(later) + _KEPT :]]:
        old.unlink(missing_ok=True)  # another process may be at the same training
    return path


def load(folder: Path, identity: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest readable state of `folder`, on the CPU; None where there is none.

    `identity` is what makes the run what it is; a state with another `identity` is a UserError naming what differs.
    A damaged file is passed over for the one before it; DataError when every one is damaged.
    """
    files = _files(folder)
    for path in files:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            found = dict(state["identity"])
        except Exception:  # a damaged file raises almost anything
            continue
        _check(path, found, identity)
        return state
    if files:
        raise DataError("no state of the run can be read", where=str(folder), hint="start anew with --no-resume")
    return None


def clear(folder: Path) -> None:
    """Remove the states of `folder`, those that a kill left half-written included."""
    for path in _files(folder):
        path.unlink(missing_ok=True)
    tidy(folder)


def tidy(folder: Path) -> None:
    """Remove what a kill left half-written: for a large network gigabytes each time."""
    for path in folder.glob(".state-*.tmp"):
        path.unlink(missing_ok=True)


def _write(stream: BinaryIO, content: Mapping[str, Any]) -> None:
    try:
        torch.save(dict(content), stream)
    except RuntimeError as error:  # torch's writer stumbles over the half-written file: the cause lies behind
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*.pt"), reverse=True)


def _check(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    there, now = flat(found), flat(wanted)
    differing = [key for key in {**there, **now} if there.get(key) != now.get(key)]
    if differing:
        text = "; ".join(f"{key}: {there.get(key)} there, {now.get(key)} now" for key in differing)
        raise UserError(
            f"the state belongs to another run ({text})",
            where=str(path),
            hint="give another --out, or start anew with --no-resume",
        )
