"""What preparing data costs a training: waiting within a step, and augmentation beside decoding."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch

from harness.data import coco
from harness.data.reading import read_image
from harness.method import find_variant
from harness.train import loop
from harness.train.checkpoints import open_variant
from harness.train.recipes import Recipe
from harness.train.samples import PersonCrops

pytestmark = pytest.mark.benchmark_suite
VARIANT = find_variant("hrnet_w32")
STEPS = 6


@pytest.fixture(scope="module")
def photographs(shared: Path) -> coco.Dataset:
    folder = shared / "data/coco_train125"
    return coco.load(folder / "person_keypoints_coco_train125.json", folder / "images")


@pytest.fixture
def recipe() -> Recipe:
    official = VARIANT.recipes["official"]
    return Recipe(epochs=1, steps=STEPS, batch=16, lr=official.lr, augmentation=official.augmentation)


def test_a_step_waits_for_data_less_than_a_tenth_of_its_time(photographs, recipe, tmp_path, capsys, monkeypatch):
    """HRNet-W32, batch 16, 2 workers; images are read again for every sample."""
    monkeypatch.setattr(PersonCrops.__init__, "__kwdefaults__", {"seed": 0, "cache_bytes": 0})
    network, _ = open_variant(VARIANT, None, num_joints=17)
    loop.train(network, VARIANT, recipe, photographs, out=tmp_path, options=loop.Options(workers=2, quiet=True))
    line = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    with capsys.disabled():
        print(f"\nwaiting for data: {line['waiting_share']:.1%} of {STEPS} steps, the first one included (below 10 %)")
    assert line["waiting_share"] < 0.10


def test_augmented_samples_come_at_half_the_speed_of_decoding_or_more(photographs, recipe, capsys):
    """On one core: samples (read, draw, warp, encode) against reading the same files alone; official augmentation."""
    torch.set_num_threads(1)
    crops = PersonCrops(photographs, VARIANT.protocol, recipe, (256, 192), cache_bytes=0)
    files = [photographs.image_folder / crops._images[person.image_id].file for person in crops.persons[:150]]
    ratios = []
    for epoch in range(5):
        began = time.perf_counter()
        for file in files:
            read_image(file)
        decoded = time.perf_counter()
        for start in range(0, len(files), 16):
            crops.collate([crops[epoch, i] for i in range(start, min(start + 16, len(files)))])
        ratios.append((decoded - began) / (time.perf_counter() - decoded))
    ratio = sorted(ratios)[len(ratios) // 2]
    with capsys.disabled():
        print(f"\nsamples per second / decoded images per second: {ratio:.2f} (median of 5; at least 0.5)")
    assert ratio >= 0.5
