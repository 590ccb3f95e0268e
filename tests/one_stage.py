"""A one-stage network that needs no training, and pictures that it can read: every joint is a dot whose colour says
whose it is. Its work is a convolution over the padded image and a linear layer for each person."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn

from harness import method
from harness.method import OneStageOutput, PoseProtocol, Variant
from harness.pose.skeletons import COCO

BLUE, MARGIN = 200, 6.0
PROTOCOL = PoseProtocol(
    mean=(0, 0, 0), std=(1 / 255,) * 3, shortest_edge=96, longest_edge=160, box_score_threshold=0.05, flip=False
)


def colour(person: int, joint: int) -> tuple[int, int, int]:
    """RGB of a dot; up to six persons of seventeen joints."""
    return 40 + 10 * joint, 30 + 35 * person, BLUE


class ColourFinder(nn.Module):
    """Reads the dots; `shift` moves every joint, `lost` persons are not reported."""

    def __init__(self, num_joints: int = 17, input_size: tuple[int, int] = (96, 128), lost: int = 0) -> None:
        super().__init__()
        self.input_size, self.num_joints, self.lost = input_size, num_joints, lost
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(num_joints, 8)
        self.seen: list[list[tuple[int, ...]]] = []

    def predict(self, images: list[torch.Tensor], settings: Mapping[str, Any]) -> list[OneStageOutput]:
        height, width = (max(i.shape[d] for i in images) for d in (1, 2))
        height, width = -(-height // 32) * 32, -(-width // 32) * 32
        self.seen.append([tuple(i.shape[1:]) for i in images])
        canvas = torch.zeros(len(images), 3, height, width, device=images[0].device)
        for at, image in enumerate(images):
            canvas[at, :, : image.shape[1], : image.shape[2]] = image
        noise = self.conv(canvas).mean() * 0
        return [self._one(image, noise, height, width) for image in canvas]

    def _one(self, image: torch.Tensor, noise: torch.Tensor, height: int, width: int) -> OneStageOutput:
        found = []
        for person in range(6 - self.lost):
            joints = [self._dot(image, person, joint) for joint in range(self.num_joints)]
            if all(j is not None for j in joints):
                found.append(torch.stack(joints))
        points = torch.stack(found) if found else image.new_zeros(0, self.num_joints, 2)
        scored = self.head(points[..., 0]).sum(dim=1) * 0 + noise + 0.9 - 0.1 * torch.arange(len(points))
        low, high = points.amin(dim=1) - MARGIN, points.amax(dim=1) + MARGIN
        keypoints = torch.cat([points, torch.ones_like(points[..., :1])], dim=2)
        trace = {"persons": len(points), "height": height, "width": width}
        return OneStageOutput(torch.cat([low, high], dim=1), scored, keypoints, trace)

    def _dot(self, image: torch.Tensor, person: int, joint: int) -> torch.Tensor | None:
        wanted = image.new_tensor(colour(person, joint)).view(3, 1, 1)
        ys, xs = torch.nonzero(((image - wanted).abs() <= 2).all(dim=0), as_tuple=True)
        if not len(xs):
            return None
        return torch.stack([xs.float().mean(), ys.float().mean()]) + 0.5

    def macs(self, trace: Mapping[str, np.ndarray]) -> np.ndarray:
        head = self.num_joints * 8
        return 108 * trace["height"] * trace["width"] + head * trace["persons"]


VARIANT = Variant(
    name="finder",
    method="Finder",
    build=ColourFinder,
    input_size=(96, 128),
    paradigm="one-stage",
    protocol=PROTOCOL,
    knobs=(method.Knob("lost", "build", 0, "persons that are not reported", low=0, high=6),),
)


def register(monkeypatch: Any, **changes: Any) -> Variant:
    """Makes the variant known beside the built-in ones."""
    variant = dataclasses.replace(VARIANT, **changes)
    known = {**method.variants(), variant.name: variant}
    monkeypatch.setattr(method, "variants", lambda: known)
    return variant


def draw(size: tuple[int, int], persons: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture (height, width, 3) RGB and joints (persons, 17, 2), in columns so that no dot hides another."""
    rng, (height, width) = np.random.default_rng(seed), size
    image = np.zeros((height, width, 3), np.uint8)
    joints = np.zeros((persons, 17, 2))
    for person in range(persons):
        left = (person + 0.5) * width / max(persons, 1)
        for joint in range(17):
            x = left + rng.uniform(-0.2, 0.2) * width / persons
            y = 6 + joint * (height - 12) / 17 + 3
            joints[person, joint] = round(x), round(y)
            cv2.circle(image, (round(x), round(y)), 3, colour(person, joint), -1)
    return image, joints


def write(root: Path, images: int = 4, size: tuple[int, int] = (192, 256), seed: int = 0) -> Path:
    """A COCO folder of pictures with 0, 1, 2, ... persons; annotations/person_keypoints_val2017.json and val2017/."""
    (root / "val2017").mkdir(parents=True)
    (root / "annotations").mkdir()
    pictures, people = [], []
    for number in range(images):
        image, joints = draw(size, number % 4, seed + number)
        name = f"{number:012d}.png"
        cv2.imwrite(str(root / "val2017" / name), image[..., ::-1])
        pictures.append({"id": number + 1, "file_name": name, "width": size[1], "height": size[0]})
        for person in joints:
            low, high = person.min(axis=0) - MARGIN * 2, person.max(axis=0) + MARGIN * 2
            low, high = np.maximum(low, 0), np.minimum(high, [size[1], size[0]])
            points = np.concatenate([person, np.full((17, 1), 2.0)], axis=1)
            box = [*low.tolist(), *(high - low).tolist()]
            people.append(
                {
                    "id": len(people) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0, "num_keypoints": 17,
                    "keypoints": points.reshape(-1).tolist(), "bbox": box, "area": box[2] * box[3],
                }
            )  # fmt: skip
    person = {"id": 1, "name": "person", "keypoints": list(COCO.joints)}
    content = {"images": pictures, "annotations": people, "categories": [person]}
    file = root / "annotations" / "person_keypoints_val2017.json"
    file.write_text(json.dumps(content))
    return file
