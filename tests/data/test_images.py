"""Whole images: sizes, filters, and the way back to the file's pixels."""

from __future__ import annotations

import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from harness.data import coco
from harness.data.coco import Dataset, ImageInfo
from harness.data.images import Scaling, iter_images, scaled, to_original
from harness.data.reading import read_image
from harness.errors import DataError
from harness.pose.skeletons import COCO


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((480, 640), (800, 1067)),
        ((640, 480), (1067, 800)),
        ((427, 640), (800, 1199)),
        ((300, 640), (625, 1333)),
        ((1, 1), (800, 800)),
        ((8000, 8000), (800, 800)),
        ((1, 8000), (1, 1333)),
        ((800, 1333), (800, 1333)),
    ],
)
def test_the_shorter_edge_is_800_unless_the_longer_would_pass_1333(size, expected):
    assert Scaling().size_of(size) == expected


@pytest.mark.parametrize("size", [(480, 640), (427, 640), (333, 500), (640, 361), (600, 200), (37, 41), (1000, 1500)])
def test_torchvision_sizes_and_pixels_are_those_of_its_own_transform(size):
    transform = pytest.importorskip("torchvision.models.detection.transform").GeneralizedRCNNTransform
    image = np.random.default_rng(0).integers(256, size=(*size, 3), dtype=np.uint8)
    how = Scaling(200, 333, "torchvision")
    own = transform(200, 333, [0.0] * 3, [1.0] * 3)
    resized, _ = own.resize(torch.from_numpy(image.transpose(2, 0, 1) / 255.0).float(), None)
    ours = scaled(image, how)
    own.training = False
    theirs, _ = own.resize(torch.from_numpy(image.transpose(2, 0, 1) / 255.0).float(), None)
    assert ours.shape[:2] == how.size_of(size) == tuple(theirs.shape[1:]) == tuple(resized.shape[1:])
    np.testing.assert_allclose(ours.transpose(2, 0, 1) / 255, theirs.numpy(), atol=2e-4)


def test_detectron2_filters_over_all_pixels_when_it_scales_down():
    image = np.zeros((400, 400, 3), np.uint8)
    image[::2] = 254
    down = scaled(image, Scaling(100, 1000))
    assert down.dtype == np.uint8 and np.abs(down[2:-2].astype(int) - 127).max() <= 2
    plain = scaled(image, Scaling(100, 1000, "torchvision"))
    assert np.abs(plain - 127).max() <= 1e-3 or plain.std() > 1, "the other way sees four pixels only"
    assert scaled(image, Scaling(400, 400)) is image


def test_a_point_goes_there_and_back():
    boxes = np.array([[10.0, 20, 110, 220], [-5, 0, 2000, 4000], [900, 10, 950, 20]])
    points = np.array([[[100.0, 100, 0.5]]] * 3)
    moved, joints, alive = to_original(boxes, points, (400, 800), (200, 1600))
    np.testing.assert_allclose(moved, [[20, 10, 220, 110], [0, 0, 1600, 200], [1600, 5, 1600, 10]])
    np.testing.assert_allclose(joints[0], [[200, 50, 0.5]])
    _, joints, _ = to_original(boxes, points, (400, 800), (200, 1600), Scaling().centre)
    np.testing.assert_allclose(joints[0], [[199.5, 49.5, 0.5]])
    assert alive.tolist() == [True, True, False]


def dataset_of(folder, *files) -> Dataset:
    infos = []
    for number, (name, width, height) in enumerate(files):
        infos.append(ImageInfo(number + 1, name, width, height))
    return Dataset("some", folder, tuple(infos), (), COCO, {})


@pytest.mark.parametrize("way", ["detectron2", "torchvision"])
def test_64_megapixels_take_the_memory_of_the_file_and_little_more(tmp_path, way):
    cv2.imwrite(str(tmp_path / "huge.jpg"), np.full((8000, 8000), 7, np.uint8))
    (image,) = iter_images(dataset_of(tmp_path, ("huge.jpg", 8000, 8000)), [0], Scaling(60, 100, way), workers=0)
    assert image.pixels.shape == (60, 60, 3) and image.original == (8000, 8000)
    np.testing.assert_allclose(image.pixels, 7, atol=1e-4)
    whole = np.zeros((8000, 8000, 3), np.uint8)
    tracemalloc.start()
    scaled(whole, Scaling(60, 100, way))
    assert tracemalloc.get_traced_memory()[1] < 3 * whole.nbytes
    tracemalloc.stop()


def test_grey_rgba_and_one_pixel_files_become_rgb_of_the_asked_size(tmp_path):
    rng = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "grey.png"), rng.integers(256, size=(60, 80), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "rgba.png"), rng.integers(256, size=(60, 80, 4), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "dot.png"), np.full((1, 1, 3), 7, np.uint8))
    files = [("grey.png", 80, 60), ("rgba.png", 80, 60), ("dot.png", 1, 1)]
    for way in ("detectron2", "torchvision"):
        images = list(iter_images(dataset_of(tmp_path, *files), range(3), Scaling(60, 100, way), workers=2))
        assert [i.index for i in images] == [0, 1, 2] and images[2].original == (1, 1)
        assert [i.pixels.shape for i in images] == [(60, 80, 3), (60, 80, 3), (60, 60, 3)]
        grey = images[0].pixels
        assert np.array_equal(grey[..., 0], grey[..., 1]) and np.allclose(images[2].pixels, 7)


def test_unreadable_and_other_images_are_named(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8 no picture")
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((5, 6, 3), np.uint8))
    broken = dataset_of(tmp_path, ("cut.jpg", 5, 5), ("small.png", 60, 50), ("gone.png", 5, 5))
    for index, what in ((0, "not an image"), (1, "its annotation says 60x50"), (2, "missing")):
        with pytest.raises(DataError, match=what) as caught:
            list(iter_images(broken, [index], Scaling(), workers=0))
        assert f"image {index + 1}" in caught.value.where
    assert list(iter_images(broken, [2], Scaling(), workers=0, missing="skip")) == []


def test_the_order_is_that_of_the_indices_with_many_workers(one_stage, tmp_path):
    dataset = coco.load(one_stage.write(tmp_path, images=6), tmp_path / "val2017")
    order = [4, 1, 5, 0]
    images = list(iter_images(dataset, order, Scaling(96, 200), workers=3))
    assert [i.index for i in images] == order
    whole = read_image(dataset.image_folder / dataset.images[4].file)
    np.testing.assert_array_equal(images[0].pixels, scaled(whole, Scaling(96, 200)))
