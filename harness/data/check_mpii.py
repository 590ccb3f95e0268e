"""What is wrong with MPII's list of persons, its images and its head boxes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from harness.data import mpii
from harness.data.annotation_file import parse_json
from harness.data.check_images import Fault, Progress, image_files
from harness.data.reading import header_size
from harness.errors import DataError
from harness.pose.skeletons import MPII

__all__ = ["check_mpii"]

_EDGE = 1.0  # pixels that rounding may put a joint outside its image


def check_mpii(file: Path, folder: Path, heads: Path | None, progress: Progress | None) -> Iterator[Fault]:
    """All faults; head boxes are looked at where a mat file is given."""
    try:
        content: list[Any] = parse_json(file, "annotation file")
    except DataError as error:
        yield Fault("annotation file", error.where, error.what, error.hint or error.expected)
        return
    sound = []
    for number, entry in enumerate(content):
        faults = mpii.entry_faults(entry)
        for what in faults:
            hint = "image, center, scale, 16 joints and 16 joints_vis, as HRNet's JSON files have them"
            yield Fault("person", f"{file.name}, entry {number}", what, hint)
        if not faults:
            sound.append((number, mpii.entry_of(entry)))
    names = dict.fromkeys(entry.image for _, entry in sound)
    yield from image_files([{"id": i, "file_name": name} for i, name in enumerate(names, start=1)], folder, progress)
    sizes = {name: size for name in names if (size := _size(folder / name)) is not None}
    for number, entry in sound:
        if entry.image in sizes:
            yield from _outside(entry, sizes[entry.image], f"{file.name}, entry {number}")
    if not any(entry.visible.any() for _, entry in sound):
        yield Fault("no persons", str(file), "no person with a labelled joint", "PCKh is undefined without them")
    if heads is not None and len(sound) == len(content):
        yield from _heads(file, folder, heads)


def _size(path: Path) -> tuple[int, int] | None:
    try:
        return header_size(path)
    except DataError:  # told with the image files
        return None


def _outside(entry: mpii.Entry, size: tuple[int, int], where: str) -> Iterator[Fault]:
    beyond = (entry.joints < 1 - _EDGE) | (entry.joints > np.array(size) + _EDGE)
    names = [MPII.joints[j] for j in np.flatnonzero(beyond.any(axis=1) & entry.visible)]
    if names:
        what = f"outside the image of {size[0]}x{size[1]}: {', '.join(names)}"
        yield Fault("joint outside", where, what, "correct it, or set its joints_vis to 0")


def _heads(file: Path, folder: Path, heads: Path) -> Iterator[Fault]:
    try:
        mpii.load(file, folder, heads=heads)
    except DataError as error:
        yield Fault("head boxes", error.where, error.what, error.hint or error.expected)
