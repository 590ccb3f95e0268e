"""Backgrounds, things in front of people, and what a camera does to a picture."""

from __future__ import annotations

import cv2
import numpy as np

from harness.data.synthetic_canvas import OCCLUDER, Canvas, capsule

__all__ = ["background", "draw_occluder", "photograph"]


def background(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """A cluttered place without people: wall, floor, texture, furniture, rods that resemble limbs."""
    image = _gradient(rng, height, width)
    floor = int(height * rng.uniform(0.45, 0.8))
    image[floor:] = _gradient(rng, height - floor, width)
    image = np.clip(image * _texture(rng, height, width), 0, 255).astype(np.uint8)
    angle = rng.uniform(-2.6, -0.5)
    canvas = Canvas(image, np.zeros((height, width), np.uint8), np.array([np.cos(angle), np.sin(angle)]))
    for _ in range(rng.integers(8, 20)):
        _clutter(rng, canvas, floor)
    return canvas


def draw_occluder(rng: np.random.Generator, canvas: Canvas, near: np.ndarray, size: float) -> None:
    """A pole, a box, a table or leaves near the point `near` (2,), for a person of `size` pixels."""
    kind = rng.choice(["pole", "box", "table", "leaves"])
    x, y = near + rng.normal(0, 0.25, 2) * size
    colour = _colour(rng, 0.75)
    size = min(size, 0.8 * canvas.image.shape[0])
    if kind == "pole":
        lean = rng.normal(0, 0.06) * canvas.image.shape[0]
        ends = np.array([[x - lean, -10.0, 0], [x + lean, canvas.image.shape[0] + 10.0, 0]])
        ends[:, 2] = np.clip(0.035 * size * rng.uniform(0.5, 1.3), 1.5, 12)
        canvas.solid(ends, colour, OCCLUDER)
    elif kind == "box":
        _block(canvas, x, y, size * rng.uniform(0.15, 0.32), size * rng.uniform(0.12, 0.3), colour)
    elif kind == "table":
        _block(canvas, x, y, size * 0.45, size * 0.03, colour)
        for side in (-0.4, 0.4):
            _block(canvas, x + side * size, y + size * 0.25, size * 0.02, size * 0.24, colour * 0.8)
    else:
        _leaves(rng, canvas, np.array([x, y]), size)


def photograph(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> the same with exposure, colour cast, softness and sensor noise."""
    gain = rng.uniform(0.75, 1.2) * rng.uniform(0.93, 1.07, 3)
    curve = np.linspace(0, 1, 256)[:, None] ** rng.uniform(0.8, 1.25) * gain * 255 + rng.uniform(-10, 18)
    image = cv2.LUT(image, np.clip(curve, 0, 255).astype(np.uint8)[None])
    blur = rng.uniform(0.3, 1.0)
    image = cv2.GaussianBlur(image, (0, 0), blur)
    noise = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(rng.uniform(1, 7))
    return np.clip(image + noise[..., None], 0, 255).astype(np.uint8)


def _gradient(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32 between four random corner colours of one family."""
    corners = (_colour(rng, 0.45) + rng.normal(0, 12, (2, 2, 3))).astype(np.float32)
    return cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)


def _colour(rng: np.random.Generator, saturation: float) -> np.ndarray:
    """(3,) RGB; `saturation` 0 grey .. 1 any colour."""
    grey = rng.uniform(30, 215)
    return grey + saturation * (rng.uniform(15, 235, 3) - grey)


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(H, W, 1) float32 around 1: blotches of three sizes."""
    total = np.ones((height, width), np.float32)
    for cells in (5, 17, 60):
        coarse = rng.normal(0, rng.uniform(0.02, 0.09), (cells, cells)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return total[..., None]


def _clutter(rng: np.random.Generator, canvas: Canvas, floor: int) -> None:
    """One thing in the background; the map stays 0."""
    height, width = canvas.codes.shape
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    colour = _colour(rng, 0.75)
    size = rng.uniform(0.05, 0.25) * height
    kind = rng.integers(6)
    if kind == 0:  # window, picture, door
        _block(canvas, x, min(y, floor), size, size * rng.uniform(0.6, 1.8), colour, None)
        _block(canvas, x, min(y, floor), size * 0.85, size * 0.6, colour * rng.uniform(0.6, 1.4), None)
    elif kind == 1:  # cupboard or bench on the floor
        _block(canvas, x, floor - size * 0.3, size * rng.uniform(0.5, 1.5), size * 0.8, colour, None)
        for row in np.linspace(-0.7, 0.3, 3):
            drawer = np.array([x, floor + row * size]) + np.outer([-0.5, 0.5], [size, 0])
            canvas.line(drawer, colour * 0.5, 1)
    elif kind in (2, 3):  # rods in all colours, that of skin included
        if kind == 3:
            colour = np.array([225.0, 175, 140]) * rng.uniform(0.4, 1.1)
        end = np.array([x, y]) + rng.normal(0, 1.2, 2) * size
        canvas.fill(capsule(np.array([x, y]), end, size * 0.14, size * rng.uniform(0.08, 0.16)), colour * 0.6)
        canvas.fill(capsule(np.array([x, y]), end, size * 0.1, size * 0.07), colour)
    elif kind == 4:  # polygon
        turn = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 8)))
        canvas.fill(
            np.array([x, y]) + np.stack([np.cos(turn), np.sin(turn)], 1) * size * rng.uniform(0.4, 1.2),
            colour,
        )
    else:  # ball, lamp, or the head-like round thing that a detector of heads falls for
        canvas.fill(capsule(np.array([x, y]), np.array([x, y + size * 0.2]), size * 0.3, size * 0.3), colour * 0.7)
        canvas.fill(capsule(np.array([x, y]), np.array([x, y]), size * 0.24, size * 0.2), colour)


def _block(
    canvas: Canvas,
    x: float,
    y: float,
    wide: float,
    high: float,
    colour: np.ndarray,
    code: int | None = OCCLUDER,
) -> None:
    """A box around (x, y) with half sizes, darker rim and a lit upper part."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=np.float64)
    middle = np.array([x, y])
    canvas.fill(middle + corners * [wide, high], colour * 0.55, code)
    canvas.fill(middle + corners * [wide - 1.2, max(high - 1.2, 0.5)], colour * 0.85)
    canvas.fill(middle + [0, -high * 0.15] + corners * [wide - 1.2, max(high * 0.8 - 1.2, 0.4)], colour)


def _leaves(rng: np.random.Generator, canvas: Canvas, middle: np.ndarray, size: float) -> None:
    """A bush: many small leaves with gaps between them."""
    for _ in range(28):
        start = middle + rng.normal(0, 0.12, 2) * size
        tip = start + rng.normal(0, 0.05, 2) * size
        green = np.array([60, 120, 45]) * rng.uniform(0.4, 1.5)
        canvas.fill(capsule(start, tip, 0.025 * size, 0.008 * size), green, OCCLUDER)
