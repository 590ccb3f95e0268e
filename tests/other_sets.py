"""The built-in people as CrowdPose and MPII would annotate them: drawn pictures, exact joints, made-up head boxes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.io import savemat

from harness.data import synthetic
from harness.pose.skeletons import COCO, CROWDPOSE, MPII, Skeleton

_MADE_OF = {
    "head": ("nose",), "head_top": ("nose",), "neck": ("left_shoulder", "right_shoulder"),
    "upper_neck": ("left_shoulder", "right_shoulder"), "thorax": ("left_shoulder", "right_shoulder"),
    "pelvis": ("left_hip", "right_hip"),
}  # fmt: skip


def people(folder: Path, images: int = 4, seed: int = 3) -> Path:
    """The drawn pictures, as COCO has them."""
    synthetic.write(folder, images=images, seed=seed)
    return folder


def crowdpose(folder: Path) -> Path:
    """`folder/crowdpose.json` beside the drawn pictures of `people`."""
    content = _content(folder)
    for number, image in enumerate(content["images"]):
        image["crowdIndex"] = (0.1, 0.5, 0.9)[number % 3]
    for entry in content["annotations"]:
        points = _joints(np.reshape(entry["keypoints"], (-1, 3)), CROWDPOSE)
        entry |= {"keypoints": points.ravel().tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        del entry["area"]
    content["categories"] = [{"id": 1, "name": "person", "keypoints": list(CROWDPOSE.joints)}]
    (folder / "crowdpose.json").write_text(json.dumps(content))
    return folder / "crowdpose.json"


def mpii(folder: Path, heads: float = 30.0) -> Path:
    """`folder/mpii.json` with `folder/gt_mpii.mat`: every head size is `heads` pixels."""
    content = _content(folder)
    files = {image["id"]: image["file_name"] for image in content["images"]}
    entries = []
    for entry in content["annotations"]:
        if entry["iscrowd"] or not entry["num_keypoints"]:
            continue
        points = _joints(np.reshape(entry["keypoints"], (-1, 3)), MPII)
        x, y, w, h = entry["bbox"]
        scale = max(w, h) / 200
        center = [x + w / 2 + 1, y + h / 2 + 1 - 15 * scale]
        joints = np.where(points[:, 2:] > 0, points[:, :2] + 1, -1.0)
        visible = (points[:, 2] > 0).astype(int).tolist()
        person = {"image": files[entry["image_id"]], "center": center, "scale": scale}
        entries.append({**person, "joints": joints.tolist(), "joints_vis": visible})
    (folder / "mpii.json").write_text(json.dumps(entries))
    boxes = np.zeros((2, 2, len(entries)))
    boxes[1] = heads / 0.6 / np.sqrt(2)
    savemat(folder / "gt_mpii.mat", {"headboxes_src": boxes, **truth_of(entries)})
    return folder / "mpii.json"


def truth_of(entries: list[dict]) -> dict[str, np.ndarray]:
    """The joints of MPII entries as the mat file of a split has them."""
    joints = np.array([entry["joints"] for entry in entries], dtype=float).transpose(1, 2, 0)
    return {"pos_gt_src": joints, "jnt_missing": 1 - np.array([entry["joints_vis"] for entry in entries]).T}


def _content(folder: Path) -> dict:
    return json.loads((folder / "annotations" / "person_keypoints_val2017.json").read_text())


def _joints(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """(17, 3) COCO -> (K, 3): joints of the same name, others from the middle of COCO's; unlabelled ones are zero."""
    rows = []
    for name in skeleton.joints:
        parts = points[[COCO.joints.index(n) for n in _MADE_OF.get(name, (name,))]]
        seen = (parts[:, 2] > 0).all()
        rows.append([*parts[:, :2].mean(axis=0), 2.0] if seen else [0.0, 0.0, 0.0])
    return np.array(rows)
