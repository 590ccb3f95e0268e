"""The 20 best poses of each image, chosen while results come in, so that memory does not grow with their number."""

from __future__ import annotations

import numpy as np

__all__ = ["AT_ONCE", "MAX_DETECTIONS", "BestPoses", "Block"]

MAX_DETECTIONS = 20  # per image, best scores first (COCO keypoint protocol)
AT_ONCE = 10_000  # results that are dicts at the same time
_SLACK = 5 * AT_ONCE  # poses held beyond twice those worth keeping
Block = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""image (B,), score (B,), xy (B, K, 2), box (B, 4) or (B, 0)"""


class BestPoses:
    """The 20 best poses of each image among all that were added; ties go to the pose that was added first.

    One set of arrays, which grow and are put in order in place: there are never two copies of the poses.
    """

    def __init__(self, joints: int, *, boxed: bool) -> None:
        self.count = 0
        self._held = 0
        self._limit = _SLACK
        self._image, self._score = np.empty(0, dtype=np.int64), np.empty(0)
        self._xy, self._box = np.empty((0, joints, 2)), np.empty((0, 4 if boxed else 0))

    def add(self, block: Block) -> None:
        """Takes more poses; what is worse than 20 others is let go from time to time."""
        self.count += len(block[0])
        end = self._held + len(block[0])
        if end > len(self._image):
            self._resize(end + end // 8)
        for array, new in zip(self._arrays(), block, strict=True):
            array[self._held : end] = new
        self._held = end
        if end > self._limit:
            self._keep(np.sort(self._best()))  # in the order in which they were added, which decides ties
            self._limit = 2 * self._held + _SLACK

    def ordered(self) -> Block:
        """All that is kept, by image, then by falling score; nothing can be added afterwards."""
        self._keep(self._best())
        self._resize(self._held)
        return self._arrays()

    def _arrays(self) -> Block:
        return self._image, self._score, self._xy, self._box

    def _best(self) -> np.ndarray:
        """Indices of those to keep, in the final order."""
        image, score = self._image[: self._held], self._score[: self._held]
        order = np.lexsort((-score, image))
        return order[_rank_in_group(image[order]) < MAX_DETECTIONS]

    def _keep(self, order: np.ndarray) -> None:
        self._held = len(order)
        for array in (self._image, self._score, self._box):
            array[: self._held] = array[order]
        for j in range(self._xy.shape[1]):  # one by one: all at once would be a copy
            self._xy[: self._held, j] = self._xy[order, j]

    def _resize(self, rows: int) -> None:
        for array in self._arrays():
            array.resize((rows, *array.shape[1:]), refcheck=False)  # no view of it is alive


def _rank_in_group(sorted_groups: np.ndarray) -> np.ndarray:
    """0, 1, 2, ... within each run of equal values."""
    changes = sorted_groups[1:] != sorted_groups[:-1]
    starts = np.flatnonzero(np.r_[len(sorted_groups) > 0, changes])
    return np.arange(len(sorted_groups)) - np.repeat(starts, np.diff(np.r_[starts, len(sorted_groups)]))
