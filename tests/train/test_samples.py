"""Samples: who is trained on, in what order, with which targets."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
import pytest
import torch

from harness.data.coco import Dataset, ImageInfo, Person
from harness.errors import DataError
from harness.method import PoseProtocol
from harness.pose.skeletons import COCO
from harness.train.recipes import Augmentation, Recipe, TargetSpec
from harness.train.samples import PersonCrops
from harness.train.stream import Order, loader

RECIPE = Recipe(epochs=2, batch=3, lr=1e-3, augmentation=Augmentation(scale=0.2, rotation=30, half_body=0))
SIZE = (64, 48)


def make(folder, count=5):
    """`count` images of 80 x 100 with one person each; a white dot at each wrist."""
    rng = np.random.default_rng(0)
    persons = []
    for number in range(count):
        points = np.stack([rng.uniform(30, 70, 17), rng.uniform(15, 65, 17)], axis=1).round()
        image = np.zeros((80, 100, 3), np.uint8)
        for joint in (9, 10):
            cv2.circle(image, tuple(int(v) for v in points[joint]), 2, (255, 255, 255), -1)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        keypoints = np.concatenate([points, np.full((17, 1), 2.0)], axis=1)
        persons.append(Person(100 + number, number, (25.0, 10.0, 50.0, 60.0), 3000.0, keypoints, False, 17))
    images = tuple(ImageInfo(n, f"{n}.png", 100, 80) for n in range(count))
    return Dataset("toy", folder, images, tuple(persons), COCO, {})


def crops(dataset, recipe=RECIPE, **options):
    return PersonCrops(dataset, PoseProtocol(), recipe, SIZE, **options)


def test_persons_without_labelled_joints_and_crowds_are_left_out(tmp_path):
    dataset = make(tmp_path)
    unlabelled = dataclasses.replace(dataset.persons[1], keypoints=np.zeros((17, 3)), num_keypoints=0)
    crowd = dataclasses.replace(dataset.persons[2], iscrowd=True)
    persons = (dataset.persons[0], unlabelled, crowd, *dataset.persons[3:])
    found = crops(dataclasses.replace(dataset, persons=persons))
    assert [p.id for p in found.persons] == [100, 103, 104]
    with pytest.raises(DataError, match="no person can be trained on"):
        crops(dataclasses.replace(dataset, persons=(unlabelled, crowd)))


def test_a_missing_image_is_named_before_training(tmp_path):
    dataset = make(tmp_path)
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError, match="1 of 5 image files") as caught:
        crops(dataset)
    assert caught.value.where.endswith("3.png")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_arrives_as_the_error_that_names_it(tmp_path, workers):
    dataset = make(tmp_path)
    (tmp_path / "3.png").write_bytes(b"no image")
    found = crops(dataset, cache_bytes=0)
    batches = list(loader(found, Order(5, 5, 1), workers=workers, device=torch.device("cpu")))
    assert isinstance(batches[0], DataError) and "3.png" in str(batches[0])


def test_a_sample_depends_on_seed_epoch_and_person_alone(tmp_path):
    dataset = make(tmp_path)
    first, again = crops(dataset, seed=3), crops(dataset, seed=3, cache_bytes=0)
    first.sample(0, 1)
    for a, b in zip(first.sample(1, 2), again.sample(1, 2)):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.sample(1, 2).joints, first.sample(2, 2).joints)
    assert not np.array_equal(first.sample(1, 2).joints, crops(dataset, seed=4).sample(1, 2).joints)


def test_targets_peak_on_the_moved_joints_and_the_image_shows_them_there(tmp_path):
    found = crops(make(tmp_path))
    for epoch in range(6):
        sample = found.sample(epoch, 0)
        maps = found.collate([sample]).target[0].numpy()
        for joint in (9, 10):
            x, y = sample.joints[joint]
            if not (3 < x < SIZE[1] - 4 and 3 < y < SIZE[0] - 4):
                continue
            row, column = np.unravel_index(maps[joint].argmax(), maps[joint].shape)
            assert abs(column - x / 4) <= 0.5 and abs(row - y / 4) <= 0.5
            assert sample.image[round(float(y)), round(float(x))].min() > 120


def test_a_batch_is_normalised_as_the_protocol_says(tmp_path):
    found = crops(make(tmp_path))
    stacked = next(iter(loader(found, Order(5, 3, 1), workers=0, device=torch.device("cpu"))))
    batch = found.to_batch(stacked, torch.device("cpu"))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    wanted = ((stacked.images / 255 - mean) / std).permute(0, 3, 1, 2)
    torch.testing.assert_close(batch.images, wanted)
    assert batch.target.shape == (3, 17, 16, 12) and batch.weight.shape == (3, 17)
    assert batch.joints.shape == (3, 17, 2) and batch.centers.shape == batch.scales.shape == (3, 2)


def test_simcc_targets_arrive_as_a_pair(tmp_path):
    recipe = dataclasses.replace(RECIPE, target=TargetSpec("simcc", 6.0))
    stacked = crops(make(tmp_path), recipe).collate([crops(make(tmp_path), recipe).sample(0, i) for i in range(2)])
    assert [tuple(t.shape) for t in stacked.target] == [(2, 17, 96), (2, 17, 128)]
