"""Which errors cost how much AP: jitter, inversion, swap, miss, background, score order and missed persons.

The errors are those of Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV
2017, sections 3 and 4. ks(i, j) = exp(-d^2 / (2 s^2 k_j^2)) is the similarity of the predicted joint i with the true
joint j of a person of area s^2, d pixels away, with k_j = 2 sigma_j: the term of OKS. A labelled joint i is

- good where ks(i, i) >= 0.85, jitter where 0.5 <= ks(i, i) < 0.85, and below that
- inversion where it is at another joint j of its person, ks(i, j) >= 0.5: its left or right counterpart, or one that
  is at least as near as any joint of another person;
- swap where it is at any joint of another person, ks >= 0.5;
- miss where it is at no joint.

Poses are paired with persons by falling score as in the COCO evaluation at OKS 0.5; then, so that poor poses are
diagnosed too, the rest down to OKS 0.1 as in the paper. A pose paired with nobody is background, a person without a
pose is missed. What an error costs is the AP that is gained when it is mended: joints are put where they truly are,
background poses are taken out, missed persons are not asked for, and scores are replaced by the true OKS (0 for
background), which no order of the same poses can beat. Mending all leaves what good joints lack: an AP of almost 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from harness.accuracy.ap import Curves
from harness.accuracy.bootstrap import image_weights
from harness.accuracy.inputs import Detections, GroundTruth
from harness.accuracy.match import candidates, greedy_steps, match_groups, oks_pairs, pairs_by_image, within_area
from harness.accuracy.resampled import LEVEL, Progress, Resampled, resampled
from harness.pose.skeletons import Skeleton

__all__ = ["ERRORS", "KINDS", "Anatomy", "Diagnosis", "anatomy", "diagnose", "mend"]

KINDS = ("good", "jitter", "inversion", "swap", "miss")
_GOOD, _JITTER, _INVERSION, _SWAP, _MISS = range(len(KINDS))
_UNLABELLED = -1
ERRORS = (*KINDS[1:], "background", "score order", "missed persons")
"""in the order in which they are mended one after the other"""
_AS_GOOD, _AT_JOINT = 0.85, 0.5  # ks
_ROUNDS = (0.5, 0.1)  # OKS
_PAIRS_AT_ONCE = 4_000  # each is a table of K x K similarities
_NOBODY = "no person is there to be found"


@dataclass(frozen=True)
class Diagnosis:
    """person: (D,) whom each pose is paired with, -1 for nobody; kinds: (D, K) index into KINDS, -1 where there is
    nothing to say; mirrored: (D, K) bool, inversions at the left or right counterpart; ignored: (D,) bool, paired
    with a person that does not count; duplicate: (D,) bool, background at a person whom another pose took;
    missed: (N,) bool, persons that count and have no pose."""

    person: np.ndarray
    kinds: np.ndarray
    mirrored: np.ndarray
    ignored: np.ndarray
    duplicate: np.ndarray
    missed: np.ndarray

    @property
    def background(self) -> np.ndarray:
        """(D,) bool: paired with nobody."""
        return (self.person < 0) & ~self.ignored


@dataclass(frozen=True)
class Anatomy:
    """`found`: AP as it is, then with each of ERRORS mended alone, then with the first, the first two, ... mended."""

    diagnosis: Diagnosis
    joints: tuple[str, ...]
    found: Resampled
    seed: int

    @property
    def alone(self) -> Resampled:
        """(7,) AP gained by mending each error and no other."""
        return self.found[slice(1, 1 + len(ERRORS))] - self.found[0]

    @property
    def step(self) -> Resampled:
        """(7,) AP gained by mending each error after those before it."""
        n = len(ERRORS)
        return self.found[slice(1 + n, 1 + 2 * n)] - self.found[[0, *range(1 + n, 2 * n)]]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: counts, and AP that each error costs."""
        d = self.diagnosis
        counts = self._counts()
        rows = self._costs(self.alone, self.step)
        ap = self.found[slice(1 + len(ERRORS), None)]
        for i, name in enumerate(ERRORS):
            rows[name] = {"count": counts[name], **rows[name], "ap_after": ap.row(i, _NOBODY)["value"]}
        return {
            **self._head(),
            "ap": self.found.row(0, _NOBODY),
            "paired_poses": int(np.sum(d.person >= 0)),
            "ignored_poses": int(d.ignored.sum()),
            "duplicates": int(d.duplicate.sum()),
            "mirrored": int(d.mirrored.sum()),
            "errors": rows,
            "keypoints": self._joints(),
        }

    def minus(self, other: Anatomy) -> dict[str, Any]:
        """JSON-ready paired differences of the costs, this minus `other` (same truth, same resamples)."""
        return {**self._head(), "errors": self._costs(self.alone - other.alone, self.step - other.step)}

    def _head(self) -> dict[str, Any]:
        return {"resamples": len(self.found.samples), "seed": self.seed, "level": LEVEL}

    def _costs(self, alone: Resampled, step: Resampled) -> dict[str, dict[str, Any]]:
        return {name: {"alone": alone.row(i, _NOBODY), "step": step.row(i, _NOBODY)} for i, name in enumerate(ERRORS)}

    def _counts(self) -> dict[str, int | None]:
        d = self.diagnosis
        joints = {name: int(np.sum(d.kinds == i)) for i, name in enumerate(KINDS)}
        return joints | {
            "background": int(d.background.sum()), "score order": None, "missed persons": int(d.missed.sum()),
        }  # fmt: skip

    def _joints(self) -> dict[str, dict[str, int]]:
        kinds = self.diagnosis.kinds
        return {
            joint: {name: int(np.sum(kinds[:, j] == i)) for i, name in enumerate(KINDS)}
            for j, joint in enumerate(self.joints)
        }


