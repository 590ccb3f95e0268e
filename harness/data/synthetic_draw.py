"""Draws dressed people on a canvas, part by part from far to near."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from harness.data.synthetic_canvas import Canvas, Colour, ellipse, hull
from harness.data.synthetic_outfit import HeadCodes, Outfit, draw_head
from harness.data.synthetic_pose import Figure

__all__ = ["OWNERS", "PARTS", "PERSON_STRIDE", "draw_person"]

PARTS = (
    "torso", "pelvis", "skirt", "neck", "head", "hair",
    "left_upper_arm", "right_upper_arm", "left_forearm", "right_forearm",
    "left_thigh", "right_thigh", "left_shin", "right_shin", "left_foot", "right_foot",
)  # fmt: skip
PERSON_STRIDE = 32  # codes of person p are 1 + 32 p + part

# parts on which a joint lies, so that it is seen where one of them is on top
OWNERS: tuple[frozenset[int], ...] = tuple(
    frozenset(PARTS.index(name) for name in names.split())
    for names in (
        ["head"] * 5
        + [f"torso neck {s}_upper_arm" for s in ("left", "right")]
        + [f"{s}_upper_arm {s}_forearm" for s in ("left", "right")]
        + [f"{s}_forearm" for s in ("left", "right")]
        + [f"torso pelvis skirt {s}_thigh" for s in ("left", "right")]
        + [f"skirt {s}_thigh {s}_shin" for s in ("left", "right")]
        + [f"{s}_shin {s}_foot" for s in ("left", "right")]
    )
)


def draw_person(canvas: Canvas, rng: np.random.Generator, figure: Figure, outfit: Outfit, person: int) -> None:
    """Draws the parts of one person from far to near; `person` (0..6) goes into the map."""
    body = _Body(canvas, figure, outfit, 1 + PERSON_STRIDE * person)
    for _, draw in sorted(_layers(rng, body), key=lambda layer: layer[0]):
        draw()


def _layers(rng: np.random.Generator, body: _Body) -> list[tuple[float, Callable[[], None]]]:
    """(depth, what to draw) of all parts; the trunk is at 0, larger is nearer to the viewer."""
    figure = body.figure
    front, turn = np.cos(figure.yaw), np.sin(figure.yaw)
    layers: list[tuple[float, Callable[[], None]]] = [
        (-0.05, body.pelvis),
        (0.0, body.torso),
        (0.1 if front > -0.3 else 0.12, body.head),
    ]
    if body.outfit.skirt:
        layers.append((-0.02, body.skirt))
    for side, sign in (("left", 1), ("right", -1)):
        near = -sign * turn
        forward = 1.0 if rng.random() < 0.85 else -1.0
        arm = 0.8 * near + 0.5 * front * forward * (1 - abs(near))
        leg = 0.04 * near - 0.2 + (0.5 * front if body.thigh_shows(side) else 0)
        layers.append((arm, partial(body.upper_arm, side)))
        layers.append((arm + (0.01 if front > 0 else -0.01), partial(body.forearm, side)))
        layers.append((leg + 0.001, partial(body.thigh, side)))
        layers.append((leg, partial(body.shin, side)))
    return layers


@dataclass(frozen=True)
class _Body:
    """One person while it is being drawn: a method per part."""

    canvas: Canvas
    figure: Figure
    outfit: Outfit
    base: int

    @property
    def neck(self) -> np.ndarray:
        return self.figure.joints[5:7].mean(0)

    @property
    def waist(self) -> np.ndarray:
        return self.figure.joints[11:13].mean(0)

    def joint(self, index: int) -> np.ndarray:
        return self.figure.joints[index]

    def code(self, part: str) -> int:
        return self.base + PARTS.index(part)

    def width(self, relative: float) -> float:
        """A half width in pixels from one relative to stature."""
        return relative * self.figure.stature * self.outfit.build

    def thigh_shows(self, side: str) -> bool:
        """Whether the thigh lies before the trunk (raised or pointing to the viewer), as when sitting."""
        hip, knee = self.joint(_ID[side, "hip"]), self.joint(_ID[side, "knee"])
        return knee[1] - hip[1] < 0.11 * self.figure.stature

    def _limb(self, part: str, a: np.ndarray, b: np.ndarray, radii: tuple[float, ...], colour: Colour) -> None:
        """A tapered limb from `a` to `b` with half widths `radii` at the start, on the way and at the end."""
        steps = np.linspace(0, 1, len(radii))
        circles = np.array([[*(a + (b - a) * t), self.width(r)] for t, r in zip(steps, radii)])
        self.canvas.solid(circles, colour, self.code(part))

    def _dressed(
        self,
        part: str,
        a: np.ndarray,
        b: np.ndarray,
        radii: tuple[float, ...],
        cloth: Colour,
        share: float,
    ) -> None:
        """A limb in skin of which the first `share` is covered by cloth."""
        if share < 1:
            self._limb(part, a, b, radii, self.outfit.skin)
        if share > 0:
            wide = tuple(r * 1.12 for r in radii)
            end = radii[0] + (radii[-1] - radii[0]) * share
            self._limb(part, a, a + (b - a) * share, (*wide[:-1], end * 1.15), cloth)

    def upper_arm(self, side: str) -> None:
        a, b = self.joint(_ID[side, "shoulder"]), self.joint(_ID[side, "elbow"])
        share = min(1.0, self.outfit.sleeve * 1.4)
        self._dressed(f"{side}_upper_arm", a, b, (0.036, 0.032, 0.027), self.outfit.shirt, share)

    def forearm(self, side: str) -> None:
        a, b = self.joint(_ID[side, "elbow"]), self.joint(_ID[side, "wrist"])
        along = (b - a) / max(float(np.linalg.norm(b - a)), 1e-6)
        part = f"{side}_forearm"
        reach = self.figure.stature * 0.035
        self._limb(part, b, b + along * reach, (0.019, 0.023, 0.017), self.outfit.skin)
        self._dressed(part, a, b, (0.027, 0.028, 0.018), self.outfit.shirt, 0.92 if self.outfit.sleeve == 1 else 0)

    def thigh(self, side: str) -> None:
        a, b = self.joint(_ID[side, "hip"]), self.joint(_ID[side, "knee"])
        share = {1.0: 1.0, 0.5: 0.75}.get(self.outfit.leg, 0.0)
        self._dressed(f"{side}_thigh", a, b, (0.056, 0.052, 0.038), self.outfit.bottom, share)

    def shin(self, side: str) -> None:
        a, b = self.joint(_ID[side, "knee"]), self.joint(_ID[side, "ankle"])
        self._foot(side, a, b)
        share = 0.97 if self.outfit.leg == 1 else 0
        self._dressed(f"{side}_shin", a, b, (0.037, 0.038, 0.03, 0.022), self.outfit.bottom, share)

    def _foot(self, side: str, knee: np.ndarray, ankle: np.ndarray) -> None:
        """Toes point where the body faces: down for a frontal person, sideways for one in profile."""
        down = (ankle - knee) / max(float(np.linalg.norm(ankle - knee)), 1e-6)
        across = np.array([down[1], -down[0]])
        yaw = self.figure.yaw + (0.3 if side == "left" else -0.3)
        toe = 0.085 * np.sin(yaw) * across + (0.03 + 0.03 * np.cos(yaw)) * down
        heel = ankle + 0.015 * self.figure.stature * down
        self._limb(f"{side}_foot", heel, ankle + toe * self.figure.stature, (0.024, 0.022, 0.018), self.outfit.shoe)

    def pelvis(self) -> None:
        hips = [[*self.joint(i), self.width(0.054)] for i in (11, 12)]
        self.canvas.solid(np.array(hips), self.outfit.bottom, self.code("pelvis"))

    def skirt(self) -> None:
        """From the hips some way down the thighs, wider at the hem."""
        circles = []
        for hip, knee in ((11, 13), (12, 14)):
            end = self.joint(hip) + (self.joint(knee) - self.joint(hip)) * self.outfit.skirt
            circles += [[*self.joint(hip), self.width(0.056)], [*end, self.width(0.06)]]
        self.canvas.solid(np.array(circles), self.outfit.bottom, self.code("skirt"))

    def torso(self) -> None:
        """Hull of shoulders, chest, belly and waist; chest and belly give a body in profile its depth."""
        neck, down = self.neck, self.waist - self.neck
        rings = [[*self.joint(i), self.width(0.036)] for i in (5, 6)]
        rings += [[*(neck + down * t), self.width(r)] for t, r in ((0.3, 0.082), (0.65, 0.075))]
        rings += [[*(self.joint(i) - down * 0.06), self.width(0.045)] for i in (11, 12)]
        self.canvas.solid(np.array(rings), self.outfit.shirt, self.code("torso"))
        if self.outfit.pattern != "plain":
            self._pattern()
        if np.cos(self.figure.yaw) > 0.3:
            self._neckline()

    def _neckline(self) -> None:
        """Skin below the throat, which only the front shows."""
        down = (self.waist - self.neck) / max(float(np.linalg.norm(self.waist - self.neck)), 1e-6)
        middle = self.neck + down * self.width(0.015) + self.width(0.03) * np.array([np.sin(self.figure.yaw), 0])
        self.canvas.fill(ellipse(middle, down, self.width(0.035), self.width(0.03)), self.outfit.skin * 0.92)

    def _pattern(self) -> None:
        """Stripes, a print or an open jacket, kept inside the torso by the map."""
        layer = Canvas(self.canvas.image.copy(), self.canvas.codes)
        axis = self.waist - self.neck
        across = np.array([axis[1], -axis[0]])
        middle = self.neck + self.width(0.06) * np.array([np.sin(self.figure.yaw), 0])
        if self.outfit.pattern == "stripes":
            for t in np.linspace(0.1, 1.1, 7):
                row = self.neck + axis * t + np.outer([-1, 1], across)
                layer.line(row, self.outfit.accent, self.width(0.02))
        elif np.cos(self.figure.yaw) > 0.2:  # print and open jacket belong to the front
            size = 0.045 if self.outfit.pattern == "panel" else 0.03
            span = (0.25, 0.5) if self.outfit.pattern == "panel" else (-0.1, 1.2)
            ends = middle + np.outer(span, axis)
            layer.fill(hull(np.array([[*e, self.width(size)] for e in ends])), self.outfit.accent)
        shown = self.canvas.codes == self.code("torso")
        self.canvas.image[shown] = layer.image[shown]

    def head(self) -> None:
        codes = HeadCodes(self.code("neck"), self.code("head"), self.code("hair"))
        draw_head(self.canvas, self.figure, self.outfit, codes)


_ID = {
    (side, part): 5 + 2 * i + (side == "right")
    for i, part in enumerate(("shoulder", "elbow", "wrist", "hip", "knee", "ankle"))
    for side in ("left", "right")
}
