"""Replayed thresholds against real runs at those thresholds: the same poses, the same AP, the same exits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.accuracy.evaluate import evaluate
from harness.data import coco, synthetic
from harness.data.boxes import Boxes, from_ground_truth
from harness.data.crops import batches, iter_crops
from harness.method import find_variant
from harness.passes import replay
from harness.passes.decoding import Decoding
from harness.passes.predict import PassPlan, TopDownRunner
from harness.pose.skeletons import COCO
from harness.suite.sources import QUICKSTART
from harness.train.checkpoints import open_variant

pytestmark = pytest.mark.slow
IMAGES, THRESHOLDS = 40, 21


def _runner(name: str, weights: Path | None, **options: Any) -> TopDownRunner:
    variant = find_variant(name)
    return TopDownRunner(open_variant(variant, weights, num_joints=17, **options)[0], variant.protocol, COCO)


@pytest.fixture(scope="module")
def tiny() -> TopDownRunner:
    """The tiny network with its trained weights; with its random start where they are not there yet."""
    trained = QUICKSTART / "sharpose_tiny.safetensors"
    return _runner("sharpose_tiny", trained if trained.is_file() else None)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> coco.Dataset:
    root = tmp_path_factory.mktemp("people")
    _, seed = synthetic.SYNTHETIC["val"]
    return coco.load(synthetic.write(root, images=IMAGES, seed=seed), root / "val2017")


@pytest.fixture
def dataset(request, people) -> coco.Dataset:
    if request.param == "synthetic":
        return people
    folder = request.getfixturevalue("shared") / "data/coco_val188"
    return coco.limit(coco.load(folder / "person_keypoints_coco_val188.json", folder / "images"), IMAGES)


class Crops:
    """The persons of a data set, cropped once. `run` is a pass over them in batches of `size`."""

    def __init__(self, runner: TopDownRunner, dataset: coco.Dataset, boxes: Boxes) -> None:
        size = runner.predictor.input_size
        stream = iter_crops(dataset, boxes, input_size=size, udp=runner.codec.udp, workers=0)
        self.runner, self.how = runner, Decoding.of(runner.protocol)
        self.persons, self.pixels, self.centers, self.scales = next(batches(stream, len(boxes)))

    def run(self, flip: bool, *, size: int, threshold: float | str | None = None) -> replay.Pass:
        """With a threshold the real early exit; without one the pass that keeps both exits."""
        settings = {} if threshold is None else {"quality_threshold": threshold}
        plan = PassPlan(settings, (self.how,), flip, all_exits=threshold is None)
        parts = [self.runner.process(*batch, [plan])[0] for batch in self._batches(size)]
        return {"index": self.persons, **{n: np.concatenate([p[n] for p in parts]) for n in parts[0]}}

    def _batches(self, size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(self.pixels), size):
            rows = slice(start, start + size)
            yield self.pixels[rows], self.centers[rows], self.scales[rows]


def _qualities(stored: replay.Pass, flip: bool) -> np.ndarray:
    return np.concatenate([stored[name] for name in (("quality", "quality_mirrored") if flip else ("quality",))])


def _exits(real: replay.Pass, flip: bool) -> np.ndarray:
    return np.stack([real[f"trace_exit{suffix}"] for suffix in (("", "_mirrored") if flip else ("",))], axis=1)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("dataset", ["synthetic", "coco_val188"], indirect=True)
def test_every_threshold_gives_the_ap_and_the_exits_of_a_real_run(tiny, dataset, flip):
    boxes = from_ground_truth(dataset)
    crops = Crops(tiny, dataset, boxes)
    stored = crops.run(flip, size=16)
    qualities = _qualities(stored, flip)
    thresholds: list[Any] = [
        "never",
        *np.linspace(qualities.min(), qualities.max(), THRESHOLDS).tolist()[1:-1],
        "always",
    ]
    assert len(thresholds) == THRESHOLDS

    def ap(selection: replay.Selection, found: replay.Pass) -> float:
        results = replay.to_results(found, selection, boxes, crops.scales, tiny.protocol, COCO)
        ids = [image.id for image in dataset.images]
        evaluation = evaluate(dataset.annotations, results, bootstrap=0, judge=False, image_ids=ids)
        return evaluation.to_dict()["stats"]["AP"]["value"]

    shares, aps = [], []
    for threshold in thresholds:
        number = replay.threshold_of(stored, {"quality_threshold": threshold}, flip=flip)
        replayed = replay.select(stored, crops.how.name, flip=flip, threshold=number)
        real = crops.run(flip, size=24, threshold=threshold)
        assert replayed.exits.tolist() == _exits(real, flip).tolist()
        assert replayed.macs.tolist() == replay.select(real, crops.how.name, flip=flip).macs.tolist()
        aps.append(ap(replayed, stored))
        assert aps[-1] == pytest.approx(ap(replay.select(real, crops.how.name, flip=flip), real), abs=1e-6)
        shares.append(float(np.mean(replayed.exits)))
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] == 1 and len(set(shares)) > 5
    assert aps[0] != aps[-1] or aps[0] == 0, "the two exits answer differently"


@pytest.mark.parametrize("flip", [False, True])
def test_poses_of_the_base_network_are_those_of_a_real_run(shared, golden_tools, flip):
    folder = shared / "data/coco_val188"
    photographs = coco.limit(coco.load(folder / "person_keypoints_coco_val188.json", folder / "images"), 16)
    every = from_ground_truth(photographs)
    first = np.sort(np.unique(every.image_ids, return_index=True)[1])  # one person of each photograph
    boxes = Boxes(every.image_ids[first], every.xywh[first], every.scores[first], every.ids[first], every.source)
    base = _runner("sharpose_b", None)
    golden_tools.fill(base.predictor)
    crops = Crops(base, photographs, boxes)
    stored = crops.run(flip, size=8)
    ordered = np.sort(_qualities(stored, flip))
    for share in (0.3, 0.7):
        place = int(share * len(ordered))
        threshold = float(ordered[place - 1] + ordered[place]) / 2
        replayed = replay.select(stored, crops.how.name, flip=flip, threshold=threshold)
        real = crops.run(flip, size=6, threshold=threshold)
        assert replayed.exits.tolist() == _exits(real, flip).tolist()
        answer = replay.select(real, crops.how.name, flip=flip).keypoints
        apart = np.abs(replayed.keypoints[..., :2] - answer[..., :2]).max(axis=-1)
        # maps of such weights have few peaks: DARK's step carries the rounding of the other batch size here and there
        assert apart.max() < 1 and np.mean(apart > 1e-3) < 0.05
