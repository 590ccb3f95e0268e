"""Files of a store as bytes, to go from one machine to another. Torch-free."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from harness.errors import MeasurementError
from harness.records.store import write_atomically

__all__ = ["Parcel", "pack", "unpack"]

Parcel = Mapping[str, bytes]
"""content by path below the store's folder"""

_PARTS = ("records", "arrays", "passes", "trained")
_SEALS = ("complete.json", ".safetensors")  # a folder that has one is whole


def pack(folder: Path, places: Iterable[Path] | None = None) -> dict[str, bytes]:
    """What is at `places` (files or folders below the store's `folder`; those that are missing are passed over), or
    all that a store keeps for good. Files that are being written are left out."""
    found: dict[str, bytes] = {}
    for place in places if places is not None else [folder / part for part in _PARTS]:
        for path in [place] if place.is_file() else sorted(place.rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                found[path.relative_to(folder).as_posix()] = path.read_bytes()
    return found


def unpack(folder: Path, parcel: Parcel) -> None:
    """Write a parcel into a store, what others depend on first, so that a kill leaves no record without its arrays.

    Raises MeasurementError for a name outside the store, before anything is written.
    """
    for name in parcel:
        parts = PurePosixPath(name).parts
        if not parts or parts[0] not in _PARTS or ".." in parts:
            raise MeasurementError(f"a parcel holds '{name}'", expected=f"files below {', '.join(_PARTS)}")
    for name in sorted(parcel, key=_order):
        write_atomically(folder / name, parcel[name])


def _order(name: str) -> tuple[bool, bool, str]:
    return name.startswith("records/"), name.endswith(_SEALS), name
