"""Derives pose_statistics.json, the joint angles and proportions from which synthetic people are drawn.

    python -m harness.data.pose_statistics person_keypoints_val2017.json ... > pose_statistics.json

Every person whose shoulders, elbows, wrists, hips, knees, ankles and at least one face point are labelled
becomes one vector: twelve bones (a chain from the middle of the hips outwards) as (x, y) in units of
stature, and `turn`, the sine of the body's yaw. Angles and lengths of the bones thus stay together with
their correlations. Persons that look to the left of the image are mirrored, so that one half of the pose
space is described twice as well. k-means makes groups (standing, walking, sitting, reaching, from the back,
...); each group keeps its share, its mean and its principal components scaled by their standard deviations.
No single person can be read back.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.cluster.vq import kmeans2

from harness.pose.skeletons import COCO

__all__ = ["BONES", "SHOULDER_WIDTH", "bones", "derive"]

# (name, length relative to stature as seen from the side or from the front, without foreshortening)
BONES = {
    "torso": 0.29, "head": 0.125, "shoulder": 0.105, "hip": 0.065,
    "left_upper_arm": 0.165, "right_upper_arm": 0.165, "left_forearm": 0.145, "right_forearm": 0.145,
    "left_thigh": 0.235, "right_thigh": 0.235, "left_shin": 0.235, "right_shin": 0.235,
}  # fmt: skip
SHOULDER_WIDTH = 2 * BONES["shoulder"]

_GROUPS, _COMPONENTS, _SEED = 24, 8, 17
_MIRROR = [0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 11, 10]  # bones after exchange of left and right


def bones(keypoints: np.ndarray) -> np.ndarray:
    """keypoints (N, 17, 3) COCO -> (N, 12, 2) bone vectors in pixels, in the order of `BONES`."""
    points, seen = keypoints[..., :2], keypoints[..., 2:] > 0
    neck, pelvis = points[:, 5:7].mean(1), points[:, 11:13].mean(1)
    face = (points * seen)[:, :5].sum(1) / np.maximum(seen[:, :5].sum(1), 1)
    chain = [
        neck - pelvis,
        face - neck,
        (points[:, 5] - points[:, 6]) / 2,
        (points[:, 11] - points[:, 12]) / 2,
    ]
    chain += [points[:, b] - points[:, a] for a, b in ((5, 7), (6, 8), (7, 9), (8, 10))]
    chain += [points[:, b] - points[:, a] for a, b in ((11, 13), (12, 14), (13, 15), (14, 16))]
    return np.stack(chain, axis=1)


def derive(keypoints: np.ndarray, *, groups: int = _GROUPS, components: int = _COMPONENTS) -> dict[str, Any]:
    """keypoints (N, 17, 3) COCO -> the table: shares (G,), means (G, 25), components (G, C, 25)."""
    labelled = (keypoints[:, 5:, 2] > 0).all(1) & (keypoints[:, :5, 2] > 0).any(1)
    features = _features(keypoints[labelled])
    spread = features.std(0)
    _, group = kmeans2(features / spread, groups, minit="++", seed=_SEED)
    members = [features[group == g] for g in range(groups) if (group == g).sum() > 2 * components]
    counts = np.array([len(m) for m in members])
    order = np.argsort(-counts)
    return {
        "source": "COCO train2017 and val2017 keypoint annotations, cocodataset.org, CC BY 4.0",
        "derived_by": "harness/data/pose_statistics.py",
        "persons": int(labelled.sum()),
        "features": [f"{name}_{axis}" for name in BONES for axis in "xy"] + ["turn"],
        "shares": np.round(counts[order] / counts.sum(), 4).tolist(),
        "means": [np.round(members[g].mean(0), 3).tolist() for g in order],
        "components": [np.round(_principal(members[g], components), 3).tolist() for g in order],
    }


def _features(keypoints: np.ndarray) -> np.ndarray:
    """(N, 17, 3) -> (N, 25): bones in units of stature, and turn; mirrored to look to the right."""
    vectors = bones(keypoints)
    lengths = np.linalg.norm(vectors, axis=-1) / np.array(list(BONES.values()))
    # foreshortening makes a person too small, a misplaced label too large; the third largest is neither
    stature = np.sort(np.delete(lengths, [1, 2, 3], axis=1), axis=1)[:, -3]
    keep = stature > 40
    vectors, keypoints = vectors[keep] / stature[keep, None, None], keypoints[keep]
    across = np.clip(vectors[:, 2, 0] / BONES["shoulder"], -1, 1)
    side = _gaze(keypoints)
    mirrored = vectors[:, _MIRROR] * [-1, 1]
    mirrored[:, 2:4] *= -1  # half widths point to the left joint, which is the other one now
    vectors = np.where((side < 0)[:, None, None], mirrored, vectors)
    return np.concatenate([vectors.reshape(len(vectors), -1), np.sqrt(1 - across**2)[:, None]], axis=1)


def _gaze(keypoints: np.ndarray) -> np.ndarray:
    """(N,) > 0 where the nose points to the right, judged from the ears, else from the shoulders."""
    seen = keypoints[..., 2] > 0
    ears = (keypoints[:, 3:5, 0] * seen[:, 3:5]).sum(1) / np.maximum(seen[:, 3:5].sum(1), 1)
    neck = keypoints[:, 5:7, 0].mean(1)
    middle = np.where(seen[:, 3:5].any(1), ears, neck)
    return np.where(seen[:, 0], keypoints[:, 0, 0] - middle, middle - neck)


def _principal(members: np.ndarray, count: int) -> np.ndarray:
    """(M, 25) -> (count, 25): principal components, each scaled by its standard deviation."""
    _, singular, rows = np.linalg.svd(members - members.mean(0), full_matrices=False)
    return rows[:count] * singular[:count, None] / np.sqrt(len(members) - 1)


def main(files: list[str]) -> None:
    """Prints the table derived from the given COCO keypoint files."""
    persons = [a["keypoints"] for f in files for a in json.loads(Path(f).read_text())["annotations"]]
    keypoints = np.array(persons, dtype=np.float64).reshape(-1, COCO.num_joints, 3)
    print(json.dumps(derive(keypoints), separators=(",", ":")).replace('],"', '],\n"').replace("],[", "],\n["))


if __name__ == "__main__":
    main(sys.argv[1:])
