"""What the instrument adds to a network: time around it, time inside it, and reading each picture once.

Ratios are printed with their spread over the repetitions; each is taken inside one process, its two parts one after
the other, so that a slow moment of the machine meets both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from harness.cost.statistics import quantile
from harness.data import coco
from harness.data.boxes import Boxes, from_ground_truth
from harness.data.crops import affine, center_scale, iter_crops, read_image, warp
from harness.method import find_variant
from harness.passes.predict import Decoding, PassPlan, TopDownRunner, run_passes
from harness.pose.skeletons import COCO

pytestmark = pytest.mark.benchmark_suite
IMAGES = 16  # about 40 persons: less than a minute on two cores


@pytest.fixture(scope="module")
def photographs(shared: Path) -> coco.Dataset:
    folder = shared / "data/coco_val188"
    return coco.limit(coco.load(folder / "person_keypoints_coco_val188.json", folder / "images"), IMAGES)


@pytest.fixture(scope="module")
def runner() -> TopDownRunner:
    torch.manual_seed(0)
    variant = find_variant("hrnet_w32")
    network = variant.build(num_joints=17, input_size=(256, 192))
    network.final_layer.weight.data.mul_(1000)
    return TopDownRunner(network, variant.protocol, COCO)


def told(name: str, ratios: Sequence[float], limit: str, capsys) -> float:
    """Prints and returns the median of `ratios`."""
    middle = quantile(list(ratios), 0.5)
    low, high = min(ratios), max(ratios)
    text = f"interval {middle.low:.3f} to {middle.high:.3f}, " if middle and middle.low is not None else ""
    with capsys.disabled():
        print(f"\n{name}: {np.median(ratios):.3f} ({text}range {low:.3f} to {high:.3f}, n={len(ratios)}; {limit})")
    return float(np.median(ratios))


def test_a_pass_takes_little_more_than_its_network(runner, photographs, tmp_path, monkeypatch, capsys):
    boxes, inside = from_ground_truth(photographs), []
    predict = runner.predictor.predict

    def timed(images: Tensor, settings: dict) -> object:
        began = time.perf_counter()
        answer = predict(images, settings)
        inside.append(time.perf_counter() - began)
        return answer

    monkeypatch.setattr(runner.predictor, "predict", timed)
    plan = PassPlan({}, (Decoding.of(runner.protocol),), flip=True)
    ratios = []
    for repetition in range(4):
        inside.clear()
        began = time.perf_counter()
        run_passes(runner, [plan], [tmp_path / str(repetition)], photographs, boxes)
        ratios.append((time.perf_counter() - began) / sum(inside))
    ratio = told(f"pass over {len(boxes)} persons / its network", ratios[1:], "at most 1.15", capsys)
    assert ratio <= 1.15


def conv(a: int, b: int, kernel: int, stride: int = 1, relu: bool = True) -> list[nn.Module]:
    layers = [nn.Conv2d(a, b, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(b)]
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


class Block(nn.Module):
    """Residual block of two 3x3 convolutions, or of 1x1, 3x3, 1x1 with `wide` output channels."""

    def __init__(self, a: int, planes: int, wide: int = 0) -> None:
        super().__init__()
        self.conv1, self.bn1 = (
            nn.Conv2d(a, planes, 1 if wide else 3, 1, 0 if wide else 1, bias=False),
            nn.BatchNorm2d(planes),
        )
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False), nn.BatchNorm2d(planes)
        if wide:
            self.conv3, self.bn3 = nn.Conv2d(planes, wide, 1, bias=False), nn.BatchNorm2d(wide)
        self.wide, self.relu = wide, nn.ReLU(inplace=True)
        self.downsample = nn.Sequential(*conv(a, wide, 1, relu=False)) if wide and wide != a else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.wide:
            y = self.bn3(self.conv3(self.relu(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Module(nn.Module):
    """Four blocks on each branch, then every output is the sum of all branches at its resolution."""

    def __init__(self, channels: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(Block(c, c) for _ in range(4))) for c in channels)
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(self._path(channels, i, j) for j in range(len(channels))) for i in range(outputs)
        )
        self.relu = nn.ReLU(inplace=True)

    def _path(self, channels: Sequence[int], i: int, j: int) -> nn.Module | None:
        if j == i:
            return None
        if j > i:
            return nn.Sequential(*conv(channels[j], channels[i], 1, relu=False), nn.Upsample(scale_factor=2 ** (j - i)))
        steps = [nn.Sequential(*conv(channels[j], channels[j], 3, 2)) for _ in range(i - j - 1)]
        return nn.Sequential(*steps, nn.Sequential(*conv(channels[j], channels[i], 3, 2, relu=False)))

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        xs = [branch(x) for branch, x in zip(self.branches, xs)]
        outputs = []
        for paths in self.fuse_layers:
            total: Tensor | int = 0
            for path, x in zip(paths, xs):
                total = total + (x if path is None else path(x))
            outputs.append(self.relu(total))
        return outputs


class PlainHRNet(nn.Module):
    """HRNet-W32 as in the paper's code, eager, with its tensor names."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        c = [width * 2**i for i in range(4)]
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.conv2, self.bn2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False), nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(*(Block(64 if i == 0 else 256, 64, 256) for i in range(4)))
        down = nn.Sequential(nn.Sequential(*conv(256, c[1], 3, 2)))
        self.transition1 = nn.ModuleList([nn.Sequential(*conv(256, c[0], 3)), down])
        self.transition2 = nn.ModuleList([None, None, nn.Sequential(nn.Sequential(*conv(c[1], c[2], 3, 2)))])
        self.transition3 = nn.ModuleList([None, None, None, nn.Sequential(nn.Sequential(*conv(c[2], c[3], 3, 2)))])
        self.stage2 = nn.Sequential(Module(c[:2], 2))
        self.stage3 = nn.Sequential(*(Module(c[:3], 3) for _ in range(4)))
        self.stage4 = nn.Sequential(Module(c, 4), Module(c, 4), Module(c, 1))
        self.final_layer = nn.Conv2d(width, 17, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))
        x = self.layer1(x)
        xs = self.stage2([t(x) for t in self.transition1])
        xs = self.stage3([*xs, self.transition2[2](xs[-1])])
        xs = self.stage4([*xs, self.transition3[3](xs[-1])])
        return self.final_layer(xs[0])


