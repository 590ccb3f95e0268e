"""A canvas that remembers what each of its pixels shows, and the few shapes drawn on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

__all__ = ["OCCLUDER", "Canvas", "Colour", "capsule", "ellipse", "hull"]

OCCLUDER = 255  # code of things in front of people
_UNIT = np.stack([np.cos(np.linspace(0, 2 * np.pi, 20, endpoint=False)),
                  np.sin(np.linspace(0, 2 * np.pi, 20, endpoint=False))], axis=1)  # fmt: skip


Colour = np.ndarray  # (3,) float RGB 0..255


@dataclass
class Canvas:
    """`image` (H, W, 3) uint8 RGB, `codes` (H, W) uint8: 0 background, 255 occluder, else person and part."""

    image: np.ndarray
    codes: np.ndarray
    light: np.ndarray = field(default_factory=lambda: np.array([-0.6, -0.8]))

    def fill(self, polygon: np.ndarray, colour: Colour, code: int | None = None) -> None:
        """Fills `polygon` (N, 2) in pixels, antialiased; with `code` the map is written too."""
        points = np.round(polygon * 16).astype(np.int32)
        cv2.fillPoly(self.image, [points], _rgb(colour), cv2.LINE_AA, 4)
        if code is not None:
            cv2.fillPoly(self.codes, [points], code, cv2.LINE_8, 4)

    def line(self, points: np.ndarray, colour: Colour, width: float) -> None:
        """An open line through `points` (N, 2), antialiased; the map stays."""
        fixed = np.round(points * 16).astype(np.int32)
        cv2.polylines(self.image, [fixed], False, _rgb(colour), max(1, round(width)), cv2.LINE_AA, 4)

    def solid(self, circles: np.ndarray, colour: Colour, code: int) -> None:
        """The convex hull of `circles` (N, 3: x, y, radius), with outline, shade and a lit side."""
        rim = max(0.5, 0.05 * float(circles[:, 2].max()))
        self.fill(hull(circles + np.array([0, 0, rim])), colour * 0.45, code)
        self.fill(hull(circles), colour * 0.78)
        for size, gain in ((0.78, 1.0), (0.4, 1.12)):
            lit = circles * [1, 1, size]
            lit[:, :2] += self.light * circles[:, 2:] * (1 - size) * 0.8
            self.fill(hull(lit), colour * gain)


def capsule(a: np.ndarray, b: np.ndarray, radius_a: float, radius_b: float) -> np.ndarray:
    """The outline (N, 2) of a tapered rod with round ends."""
    return hull(np.array([[*a, radius_a], [*b, radius_b]]))


def hull(circles: np.ndarray) -> np.ndarray:
    """Convex outline (N, 2) around circles (M, 3: x, y, radius)."""
    points = circles[:, None, :2] + circles[:, None, 2:] * _UNIT
    return cv2.convexHull(points.reshape(-1, 2).astype(np.float32))[:, 0]


def ellipse(centre: np.ndarray, axis: np.ndarray, along: float, across: float) -> np.ndarray:
    """Outline (20, 2) of an ellipse with half axis `along` in the direction of the unit vector `axis`."""
    side = np.array([-axis[1], axis[0]])
    return centre + _UNIT[:, :1] * along * axis + _UNIT[:, 1:] * across * side


def _rgb(colour: Colour) -> tuple[int, int, int]:
    r, g, b = np.clip(colour, 0, 255).astype(int).tolist()
    return r, g, b
