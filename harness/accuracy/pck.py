"""PCKh of MPII: the share of joints nearer to the truth than a part of the head size.

Andriluka et al., 2D Human Pose Estimation, CVPR 2014. The mean is over all labelled joints but pelvis and thorax, so a
joint weighs as often as it is labelled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from harness.errors import DataError
from harness.pose.skeletons import MPII

__all__ = ["MAIN", "THRESHOLDS", "Hits", "PCKh", "Shares", "head_sizes", "pckh", "statistic"]

THRESHOLDS = (0.5, 0.1)
_HEAD_PART = 0.6  # of the diagonal of the head box (MPII evaluation)
_NOT_IN_MEAN = ("pelvis", "thorax")


def statistic(threshold: float, joint: str = "") -> str:
    """`PCKh@0.5`, the mean; `PCKh@0.5 left_hip`."""
    return f"PCKh@{threshold:g} {joint}".strip()


MAIN = statistic(THRESHOLDS[0])


@dataclass(frozen=True)
class PCKh:
    """`joints`: name -> share in 0 to 1, None where the joint is never visible; `mean` without pelvis and thorax."""

    threshold: float
    joints: dict[str, float | None]
    mean: float | None
    persons: int

    def to_dict(self) -> dict[str, object]:
        return dict(self.__dict__)


def head_sizes(head_boxes: np.ndarray) -> np.ndarray:
    """(N,) pixels: 0.6 of the diagonal of head boxes (N, 4) xyxy."""
    boxes = np.asarray(head_boxes, dtype=np.float64)
    return _HEAD_PART * np.linalg.norm(boxes[:, 2:] - boxes[:, :2], axis=1)


def pckh(
    predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray, heads: np.ndarray, *, threshold: float = 0.5
) -> PCKh:
    """PCKh@threshold (0.5 and 0.1 are usual).

    predicted, truth: (N, 16, 2) pixels; visible: (N, 16) bool; heads: (N,) head sizes in pixels. Raises DataError for
    head sizes that are not positive or predictions that are not finite.
    """
    together = np.zeros(len(np.asarray(visible)), dtype=np.int64)
    counted = Hits.of(predicted, truth, visible, heads, together, np.zeros(1), thresholds=(threshold,))
    shares = Shares(counted)
    values = [None if np.isnan(v) else float(v) for v in shares.stats(np.ones(1))]
    return PCKh(threshold, dict(zip(MPII.joints, values[1:], strict=True)), values[0], len(together))


@dataclass(frozen=True)
class Hits:
    """All that PCKh and its resampling need, by image: right (I, K, T) joints within each threshold, labelled (I, K).

    joints: (K,) names; thresholds: (T,) parts of the head size.
    """

    evaluator: ClassVar[str] = "mpii"
    joints: tuple[str, ...]
    thresholds: tuple[float, ...]
    image_ids: np.ndarray
    right: np.ndarray
    labelled: np.ndarray

    @classmethod
    def of(
        cls,
        predicted: np.ndarray,
        truth: np.ndarray,
        visible: np.ndarray,
        heads: np.ndarray,
        image: np.ndarray,
        image_ids: np.ndarray,
        *,
        joints: Sequence[str] = MPII.joints,
        thresholds: Sequence[float] = THRESHOLDS,
        absent: np.ndarray | None = None,
    ) -> Hits:
        """predicted, truth: (N, K, 2) pixels; visible: (N, K) bool; heads: (N,) pixels; image: (N,) index into
        image_ids (I,); absent: (N,) bool, persons who have no pose, all of whose joints are wrong.

        Raises DataError for head sizes that are not positive and poses that are not finite.
        """
        visible = np.asarray(visible, dtype=bool)
        there = np.ones(len(visible), dtype=bool) if absent is None else ~absent
        _check(np.asarray(predicted), np.asarray(heads), there)
        distance = np.linalg.norm(np.asarray(predicted, dtype=np.float64) - truth, axis=2)
        apart = distance / np.asarray(heads, dtype=np.float64)[:, None]
        near = (apart[..., None] <= np.asarray(thresholds)) & (visible & there[:, None])[..., None]
        right, labelled = (np.zeros((len(image_ids), *a.shape[1:]), dtype=np.int64) for a in (near, visible))
        np.add.at(right, image, near)
        np.add.at(labelled, image, visible)
        return cls(tuple(joints), tuple(thresholds), np.asarray(image_ids), right, labelled)

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def positives(self) -> np.ndarray:
        """(I, K) what there is to find."""
        return self.labelled

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays for `numpy.savez_compressed`."""
        names = {"evaluator": np.array(self.evaluator), "joints": np.array(self.joints)}
        numbers = {"thresholds": np.array(self.thresholds), "image_ids": self.image_ids}
        return {**names, **numbers, "right": self.right, "labelled": self.labelled}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Hits:
        """The inverse of to_arrays; takes an opened npz file as it is."""
        joints, limits = (arrays[name].tolist() for name in ("joints", "thresholds"))
        return cls(tuple(joints), tuple(limits), *(np.asarray(arrays[n]) for n in ("image_ids", "right", "labelled")))


class Shares:
    """Hits made ready for many weightings: the mean at each threshold, then every joint at each threshold."""

    def __init__(self, hits: Hits) -> None:
        self.names = tuple(statistic(t) for t in hits.thresholds) + tuple(
            statistic(t, joint) for t in hits.thresholds for joint in hits.joints
        )
        self.num_images = hits.num_images
        self._right, self._labelled = hits.right.astype(np.float64), hits.labelled.astype(np.float64)
        self._counted = np.array([name not in _NOT_IN_MEAN for name in hits.joints])

    @property
    def at_once(self) -> int:
        """How many weightings one call of `stats` should get."""
        return 64

    def stats(self, weights: np.ndarray) -> np.ndarray:
        """(..., T + T K) shares in 0 to 1 in the order of `names`, nan where no joint is labelled.

        weights: (..., I) how often each image counts.
        """
        right = np.moveaxis(np.tensordot(weights, self._right, axes=1), -1, -2)  # (..., T, K)
        labelled = np.tensordot(weights, self._labelled, axes=1)[..., None, :]
        means = _shares(right[..., self._counted].sum(axis=-1), labelled[..., self._counted].sum(axis=-1))
        joints = _shares(right, labelled)
        return np.concatenate([means, joints.reshape(*joints.shape[:-2], -1)], axis=-1)


def _shares(right: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    return np.divide(right, labelled, out=np.full(right.shape, np.nan), where=labelled > 0)


def _check(predicted: np.ndarray, heads: np.ndarray, there: np.ndarray) -> None:
    bad = np.flatnonzero(~(np.isfinite(heads) & (heads > 0)))
    if len(bad):
        raise DataError(f"head size {heads[bad[0]]} of person {bad[0]}", expected="a positive size in pixels")
    bad = np.flatnonzero(~np.isfinite(predicted).all(axis=(1, 2)) & there)
    if len(bad):
        raise DataError(f"prediction of person {bad[0]} is not finite", expected="finite coordinates for every joint")
