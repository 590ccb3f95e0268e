"""Who is who: poses matched to persons by OKS, once, in the order and with the rules of pycocotools.

COCO keypoint evaluation: ten OKS thresholds 0.50 to 0.95; a pose takes the free person with the highest OKS,
persons that count before persons that are ignored; groups are areas (COCO) or ranges of the crowd index (CrowdPose).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.accuracy.inputs import Detections, GroundTruth

__all__ = [
    "CROWDED",
    "FALSE_POSITIVE",
    "IGNORED",
    "THRESHOLDS",
    "TRUE_POSITIVE",
    "Matches",
    "candidates",
    "greedy_steps",
    "match",
    "match_groups",
    "match_pairs",
    "oks_pairs",
    "pairs_by_image",
    "within_area",
]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
FALSE_POSITIVE, TRUE_POSITIVE, IGNORED = 0, 1, 2
_AREAS = {"all": (0.0, 1e5**2), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e5**2)}
CROWDED = {"easy": (0.0, 0.2), "medium": (0.2, 0.8), "hard": (0.8, np.inf)}  # lower end included
_PAIRS_AT_ONCE = 200_000  # bounds the memory of the OKS step


@dataclass(frozen=True)
class Matches:
    """All that AP and its resampling need, D poses by falling score over I images, G groups, T thresholds.

    image: (D,) index into image_ids; score: (D,); status: (D, G, T) uint8, one of FALSE_POSITIVE, TRUE_POSITIVE,
    IGNORED; positives: (I, G) int64, persons that count.
    """

    evaluator: str
    groups: tuple[str, ...]
    image_ids: np.ndarray
    image: np.ndarray
    score: np.ndarray
    status: np.ndarray
    positives: np.ndarray

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Arrays for `numpy.savez_compressed`."""
        names = {"evaluator": np.array(self.evaluator), "groups": np.array(self.groups)}
        return names | {key: getattr(self, key) for key in ("image_ids", "image", "score", "status", "positives")}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Matches:
        """The inverse of to_arrays; takes an opened npz file as it is."""
        keys = ("image_ids", "image", "score", "status", "positives")
        groups = tuple(str(g) for g in arrays["groups"])
        return cls(str(arrays["evaluator"]), groups, **{key: np.asarray(arrays[key]) for key in keys})


def match(gt: GroundTruth, dets: Detections, sigmas: Sequence[float], *, evaluator: str = "coco") -> Matches:
    """Matches every pose of `dets` once for every group and threshold. `sigmas`: (K,) OKS constants."""
    names = ("all", "medium", "large") if evaluator == "coco" else ("all",)
    groups = {name: within_area(gt, dets, name) for name in names}
    found = match_groups(gt, dets, sigmas, groups, evaluator=evaluator)
    return found if evaluator == "coco" else _by_crowding(found, gt)


