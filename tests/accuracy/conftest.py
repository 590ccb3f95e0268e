"""Small COCO-format worlds: annotations made up or read, and predictions that are jittered annotations."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

World = dict[str, Any]


def _annotation(rng: np.random.Generator, n: int, image: int, joints: int, *, kind: str) -> dict[str, Any]:
    size, corner = rng.uniform(20, 250), rng.uniform(0, 400, 2)
    points = np.zeros((joints, 3))
    points[:, 2] = rng.choice([0, 1, 2], joints, p=[0.3, 0.2, 0.5]) if kind == "person" else 0
    points[:, :2] = np.where(points[:, 2:] > 0, corner + rng.random((joints, 2)) * size, 0)
    return {
        "id": n,
        "image_id": image,
        "category_id": 1,
        "iscrowd": int(kind == "crowd"),
        "bbox": [*corner.tolist(), size, size],
        "area": float(0.55 * size * size),
        "num_keypoints": int((points[:, 2] > 0).sum()),
        "keypoints": points.ravel().tolist(),
    }


@pytest.fixture(scope="session")
def made_up() -> Callable[..., World]:
    """made_up(images, seed, joints): images with 0 to 4 persons, some crowds, some without keypoints."""

    def make(images: int = 12, seed: int = 0, joints: int = 17) -> World:
        rng = np.random.default_rng(seed)
        annotations: list[dict[str, Any]] = []
        for image in range(1, images + 1):
            for _ in range(int(rng.integers(0, 5))):
                kind = str(rng.choice(["person", "blank", "crowd"], p=[0.8, 0.1, 0.1]))
                annotations.append(_annotation(rng, len(annotations) + 1, image, joints, kind=kind))
        rng.shuffle(annotations)
        pictures = [
            {"id": i, "width": 640, "height": 640, "crowdIndex": float(rng.random())} for i in range(1, images + 1)
        ]
        return {"images": pictures, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}

    return make


@pytest.fixture(scope="session")
def jittered() -> Callable[..., list[dict[str, Any]]]:
    """jittered(gt, seed, boxes, levels, copies): results near the annotations; `levels` makes scores tie."""

    def make(
        gt: World, seed: int = 0, *, boxes: bool = False, levels: int = 0, copies: int = 1
    ) -> list[dict[str, Any]]:
        rng, results = np.random.default_rng(seed), []
        for a in gt["annotations"] * copies:
            points = np.array(a["keypoints"], dtype=float).reshape(-1, 3)
            box = np.array(a["bbox"])
            hidden = points[:, 2] == 0
            points[hidden, :2] = box[:2] + rng.random((int(hidden.sum()), 2)) * box[2:]
            points[:, :2] += rng.normal(
                0, rng.choice([0.01, 0.03, 0.06, 0.3]) * np.sqrt(box[2] * box[3]), (len(points), 2)
            )
            points[:, 2] = rng.choice([0.0, 0.5, 1.0], len(points))
            score = float(rng.random())
            result = {
                "image_id": a["image_id"],
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "score": round(score * levels) / levels if levels else score,
            }
            if boxes:
                result["bbox"] = [box[0], box[1], box[2] * rng.uniform(0.5, 1.5), box[3]]
            results.append(result)
        return results

    return make


@pytest.fixture(scope="session")
def val188(shared) -> World:
    path = shared / "data" / "coco_val188" / "person_keypoints_coco_val188.json"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def crowdpose(shared) -> World:
    path = shared / "data" / "others" / "crowdpose" / "crowdpose_val_annotations_only.json"
    return json.loads(path.read_text(encoding="utf-8"))
