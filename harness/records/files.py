"""Files that are whole or not there: written atomically, arrays with checksums. Torch-free.

No locks: a rename is atomic on a disk and on a network file system, and two processes that write the same file write
the same content.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from harness.errors import UserError
from harness.foreign import Refused
from harness.foreign.arrays import read_npz

__all__ = ["decode_arrays", "is_sound", "load_arrays", "read_whole", "save_arrays", "write_atomically", "writing"]

_UMASK = os.umask(0)
os.umask(_UMASK)
_TRIES = 3
_SEAL = hashlib.sha256().digest_size
_END = re.compile(rb"PK\x05\x06.{16}\0\0", re.DOTALL)  # of a zip without comment
_NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES}  # of a folder: some network file systems


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose content is found under `path` once the block has ended without an error, on the disk and whole.

    A reader sees the old file or the new one, whatever happens. OSError when it cannot be written; `path` stays.
    """
    _make(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_atomically(path: Path, data: bytes) -> None:
    """Write, flush to disk, rename, flush the folder: a reader sees the old file or the whole new one."""
    for left in reversed(range(_TRIES)):
        try:
            with writing(path) as stream:
                stream.write(data)
            return
        except FileNotFoundError:  # a clean-up by a machine whose clock is ahead took the temporary file
            if not left:
                raise


def read_whole(path: Path) -> bytes:
    """The bytes of a file that others may replace meanwhile. OSError."""
    for _ in range(_TRIES):
        try:
            return path.read_bytes()
        except OSError as error:
            if error.errno != errno.ESTALE:  # NFS: the file was replaced between opening and reading
                raise
    return path.read_bytes()


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an .npz atomically, with the SHA-256 of all its bytes, so that damage is noticed on reading."""
    buffer = io.BytesIO()
    np.savez(buffer, **dict(arrays))  # type: ignore[arg-type]
    write_atomically(path, _sealed(buffer.getvalue()))


def load_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz, None when it is missing or damaged. UserError for one that holds Python objects."""
    try:
        return decode_arrays(read_whole(path))
    except Refused as error:
        raise UserError(str(error), where=str(path), hint="delete it; `paretopose run` measures again") from None
    except OSError:
        return None


def decode_arrays(data: bytes) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz in memory, None when a single bit of it is wrong. Refused for one of Python objects."""
    plain = _is_plain(data)
    if not plain and not is_sound(data):
        return None
    try:
        return read_npz(io.BytesIO(data))
    except Refused:
        raise
    except MemoryError:
        if plain:
            return None
        raise
    except (ValueError, OSError):
        return None


def is_sound(data: bytes) -> bool:
    """Every bit of an .npz in memory is as it was written, and it is one that is read."""
    if _is_plain(data):
        try:
            return decode_arrays(data) is not None
        except Refused:
            return False
    return data == _sealed(data[: -2 - _SEAL] + bytes(2))


def _is_plain(data: bytes) -> bool:
    """Of an older version, without digest: the checksums of the zip have to do."""
    return _END.match(data[-22:]) is not None


def _sealed(archive: bytes) -> bytes:
    """A zip archive without comment -> the same with its SHA-256 as comment: a flipped bit in its list of contents
    would hide an array, and no checksum of the zip's own would tell."""
    return archive[:-2] + _SEAL.to_bytes(2, "little") + hashlib.sha256(archive).digest()


def _make(folder: Path) -> None:
    """`folder` with its parents, entered on the disk."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        _sync(place.parent)


def _sync(folder: Path) -> None:
    """The folder's list of files on the disk as well, where the system can do that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
