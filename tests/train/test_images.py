"""Training samples of one-stage methods: which images, what becomes of boxes and joints, the same on every machine."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import torch

from harness.data import coco
from harness.data.coco import Person
from harness.errors import DataError
from harness.method import PoseProtocol
from harness.pose.skeletons import COCO
from harness.train.images import WholeImages, moved_persons
from harness.train.recipes import ImageAugmentation, Recipe
from harness.train.stream import Order, loader

PROTOCOL = PoseProtocol(mean=(0, 0, 0), std=(1 / 255,) * 3)


def recipe(**how) -> Recipe:
    return Recipe(
        epochs=2, batch=3, lr=1e-3, augmentation=ImageAugmentation(**{"short_sides": (96,), "longest": 200, **how})
    )


@pytest.fixture(scope="module")
def dataset(one_stage, tmp_path_factory):
    root = tmp_path_factory.mktemp("dots")
    return coco.load(one_stage.write(root, images=8), root / "val2017")


def images(dataset, seed=0, **how):
    return WholeImages(dataset, PROTOCOL, recipe(**how), seed=seed)


def person(box, keypoints=None, crowd=False):
    points = np.zeros((17, 3)) if keypoints is None else keypoints
    return Person(1, 1, box, 100.0, points, crowd, int((points[:, 2] > 0).sum()))


def test_images_without_a_labelled_joint_are_left_out(dataset):
    found = images(dataset)
    assert found.ids == [2, 3, 4, 6, 7, 8], "every fourth picture is empty"
    nobody = dataclasses.replace(dataset, persons=())
    with pytest.raises(DataError, match="no image can be trained on"):
        images(nobody)


def test_a_missing_image_is_named_before_training(one_stage, tmp_path):
    dataset = coco.load(one_stage.write(tmp_path, images=4), tmp_path / "val2017")
    (tmp_path / "val2017" / dataset.images[2].file).unlink()
    with pytest.raises(DataError, match="1 of 3 image files"):
        images(dataset)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_the_joints_lie_on_the_dots_of_their_own_colour(dataset, one_stage, flip):
    found = images(dataset, flip=flip)
    for index in range(len(found)):
        sample = found.sample(0, index)
        assert sample.image.shape == (96, 128, 3)
        for who, (joints, seen) in enumerate(zip(sample.joints, sample.visible, strict=True)):
            for k in np.flatnonzero(seen):
                x, y = (joints[k]).astype(int)
                original = COCO.flip_order[k] if flip else k
                assert np.abs(sample.image[y, x].astype(int) - one_stage.colour(who, original)).max() <= 2


def test_mirroring_twice_gives_everything_back():
    rng = np.random.default_rng(0)
    people = [person((10.0, 20, 30, 40), np.concatenate([rng.uniform(10, 60, (17, 2)), np.full((17, 1), 2.0)], axis=1))]
    plain = moved_persons(people, (80, 100), (80, 100), COCO, 0.5, mirror=False)
    once = moved_persons(people, (80, 100), (80, 100), COCO, 0.5, mirror=True)
    back = once[1][:, COCO.flip_order].copy()
    back[..., 0] = 100 - back[..., 0]
    np.testing.assert_allclose(back, plain[1], atol=1e-4)
    np.testing.assert_allclose(once[0], [[60, 20, 90, 60]])


def test_boxes_and_joints_follow_the_scale_by_hand():
    points = np.zeros((17, 3))
    points[0], points[1], points[2] = (10, 20, 2), (99, 79, 1), (120, 20, 2)
    people = [person((10.0, 20, 30, 40), points), person((90.0, 70, 50, 50)), person((200.0, 10, 5, 5))]
    boxes, moved = moved_persons(people, (80, 100), (160, 300), COCO, 0.5, mirror=False)
    np.testing.assert_allclose(boxes, [[30, 40, 120, 120], [270, 140, 300, 160]], err_msg="cut, and dropped when empty")
    np.testing.assert_allclose(moved[0, :2], [[31.5, 41, 2], [298.5, 159, 1]])
    np.testing.assert_allclose(moved[0, 2], [0, 0, 0], err_msg="outside the image is not labelled")
    assert moved.shape == (2, 17, 3)


def test_a_crowd_is_no_person_but_a_region(one_stage, tmp_path):
    dataset = coco.load(one_stage.write(tmp_path, images=4), tmp_path / "val2017")
    last = dataclasses.replace(dataset.persons[-1], iscrowd=True)
    found = images(dataclasses.replace(dataset, persons=(*dataset.persons[:-1], last)), flip=0)
    sample = found.sample(0, 2)
    assert len(sample.boxes) == 2 and len(sample.crowd) == 1 and sample.crowd.shape == (1, 4)
    empty = found.sample(0, 0)
    assert empty.crowd.shape == (0, 4)


def test_the_sizes_are_drawn_anew_in_each_epoch_and_depend_on_the_seed_alone(dataset):
    sides = (64, 80, 96, 112)
    found, again, other = (images(dataset, seed, short_sides=sides) for seed in (0, 0, 1))
    drawn = [[f.sample(epoch, i).image.shape[0] for epoch in range(3) for i in range(6)] for f in (found, again, other)]
    assert drawn[0] == drawn[1] != drawn[2] and set(drawn[0]) == set(sides)
    a, b = found.sample(1, 2), again.sample(1, 2)
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    copied = pickle.loads(pickle.dumps(found))
    assert np.array_equal(copied.sample(1, 2).image, a.image)


def test_a_batch_holds_images_of_different_sizes_normalised(dataset):
    found = images(dataset, short_sides=(64, 96))
    order = Order(len(found), 3, 1, seed=0)
    pieces = list(loader(found, order, workers=0, device=torch.device("cpu")))
    batch = found.to_batch(pieces[0], torch.device("cpu"))
    assert len(batch.images) == 3 and {i.shape[0] for i in batch.images} == {3}
    assert len({i.shape for p in pieces for i in found.to_batch(p, torch.device("cpu")).images}) > 1
    place = next(iter(order))[1]
    sample = found[place]
    np.testing.assert_allclose(batch.images[1].numpy(), sample.image.transpose(2, 0, 1), atol=1e-3)
    np.testing.assert_array_equal(batch.boxes[1].numpy(), sample.boxes)
    assert [len(b) for b in batch.boxes] == [len(j) for j in batch.joints] == [len(v) for v in batch.visible]


def test_an_image_that_cannot_be_decoded_is_returned_as_an_error(one_stage, tmp_path):
    dataset = coco.load(one_stage.write(tmp_path, images=4), tmp_path / "val2017")
    found = WholeImages(dataset, PROTOCOL, recipe(), cache_bytes=0)
    (tmp_path / "val2017" / dataset.images[1].file).write_bytes(b"no picture")
    assert isinstance(found[0, 0], DataError) and isinstance(found.collate([found[0, 1], found[0, 0]]), DataError)
