"""Names from files -> places below a root that the user named, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["climbs_out", "inside"]


def climbs_out(name: str) -> bool:
    """Whether a name is absolute or climbs out with '..', on any system, or is no name that a file can have."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.anchor or ".." in windows.parts or "\0" in name:
        return True
    try:
        os.fsencode(name)
    except UnicodeEncodeError:  # half a character, from an escape in JSON
        return True
    return False


def inside(root: Path, name: str) -> Path:
    """`root/name` without symbolic links. ValueError when that is not below `root`, or cannot be a name."""
    try:
        path, top = (root / name).resolve(), root.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null byte
        raise ValueError(f"'{name}' is no place below the root ({error})") from None
    if not path.is_relative_to(top):
        raise ValueError(f"'{name}' leaves its root" + ("" if climbs_out(name) else " through a symbolic link"))
    return path
