"""The multiply-accumulates of a one-stage forward, taken apart: what an image costs anyway, and each person on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from harness.errors import MeasurementError
from harness.method import Predictor

__all__ = ["ImageMacs", "image_macs"]


class ImageMacs(NamedTuple):
    """Multiply-accumulates of I forwards, each (I,) int64: `whole` = `fixed` + persons x `each`."""

    whole: np.ndarray
    fixed: np.ndarray
    each: np.ndarray


def image_macs(predictor: Predictor, trace: Mapping[str, np.ndarray]) -> ImageMacs:
    """The closed form of forwards with this trace, each entry (I,) with `persons`, the regions of the pose head.

    Raises MeasurementError when the trace does not tell the persons, or when the cost is not linear in them.
    """
    where = type(predictor).__name__
    if "persons" not in trace:
        raise MeasurementError("the trace has no `persons`", where=where, expected="the regions of the pose head")
    persons = np.asarray(trace["persons"], dtype=np.int64)
    amounts = (persons, np.zeros_like(persons), np.ones_like(persons))
    whole, fixed, one = (_macs(predictor, {**trace, "persons": n}) for n in amounts)
    each = one - fixed
    if not np.array_equal(whole, fixed + persons * each):
        raise MeasurementError("the cost of an image is not linear in its persons", where=where)
    return ImageMacs(whole, fixed, each)


def _macs(predictor: Predictor, trace: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.broadcast_to(np.asarray(predictor.macs(trace), dtype=np.int64), len(trace["persons"]))
