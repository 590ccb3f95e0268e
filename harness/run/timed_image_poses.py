"""The persons that a one-stage network found while it was timed against those that were scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.passes import replay
from harness.passes.predict_images import Persons
from harness.run.rows import Row
from harness.run.scoring_images import image_pass
from harness.run.session import Session
from harness.run.timed_images import TimedImages
from harness.run.timed_poses import LARGEST_PX, NO_POSES, first_scored, found_difference

__all__ = ["apart", "image_pose_difference", "scored_persons"]

_SAME_BOX_PX = 1.0  # boxes of the same person are no further apart
_NOISE, _DRAWS = 1e-5, 16  # of the largest input value, at most so often: two level cells escape one draw in two


def image_pose_difference(session: Session, rows: Sequence[Row], call: TimedImages) -> dict[str, Any]:
    """`pose_difference_px` of a timed call and the stored pass of the first of `rows` that has one, or the reason.

    Joints that the least noise moves by more than LARGEST_PX, and persons who come and go with it, tell nothing and
    are counted as undecided: a joint is the best cell of a map, which jumps where two cells are level. Noise is drawn
    until every joint that differs is one of these, or `_DRAWS` times. Raises MeasurementError when another float32
    joint differs by more than LARGEST_PX.
    """
    scored_row = first_scored(rows, lambda row: image_pass(session, row))
    if scored_row is None:
        return NO_POSES
    row, found = scored_row
    timed, scored = call.found(), scored_persons(found)
    pairs = [(timed[at], scored[at], at) for at in timed if at in scored]
    if not any(len(one.scores) for one, _, _ in pairs):
        return {"pose_difference_px": None, "pose_difference_reason": "nobody was found while timing"}
    gaps = np.concatenate([apart(one, other) for one, other, _ in pairs])
    certain = np.ones(gaps.shape, dtype=bool)
    for draw in range(_DRAWS):
        if not (certain & (gaps > LARGEST_PX)).any():
            break
        shaken = call.found(noise=_NOISE, seed=draw)
        certain &= np.concatenate([apart(one, shaken[at]) for one, _, at in pairs]) <= LARGEST_PX
    largest = float(gaps[certain].max()) if certain.any() else 0.0
    return found_difference(row, largest, int(certain.any(axis=1).sum()), int((~certain).sum()))


def scored_persons(found: replay.Pass) -> dict[int, Persons]:
    """The persons of a stored pass by image index."""
    parts = {int(index): found["image"] == index for index in found["index"]}
    return {i: Persons(found["boxes"][p], found["scores"][p], found["keypoints"][p], {}) for i, p in parts.items()}


def apart(one: Persons, other: Persons) -> np.ndarray:
    """(n, K) pixels between the joints of each person of `one` and of who has nearly the same box in `other`; infinite
    for a person who is not there."""
    joints = one.keypoints.shape[1:2] if len(one.scores) else other.keypoints.shape[1:2]
    gaps = np.full((len(one.scores), *joints), np.inf)
    for row, box in enumerate(one.boxes):
        offsets = np.abs(other.boxes - box).max(axis=1) if len(other.scores) else np.array([np.inf])
        near = np.flatnonzero(offsets <= _SAME_BOX_PX)
        if len(near):
            distances = np.linalg.norm(other.keypoints[near, :, :2] - one.keypoints[row, :, :2], axis=-1)
            gaps[row] = distances[np.argmin(distances.max(axis=1))]
    return gaps
