"""Tensor files: safetensors, torch zip and legacy files, detectron2's pickles. Nothing in a file is ever
executed.

What a file is, is decided by its first bytes, not by its name.
"""

from __future__ import annotations

import _codecs
import hashlib
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy._core import multiarray
from torch import Tensor

from harness.errors import WeightsError

__all__ = ["read", "sha256", "write"]

_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # magic number of torch.save before 1.6
# where training code keeps the network in what it saves; the first one that holds tensors is taken
_WRAPPERS = ("state_dict", "model", "model_state_dict", "best_state_dict")

_NUMPY: dict[str, Any] = {
    **{
        f"numpy.{core}.multiarray.{name}": getattr(multiarray, name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    },
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "_codecs.encode": _codecs.encode,
}
"""The only callables a pickle may name, besides torch's own tensor rebuilders: they make plain arrays."""


class _Inert:
    """Stands in for a logging object of a training framework; holds nothing and does nothing."""

    def __setstate__(self, state: object) -> None:
        pass


# mmengine puts its log history beside the weights
_INERT = ("mmengine.logging.history_buffer.HistoryBuffer",)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(state dict, metadata) of a checkpoint file; wrappers and the prefix `module.` are taken off.

    Raises WeightsError when the file is missing, truncated, no checkpoint, or names a callable to execute.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError("no such file", where=str(path))
    with path.open("rb") as file:
        head = file.read(32)
    if head[:4] == b"PK\x03\x04" or head.startswith(_TORCH_LEGACY):
        return _unwrap(_read_torch(path), path)
    if head[8:9] == b"{":  # before the next: the length of a safetensors header can begin with 0x80 as well
        return _read_safetensors(path)
    if head[:1] == b"\x80":
        return _unwrap(_read_pickle(path), path)
    raise WeightsError(
        "not a checkpoint",
        where=str(path),
        expected="safetensors, a torch file or a pickle of plain arrays",
        hint="the method `onnx` opens it: `paretopose cost onnx --weights FILE`" if path.suffix == ".onnx" else "",
    )


def write(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors; whoever reads `path` meanwhile sees the old file or the new one, never a part."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    data = safetensors.torch.save(tensors, metadata=dict(metadata or {}))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return state, dict(file.metadata() or {})
    except safetensors.SafetensorError as error:
        _broken(path, error)


def _read_torch(path: Path) -> object:
    dtypes = [getattr(np.dtypes, name) for name in np.dtypes.__all__ if name.endswith("DType")]
    allowed = [
        *((value, name) for name, value in _NUMPY.items()),
        *((_Inert, name) for name in _INERT),
        *dtypes,
    ]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises almost anything
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            _refuse(path, named[1])
        _broken(path, error)


class _RefusedError(Exception):
    """A pickle named something that is not on the list."""


class _PlainUnpickler(pickle.Unpickler):
    """Admits containers and numpy arrays; pickle itself makes the containers without naming anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        full = f"{module}.{name}"
        if full not in _NUMPY:
            raise _RefusedError(full)
        return _NUMPY[full]


def _read_pickle(path: Path) -> object:
    try:
        with path.open("rb") as file:
            # latin1: detectron2's model zoo was pickled by Python 2
            return _PlainUnpickler(file, encoding="latin1").load()
    except _RefusedError as error:
        _refuse(path, str(error))
    except Exception as error:  # a damaged pickle raises almost anything
        _broken(path, error)


def _unwrap(content: object, path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict inside what training code saved, and the plain texts and numbers beside it."""
    if not isinstance(content, Mapping):
        raise WeightsError(
            f"not a checkpoint: it holds a {type(content).__name__}",
            where=str(path),
            expected="named tensors",
        )
    inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), content)
    state = {str(k): _tensor(v) for k, v in inner.items() if isinstance(v, Tensor | np.ndarray)}
    if not state:
        raise WeightsError("not a checkpoint: no tensors in it", where=str(path), expected="named tensors")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    beside: dict[Any, Any] = {
        **content,
        **(content["meta"] if isinstance(content.get("meta"), Mapping) else {}),
    }
    return state, {str(k): str(v) for k, v in beside.items() if isinstance(v, str | int | float)}


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def _refuse(path: Path, name: str) -> NoReturn:
    raise WeightsError(
        f"refused: the file wants to use {name}; nothing of it was executed",
        where=str(path),
        expected="tensors, numbers, texts and plain containers",
        hint="where the file came from, save the state dict alone or safetensors",
    )


def _broken(path: Path, error: Exception) -> NoReturn:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    raise WeightsError(
        f"the file is damaged or not a checkpoint ({reason})",
        where=str(path),
        hint="compare its size and SHA-256 with the source, download it again",
    ) from error
