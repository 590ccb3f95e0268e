"""The tiny Mask R-CNN learns two pictures by heart: boxes and keypoints."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from harness.data.synthetic import render
from harness.method import find_variant
from harness.train.recipes import ImageBatch, Progress

pytestmark = pytest.mark.slow
SIZE, STEPS = (192, 256), 400


def _picture(index):
    """Picture `index` of the synthetic training set at 192 x 256 as network input, with boxes, joints, visible."""
    image, annotations = render(index, seed=1)
    small = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)[None].float()
    small = torch.nn.functional.interpolate(small, SIZE, mode="bilinear", antialias=True)[0]
    scale = np.array([SIZE[1] / image.shape[1], SIZE[0] / image.shape[0]], dtype=np.float32)
    xywh = np.array([a["bbox"] for a in annotations], dtype=np.float32)
    boxes = np.concatenate([xywh[:, :2] * scale, (xywh[:, :2] + xywh[:, 2:]) * scale], axis=1)
    keypoints = np.array([a["keypoints"] for a in annotations], dtype=np.float32).reshape(-1, 17, 3)
    mean = torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    joints, visible = (keypoints[..., :2] + 0.5) * scale, keypoints[..., 2]
    return small - mean, *(torch.from_numpy(a.astype(np.float32)) for a in (boxes, joints, visible))


def test_two_pictures_are_learnt_by_heart():
    torch.manual_seed(0)
    network = find_variant("maskrcnn_tiny").build(num_joints=17, input_size=SIZE).train()
    landscape = [i for i in range(40) if render(i, seed=1)[0].shape[0] * 4 == render(i, seed=1)[0].shape[1] * 3]
    images, boxes, joints, visible = (list(part) for part in zip(*map(_picture, landscape[:2])))
    batch = ImageBatch(images, boxes, joints, visible, [torch.zeros(0, 4)] * 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1, (step + 1) / 30) * 0.5 * (1 + np.cos(np.pi * step / STEPS))
        loss = torch.stack(list(network.losses(batch, Progress(0, step, 1)).values())).sum()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        outputs = network.predict(images, {"score_threshold": 0.5})
    for output, truth, places, seen in zip(outputs, boxes, joints, visible, strict=True):
        overlap, found = box_iou(truth, output.boxes).max(dim=1)
        assert len(output.boxes) == len(truth) and overlap.min() > 0.8
        distance = (output.keypoints[found][..., :2] - places).norm(dim=2)[seen > 0]
        assert distance.median() < 1.5 and distance.quantile(0.9) < 4