@pytest.mark.parametrize("batch", [1, 16])
def test_the_network_is_as_quick_as_the_plain_one(runner, batch, capsys):
    plain = PlainHRNet().eval()
    plain.load_state_dict(runner.predictor.state_dict())
    images = torch.randn(batch, 3, 256, 192)

    def written_plainly() -> Tensor:
        with torch.inference_mode():
            return plain(images)

    def ours() -> Tensor:
        return runner.forward_many(images, [{}])[0].exits[-1]

    expected, found = written_plainly(), ours()
    assert float((expected - found).abs().max() / expected.abs().max()) < 1e-5
    ratios = [_ratio(written_plainly, ours, first=round_ % 2 == 0) for round_ in range(30 if batch == 1 else 8)]
    ratio = told(f"speed of HRNet-W32 at batch {batch}, ours / plain", ratios, "at least 0.97", capsys)
    assert ratio >= 0.97


def _ratio(a: Callable[[], object], b: Callable[[], object], first: bool) -> float:
    """Seconds of `a` per second of `b`, in the order asked for."""
    times = {}
    for call in (a, b) if first else (b, a):
        began = time.perf_counter()
        call()
        times[call] = time.perf_counter() - began
    return times[a] / times[b]


def test_a_picture_is_read_once_for_all_its_boxes(photographs, capsys):
    """About 21 boxes a picture, as a detector without a threshold gives."""
    dataset, size = coco.limit(photographs, 8), (256, 192)
    truth = from_ground_truth(dataset)
    rng = np.random.default_rng(0)
    ids = np.repeat([image.id for image in dataset.images], 21)
    picked = truth.xywh[rng.integers(len(truth), size=len(ids))]
    boxes = Boxes(ids, picked, np.ones(len(ids)), np.full(len(ids), -1), "made up")
    files = {image.id: dataset.image_folder / image.file for image in dataset.images}

    def once_per_box() -> None:
        centers, scales = center_scale(boxes.xywh, size)
        for image_id, center, scale in zip(ids, centers, scales):
            warp(read_image(files[int(image_id)]), affine(center, scale, 0.0, size), size)

    def ours() -> None:
        for _ in iter_crops(dataset, boxes, input_size=size, udp=False, workers=2):
            pass

    ratios = [_ratio(once_per_box, ours, first=round_ % 2 == 0) for round_ in range(5)]
    ratio = told("crops from 21 boxes a picture, one read per box / ours", ratios, "at least 8", capsys)
    assert ratio >= 8
