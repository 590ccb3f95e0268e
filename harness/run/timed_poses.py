"""The poses that were produced while timing against those that were scored: the same work was timed as was judged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from harness.errors import MeasurementError
from harness.passes import replay
from harness.passes.predict import Decoding
from harness.run.rows import Row
from harness.run.scoring import scored_pass
from harness.run.session import Session
from harness.run.timed_calls import TimedCall

__all__ = ["LARGEST_PX", "NO_POSES", "difference", "first_scored", "found_difference", "pose_difference"]

LARGEST_PX = 0.1  # what another batch size may move a float32 pose by
_UNDECIDED = 1e-4  # of a quality threshold: so near to it, the batch decides which exit a person takes


def pose_difference(session: Session, rows: Sequence[Row], call: TimedCall) -> dict[str, Any]:
    """`pose_difference_px` of a timed call and the stored pass of the first of `rows` that has one, or the reason.

    Joints that the least noise moves by more than LARGEST_PX (two equal peaks, a flat map) tell nothing and are
    counted as undecided. Raises MeasurementError when the other float32 joints differ by more than LARGEST_PX.
    """
    scored_row = first_scored(rows, lambda row: scored_pass(session, row))
    if scored_row is None:
        return NO_POSES
    row, found = scored_row
    chosen, decided = _scored(row, found, flip=call.scope != "network" and row.cell.protocol.flip)
    how = Decoding.of(row.cell.protocol)
    timed_rows, timed = call.poses(how)
    scored = found["index"][decided], chosen.keypoints[decided]
    largest, count = difference(timed_rows, timed, *scored)
    undecided = 0
    if largest is not None and largest > LARGEST_PX:
        certain = call.wobble(how) <= LARGEST_PX
        undecided = int(np.sum(~certain))
        largest, count = difference(timed_rows, timed, *scored, certain=certain)
    if largest is None:
        return {"pose_difference_px": None, "pose_difference_reason": "no joint of the timed persons to compare"}
    return found_difference(row, largest, count, undecided)


NO_POSES = {"pose_difference_px": None, "pose_difference_reason": "no poses of this row were scored"}


def first_scored(rows: Sequence[Row], open_pass: Callable[[Row], replay.Pass | None]) -> tuple[Row, replay.Pass] | None:
    """The first of `rows` that has a stored pass, and that pass."""
    return next(((row, found) for row in rows if (found := open_pass(row)) is not None), None)


def found_difference(row: Row, largest: float, persons: int, undecided: int) -> dict[str, Any]:
    """The fields of a record. Raises MeasurementError for a float32 difference above LARGEST_PX."""
    if row.cell.run["dtype"] == "float32" and not largest <= LARGEST_PX:
        raise MeasurementError(
            f"the poses produced while timing differ from the scored ones by up to {largest:.3g} px",
            where=row.cell.label,
            expected=f"at most {LARGEST_PX} px, what another batch size does",
            hint="what was timed is not what was scored: delete the pass and run again",
        )
    return {"pose_difference_px": largest, "pose_difference_persons": persons, "pose_joints_undecided": undecided}


def difference(
    timed_rows: np.ndarray,
    timed: np.ndarray,
    scored_rows: np.ndarray,
    scored: np.ndarray,
    certain: np.ndarray | None = None,
) -> tuple[float | None, int]:
    """(largest distance in pixels over the joints of the persons in both, how many these are).

    Rows (N,), (M,) of the boxes, poses (N, K, 3), (M, K, 3); a joint that is nan in one only is infinitely far.
    `certain` (N, K): only these joints of `timed`.
    """
    place = {int(row): at for at, row in enumerate(scored_rows)}
    both = [(i, place[int(row)]) for i, row in enumerate(timed_rows) if int(row) in place]
    if not both:
        return None, 0
    ours, theirs = (np.array(column) for column in zip(*both))
    a, b = timed[ours, :, :2].astype(np.float64), scored[theirs, :, :2].astype(np.float64)
    apart = np.linalg.norm(a - b, axis=-1)
    unlike = np.isnan(a).any(axis=-1) != np.isnan(b).any(axis=-1)
    apart = np.where(unlike, np.inf, np.nan_to_num(apart, nan=0.0, posinf=np.inf))
    if certain is not None:
        apart = apart[certain[ours]]
    return (float(apart.max()) if apart.size else None), len(set(scored_rows[theirs].tolist()))


def _scored(row: Row, found: replay.Pass, *, flip: bool) -> tuple[replay.Selection, np.ndarray]:
    """The scored selection (without its flip test where that was not timed), and which persons' exits are certain."""
    threshold, decided = None, np.ones(len(found["index"]), dtype=bool)
    if "quality" in found:
        threshold = replay.threshold_of(found, row.cell.select, flip=row.cell.protocol.flip)
        near = _UNDECIDED * max(1.0, abs(threshold) if threshold is not None and np.isfinite(threshold) else 0.0)
        decided = (np.abs(replay.margins(found, threshold, flip=flip)) > near).all(axis=1)
    chosen = replay.select(found, Decoding.of(row.cell.protocol).name, flip=flip, threshold=threshold)
    return chosen, decided
