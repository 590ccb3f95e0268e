"""Names from files -> places below a root that the user named, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

__all__ = ["climbs_out", "ends_below", "inside", "linked_out"]

_LONGEST, _LONGEST_PART = 4000, 255  # what file systems take


def climbs_out(name: str) -> bool:
    """Whether a name is absolute or climbs out with '..', on any system, or is no name that a file can have."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    if posix.is_absolute() or windows.anchor or ".." in windows.parts or "\0" in name:
        return True
    try:
        return len(name) > _LONGEST or any(len(os.fsencode(part)) > _LONGEST_PART for part in posix.parts)
    except UnicodeEncodeError:  # half a character, from an escape in JSON
        return True


def inside(root: Path, name: str) -> Path:
    """`root/name` without symbolic links. ValueError when that is not below `root`, or cannot be a name."""
    try:
        path, top = (root / name).resolve(), root.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a null byte
        raise ValueError(f"'{name}' is no place below the root ({error})") from None
    if not path.is_relative_to(top):
        raise ValueError(f"'{name}' leaves its root" + ("" if climbs_out(name) else " through a symbolic link"))
    return path


def linked_out(folder: Path, names: Iterable[str], root: Path) -> str | None:
    """The first of `names` (files below `folder`) that a symbolic link on the way leads out of `root`."""
    top, linked = root.resolve(), {"": False}  # type: tuple[Path, dict[str, bool]]
    for name in names:
        parent = name.rpartition("/")[0]
        if parent not in linked:
            way = [folder / parent, *(folder / p for p in Path(parent).parents if p.parts)]
            linked[parent] = any(p.is_symlink() for p in way)
        path = folder / name
        if (linked[parent] or path.is_symlink()) and not ends_below(path, top):
            return name
    return None


def ends_below(path: Path, top: Path) -> bool:
    """Whether `path` is below the folder `top` when all symbolic links are followed."""
    try:
        return path.resolve().is_relative_to(top.resolve())
    except (OSError, RuntimeError):  # links in a circle
        return False