def anatomy(
    gt: GroundTruth,
    dets: Detections,
    skeleton: Skeleton,
    sigmas: Sequence[float],
    *,
    resamples: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Anatomy:
    """Diagnoses every pose and mends what was found. `progress`: called resamples + 1 times."""
    found = diagnose(gt, dets, sigmas, skeleton.flip_order)
    states: list[Collection[str]] = [(), *((name,) for name in ERRORS)]
    states += [ERRORS[: n + 1] for n in range(len(ERRORS))]
    curves = []
    for errors in states:
        truth, poses = mend(gt, dets, found, sigmas, errors)
        group = {"all": within_area(truth, poses, "all")}
        curves.append(Curves(match_groups(truth, poses, sigmas, group), each_group=True))
    weights = image_weights(len(gt.image_ids), resamples, seed) if resamples else np.empty((0, len(gt.image_ids)))
    return Anatomy(found, skeleton.joints, resampled(curves, weights, progress), seed)


def diagnose(gt: GroundTruth, dets: Detections, sigmas: Sequence[float], mirror: np.ndarray) -> Diagnosis:
    """What is wrong with every pose. `sigmas`: (K,); `mirror`: (K,) index of each joint's counterpart, or its own."""
    taken_by, near = _pair_up(gt, dets, sigmas)
    counted = (taken_by >= 0) & ~np.append(gt.ignore, True)[taken_by]
    person = np.where(counted, taken_by, -1)
    found = np.zeros(len(gt.image), dtype=bool)
    found[person[counted]] = True
    kinds, mirrored = _kinds(gt, dets, person, sigmas, mirror)
    return Diagnosis(
        person=person,
        kinds=kinds,
        mirrored=mirrored,
        ignored=(taken_by >= 0) & ~counted,
        duplicate=near & (taken_by < 0),
        missed=~gt.ignore & ~found,
    )


def mend(
    gt: GroundTruth, dets: Detections, found: Diagnosis, sigmas: Sequence[float], errors: Collection[str]
) -> tuple[GroundTruth, Detections]:
    """Truth and poses without the named ERRORS. Scores are renewed last, for the poses as they are then.

    With the background, poses at persons that do not count are taken out: where their OKS is too low for a threshold,
    COCO holds them against the method too.
    """
    person = found.person
    wrong = np.isin(found.kinds, [KINDS.index(name) for name in errors if name in KINDS])
    if wrong.any():
        dets = replace(dets, xy=np.where(wrong[..., None], gt.keypoints[person, :, :2], dets.xy))
    if "background" in errors:
        dets, person = dets.subset(person >= 0), person[person >= 0]
    if "score order" in errors:
        dets = _rescored(gt, dets, person, sigmas)
    if "missed persons" in errors:
        gt = replace(gt, ignore=gt.ignore | found.missed)
    return gt, dets


def _rescored(gt: GroundTruth, dets: Detections, person: np.ndarray, sigmas: Sequence[float]) -> Detections:
    """Scores are the OKS with the person that a pose is paired with, 0 for background; put in order by them."""
    score = np.zeros(len(person))
    paired = np.flatnonzero(person >= 0)
    score[paired] = oks_pairs(gt, dets, paired, person[paired], sigmas)
    return replace(dets, score=score).subset(np.lexsort((-score, dets.image)))


def _pair_up(gt: GroundTruth, dets: Detections, sigmas: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """(D,) person of each pose or -1, and (D,) bool whether it is near (OKS 0.1) anybody who counts."""
    d, g, oks = candidates(gt, dets, sigmas, min(_ROUNDS))
    order = np.lexsort((-g, -oks, gt.ignore[g], d))  # as in the evaluation: persons that count come first
    d, g, oks = d[order], g[order], oks[order]
    person, taken = np.full(len(dets.score), -1), np.zeros(len(gt.image), dtype=bool)
    for n, least in enumerate(_ROUNDS):
        # a person who does not count is met at 0.5 or not at all
        open_ = (oks >= least) & (person[d] < 0) & ~((n > 0) & gt.ignore[g])
        ds, gs = d[open_], g[open_]
        for step in greedy_steps(ds, dets.image):
            hit = (person[ds[step]] < 0) & (~taken[gs[step]] | gt.crowd[gs[step]])
            person[ds[step][hit]] = gs[step][hit]
            taken[gs[step][hit]] = True
    near = np.zeros(len(person), dtype=bool)
    near[d[~gt.ignore[g]]] = True
    return person, near


def _kinds(
    gt: GroundTruth, dets: Detections, person: np.ndarray, sigmas: Sequence[float], mirror: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(D, K) kind of every joint and whether it is an inversion at its counterpart."""
    poses = np.flatnonzero(person >= 0)
    mine, mirrored, inside, outside = np.zeros((4, len(poses), len(sigmas)))
    own_joint = np.arange(len(sigmas))
    for rows, g in pairs_by_image(dets.image[poses], gt, _PAIRS_AT_ONCE):
        ks = _similarity(gt, dets.xy[poses[rows]], g, sigmas)
        own = g == person[poses[rows]]
        mine[rows[own]] = ks[own][:, own_joint, own_joint]
        mirrored[rows[own]] = ks[own][:, own_joint, mirror]
        ks[:, own_joint, own_joint] *= ~own[:, None]
        best = ks.max(axis=2)
        inside[rows[own]] = best[own]
        other = ~own & ~gt.crowd[g]
        np.maximum.at(outside, rows[other], best[other])
    at_mirror = (mirrored >= _AT_JOINT) & (mirror != own_joint) & (mine < _AT_JOINT)
    inverted = at_mirror | ((inside >= _AT_JOINT) & (inside >= outside))
    conditions = [mine >= _AS_GOOD, mine >= _AT_JOINT, inverted, outside >= _AT_JOINT]
    chosen = np.select(conditions, [_GOOD, _JITTER, _INVERSION, _SWAP], _MISS)
    labelled = gt.keypoints[person[poses], :, 2] > 0
    kinds = np.full((len(person), len(sigmas)), _UNLABELLED, dtype=np.int8)
    kinds[poses] = np.where(labelled, chosen, _UNLABELLED)
    flipped = np.zeros(kinds.shape, dtype=bool)
    flipped[poses] = at_mirror & labelled
    return kinds, flipped


def _similarity(gt: GroundTruth, xy: np.ndarray, g: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
    """(P, K, K) ks of every joint of the poses (P, K, 2) with every joint of the persons `g` (P,); unlabelled: 0."""
    joints = gt.keypoints[g]
    squared = ((xy[:, :, None] - joints[:, None, :, :2]) ** 2).sum(axis=3)
    spread = 2 * (gt.area[g, None] + np.spacing(1)) * (2 * np.asarray(sigmas)) ** 2
    return np.exp(-squared / spread[:, None]) * (joints[:, None, :, 2] > 0)
