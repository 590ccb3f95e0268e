"""A data set of the size of a built-in one that was not drawn yet: what a plan counts with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.data.coco import Dataset, ImageInfo, Person
from harness.data.synthetic import PERSONS_PER_PICTURE, SYNTHETIC
from harness.pose.skeletons import COCO

__all__ = ["stand_in"]

_WIDTH, _HEIGHT = 360, 320  # about the mean picture


def stand_in(split: str) -> Dataset:
    """As many images and persons as the built-in set of `split` will have; no image has a file."""
    count, _ = SYNTHETIC[split]
    images = tuple(ImageInfo(i, f"{i}.jpg", _WIDTH, _HEIGHT) for i in range(count))
    raw = [{"id": i.id, "file_name": i.file, "width": i.width, "height": i.height} for i in images]
    joints = np.full((COCO.num_joints, 3), 2.0)
    persons = tuple(
        Person(i, i % count, (90.0, 60.0, 90.0, 180.0), 8000.0, joints, iscrowd=False, num_keypoints=len(joints))
        for i in range(round(PERSONS_PER_PICTURE * count))
    )
    return Dataset("synthetic", Path("not-drawn"), images, persons, COCO, {"images": raw, "annotations": []})
