"""ONNX files: read whole and closed in themselves, and opened by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import MissingPackage, WeightsError
from methods.parts import onnx_graph

__all__ = ["load", "open_session"]

_INSTALL = 'pip install "paretopose[onnx]"'


def load(path: Path) -> Any:
    """The file as a ModelProto. WeightsError for what is no ONNX file or keeps tensors in other files."""
    try:
        import onnx
    except ImportError as error:
        raise MissingPackage("an ONNX network", "onnx", _INSTALL) from error
    if not path.is_file():
        raise WeightsError("no such file", where=str(path))
    try:
        model = onnx.load(path, load_external_data=False)
        filled = bool(model.graph.node)
    except Exception as error:  # protobuf's decoding error, whatever its version calls it
        raise WeightsError("not an ONNX file", where=str(path)) from error
    if not filled:
        raise WeightsError("not an ONNX file: the graph is empty", where=str(path))
    if (outside := onnx_graph.external_data(model)) is not None:
        what = "refused: its tensor '{}' lies in another file, '{}', which was not opened".format(*outside)
        raise WeightsError(what, where=str(path), hint="save it as one file")
    return model


def open_session(model: Any, path: Path, threads: int) -> Any:
    """An InferenceSession. WeightsError where onnxruntime refuses the graph."""
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingPackage("an ONNX network", "onnxruntime", _INSTALL) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only; its warnings are about graph style
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise WeightsError(f"onnxruntime cannot open it: {str(error)[:300]}", where=str(path)) from error
