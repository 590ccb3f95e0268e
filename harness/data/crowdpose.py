"""What sets CrowdPose's annotation files apart from COCO's: no area, and a crowd index of each image.

Easy, medium and hard are ranges of the crowd index; their limits are in `harness.accuracy.match`.
(Li et al., CrowdPose, CVPR 2019.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.foreign.json_text import is_number

__all__ = ["AREA_PER_BOX", "counted_joints", "without_crowd_index"]

AREA_PER_BOX = 0.53  # no area is annotated; the evaluation takes this share of the box


def without_crowd_index(images: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Ids of the images that have no finite `crowdIndex`, by which easy, medium and hard are told."""
    return [image.get("id") for image in images if not is_number(image.get("crowdIndex"))]


def counted_joints(visible: list[bool]) -> int:
    """QUIRK: CrowdPose's own files leave their last two joints, head and neck, out of num_keypoints."""
    return sum(visible[:-2])
