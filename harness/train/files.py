"""Tensor files: safetensors, torch zip and legacy files, detectron2's pickles. Nothing in a file is ever
executed.

What a file is, is decided by its first bytes, not by its name.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from harness.errors import WeightsError
from harness.foreign import Refused
from harness.foreign.arrays import names_in_npz
from harness.foreign.pickles import ADMITTED, Array, RefusedName, check_opcodes, load_plain
from harness.foreign.places import climbs_out
from harness.records.files import write_atomically

__all__ = ["read", "write"]

_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # magic number of torch.save before 1.6
_READABLE = "safetensors, a torch file or a pickle of plain arrays"
_STATE_ALONE = "where the file came from, save the state dict alone or safetensors"
# where training code keeps the network in what it saves; the first one that holds tensors is taken
_WRAPPERS = ("state_dict", "model", "model_state_dict", "best_state_dict")


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
    if head[:4] == b"PK\x03\x04" and _is_npz(path):
        _refuse_npz(path)
    if head[:4] == b"PK\x03\x04" or head.startswith(_TORCH_LEGACY):
        return _unwrap(_read_torch(path, head), path)
    if head[8:9] == b"{":  # before the next: the length of a safetensors header can begin with 0x80 as well
        return _read_safetensors(path)
    if head[:1] == b"\x80":
        return _unwrap(_read_pickle(path), path)
    raise WeightsError(
        "not a checkpoint",
        where=str(path),
        expected=_READABLE,
        hint="the method `onnx` opens it: `paretopose cost onnx --weights FILE`" if path.suffix == ".onnx" else "",
    )


def write(path: Path, state: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write safetensors; whoever reads `path` meanwhile sees the old file or the new one, never a part."""
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    write_atomically(path, safetensors.torch.save(tensors, metadata=dict(metadata or {})))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            return state, dict(file.metadata() or {})
    except Exception as error:  # SafetensorError, and torch's for number formats that it does not have
        _broken(path, error)


def _read_torch(path: Path, head: bytes) -> object:
    stand_ins: list[Any] = [*((value, name) for name, value in ADMITTED.items()), *((_Inert, name) for name in _INERT)]
    try:
        _check_legacy(path) if head.startswith(_TORCH_LEGACY) else _check_archive(path)
        with torch.serialization.safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True)
    except RefusedName as error:
        _refuse(path, str(error))
    except Exception as error:  # a damaged file raises almost anything
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named:
            _refuse(path, f"it wants to use {named[1]}")
        _broken(path, error)


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    except Exception:  # a damaged archive raises almost anything; who reads it says so
        return False


def _refuse_npz(path: Path) -> NoReturn:
    """Python objects are refused by name, as in a pickle; an archive of arrays is no checkpoint."""
    try:
        names = names_in_npz(path)
    except Refused as error:
        raise WeightsError(str(error), where=str(path), expected=_READABLE, hint=_STATE_ALONE) from None
    except (ValueError, OSError, MemoryError) as error:
        _broken(path, error)
    some = ", ".join(repr(name[:60]) for name in names[:5]) + (", ..." if len(names) > 5 else "")
    raise WeightsError(
        f"not a checkpoint: a .npz archive of arrays ({some})",
        where=str(path),
        expected=_READABLE,
        hint="if its names are a network's: safetensors.numpy.save_file(dict(numpy.load(FILE)), 'weights.safetensors')",
    )


def _check_archive(path: Path) -> None:
    """torch stores its tensors as they are: what is packed, or larger than the file, is there to fill the memory."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        for member in members:
            if member.filename.endswith(".pkl"):
                with archive.open(member) as stream:
                    check_opcodes(stream, member.file_size)
    for member in members:
        if climbs_out(member.filename):
            raise RefusedName(f"the place {member.filename[:100]!r}")
        if member.compress_type != zipfile.ZIP_STORED:
            raise RefusedName(f"a packed member, {member.filename[:100]!r}, of {member.file_size} bytes")
    if sum(member.file_size for member in members) > path.stat().st_size:
        raise ValueError("its members are larger than the file")


def _check_legacy(path: Path) -> None:
    """Five pickles, one behind the other, before the numbers."""
    with path.open("rb") as stream:
        for _ in range(5):
            check_opcodes(stream, path.stat().st_size)


def _read_pickle(path: Path) -> object:
    try:
        return load_plain(path.read_bytes())
    except RefusedName as error:
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
    state = {str(k): _tensor(v, str(k), path) for k, v in inner.items() if isinstance(v, Tensor | Array)}
    if not state:
        raise WeightsError("not a checkpoint: no tensors in it", where=str(path), expected="named tensors")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    beside: dict[Any, Any] = {
        **content,
        **(content["meta"] if isinstance(content.get("meta"), Mapping) else {}),
    }
    return state, {str(k): str(v) for k, v in beside.items() if _is_plain(v)}


def _is_plain(value: object) -> bool:
    return isinstance(value, str | float) or (isinstance(value, int) and value.bit_length() <= 64)


def _tensor(value: Tensor | Array, name: str, path: Path) -> Tensor:
    if isinstance(value, Array):
        try:
            return torch.from_numpy(value.values.astype(value.values.dtype.newbyteorder("=")))
        except TypeError:
            what = f"{name[:100]} is an array of {value.values.dtype}"
            raise WeightsError(what, where=str(path), expected="arrays of numbers") from None
    plain = value.layout is torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        # one stored number can be a tensor of any size; whoever copies it fills the memory
        _refuse(path, f"{name[:100]} of shape {tuple(value.shape)} is no tensor whose values are all in the file")
    return value


def _refuse(path: Path, reason: str) -> NoReturn:
    raise WeightsError(
        f"refused: {reason}; nothing of it was executed",
        where=str(path),
        expected="tensors, numbers, texts and plain containers",
        hint=_STATE_ALONE,
    )


def _broken(path: Path, error: Exception) -> NoReturn:
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    raise WeightsError(
        f"the file is damaged or not a checkpoint ({reason})",
        where=str(path),
        hint="compare its size and SHA-256 with the source, download it again",
    ) from error
