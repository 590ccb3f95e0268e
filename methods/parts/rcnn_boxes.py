"""The box branch of Mask R-CNN: is a proposal a person, and where exactly? Card: maskrcnn.md 1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.roi_heads import RoIHeads

from methods.parts.arithmetic import Size
from methods.parts.rcnn import RCNNShape, box_head_macs
from methods.parts.rcnn_regions import pooled

__all__ = ["BoxBranch", "Positives", "targets_of"]

_SIZE = 7  # of a box's features
_BETA = 0.5  # where the smooth L1 distance becomes linear; torchvision: 1/9
_MOST = 100  # persons of an image


class Positives(NamedTuple):
    """Sampled proposals that are a person: `boxes` (n, 4) of each image, `persons` (n,) the annotated one each is."""

    boxes: list[Tensor]
    persons: list[Tensor]


class _Predictor(nn.Module):
    """(N, hidden) -> logits (N, 2) of background and person, deltas (N, 8); float32.

    detectron2 counts the background last and has deltas for the person only: the order is turned, and zeros stand for
    the background's deltas, so that torchvision's code can read them.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.cls_score = nn.Linear(hidden, 2)
        self.bbox_pred = nn.Linear(hidden, 4)
        for layer, std in ((self.cls_score, 0.01), (self.bbox_pred, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.cls_score(x).float().flip(1), F.pad(self.bbox_pred(x).float(), (4, 0))


class BoxBranch(RoIHeads):
    """torchvision's matching, sampling, box coding and NMS around detectron2's pooling, predictor and loss."""

    def __init__(self, shape: RCNNShape) -> None:
        self.inputs, self.hidden = shape.pyramid * _SIZE * _SIZE, shape.fc
        super().__init__(
            box_roi_pool=None,
            box_head=TwoMLPHead(self.inputs, self.hidden),
            box_predictor=_Predictor(self.hidden),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=shape.sampled_boxes,
            positive_fraction=0.25,
            bbox_reg_weights=(10.0, 10.0, 5.0, 5.0),
            score_thresh=0.05,
            nms_thresh=0.5,
            detections_per_img=_MOST,
        )
        for layer in (self.box_head.fc6, self.box_head.fc7):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)

    def forward(
        self, maps: Sequence[Tensor], proposals: list[Tensor], sizes: list[Size], threshold: float
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Boxes (n, 4) within the image and scores (n,) of each image, best first: above `threshold`, after NMS, at
        most 100. `maps`: p2 to p5."""
        self.score_thresh = threshold
        logits, deltas = self._predict(maps, proposals)
        boxes, scores, _ = self.postprocess_detections(logits, deltas, proposals, sizes)
        return boxes, scores

    def losses(
        self,
        maps: Sequence[Tensor],
        proposals: list[Tensor],
        targets: list[dict[str, Tensor]],
        together: Callable[[Tensor], Tensor] = lambda count: count,
    ) -> tuple[dict[str, Tensor], Positives]:
        """Cross-entropy over all sampled proposals, and the smooth L1 distance of the positive ones, summed and
        divided by `together(number of all)`. Annotated boxes take part as proposals."""
        boxes, persons, labels, regression = self.select_training_samples(list(proposals), targets)
        logits, deltas = self._predict(maps, boxes)
        truth = torch.cat(labels)
        positive, count = truth > 0, together(torch.tensor(len(truth), device=truth.device)).clamp(min=1)
        wrong = F.smooth_l1_loss(deltas[positive, 4:], torch.cat(regression)[positive], beta=_BETA, reduction="sum")
        judged = F.cross_entropy(logits, truth, reduction="sum")
        chosen = [label > 0 for label in labels]
        found = Positives(*([a[c] for a, c in zip(part, chosen, strict=True)] for part in (boxes, persons)))
        return {"loss_cls": judged / count, "loss_box_reg": wrong / count}, found

    def macs(self) -> int:
        """Of one box."""
        return box_head_macs(self.inputs, self.hidden, 2 + 4)

    def _predict(self, maps: Sequence[Tensor], boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        return self.box_predictor(self.box_head(pooled(maps, boxes, _SIZE)))


def targets_of(boxes: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Annotated boxes (n, 4) of each image as torchvision's targets; all of them are persons."""
    return [{"boxes": b, "labels": torch.ones(len(b), dtype=torch.int64, device=b.device)} for b in boxes]
