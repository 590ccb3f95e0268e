"""A network in the two ONNX files that `paretopose export` makes of one that looks twice (SHaRPose).

Given is the coarse file; the fine one lies beside it, and the coarse one knows what has to be in it. Persons who leave
early cost the coarse stage alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import MeasurementError, UserError, WeightsError
from harness.export.contract import Origin
from harness.method import EARLY_EXIT_KNOBS, Knob, Size, TopDownOutput, Trace, Variant
from methods.parts import onnx_graph
from methods.parts.onnx_file import load, open_session
from methods.parts.onnx_graph import UncountableError

__all__ = ["VARIANTS", "OnnxTwoStage", "open_files"]

_COARSE, _FINE = ".coarse.onnx", ".fine.onnx"
_ALPHA = Knob("alpha", "run", None, "share of regions seen in full resolution", low=0, high=1, low_open=True)


class OnnxTwoStage:
    """Both files, joined by parts/sharpose_onnx.py. Threads follow `torch.get_num_threads()`.

    The coarse file makes heatmaps for everybody; `macs` counts them for those who are refined too.
    """

    def __init__(self, coarse: Any, fine: Any, path: Path, origin: Origin) -> None:
        self.path, self.origin = path, origin
        self.input_size, self.num_joints = origin.input_size, origin.num_joints
        self.params = onnx_graph.count_params(coarse)  # the fine file holds the same ones again
        self._models, self._macs, self._threads = (coarse, fine), {0: 0}, 0
        shapes = {value.name: onnx_graph.shape_of(value) for value in coarse.graph.output}
        self._regions, self._width = (int(size or 0) for size in shapes["features"][1:])
        self._open()

    def _open(self) -> None:
        self._threads = torch.get_num_threads()
        coarse, fine = (open_session(model, self.path, self._threads) for model in self._models)
        from methods.parts.sharpose_onnx import TwoStage  # needs onnxruntime, which is there by now

        self._stages = TwoStage(coarse, fine)
        words = {"always": np.inf, "never": -np.inf}
        self.alpha = float(self._stages.alpha)
        self.quality_threshold = float(words.get(self._stages.quality_threshold, self._stages.quality_threshold))

    def predict(self, images: Tensor, settings: Mapping[str, Any]) -> TopDownOutput:
        """`images` (B, 3, H, W) float32 -> heatmaps on the CPU; `settings` as SHaRPose reads them."""
        from methods.parts.sharpose_onnx import gathered, kept_count, needs_refining

        if settings.get("exit_rate") is not None:
            raise UserError("exit_rate is a share of persons", expected="a quality_threshold", hint="run a suite")
        if self._threads != torch.get_num_threads():
            self._open()
        alpha = self.alpha if settings.get("alpha") is None else float(_ALPHA.check(settings["alpha"]))
        threshold = settings.get("quality_threshold", "always")
        array = images.detach().cpu().float().numpy()
        coarse = self._stages.coarse(array)
        refined = needs_refining(coarse, self.quality_threshold if threshold is None else threshold)
        last = coarse["exit0"].copy()
        if refined.any():
            last[refined] = self._stages.fine(gathered(array, coarse, refined, alpha))["exit1"]
        exits = [coarse["exit0"], last] if settings.get("all_exits") else [last]
        taken = refined.astype(np.int64)
        trace = {"exit": taken, "regions": taken * kept_count(alpha, self._regions)}
        return TopDownOutput(
            exits=[torch.from_numpy(maps) for maps in exits],
            quality=torch.from_numpy(coarse["quality"]),
            trace={name: torch.from_numpy(values) for name, values in trace.items()},
            rival=torch.from_numpy(coarse["rival"]) if "rival" in coarse else None,
        )

    def trace_at(self, trace: Trace, exits: np.ndarray) -> dict[str, np.ndarray]:
        """The trace that persons leaving at `exits` (B,), 0 or 1, would have had; `trace` refined everybody."""
        taken = np.asarray(exits, dtype=np.int64)
        return {**trace, "exit": taken, "regions": np.asarray(trace["regions"]) * taken}

    def macs(self, trace: Trace) -> np.ndarray:
        """(B,) int64, counted from the graphs. MeasurementError where an operator has no rule."""
        regions = np.asarray(trace["regions"])
        return self._count(-1) + np.array([self._count(int(k)) for k in regions], dtype=np.int64)

    def _count(self, kept: int) -> int:
        """Of the fine stage with `kept` regions, none: 0; of the coarse stage: -1."""
        if kept not in self._macs:
            images = (1, 3, *self.input_size)
            others = (1, self._regions - kept, self._width)
            fine = (images, (1, kept), (1, kept, self._width), others)
            try:
                stage, shapes = (0, (images,)) if kept < 0 else (1, fine)
                self._macs[kept] = onnx_graph.count_macs(self._models[stage], *shapes)
            except UncountableError as error:
                what = f"the work of this network is not known: {error}"
                raise MeasurementError(what, where=str(self.path)) from None
        return self._macs[kept]


def open_files(path: Path, *, input_size: Size | None = None) -> OnnxTwoStage:
    """Open NAME.coarse.onnx, and NAME.fine.onnx beside it.

    Raises WeightsError when one of them is missing, is not what the export wrote, or does not belong to the other;
    MissingPackage without onnx and onnxruntime.
    """
    path = Path(path)
    coarse = load(path)
    origin = Origin.of(coarse, str(path))
    if origin is None or origin.part != "coarse" or not path.name.endswith(_COARSE):
        raise WeightsError(
            "is not the first of two stages" + (f": it is {origin.text()}" if origin else ""),
            where=str(path),
            expected=f"a file NAME{_COARSE} that `paretopose export` wrote",
        )
    if input_size is not None and tuple(input_size) != origin.input_size:
        size = "x".join(map(str, origin.input_size))
        raise WeightsError(f"the file is for {size}, asked for {input_size[0]}x{input_size[1]}", where=str(path))
    second = path.with_name(path.name.removesuffix(_COARSE) + _FINE)
    fine = load(second)
    if not origin.is_companion("fine", second):
        raise WeightsError(f"does not belong to {path.name}", where=str(second), hint="export both again")
    if onnx_graph.shape_of(onnx_graph.graph_inputs(coarse)[0])[1:] != (3, *origin.input_size):
        raise WeightsError("its graph and its metadata name different input sizes", where=str(path))
    try:
        return OnnxTwoStage(coarse, fine, path, origin)
    except (LookupError, TypeError, ValueError) as error:  # outputs or facts that the export never leaves out
        raise WeightsError(f"is not what `paretopose export` writes: {error!r}", where=str(path)) from None


VARIANTS = (
    Variant(
        name="onnx_two_stage",
        method="onnx",
        build=None,
        open_file=open_files,
        knobs=(_ALPHA, *EARLY_EXIT_KNOBS),
        note="from two files; the head of the first also runs for who is refined; params as its graph holds them",
    ),
)