def within_area(gt: GroundTruth, dets: Detections, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Persons (N,) and poses (D,) that the area range `all`, `small`, `medium` or `large` leaves out."""
    low, high = _AREAS[name]
    ignored = gt.ignore | (gt.area < low) | (gt.area > high)
    return ignored, (dets.area < low) | (dets.area > high)


def match_groups(
    gt: GroundTruth,
    dets: Detections,
    sigmas: Sequence[float],
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    evaluator: str = "coco",
) -> Matches:
    """Matches as COCO does within an area range, for any groups of persons.

    groups: name -> (N,) bool, persons that do not count and need not be found, and (D,) bool, poses that are not
    held against the method when they match nobody.
    """
    return match_pairs(gt, dets, candidates(gt, dets, sigmas), groups, evaluator=evaluator)


def match_pairs(
    gt: GroundTruth,
    dets: Detections,
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray],
    groups: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    evaluator: str = "coco",
) -> Matches:
    """The same from the `pairs` (detection, person, similarity) that reach the lowest threshold."""
    d, g, oks = pairs
    status = np.empty((len(dets.score), len(groups), len(THRESHOLDS)), dtype=np.uint8)
    positives = np.empty((len(gt.image_ids), len(groups)), dtype=np.int64)
    for i, (ignored, outside) in enumerate(groups.values()):
        positives[:, i] = np.bincount(gt.image[~ignored], minlength=len(gt.image_ids))
        status[:, i] = np.where(outside, IGNORED, FALSE_POSITIVE)[:, None]
        _assign(status[:, i], dets.image, d, g, oks, ignored, gt.crowd)
    order = np.argsort(-dets.score, kind="stable")  # ties: by image, then as in the file
    return Matches(
        evaluator, tuple(groups), gt.image_ids, dets.image[order], dets.score[order], status[order], positives
    )


def oks_pairs(gt: GroundTruth, dets: Detections, d: np.ndarray, g: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """(P,) OKS of the poses `d` with the persons `g`, both (P,) indices; equal to pycocotools to the last bit.

    Persons with equally many visible joints are taken together, so that every sum has the reference's length and
    therefore its rounding. A person without visible joints is measured by the doubled box (COCO evaluation code).
    """
    variances = (np.asarray(sigmas) * 2) ** 2
    counts, order = gt.visible_first
    out = np.empty(len(d))
    for n in np.unique(counts[g]):
        here = np.flatnonzero(counts[g] == n)
        dc, gc = d[here], g[here]
        joints = order[gc, : n or None]
        if n:
            offsets = dets.xy[dc[:, None], joints] - gt.keypoints[gc[:, None], joints, :2]
        else:
            offsets = _beyond_doubled_box(dets.xy[dc], gt.bbox[gc])
        e = (offsets[..., 0] ** 2 + offsets[..., 1] ** 2) / variances[joints]
        e = e / (gt.area[gc, None] + np.spacing(1)) / 2
        out[here] = np.exp(-e).sum(axis=1) / e.shape[1]
    return out


def _beyond_doubled_box(xy: np.ndarray, box: np.ndarray) -> np.ndarray:
    """(P, K, 2) how far points lie outside the box grown by its own size on each side."""
    low, high = box[:, None, :2] - box[:, None, 2:], box[:, None, :2] + box[:, None, 2:] * 2
    return np.maximum(0, low - xy) + np.maximum(0, xy - high)


def pairs_by_image(
    image: np.ndarray, gt: GroundTruth, at_once: int = _PAIRS_AT_ONCE
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Every row of `image` (M,), ascending indices of images, with every person there: (P,) rows and (P,) persons.

    In blocks of about `at_once` pairs, which bounds the memory of what is done with them; at least one block.
    """
    persons = np.bincount(gt.image, minlength=len(gt.image_ids))
    first = np.cumsum(persons) - persons
    per_row = persons[image]
    ends = np.cumsum(per_row)
    cuts = np.searchsorted(ends, np.arange(at_once, ends[-1] if len(ends) else 0, at_once))
    for block in np.split(np.arange(len(per_row)), cuts):
        rows = np.repeat(block, per_row[block])
        within = np.arange(len(rows)) - np.repeat(np.cumsum(per_row[block]) - per_row[block], per_row[block])
        yield rows, first[image[rows]] + within


def candidates(
    gt: GroundTruth, dets: Detections, sigmas: Sequence[float], least: float = THRESHOLDS[0]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(P,) pose, (P,) person and (P,) OKS of the pairs in one image that reach `least`."""
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for d, g in pairs_by_image(dets.image, gt):
        oks = oks_pairs(gt, dets, d, g, sigmas)
        near = oks >= least
        found.append((d[near], g[near], oks[near]))
    d, g, oks = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return d, g, oks


def _assign(
    status: np.ndarray, image: np.ndarray, d: np.ndarray, g: np.ndarray, oks: np.ndarray,
    ignored: np.ndarray, crowd: np.ndarray,
) -> None:  # fmt: skip
    """Greedy assignment, written into status (D, T), for one area range.

    What a pose prefers does not depend on what is already taken: persons that count come first, then higher
    OKS, then the later person (pycocotools keeps the last of equals). So pairs are ranked once, and each step
    below handles, in all images at once, one choice of one pose.
    """
    order = np.lexsort((-g, -oks, ignored[g], d))
    d, g, oks = d[order], g[order], oks[order]
    taken = np.zeros((len(ignored), len(THRESHOLDS)), dtype=bool)
    matched = np.zeros(status.shape, dtype=bool)
    for step in greedy_steps(d, image):
        ds, gs = d[step], g[step]
        free = ~taken[gs] | crowd[gs, None]
        hit = free & ~matched[ds] & (oks[step, None] >= np.minimum(THRESHOLDS, 1 - 1e-10))
        taken[gs] |= hit
        matched[ds] |= hit
        verdict = np.where(ignored[gs], IGNORED, TRUE_POSITIVE)[:, None]
        status[ds] = np.where(hit, verdict, status[ds])


def greedy_steps(d: np.ndarray, image: np.ndarray) -> list[np.ndarray]:
    """Splits ranked pairs (poses `d`, ascending) at most one pair per image in a step, in greedy order."""
    if not len(d):
        return []
    poses, first, choices = np.unique(d, return_index=True, return_counts=True)
    choice = np.arange(len(d)) - np.repeat(first, choices)
    new_image = np.r_[True, image[poses][1:] != image[poses][:-1]]
    starts = np.flatnonzero(new_image)
    turn = np.arange(len(poses)) - np.repeat(starts, np.diff(np.r_[starts, len(poses)]))
    turn = np.repeat(turn, choices)
    order = np.lexsort((choice, turn))
    key = turn[order] * (choice.max() + 1) + choice[order]
    return np.split(order, np.flatnonzero(np.diff(key)) + 1)


def _by_crowding(found: Matches, gt: GroundTruth) -> Matches:
    """CrowdPose groups: all images, then those with a crowd index in each range."""
    assert gt.crowd_index is not None
    members = [np.ones(len(gt.crowd_index), dtype=bool)]
    members += [(gt.crowd_index >= low) & (gt.crowd_index < high) for low, high in CROWDED.values()]
    inside = np.stack(members, axis=1)
    status = np.where(inside[found.image][:, :, None], found.status, np.uint8(IGNORED)).astype(np.uint8)
    return replace(found, groups=("all", *CROWDED), status=status, positives=found.positives * inside)
