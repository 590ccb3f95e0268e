"""Any top-down heatmap network in an ONNX file, run by onnxruntime on the CPU.

Everything that can be read from the graph is: input name, size and layout, batch, joints, work. What the
pixels must look like (colour, mean, std) no graph says: a file that `paretopose export` wrote holds the protocol of its
network, for any other set it in the suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import MeasurementError, WeightsError
from harness.export.contract import Origin
from harness.method import Knob, Size, TopDownOutput, Trace, Variant
from methods.parts import onnx_graph
from methods.parts.onnx_file import load, open_session

__all__ = ["VARIANTS", "OnnxNetwork", "open_file"]

_MOST_PIXELS, _MOST_IMAGES = 4096 * 4096, 4096  # of an input; larger ones are there to fill the memory
_FLOAT_INPUTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class OnnxNetwork:
    """A network in a file.

    `layout`: 'nchw' or 'nhwc' of the input. Threads follow `torch.get_num_threads()`, so that one setting
    rules all networks of a comparison. A file made for a fixed batch is opened for any batch where that gives
    the same numbers, else it is run in pieces of its batch (`batch`; None: any). `origin`: what an exported file says
    about itself.
    """

    def __init__(self, model: Any, path: Path, input_size: Size, layout: str, output: str) -> None:
        self.path, self.input_size, self.layout, self.output = path, input_size, layout, output
        self.origin = Origin.of(model, str(path))
        self.params = onnx_graph.count_params(model)
        self._macs: int | None = None
        self._threads = 0
        value = onnx_graph.graph_inputs(model)[0]
        self.input_name, self.batch = value.name, onnx_graph.shape_of(value)[0]
        self._model = model
        self._open_session()
        self.output, self.heatmaps_last, self.num_joints = self._find_output()
        if self.batch is not None:
            self._free_batch(self.batch)

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        """`images` (B, 3, H, W) float32 -> heatmaps (B, K, h, w) float32 on the CPU."""
        if self._threads != torch.get_num_threads():
            self._open_session()
        return TopDownOutput(exits=[torch.from_numpy(self._in_pieces(images.detach().cpu().float().numpy()))])

    def macs(self, trace: Trace) -> int:
        """Counted from the graph. MeasurementError where an operator has no rule."""
        if self._macs is None:
            try:
                self._macs = onnx_graph.count_macs(self._model, self._shape(1))
            except Exception as error:  # UncountableError, or what onnx says of a graph that contradicts itself
                raise MeasurementError(
                    f"the work of this network is not known: {error}", where=str(self.path)
                ) from None
        return self._macs

    def _shape(self, batch: int) -> tuple[int, int, int, int]:
        height, width = self.input_size
        return (batch, 3, height, width) if self.layout == "nchw" else (batch, height, width, 3)

    def _open_session(self) -> None:
        self._threads = torch.get_num_threads()
        self._session = open_session(self._model, self.path, self._threads)
        kind = self._session.get_inputs()[0].type
        if kind not in _FLOAT_INPUTS:
            raise WeightsError(f"input is {kind}", where=str(self.path), expected="float32 or float16, normalised")
        self._dtype = _FLOAT_INPUTS[kind]

    def _in_pieces(self, images: np.ndarray) -> np.ndarray:
        step = self.batch or len(images)
        return np.concatenate([self._run(images[i : i + step]) for i in range(0, len(images), step)])

    def _run(self, images: np.ndarray) -> np.ndarray:
        """(n, 3, H, W), n at most `batch` -> (n, K, h, w)."""
        n = len(images)
        if self.batch is not None and n < self.batch:
            images = np.concatenate([images, np.zeros((self.batch - n, *images.shape[1:]), images.dtype)])
        maps = self._raw(images)[:n].astype(np.float32)
        return np.ascontiguousarray(maps.transpose(0, 3, 1, 2)) if self.heatmaps_last else maps

    def _raw(self, images: np.ndarray) -> np.ndarray:
        array = images if self.layout == "nchw" else images.transpose(0, 2, 3, 1)
        feed = {self.input_name: np.ascontiguousarray(array, dtype=self._dtype)}
        return self._session.run([self.output] if self.output else None, feed)[0]

    def _find_output(self) -> tuple[str, bool, int]:
        """(name, joints last, joints): the one output whose maps have the aspect of the input."""
        names = [o.name for o in self._session.get_outputs() if not self.output or o.name == self.output]
        feed = {self.input_name: np.zeros(self._shape(self.batch or 1), dtype=self._dtype)}
        found, seen = [], []
        try:
            arrays = self._session.run(names, feed) if names else []
        except Exception as error:  # onnxruntime's own exception classes share no public base
            raise WeightsError(f"onnxruntime cannot run it: {str(error)[:300]}", where=str(self.path)) from None
        for name, array in zip(names, arrays, strict=True):
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                continue
            seen.append(f"{name} {array.shape}")
            for last in (False, True):
                if array.ndim == 4 and self._same_aspect(array.shape[1:3] if last else array.shape[2:]):
                    found.append((name, last, array.shape[3 if last else 1]))
        if len(found) != 1:
            raise WeightsError(
                f"{len(found) or 'no'} outputs look like heatmaps",
                where=str(self.path),
                expected="one output (B, K, h, w) with the aspect of the input; outputs: " + ", ".join(seen),
                hint="name it with the knob output",
            )
        return found[0]

    def _same_aspect(self, size: tuple[int, ...]) -> bool:
        return size[0] * self.input_size[1] == size[1] * self.input_size[0] and size[0] > 1

    def _free_batch(self, batch: int) -> None:
        """Open the file for any batch, if one image more than its batch then gives what the pieces gave."""
        fixed, session = self._model, self._session
        images = np.random.default_rng(0).standard_normal((batch + 1, 3, *self.input_size)).astype(np.float32)
        expected = self._in_pieces(images)
        self._model, self.batch = onnx_graph.set_batch(fixed, None), None
        try:
            self._session = open_session(self._model, self.path, self._threads)
            same = np.allclose(self._run(images), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
        except Exception:  # a constant batch inside the graph shows in many ways, at opening or at running
            same = False
        if not same:
            self._model, self.batch, self._session = fixed, batch, session


def open_file(path: Path, *, layout: str = "auto", output: str = "", input_size: Size | None = None) -> OnnxNetwork:
    """Open an ONNX file. `input_size` is needed only where the file leaves it open.

    Raises WeightsError when the file is no ONNX file, keeps tensors in other files, has not exactly one image
    input, or no heatmap output; MissingPackage without onnx and onnxruntime.
    """
    model = load(Path(path))
    inputs = onnx_graph.graph_inputs(model)
    shapes = [onnx_graph.shape_of(value) for value in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise WeightsError(
            f"inputs are {', '.join(f'{v.name} {s}' for v, s in zip(inputs, shapes)) or 'missing'}",
            where=str(path),
            expected="one input (B, 3, H, W) or (B, H, W, 3)",
            hint=f"it is {origin.text()}" if (origin := Origin.of(model, str(path))) else "",
        )
    layout = _layout(shapes[0], layout, path)
    height, width = shapes[0][2:] if layout == "nchw" else shapes[0][1:3]
    size = _size(height, width, input_size, path)
    if size[0] * size[1] > _MOST_PIXELS or (shapes[0][0] or 1) > _MOST_IMAGES:
        what = f"input of {shapes[0][0] or 'any number of'} images of {size[0]}x{size[1]}"
        raise WeightsError(what, where=str(path), expected=f"at most {_MOST_IMAGES} of {_MOST_PIXELS:,} pixels")
    return OnnxNetwork(model, Path(path), size, layout, output)


def _layout(shape: tuple[int | None, ...], asked: str, path: Path) -> str:
    possible = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] in (3, None)]
    if asked != "auto" and asked in possible:
        return asked
    certain = [name for name, axis in (("nchw", 1), ("nhwc", 3)) if shape[axis] == 3]
    if asked == "auto" and len(certain) == 1:
        return certain[0]
    raise WeightsError(
        f"input shape {shape} with layout {asked}",
        where=str(path),
        expected="three colour channels, second (nchw) or last (nhwc)",
        hint="set the knob layout" if asked == "auto" and possible else "",
    )


def _size(height: int | None, width: int | None, asked: Size | None, path: Path) -> Size:
    if height is None or width is None:
        if asked is None:
            raise WeightsError("the file leaves the input size open", where=str(path), hint="set input_size")
        return asked
    if asked is not None and tuple(asked) != (height, width):
        raise WeightsError(f"the file is for {height}x{width}, asked for {asked[0]}x{asked[1]}", where=str(path))
    return height, width


VARIANTS = (
    Variant(
        name="onnx",
        method="onnx",
        build=None,
        open_file=open_file,
        knobs=(
            Knob("layout", "build", "auto", "where the input has its colour channels", ("auto", "nchw", "nhwc")),
            Knob("output", "build", "", "name of the heatmap output, where more than one looks like it"),
        ),
        note="from a file",
    ),
)
