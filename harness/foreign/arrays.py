""".npy and .npz files: numbers and texts only, no larger than the file says it can be, every fault a ValueError."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np

from harness.foreign import Refused
from harness.foreign.pickles import names_in
from harness.foreign.places import climbs_out

__all__ = ["names_in_npz", "read_npy", "read_npz"]

_HEADERS: Mapping[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_KINDS = "biufcSU"
_Found = TypeVar("_Found")
_FREE, _EXPANSION = 64 << 20, 200  # bytes; an archive may unpack to the first, and to so many times its own size


def read_npy(path: Path) -> np.ndarray:
    """The array of a .npy file. ValueError: damaged, larger than the file, of Python objects; OSError: not there."""
    with path.open("rb") as stream:
        _check(stream, path.stat().st_size)
        stream.seek(0)
        return np.lib.format.read_array(stream, allow_pickle=False)


def read_npz(source: Path | io.BytesIO) -> dict[str, np.ndarray]:
    """The arrays of a .npz archive by name; ValueError and OSError as `read_npy`, with the member named."""
    return _each(source, _member)


def names_in_npz(source: Path | io.BytesIO) -> list[str]:
    """The names of the arrays of a .npz archive, of which only the headers are read; errors as `read_npz`."""
    return list(_each(source, _check_member))


def _each(source: Path | io.BytesIO, look: Callable[[zipfile.ZipFile, zipfile.ZipInfo], _Found]) -> dict[str, _Found]:
    size = source.stat().st_size if isinstance(source, Path) else source.getbuffer().nbytes
    try:
        with zipfile.ZipFile(source) as archive:
            _check_members(archive.infolist(), size)
            return {info.filename.removesuffix(".npy"): look(archive, info) for info in archive.infolist()}
    except (ValueError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged archive raises almost anything
        raise ValueError(f"not an archive of arrays ({error or type(error).__name__})") from None


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    _check_member(archive, info)
    with _named_faults(info), archive.open(info) as stream:
        return np.lib.format.read_array(stream, allow_pickle=False)


def _check_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    with _named_faults(info), archive.open(info) as stream:
        _check(stream, info.file_size)


@contextmanager
def _named_faults(info: zipfile.ZipInfo) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise (Refused if isinstance(error, Refused) else ValueError)(f"{info.filename}: {error}") from None


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    seen: set[str] = set()
    for name in (member.filename for member in members):
        if climbs_out(name) or name in seen:
            raise Refused(f"refused: the member {name[:100]!r} leaves the archive or is there twice")
        seen.add(name)
    unpacked = sum(member.file_size for member in members)
    if unpacked > _FREE + _EXPANSION * size:
        raise Refused(f"refused: its {size} bytes would unpack to {unpacked}")


def _check(stream: IO[bytes], size: int) -> None:
    """ValueError unless `stream`, of `size` bytes, is an array of numbers or texts that is all there."""
    try:
        shape, dtype = _header(stream)
    except ValueError:
        raise
    except Exception as error:  # a damaged header raises almost anything
        raise ValueError(f"not an array ({type(error).__name__}: {error})") from None
    rest = size - stream.tell()
    if dtype.hasobject:
        raise Refused(f"refused: a pickle of Python objects{_named(stream.read(_FREE))}")
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise Refused(f"refused: an array of {dtype}")
    if min(shape, default=1) < 0 or math.prod(shape) * dtype.itemsize != rest:
        raise ValueError(f"the header promises {dtype} of shape {shape}, and {rest} bytes follow")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    magic = stream.read(8)
    if magic[:1] == b"\x80":
        raise Refused(f"refused: a pickle and no array{_named(magic + stream.read(_FREE))}")
    if magic[:2] == b"PK":
        raise ValueError("several arrays in an archive (.npz)")
    version = np.lib.format.read_magic(io.BytesIO(magic))
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def _named(data: bytes) -> str:
    """What a pickle wants to use, as a part of a message; nothing of it is executed."""
    names = ", ".join(names_in(data)[:5])
    return f" that wants to use {names}; nothing of it was executed" if names else ""
