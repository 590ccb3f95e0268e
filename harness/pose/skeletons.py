"""Joint sets: names, mirror pairs, OKS sigmas, limbs. COCO 17, CrowdPose 14, MPII 16."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["COCO", "CROWDPOSE", "MPII", "SKELETONS", "Skeleton", "with_joints"]


@dataclass(frozen=True)
class Skeleton:
    """A joint set.

    `flip_pairs` are the left/right index pairs, `sigmas` the per-joint OKS constants (the COCO `k/2`),
    `limbs` the index pairs to draw, `upper` the joints of the upper body (half-body augmentation).
    """

    name: str
    joints: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    limbs: tuple[tuple[int, int], ...]
    upper: tuple[int, ...]

    @property
    def num_joints(self) -> int:
        return len(self.joints)

    @property
    def flip_order(self) -> np.ndarray:
        """(K,) int64: index of the mirrored joint of each joint."""
        order = np.arange(len(self.joints))
        for a, b in self.flip_pairs:
            order[a], order[b] = b, a
        return order

    def only(self, names: Sequence[str]) -> Skeleton:
        """The joint set with these joints only, in its own order; limbs and pairs that lose an end go with it."""
        kept = [j for j, name in enumerate(self.joints) if name in names]
        place = {old: new for new, old in enumerate(kept)}

        def moved(pairs: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
            return tuple((place[a], place[b]) for a, b in pairs if a in place and b in place)

        return replace(
            self,
            joints=tuple(self.joints[j] for j in kept),
            flip_pairs=moved(self.flip_pairs),
            sigmas=tuple(self.sigmas[j] for j in kept),
            limbs=moved(self.limbs),
            upper=tuple(place[j] for j in self.upper if j in place),
        )


# fmt: off
_COCO_SIDES = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
COCO = Skeleton(
    name="coco",
    joints=("nose", *(f"{side}_{part}" for part in _COCO_SIDES for side in ("left", "right"))),
    flip_pairs=tuple((i, i + 1) for i in range(1, 17, 2)),
    # shared by pycocotools, the HRNet code line and mmpose (COCO keypoint evaluation page)
    sigmas=tuple(
        s / 10 for s in (.26, .25, .25, .35, .35, .79, .79, .72, .72, .62, .62, 1.07, 1.07, .87, .87, .89, .89)
    ),
    limbs=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8),
        (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    upper=tuple(range(11)),
)

CROWDPOSE = Skeleton(
    name="crowdpose",
    joints=(
        "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip",
        "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle", "head", "neck",
    ),
    flip_pairs=tuple((i, i + 1) for i in range(0, 12, 2)),
    sigmas=tuple(s / 10 for s in (.79, .79, .72, .72, .62, .62, 1.07, 1.07, .87, .87, .89, .89, .79, .79)),
    limbs=((10, 8), (8, 6), (11, 9), (9, 7), (6, 7), (0, 6), (1, 7), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (12, 13), (13, 0), (13, 1)),
    upper=(0, 1, 2, 3, 4, 5, 12, 13),
)

MPII = Skeleton(
    name="mpii",
    joints=(
        "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "pelvis", "thorax",
        "upper_neck", "head_top", "right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow",
        "left_wrist",
    ),
    flip_pairs=((0, 5), (1, 4), (2, 3), (10, 15), (11, 14), (12, 13)),
    # MPII is scored by PCKh; these sigmas serve OKS-NMS only (mmpose's dataset description)
    sigmas=(.089, .083, .107, .107, .083, .089, .026, .026, .026, .026, .062, .072, .179, .179, .072, .062),
    limbs=((0, 1), (1, 2), (2, 6), (6, 3), (3, 4), (4, 5), (6, 7), (7, 8), (8, 9), (8, 12), (12, 11), (11, 10), (8, 13), (13, 14), (14, 15)),
    upper=(7, 8, 9, 10, 11, 12, 13, 14, 15),
)

# fmt: on
SKELETONS = {s.name: s for s in (COCO, CROWDPOSE, MPII)}


def with_joints(count: int | None) -> Skeleton | None:
    """The joint set of a network that writes so many joints, None where none of ours has that number."""
    return next((s for s in SKELETONS.values() if s.num_joints == count), None)
