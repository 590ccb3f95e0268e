"""MATLAB files, read in a process of its own: scipy's reader believes what a damaged file says of itself.

Such a file can end that process, or fill the memory that it is allowed; it cannot make it run anything. What comes back
are plain arrays.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.apart import ended, program
from harness.errors import DataError
from harness.foreign.arrays import read_npz

__all__ = ["answer", "read_arrays"]

_BYTES = 4 << 30  # MPII's release needs a quarter of it
_SECONDS = 300
_HEAD = b"PPMAT"  # before the answer: what others print is none


def read_arrays(path: Path, names: Sequence[str], most_bytes: int = _BYTES) -> dict[str, np.ndarray]:
    """The arrays of numbers among the variables `names`, by name.

    MPII's `RELEASE` comes as `RELEASE.image` (P,) file names, `RELEASE.center` (P, 2) in pixels from 1 and
    `RELEASE.head` (P, 4) corners, of all persons who have both. DataError for what is no mat file, a damaged one, one
    of version 7.3, one that takes more than `most_bytes` of memory, and one that holds none of `names`.
    """
    if not path.is_file():
        raise DataError("there is no such mat file", where=str(path), expected="a mat file")
    try:
        done = subprocess.run(
            **program("harness.data.mat_file", OPENBLAS_NUM_THREADS="1"),
            input=json.dumps([str(path.resolve()), list(names), most_bytes]).encode(),
            capture_output=True, timeout=2 * _SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise _damaged(path, f"it was not read within {2 * _SECONDS} s") from None
    _, found, content = done.stdout.partition(_HEAD)
    if done.returncode < 0 or not found:
        raise _damaged(path, f"the process that read it ended with {ended(done.returncode)}")
    if done.returncode:
        raise DataError(**json.loads(content))
    return read_npz(io.BytesIO(content))


def answer(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """What `read_arrays` gives, read in this process."""
    shapes = _variables(path)
    if not shapes.keys() & set(names):
        named = ", ".join(sorted(shapes)[:10]) or "nothing"
        raise DataError(f"no {' or '.join(names)} in it: it holds {named}", where=str(path))
    plain = [name for name in names if name in shapes and name != "RELEASE"]
    found = {name: np.asarray(value) for name, value in _load(path, plain).items() if name in plain}
    if "RELEASE" in shapes and "RELEASE" in names:
        found |= _release(_load(path, ["RELEASE"], struct_as_record=False, squeeze_me=True)["RELEASE"])
    odd = [name for name, value in found.items() if value.dtype.kind not in "biufU"]
    if odd:
        raise DataError(f"{odd[0]} holds no numbers", where=str(path), expected="an array of numbers")
    return found


def _variables(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes by name."""
    from scipy.io import whosmat

    try:
        return {name: tuple(shape) for name, shape, _ in whosmat(str(path))}
    except NotImplementedError:
        hint = "save it again with -v7"
        raise DataError("a mat file of version 7.3", where=str(path), expected="version 5 to 7", hint=hint) from None
    except Exception as error:  # a damaged file raises almost anything
        raise _damaged(path, error) from None


def _load(path: Path, names: Sequence[str], **how: Any) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        return loadmat(str(path), variable_names=list(names), **how) if names else {}
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises almost anything
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception | str) -> DataError:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    hint = "copy or download the file again"
    return DataError(f"the file is damaged or no mat file ({reason})", where=str(path), hint=hint)


# -- MPII's release ------------------------------------------------------------------------------------------------


def _release(release: Any) -> dict[str, np.ndarray]:
    names, centers, heads = [], [], []
    for image in _listed(getattr(release, "annolist", ())):
        name = str(getattr(getattr(image, "image", None), "name", ""))
        for person in _listed(getattr(image, "annorect", ())):
            at = getattr(person, "objpos", None)
            center = _plain([getattr(at, axis, None) for axis in ("x", "y")])
            head = _plain([getattr(person, corner, None) for corner in ("x1", "y1", "x2", "y2")])
            if center is not None and head is not None:
                names.append(name)
                centers.append(center)
                heads.append(head)
    return {
        "RELEASE.image": np.array(names, dtype=str),
        "RELEASE.center": np.array(centers, dtype=np.float64).reshape(-1, 2),
        "RELEASE.head": np.array(heads, dtype=np.float64).reshape(-1, 4),
    }


def _listed(value: Any) -> Iterator[Any]:
    """The structures in what MATLAB had as a list: squeezing leaves a single one bare."""
    if not isinstance(value, np.ndarray):
        yield value
    elif value.dtype.hasobject:
        yield from value.ravel()


def _plain(values: Sequence[Any]) -> np.ndarray | None:
    """Finite numbers as an array; None where one is missing, empty or no number."""
    try:
        array = np.array([float(np.asarray(v).item()) for v in values])
    except (TypeError, ValueError, OverflowError):
        return None
    return array if np.isfinite(array).all() else None


# -- the process of its own ----------------------------------------------------------------------------------------


def _main() -> int:
    path, names, most_bytes = json.loads(sys.stdin.buffer.read())
    _limit(most_bytes)
    try:
        stream = io.BytesIO()
        np.savez(stream, **answer(Path(path), names))  # type: ignore[arg-type]
        content, code = stream.getvalue(), 0
    except DataError as error:
        content, code = _told(error), error.exit_code
    except MemoryError:
        what = f"reading it takes more than {most_bytes / 2**30:.1f} GiB of memory, which is refused"
        content, code = _told(DataError(what, where=path)), DataError.exit_code
    sys.stdout.buffer.write(_HEAD + content)
    return code


def _told(error: DataError) -> bytes:
    return json.dumps({n: getattr(error, n) for n in ("what", "where", "expected", "hint")}).encode()


def _limit(most_bytes: int) -> None:
    """Memory and time, where the system can limit them."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    sys.exit(_main())
