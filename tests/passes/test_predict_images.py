"""A pass over whole images: persons in the file's pixels, whatever the scale, the batch or a kill in between."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from harness.data import coco
from harness.errors import DataError, MeasurementError, NonFiniteOutput
from harness.method import OneStageOutput
from harness.passes import predict_images
from harness.passes.predict_images import OneStageRunner, by_size, run_image_pass
from harness.passes.replay import load_pass, seal_pass


@pytest.fixture(scope="module")
def dataset(one_stage, tmp_path_factory):
    root = tmp_path_factory.mktemp("dots")
    return coco.load(one_stage.write(root, images=7), root / "val2017")


@pytest.fixture
def runner(one_stage):
    return OneStageRunner(one_stage.ColourFinder(), one_stage.PROTOCOL)


def run(runner, dataset, folder, **options):
    run_image_pass(runner, {}, folder, dataset, workers=0, **options)
    seal_pass(folder, {})
    return load_pass(folder)


def test_persons_come_back_in_the_pixels_of_the_file(runner, dataset, tmp_path):
    found = run(runner, dataset, tmp_path)
    truth = np.array([p.keypoints for p in dataset.persons])
    assert np.abs(np.mean(found["keypoints"][..., :2] - truth[..., :2])) < 0.05, "no half pixel is lost"
    assert found["image"].tolist() == [p.image_id - 1 for p in dataset.persons]
    np.testing.assert_allclose(found["keypoints"][..., :2], truth[..., :2], atol=1.0)
    low = found["keypoints"][..., :2].min(axis=1) + 0.5
    np.testing.assert_allclose(found["boxes"][:, :2], np.maximum(low - 12, 0), atol=1e-3)
    assert found["index"].tolist() == list(range(7)) and found["trace_persons"].tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert {tuple(shape) for call in runner.predictor.seen for shape in call} == {(96, 128)}


def test_the_cost_of_an_image_is_that_of_its_own_forward(runner, dataset, tmp_path):
    found = run(runner, dataset, tmp_path)
    fixed, each = 108 * 96 * 128, 17 * 8
    assert found["macs"][:, 0].tolist() == [fixed + each * n for n in (0, 1, 2, 3, 0, 1, 2)]
    assert set(found["macs_without_persons"].tolist()) == {fixed} and set(found["macs_per_person"].tolist()) == {each}


def test_a_killed_pass_goes_on_where_it_stopped(runner, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_images, "BLOCK", 3)
    whole = run(runner, dataset, tmp_path / "whole")
    process, counted = runner.process, []

    def killed(images, settings):
        counted.extend(image.index for image in images)
        if len(counted) > 4:
            raise KeyboardInterrupt
        return process(images, settings)

    runner.process = killed
    with pytest.raises(KeyboardInterrupt):
        run_image_pass(runner, {}, tmp_path / "parts", dataset, workers=0)
    assert load_pass(tmp_path / "parts") is None
    counted.clear()
    runner.process = lambda images, settings: counted.extend(i.index for i in images) or process(images, settings)
    parts, progress = run(runner, dataset, tmp_path / "parts"), []
    assert sorted(counted) == [3, 4, 5, 6], "the first block was there"
    run_image_pass(runner, {}, tmp_path / "parts", dataset, workers=0, advance=progress.append)
    assert sum(progress) == 7
    for name in whole:
        np.testing.assert_array_equal(parts[name], whole[name])


def test_an_interrupted_pass_leaves_no_thread(runner, dataset, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    runner.process = interrupted
    with pytest.raises(KeyboardInterrupt) as kept:
        run_image_pass(runner, {}, tmp_path, dataset, workers=2)
    assert kept.tb is not None and not [t for t in threading.enumerate() if t.name.startswith("images")]


def test_the_batch_moves_nothing_and_never_mixes_sizes(runner, one_stage, tmp_path):
    root = tmp_path / "mixed"
    one_stage.write(root / "a", images=4)
    other = one_stage.write(root / "b", images=4, size=(256, 192))
    whole = coco.load(other, root / "b/val2017")
    tall = run(runner, whole, tmp_path / "one", batch=1)
    runner.predictor.seen.clear()
    batched = run(runner, whole, tmp_path / "many", batch=3)
    assert [len(call) for call in runner.predictor.seen] == [3, 1]
    for name in tall:
        np.testing.assert_array_equal(batched[name], tall[name])
    wide = coco.load(root / "a/annotations/person_keypoints_val2017.json", root / "a/val2017")
    images = [
        image
        for data in (whole, wide)
        for image in predict_images.iter_images(data, range(4), runner.scaling, workers=0)
    ]
    groups = list(by_size(images[::2] + images[1::2], 16))
    assert all(len({i.pixels.shape for i in group}) == 1 for group in groups) and len(groups) == 2


def test_large_images_are_not_forwarded_many_at_once(one_stage, monkeypatch, dataset):
    monkeypatch.setattr(predict_images, "MOST_PIXELS", 2 * 96 * 128)
    images = list(predict_images.iter_images(dataset, range(5), OneStageRunner(
        one_stage.ColourFinder(), one_stage.PROTOCOL).scaling, workers=0))  # fmt: skip
    assert [len(group) for group in by_size(images, 16)] == [2, 2, 1]


def test_a_missing_image_is_named_or_passed_over(runner, one_stage, tmp_path):
    dataset = coco.load(one_stage.write(tmp_path / "dots", images=4), tmp_path / "dots/val2017")
    (tmp_path / "dots/val2017" / dataset.images[2].file).unlink()
    with pytest.raises(DataError, match="image 3"):
        run(runner, dataset, tmp_path / "a")
    found = run(runner, dataset, tmp_path / "b", missing="skip")
    assert found["index"].tolist() == [0, 1, 3] and set(found["image"].tolist()) == {1, 3}


def test_nan_names_the_image(runner, dataset, tmp_path):
    predict = runner.predictor.predict

    def bad(images, settings):
        outputs = predict(images, settings)
        return [OneStageOutput(o.boxes * float("nan"), o.scores, o.keypoints, o.trace) for o in outputs]

    runner._predict = bad
    with pytest.raises(NonFiniteOutput, match="image 2"):
        run(runner, dataset, tmp_path)


def test_a_trace_without_persons_cannot_be_priced(runner, dataset, tmp_path):
    predict = runner.predictor.predict
    runner._predict = lambda images, settings: [
        OneStageOutput(o.boxes, o.scores, o.keypoints, {"height": 96, "width": 128}) for o in predict(images, settings)
    ]
    with pytest.raises(MeasurementError, match="persons"):
        run(runner, dataset, tmp_path)


def test_boxes_beside_the_image_are_dropped_and_the_best_come_first(runner):
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 200, 200], [130, 10, 150, 20], [5, 5, 5, 9]])
    output = OneStageOutput(boxes, torch.tensor([0.2, 0.9, 0.8, 0.7]), torch.ones(4, 17, 3), {})
    persons = runner.persons(output, (96, 128), (192, 256))
    np.testing.assert_allclose(persons.scores, [0.9, 0.2])
    np.testing.assert_allclose(persons.boxes, [[40, 40, 256, 192], [0, 0, 20, 20]])
