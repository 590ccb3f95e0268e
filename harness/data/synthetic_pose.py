"""Draws poses of synthetic people from the statistics of real ones (pose_statistics.json)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from harness.data.pose_statistics import BONES, SHOULDER_WIDTH

__all__ = ["FAR_SIDE", "Figure", "sample_figure"]

FAR_SIDE = np.array([-0.25, -0.05, -0.05, -0.5, -0.5])  # face points of less depth are behind the head
_SHRINK = 0.85  # of the components: their tails beyond the groups hold bones that no body has
_LONGEST = 1.12  # of a bone relative to its usual length
_PARENTS = ((5, 7), (6, 8), (7, 9), (8, 10), (11, 13), (12, 14), (13, 15), (14, 16))
# nose, eyes, ears on a head whose half width is 1: to the person's left, upwards, forwards
_FACE = np.array([[0, -0.12, 1.08], [0.4, 0.22, 0.88], [-0.4, 0.22, 0.88], [0.98, 0.02, -0.05], [-0.98, 0.02, -0.05]])


@dataclass(frozen=True)
class Figure:
    """A posed body in a plane, before it is dressed.

    `joints` (17, 2) COCO order in pixels; `stature` in pixels; `yaw` of the body and `head_yaw` in radians,
    0 faces the viewer, positive looks to the right of the image; `head` centre (2,), `up` its unit axis (2,),
    `radius` its half width in pixels; `face_depth` (5,) of the face points in half widths towards the viewer,
    to be compared with FAR_SIDE.
    """

    joints: np.ndarray
    stature: float
    yaw: float
    head_yaw: float
    head: np.ndarray
    up: np.ndarray
    radius: float
    face_depth: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """(2,) unit axis across the head, to the right of the image for an upright one."""
        return np.array([-self.up[1], self.up[0]])

    def moved(self, offset: np.ndarray) -> Figure:
        """The same figure, shifted by `offset` (2,) pixels."""
        return Figure(**{**self.__dict__, "joints": self.joints + offset, "head": self.head + offset})


def sample_figure(rng: np.random.Generator, stature: float) -> Figure:
    """A figure of `stature` pixels with the middle of its hips at (0, 0)."""
    vectors, turn = _sample_bones(rng)
    across = float(np.clip(vectors[2, 0] / BONES["shoulder"], -1, 1))
    yaw = float(np.arctan2(turn, across))
    if rng.random() < 0.5:
        vectors, yaw = _mirror(vectors), -yaw
    vectors = vectors * stature
    joints = np.zeros((17, 2))
    neck = vectors[0]
    joints[5:7] = neck + np.outer([1, -1], vectors[2])
    joints[11:13] = np.outer([1, -1], vectors[3])
    for (parent, child), bone in zip(_PARENTS, vectors[4:]):
        joints[child] = joints[parent] + bone
    return _with_head(rng, joints, neck, vectors[1], stature, yaw)


@cache
def _statistics() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares (G,), means (G, 25) and components (G, C, 25)."""
    table = json.loads(Path(__file__).with_name("pose_statistics.json").read_text())
    shares = np.array(table["shares"])
    return shares / shares.sum(), np.array(table["means"]), np.array(table["components"])


def _sample_bones(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """(12, 2) bones in units of stature, and the sine of the yaw (>= 0)."""
    shares, means, components = _statistics()
    group = rng.choice(len(shares), p=shares)
    weights = np.clip(rng.standard_normal(components.shape[1]), -2, 2) * _SHRINK
    drawn = means[group] + weights @ components[group]
    vectors = drawn[:-1].reshape(-1, 2)
    lengths = np.linalg.norm(vectors, axis=1)
    allowed = np.array(list(BONES.values())) * _LONGEST
    return vectors * np.minimum(1, allowed / np.maximum(lengths, 1e-9))[:, None], float(np.clip(drawn[-1], 0, 1))


def _mirror(vectors: np.ndarray) -> np.ndarray:
    """Exchanges left and right of (12, 2) bones; half widths then point to the other joint."""
    mirrored = vectors[[0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 11, 10]] * [-1, 1]
    mirrored[2:4] *= -1
    return mirrored


def _with_head(
    rng: np.random.Generator,
    joints: np.ndarray,
    neck: np.ndarray,
    to_face: np.ndarray,
    stature: float,
    yaw: float,
) -> Figure:
    """Puts a head on (17, 2) joints: a ball whose yaw follows the body's, looking a little up or down."""
    head_yaw = yaw + float(np.clip(rng.normal(0, 0.4), -0.9, 0.9))
    radius = stature * SHOULDER_WIDTH * 0.29 * rng.uniform(0.92, 1.12)
    length = np.linalg.norm(to_face)
    up = to_face / max(length, 1e-9) + np.array([0, -0.8])  # heads stay more upright than faces
    up /= np.linalg.norm(up)
    head = neck + up * np.clip(length, 0.09 * stature, 0.13 * stature)
    points = _turned(_FACE, head_yaw, rng.normal(0.08, 0.15))
    figure = Figure(joints, stature, yaw, head_yaw, head, up, radius, points[:, 2])
    joints[:5] = head + radius * (points[:, :1] * figure.right + points[:, 1:2] * up)
    return figure


def _turned(points: np.ndarray, yaw: float, pitch: float) -> np.ndarray:
    """Head points (N, 3) nodded by `pitch`, turned by `yaw`: to the image right, up, towards the viewer."""
    x, y, z = points.T
    y, z = y * np.cos(pitch) - z * np.sin(pitch), z * np.cos(pitch) + y * np.sin(pitch)
    return np.stack([x * np.cos(yaw) + z * np.sin(yaw), y, z * np.cos(yaw) - x * np.sin(yaw)], axis=1)
