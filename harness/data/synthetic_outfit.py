"""What synthetic people wear, and their heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from harness.data.synthetic_canvas import Canvas, Colour, ellipse
from harness.data.synthetic_pose import FAR_SIDE, Figure

__all__ = ["HeadCodes", "Outfit", "draw_head", "sample_outfit"]

_SKINS = ((244, 208, 177), (231, 180, 143), (208, 150, 110), (168, 112, 76), (118, 76, 52), (84, 54, 38))
_HAIRS = (
    (28, 22, 20), (52, 36, 26), (90, 58, 36), (140, 96, 52), (206, 168, 104), (150, 146, 142), (120, 48, 26)
)  # fmt: skip


@dataclass(frozen=True)
class Outfit:
    """What a person wears; colours are RGB 0..255, `sleeve` and `leg` 0 bare .. 1 to the end of the limb."""

    skin: Colour
    hair: Colour
    shirt: Colour
    accent: Colour
    bottom: Colour
    shoe: Colour
    sleeve: float
    leg: float
    skirt: float
    long_hair: bool
    hat: bool
    pattern: str
    build: float


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Clothes, hair, skin and build of one person."""
    kind = rng.choice(["trousers", "shorts", "skirt", "dress"], p=[0.55, 0.25, 0.1, 0.1])
    shirt = rng.uniform(20, 245, 3) * rng.uniform(0.6, 1)
    bottom = shirt * 0.95 if kind == "dress" else rng.uniform(15, 170, 3) * 0.6 + rng.uniform(0, 70)
    shade = rng.uniform(0.88, 1.06)
    return Outfit(
        skin=np.array(_SKINS[rng.integers(len(_SKINS))]) * shade,
        hair=np.array(_HAIRS[rng.integers(len(_HAIRS))]) * shade,
        shirt=shirt,
        accent=rng.uniform(20, 245, 3),
        bottom=bottom,
        shoe=np.full(3, rng.choice([25, 60, 120, 225])) * rng.uniform(0.8, 1.05, 3),
        sleeve=float(rng.choice([0.0, 0.4, 1.0], p=[0.15, 0.45, 0.4])),
        leg={"trousers": 1.0, "shorts": 0.5}.get(kind, 0.0),
        skirt=float(rng.uniform(0.5, 1.05)) if kind in ("skirt", "dress") else 0.0,
        long_hair=bool(rng.random() < (0.8 if kind in ("skirt", "dress") else 0.15)),
        hat=bool(rng.random() < 0.15),
        pattern=str(rng.choice(["plain", "stripes", "panel", "open"], p=[0.5, 0.2, 0.15, 0.15])),
        build=float(np.clip(rng.normal(1.05, 0.12), 0.82, 1.4)),
    )


class HeadCodes(NamedTuple):
    """What the map gets where a part of the head is on top."""

    neck: int
    face: int
    hair: int


def draw_head(canvas: Canvas, figure: Figure, outfit: Outfit, codes: HeadCodes) -> None:
    """Neck, hair, face, hat. Hair covers what the face does not: a head from the back shows hair only."""
    r, up, centre, right = figure.radius, figure.up, figure.head, figure.right
    turn, front = np.sin(figure.head_yaw), np.cos(figure.head_yaw)
    neck = [_ball(figure.joints[5:7].mean(0), 0.55 * r), _ball(centre - up * r * 0.3, 0.55 * r)]
    tail = [_ball(centre, 1.1 * r), _ball(centre - up * 1.6 * r - right * turn * 0.5 * r, 0.8 * r)]
    layers = [(tail, outfit.hair, codes.hair)] if outfit.long_hair else []
    layers.append((neck, outfit.skin * 0.9, codes.neck))
    for balls, colour, code in layers if front > 0 else layers[::-1]:  # long hair falls behind the throat
        canvas.solid(np.array(balls), colour, code)
    skull = [_ball(centre + up * 0.3 * r, 1.06 * r), _ball(centre - up * 0.35 * r, 0.9 * r)]
    canvas.solid(np.array(skull), outfit.hair, codes.hair)
    if front > -0.25:
        middle = centre + right * turn * 0.5 * r - up * 0.22 * r
        wide = r * (0.45 + 0.5 * max(front, 0))
        canvas.fill(ellipse(middle, up, 1.1 * r, wide), outfit.skin, codes.face)
        canvas.fill(ellipse(middle + canvas.light * 0.2 * r, up, 0.7 * r, wide * 0.6), outfit.skin * 1.06)
    _face(canvas, figure, outfit, codes.face)
    if outfit.hat:
        _hat(canvas, figure, outfit, codes.hair)


def _face(canvas: Canvas, figure: Figure, outfit: Outfit, code: int) -> None:
    """Ears, eyes with brows, nose and mouth, each where it is turned to the viewer."""
    r, up, right, points = figure.radius, figure.up, figure.right, figure.joints
    shown = figure.face_depth > FAR_SIDE
    for index in (3, 4):
        if shown[index] and not outfit.long_hair:
            canvas.fill(ellipse(points[index], up, 0.34 * r, 0.2 * r), outfit.skin * 0.8, code)
    for index in (1, 2):
        if shown[index]:
            canvas.fill(ellipse(points[index], up, 0.12 * r, 0.2 * r), np.full(3, 225.0), code)
            canvas.fill(ellipse(points[index], up, 0.12 * r, 0.1 * r), np.full(3, 25.0))
            brow = points[index] + up * 0.3 * r + np.outer([-0.25, 0.25], right) * r
            canvas.line(brow, outfit.hair * 0.7, 0.1 * r)
    if shown[0]:
        nose = points[0] + np.outer([-0.19, 0.19], right) * r
        bridge = points[1:3].mean(0)
        canvas.fill(np.array([bridge, nose[0], points[0] - up * 0.15 * r, nose[1]]), outfit.skin * 0.82, code)
        mouth = points[0] - up * 0.5 * r - right * 0.1 * r * np.sin(figure.head_yaw)
        half = 0.3 * r * max(np.cos(figure.head_yaw), 0.3)
        canvas.line(mouth + np.outer([-half, half], right), outfit.skin * 0.55, 0.14 * r)


def _hat(canvas: Canvas, figure: Figure, outfit: Outfit, code: int) -> None:
    """A cap whose peak points where the head looks."""
    r, up, right = figure.radius, figure.up, figure.right
    brim = figure.head + up * 0.72 * r
    crown = [_ball(brim + right * side * r + up * 0.35 * r, 0.7 * r) for side in (-0.35, 0.35)]
    canvas.solid(np.array(crown), outfit.accent, code)
    if np.cos(figure.head_yaw) > -0.3:
        tip = brim + right * r * 1.2 * np.sin(figure.head_yaw) - up * 0.1 * r
        canvas.solid(np.array([_ball(brim, 0.3 * r), _ball(tip, 0.25 * r)]), outfit.accent * 0.8, code)


def _ball(centre: np.ndarray, radius: float) -> list[float]:
    return [*centre, radius]
