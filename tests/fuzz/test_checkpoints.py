"""Weights and arrays that somebody damaged, or made to do damage."""

from __future__ import annotations

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch

from harness.errors import DataError
from harness.foreign.arrays import read_npy, read_npz
from harness.train.files import read

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2), "steps": torch.tensor(3)}
ARRAYS = {name: value.numpy() for name, value in STATE.items()}


class _Planted:
    def __reduce__(self):
        return os._exit, (99,)


def _saved(content, **how) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **how)
    return stream.getvalue()


def _arrays(save, *values, **named) -> bytes:
    stream = io.BytesIO()
    save(stream, *values, **named)
    return stream.getvalue()


CHECKPOINTS = [
    _saved({"state_dict": STATE, "meta": {"epoch": 3, "lr": np.float64(0.1)}}),
    _saved(STATE, _use_new_zipfile_serialization=False),
    _saved({"state_dict": STATE, "extra": _Planted()}),
    pickle.dumps({"model": ARRAYS, "__author__": "somebody"}, protocol=2),
    pickle.dumps({"model": ARRAYS, "extra": _Planted()}, protocol=4),
    safetensors.torch.save(STATE, {"variant": "x", "protocol": "{}"}),
]
NUMPY = [
    _arrays(np.save, ARRAYS["a.weight"]),
    _arrays(np.save, np.array([_Planted()], dtype=object)),
    _arrays(np.savez, **ARRAYS),
    _arrays(np.savez_compressed, **ARRAYS),
    _arrays(np.savez, x=np.array([_Planted()], dtype=object)),
]


@pytest.fixture
def load(tmp_path):
    """load(data) reads a checkpoint with this content."""
    path = tmp_path / "weights"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        state, metadata = read(path)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        assert sum(value.clone().numel() for value in state.values()) <= len(data)
        assert all(isinstance(text, str) for text in metadata.values())

    return run


def _with_pickle(data: bytes) -> bytes:
    """A sound archive of torch with this pickle in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(CHECKPOINTS[0])) as old, zipfile.ZipFile(stream, "w") as new:
        for name in old.namelist():
            new.writestr(name, data if name.endswith("data.pkl") else old.read(name))
    return stream.getvalue()


def _pickle_of(data: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_changed_checkpoints_are_read_or_refused(fuzz, load):
    fuzz.bytes(CHECKPOINTS, load)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_changed_pickles_in_sound_archives_are_read_or_refused(fuzz, load):
    fuzz.bytes([_pickle_of(CHECKPOINTS[0]), _pickle_of(CHECKPOINTS[2])], lambda data: load(_with_pickle(data)))


def test_changed_arrays_are_read_or_refused(fuzz, tmp_path):
    path = tmp_path / "arrays"

    def load(data: bytes) -> None:
        path.write_bytes(data)
        try:
            found = read_npz(path) if data[:2] == b"PK" else {"": read_npy(path)}
        except (ValueError, OSError) as error:  # what a caller makes an error of ours of
            raise DataError(str(error), where=str(path)) from None
        assert not any(array.dtype.hasobject for array in found.values())

    fuzz.bytes(NUMPY, load)


def _onnx_file(**changes) -> bytes:
    helper = pytest.importorskip("onnx.helper")
    from onnx import TensorProto, numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 3, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1], **changes)
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, 8, 6])
    maps = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "g", [image], [maps], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()


def test_changed_onnx_files_are_opened_or_refused(fuzz, tmp_path):
    pytest.importorskip("onnxruntime")
    from methods.onnx import open_file

    path = tmp_path / "network.onnx"

    def run(data: bytes) -> None:
        path.write_bytes(data)
        network = open_file(path)
        network.predict(torch.zeros(1, 3, *network.input_size), {})
        network.macs({})

    fuzz.bytes([_onnx_file(), _onnx_file(strides=[2, 2])], run)
