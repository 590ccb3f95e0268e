"""SHaRPose from the two files that `paretopose export` writes. Needs numpy and onnxruntime only: copy this file.

    network = TwoStage.open("sharpose_b.coarse.onnx", "sharpose_b.fine.onnx")
    heatmaps, refined = network.predict(images, alpha=0.3, quality_threshold=0.95)

B persons, K joints, D width, N1 coarse regions, k of them seen in full resolution.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import onnxruntime

__all__ = ["TwoStage", "gathered", "kept_count", "needs_refining"]

Arrays = dict[str, np.ndarray]


class TwoStage:
    """Both stages. `alpha` and `quality_threshold` are those of the export unless `predict` is told others."""

    def __init__(self, coarse: onnxruntime.InferenceSession, fine: onnxruntime.InferenceSession) -> None:
        self._coarse, self._fine = coarse, fine
        about = json.loads(coarse.get_modelmeta().custom_metadata_map["paretopose"])
        self.alpha, self.quality_threshold = (about["facts"][name] for name in ("alpha", "quality_threshold"))

    @classmethod
    def open(cls, coarse: str, fine: str, options: onnxruntime.SessionOptions | None = None) -> TwoStage:
        """From the two files."""
        provider = ["CPUExecutionProvider"]
        return cls(*(onnxruntime.InferenceSession(file, options, providers=provider) for file in (coarse, fine)))

    def predict(
        self, images: np.ndarray, *, alpha: float | None = None, quality_threshold: float | str | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`images` (B, 3, H, W) float32, normalised -> heatmaps (B, K, h, w), and who was refined (B,) bool.

        `alpha`: share of regions that are refined. Persons whose predicted quality reaches `quality_threshold` leave
        early; 'always' refines everybody, 'never' nobody.
        """
        threshold = self.quality_threshold if quality_threshold is None else quality_threshold
        coarse = self.coarse(images)
        refined = needs_refining(coarse, threshold)
        heatmaps = coarse["exit0"]
        if refined.any():
            alpha = self.alpha if alpha is None else alpha
            heatmaps[refined] = self.fine(gathered(images, coarse, refined, alpha))["exit1"]
        return heatmaps, refined

    def coarse(self, images: np.ndarray) -> Arrays:
        """(B, 3, H, W) -> exit0 (B, K, h, w), quality (B,), score (B, N1), features and inputs (B, N1, D)."""
        return _run(self._coarse, {"images": images})

    def fine(self, feed: Mapping[str, np.ndarray]) -> Arrays:
        """What `gathered` gives -> exit1 (B, K, h, w)."""
        return _run(self._fine, feed)


def needs_refining(coarse: Mapping[str, np.ndarray], threshold: float | str) -> np.ndarray:
    """(B,) bool. A network with two qualities (`rival`) compares these and knows no number."""
    quality = coarse["quality"]
    if threshold in ("always", "never"):
        return np.full(len(quality), threshold == "always")
    # in float32, as the network compares: a threshold of more digits would decide otherwise at equality
    return quality < coarse.get("rival", np.float32(threshold))


def gathered(images: np.ndarray, coarse: Mapping[str, np.ndarray], refined: np.ndarray, alpha: float) -> Arrays:
    """What the fine stage takes for the persons in `refined` (B,) bool: the regions with the highest score keep what
    the coarse stage made of them, the others what went into it."""
    order = np.argsort(-coarse["score"][refined], axis=1, kind="stable")
    count = kept_count(alpha, order.shape[1])
    kept, others = order[:, :count], order[:, count:]
    return {
        "images": images[refined],
        "kept": kept,
        "features": np.take_along_axis(coarse["features"][refined], kept[..., None], axis=1),
        "inputs": np.take_along_axis(coarse["inputs"][refined], others[..., None], axis=1),
    }


def kept_count(alpha: float, regions: int) -> int:
    """Regions that are refined."""
    return math.ceil(alpha * regions)


def _run(session: onnxruntime.InferenceSession, feed: Mapping[str, np.ndarray]) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
