"""What a network with regions and exits did to each person of a photograph, drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from harness.data.crops import affine, center_scale, warp
from harness.errors import UserError
from harness.passes.predict import Decoding, PassPlan, TopDownRunner
from harness.pose.drawing import dim_regions, draw_poses, on_top_of_each_other, side_by_side
from harness.run.rows import settings_of
from harness.suite.schema import Cell

__all__ = ["check_refines", "token_picture"]

_HEIGHT = 384  # of a panel
_STRIP = 24  # of its caption
_MOST = 50  # persons in one picture


def check_refines(network: Any, name: str) -> None:
    """UserError unless the network tells which regions it refines (`refined_regions(images, settings)`)."""
    if not hasattr(network, "refined_regions"):
        raise UserError(
            f"{name} sees all of the image at once: there are no regions to draw", hint="leave out --tokens"
        )


def token_picture(
    runner: TopDownRunner, cell: Cell, image: np.ndarray, boxes: np.ndarray, threshold: float
) -> np.ndarray:
    """One line for each of `boxes` (n, 4) xywh: the coarse pose with the predicted quality, the regions that were
    refined, and the pose that is the answer. Regions and quality are those of the image that is not mirrored."""
    size = cell.input_size
    centers, scales = center_scale(boxes[:_MOST], size, cell.protocol.box_padding)
    crops = np.stack(
        [warp(image, affine(c, s, 0.0, size, udp=runner.codec.udp), size) for c, s in zip(centers, scales)]
    )
    settings = {**settings_of(cell), **cell.select}
    how, flip = Decoding.of(cell.protocol), cell.protocol.flip
    found = runner.process(crops, centers, scales, [PassPlan(settings, (how,), flip)])[0]
    with torch.inference_mode():
        images = runner.normalise(crops)
        regions, *of_mirrored = (
            runner.predictor.refined_regions(i, settings).cpu().numpy() for i in ([images, images.flip(-1)][: 1 + flip])
        )
    coarse, answer = (found[f"keypoints:{how.name}:{f'{i}+{i}' if flip else i}"] for i in (0, 1))
    enlarged = (_HEIGHT, round(_HEIGHT * size[1] / size[0]))
    lines = []
    for n, (center, scale) in enumerate(zip(centers, scales)):
        matrix = affine(center, scale, 0.0, enlarged, udp=runner.codec.udp)
        panel = warp(image, matrix, enlarged)
        poses = [_moved(pose[n], matrix) for pose in (coarse, answer)]
        before, after = (draw_poses(panel, [p], runner.skeleton, score_threshold=threshold) for p in poses)
        pictures = (before, dim_regions(panel, regions[n]), after)
        refined = [bool(of[n].any()) for of in (regions, *of_mirrored)]
        words = _captions(float(found["quality"][n]), regions[n], refined)
        lines.append(side_by_side([_captioned(*pair) for pair in zip(pictures, words)]))
    return on_top_of_each_other(lines)


def _captions(quality: float, regions: np.ndarray, refined: list[bool]) -> tuple[str, str, str]:
    """Words over the three panels. `refined`: whether the forward was, and with flip test the mirrored one."""
    what = f"refined: {regions.sum()} of {regions.size} regions" if refined[0] else "left early: nothing refined"
    answer = "fine" if all(refined) else "coarse" if not any(refined) else "one forward fine, one coarse"
    return f"coarse, quality {quality:.3f}", what, f"answer: {answer}"


def _captioned(picture: np.ndarray, words: str) -> np.ndarray:
    """Above the picture, not on it: the upper regions are to be seen."""
    strip = np.full((_STRIP, picture.shape[1], 3), 25, dtype=np.uint8)
    return on_top_of_each_other([draw_poses(strip, [], caption=words), picture], gap=0)


def _moved(pose: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """(K, 3) x, y in image pixels, score -> the same in the pixels that `matrix` (2, 3) leads to."""
    points = pose[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate([points, pose[:, 2:]], axis=1)
