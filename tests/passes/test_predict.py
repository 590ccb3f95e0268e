"""A pass over crops: the numbers of a batch by hand, blocks, and replay against a real early exit."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data import coco, crops, synthetic
from harness.data.boxes import from_ground_truth
from harness.data.crops import batches, iter_crops
from harness.data.normaliser import Normaliser
from harness.method import PoseProtocol, find_variant
from harness.passes import predict
from harness.passes.predict import Decoding, PassPlan, TopDownRunner, run_passes
from harness.passes.replay import load_pass, resolve_threshold, seal_pass, select
from harness.pose.decoders import decode, to_image
from harness.pose.flip import flip_back
from harness.pose.skeletons import COCO
from harness.pose.targets import encode
from harness.suite.sources import QUICKSTART
from harness.train.checkpoints import open_variant

QUARTER = Decoding("quarter", "hrnet", 0)
DARK = Decoding("dark", "hrnet", 11)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("people")
    file = synthetic.write(root, images=8, seed=7)
    return coco.load(file, root / "val2017")


@pytest.fixture(scope="module")
def boxes(dataset):
    return from_ground_truth(dataset)


@pytest.fixture(scope="module")
def runner():
    """Random weights; the last layer is scaled so that maps have clear peaks."""
    torch.manual_seed(0)
    variant = find_variant("simplebaseline_tiny")
    built = variant.build(num_joints=17, input_size=variant.input_size).eval()
    built.final_layer.weight.data.mul_(300.0)
    return TopDownRunner(built, PoseProtocol(), COCO)


@pytest.fixture(scope="module")
def sharpose():
    """The project's own weights: maps of random ones have no peaks, and DARK's steps there are a matter of rounding."""
    variant = find_variant("sharpose_tiny")
    built, _ = open_variant(variant, QUICKSTART / "sharpose_tiny.safetensors", num_joints=17)
    return TopDownRunner(built.eval(), variant.protocol, COCO)


def crops_of(runner, dataset, boxes, size=9):
    stream = iter_crops(dataset, boxes, input_size=runner.predictor.input_size, udp=runner.codec.udp, workers=0)
    return next(batches(stream, size))


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
def test_pixels_are_normalised_in_the_order_of_the_colours(colour):
    protocol = PoseProtocol(colour=colour, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    crops = np.random.default_rng(0).integers(256, size=(2, 5, 4, 3), dtype=np.uint8)
    ours = Normaliser(protocol, torch.device("cpu"))(crops).numpy()
    pixels = crops[..., ::-1] if colour == "bgr" else crops
    expected = (pixels / 255 - np.array(protocol.mean)) / np.array(protocol.std)
    np.testing.assert_allclose(ours, expected.transpose(0, 3, 1, 2), atol=1e-5)


def test_a_flip_test_is_the_average_of_two_forwards(runner, dataset, boxes):
    _, crops, centers, scales = crops_of(runner, dataset, boxes)
    plan = PassPlan({}, (QUARTER, DARK), flip=True)
    (found,) = runner.process(crops, centers, scales, [plan])
    images = runner.normalise(crops)
    with torch.inference_mode():
        plain, mirrored = runner.predictor(images), runner.predictor(images.flip(3))
    back = flip_back(mirrored, COCO, shift=True)
    for outcome, maps in (("0", plain), ("0+0", (plain + back) / 2)):
        for how in (QUARTER, DARK):
            coords, scores = decode(maps.numpy(), how.decoder, dialect=how.dialect, blur_kernel=how.blur_kernel or 11)
            points = to_image(coords, centers, scales, maps.shape[-2:], udp=False)
            ours = found[f"keypoints:{how.name}:{outcome}"]
            np.testing.assert_allclose(ours[..., :2], points, atol=1e-4)
            np.testing.assert_allclose(ours[..., 2], scores, rtol=1e-5)
    assert found["macs"].tolist() == found["macs_mirrored"].tolist() == [[runner.predictor.macs({})]] * len(crops)


def test_without_flip_test_the_mirrored_image_is_not_run(runner, dataset, boxes):
    _, crops, centers, scales = crops_of(runner, dataset, boxes, 2)
    (found,) = runner.process(crops, centers, scales, [PassPlan({}, (QUARTER,), flip=False)])
    assert set(found) == {"keypoints:quarter-hrnet-0:0", "macs"}


def compute(runner, plan, dataset, boxes, folder: Path, **options):
    run_passes(runner, [plan], [folder], dataset, boxes, workers=0, **options)
    seal_pass(folder, {})
    return load_pass(folder)


def test_a_pass_in_blocks_is_the_pass_in_one_go(runner, dataset, boxes, tmp_path, monkeypatch):
    plan = PassPlan({}, (QUARTER,), flip=True)
    whole = compute(runner, plan, dataset, boxes, tmp_path / "whole")
    monkeypatch.setattr(predict, "BLOCK", 5)
    parts = compute(runner, plan, dataset, boxes, tmp_path / "parts", batch=3)
    assert len(list((tmp_path / "parts").glob("block-*"))) == -(-len(boxes) // 5) > 2
    assert whole.keys() == parts.keys() and parts["index"].tolist() == list(range(len(boxes)))
    for name in whole:
        np.testing.assert_allclose(parts[name], whole[name], atol=1e-3)


@pytest.mark.parametrize(("batch", "block"), [(4, 8), (3, 5), (7, 4), (100, 6)])
def test_the_network_gets_full_batches_across_images_and_blocks(
    runner, dataset, boxes, tmp_path, monkeypatch, batch, block
):
    monkeypatch.setattr(predict, "BLOCK", block)
    process, seen = runner.process, []
    monkeypatch.setattr(runner, "process", lambda crops, *rest: seen.append(len(crops)) or process(crops, *rest))
    found = compute(runner, PassPlan({}, (QUARTER,), flip=False), dataset, boxes, tmp_path, batch=batch)
    assert seen[:-1] == [batch] * ((len(boxes) - 1) // batch) and found["index"].tolist() == list(range(len(boxes)))
    assert len(list(tmp_path.glob("block-*"))) == -(-len(boxes) // block)


def test_a_picture_whose_persons_lie_in_two_blocks_is_read_once(runner, dataset, boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 1)
    read, of_file = [], crops.read_image
    monkeypatch.setattr(crops, "read_image", lambda path, size: read.append(path.name) or of_file(path, size))
    compute(runner, PassPlan({}, (QUARTER,), flip=False), dataset, boxes, tmp_path)
    assert sorted(read) == sorted({image.file for image in dataset.images}) and len(boxes) > len(read)


def test_only_what_is_missing_of_each_plan_is_computed(runner, dataset, boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 4)
    plans = [PassPlan({}, (how,), flip=False) for how in (QUARTER, DARK)]
    folders = [tmp_path / "a", tmp_path / "b"]
    run_passes(runner, plans, folders, dataset, boxes, workers=0)
    whole = [np.load(p)["index"].tolist() for p in sorted(folders[0].iterdir())]
    for gone in (folders[0] / "block-0000004.npz", folders[1] / "block-0000004.npz", folders[1] / "block-0000008.npz"):
        gone.unlink()
    process, seen = runner.process, []
    monkeypatch.setattr(runner, "process", lambda c, x, y, p: seen.append((len(c), len(p))) or process(c, x, y, p))
    run_passes(runner, plans, folders, dataset, boxes, workers=0)
    assert seen == [(4, 2), (4, 1)]
    for folder in folders:
        assert [np.load(p)["index"].tolist() for p in sorted(folder.iterdir())] == whole


def test_the_number_of_workers_moves_no_bit(runner, dataset, boxes, tmp_path):
    plan = PassPlan({}, (QUARTER, DARK), flip=True)
    found = []
    for workers in (0, 1, 7):
        run_passes(runner, [plan], [tmp_path / str(workers)], dataset, boxes, workers=workers, batch=5)
        seal_pass(tmp_path / str(workers), {})
        found.append(load_pass(tmp_path / str(workers)))
    for other in found[1:]:
        assert found[0].keys() == other.keys()
        for name in other:
            np.testing.assert_array_equal(found[0][name], other[name])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_pass_that_breaks_off_keeps_whole_blocks_and_leaves_no_thread(
    runner, dataset, boxes, tmp_path, monkeypatch, error
):
    monkeypatch.setattr(predict, "BLOCK", 4)
    process, calls = runner.process, []

    def breaking(*values):
        calls.append(1)
        if len(calls) == 3:
            raise error("here")
        return process(*values)

    monkeypatch.setattr(runner, "process", breaking)
    with pytest.raises(error) as kept:
        run_passes(runner, [PassPlan({}, (QUARTER,), flip=False)], [tmp_path], dataset, boxes, batch=3, workers=3)
    assert kept.tb is not None and not [t for t in threading.enumerate() if t.name.startswith("images")]
    assert [p.name for p in tmp_path.iterdir()] == ["block-0000000.npz"], "six persons were there: one block and a half"


def test_progress_counts_each_person_once_also_when_blocks_are_there(runner, dataset, boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 5)
    plan = PassPlan({}, (QUARTER,), flip=False)
    for _ in range(2):
        counted: list[int] = []
        compute(runner, plan, dataset, boxes, tmp_path, advance=counted.append)
        assert sum(counted) == len(boxes)


def test_only_the_last_exit_is_kept_when_not_all_are_wanted(sharpose, dataset, boxes):
    _, crops, centers, scales = crops_of(sharpose, dataset, boxes)
    how = Decoding.of(sharpose.protocol)
    one, every = (
        sharpose.process(crops, centers, scales, [PassPlan({}, (how,), flip=True, all_exits=every)])[0]
        for every in (False, True)
    )
    outcomes = [{n.rpartition(":")[2] for n in found if n.startswith("keypoints")} for found in (one, every)]
    assert outcomes == [{"0", "0+0"}, {"0", "1", "0+0", "0+1", "1+0", "1+1"}]
    np.testing.assert_allclose(one[f"keypoints:{how.name}:0+0"], every[f"keypoints:{how.name}:1+1"], atol=1e-3)
    assert one["macs"].shape == (len(crops), 1) and every["macs"].shape == (len(crops), 2)
    assert (every["macs"][:, 0] < every["macs"][:, 1]).all()
    assert one["macs"][:, 0].tolist() == every["macs"][:, 1].tolist()


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, "always", "never", None])
def test_replay_gives_what_a_real_early_exit_gives(sharpose, dataset, boxes, tmp_path, flip, share):
    how = Decoding.of(sharpose.protocol)
    stored = compute(sharpose, PassPlan({}, (how,), flip=flip), dataset, boxes, tmp_path / "stored")
    threshold = share
    if isinstance(share, float):  # between two qualities, so that rounding cannot turn a decision
        qualities = np.sort(np.concatenate([stored[n] for n in ("quality", "quality_mirrored") if n in stored]))
        place = int(share * len(qualities))
        threshold = float(qualities[place - 1] + qualities[place]) / 2
    settings = {"quality_threshold": threshold}
    real = compute(sharpose, PassPlan(settings, (how,), flip=flip, all_exits=False), dataset, boxes, tmp_path / "real")
    chosen = select(stored, how.name, flip=flip, threshold=resolve_threshold(stored, threshold))
    names = ("", "_mirrored") if flip else ("",)
    taken = np.stack([real[f"trace_exit{n}"] for n in names], axis=1)
    assert chosen.exits.tolist() == taken.tolist()
    if isinstance(share, float):
        assert 0 < chosen.exits.mean() < 1
    answer = real[f"keypoints:{how.name}:{'0+0' if flip else '0'}"]
    np.testing.assert_allclose(chosen.keypoints[..., :2], answer[..., :2], atol=1e-3)
    np.testing.assert_allclose(chosen.keypoints[..., 2], answer[..., 2], rtol=1e-3, atol=1e-5)
    assert chosen.macs.tolist() == np.concatenate([real[f"macs{n}"] for n in names], axis=1).tolist()


def test_several_alphas_share_the_coarse_stage_and_give_what_single_runs_give(
    sharpose, dataset, boxes, tmp_path, monkeypatch
):
    how = Decoding.of(sharpose.protocol)
    plans = [PassPlan({"alpha": alpha}, (how,), flip=True) for alpha in (0.2, 0.3, 0.6)]
    singles = [compute(sharpose, p, dataset, boxes, tmp_path / f"single{i}") for i, p in enumerate(plans)]
    trunk, seen = sharpose.predictor.backbone, []
    coarse = trunk.coarse
    monkeypatch.setattr(trunk, "coarse", lambda images: seen.append(len(images)) or coarse(images), raising=False)
    folders = [tmp_path / f"shared{i}" for i in range(len(plans))]
    run_passes(sharpose, plans, folders, dataset, boxes, workers=0)
    assert sum(seen) == 2 * len(boxes), "once for each person and its mirror image"
    for folder, single in zip(folders, singles):
        seal_pass(folder, {})
        shared = load_pass(folder)
        assert shared.keys() == single.keys()
        for name in single:
            np.testing.assert_allclose(shared[name], single[name], atol=1e-3)
    macs = [single["macs"][0, 1] for single in singles]
    assert macs == sorted(set(macs))


def test_bfloat16_stays_near_float32_and_is_not_the_same(runner, dataset, boxes):
    _, crops, *_ = crops_of(runner, dataset, boxes, 2)
    half = TopDownRunner(runner.predictor, runner.protocol, COCO, dtype="bfloat16")
    images = runner.normalise(crops)
    full, short = (r.forward_many(images, [{}])[0].exits[-1].float() for r in (runner, half))
    difference = float((full - short).abs().max() / full.abs().max())
    assert 0 < difference < 0.05


@pytest.mark.slow
def test_a_compiled_network_gives_the_same_maps_and_leaves_the_network_as_it_was(runner, dataset, boxes):
    images = runner.normalise(crops_of(runner, dataset, boxes, 2)[1])
    compiled = TopDownRunner(runner.predictor, runner.protocol, COCO, runtime="compile")
    ours, plain = (r.forward_many(images, [{}])[0].exits[-1] for r in (compiled, runner))
    assert float((ours - plain).abs().max() / plain.abs().max()) < 1e-4
    assert runner.predictor._compiled_call_impl is None


@pytest.mark.parametrize("peak", [1.0, 0.7])
def test_soft_argmax_finds_the_joints_on_maps_of_a_squared_error(runner, peak):
    joints = np.array([[[10.0, 15.0], [37.5, 50.0]]]) * 4
    maps, _ = encode("unbiased", joints, np.ones((1, 2)), input_size=(256, 192), heatmap_size=(64, 48), sigma=2.0)
    how = Decoding.of(PoseProtocol(decoder="soft_argmax"))
    centers, scales = np.array([[96.0, 128.0]]), np.array([[0.96, 1.28]])
    points = runner.decode((peak * maps).astype(np.float32), how, centers, scales)
    assert np.abs(points[..., :2] - joints).max() < 2 and how.name != Decoding.of(PoseProtocol()).name
