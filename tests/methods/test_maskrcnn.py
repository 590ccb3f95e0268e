"""Mask R-CNN and its refinement: published outputs, names and counts; batches; every knob; bad input."""

import itertools
import json
import pickle

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from harness.cost.account import measure
from harness.cost.macs import count
from harness.errors import UserError, WeightsError
from harness.method import OneStageOutput, Predictor, Trainable, find_variant
from harness.train.checkpoints import infer_joints, open_variant
from harness.train.recipes import ImageBatch, Progress
from methods.parts import rcnn_names as names
from methods.parts.rcnn_keypoints import keypoint_loss

ALL = ["maskrcnn_r50", "maskrcnn_r101", "maskrcnn_refined_r50", "maskrcnn_refined_r101", "maskrcnn_tiny"]
SIZE = (96, 128)


def _build(name="maskrcnn_tiny", num_joints=17, **knobs):
    torch.manual_seed(0)
    return find_variant(name).build(num_joints=num_joints, input_size=SIZE, **knobs)


def _on_meta(name, **knobs):
    with torch.device("meta"):
        return _build(name, **knobs)


@pytest.fixture(scope="module")
def tiny():
    return _sane(_build()).eval()


def _sane(network):
    """Random heatmaps of a size that training gives them: scores are exponentials of them."""
    network.keypoint.predictor.kps_score_lowres.weight.data.mul_(0.02)
    return network


def _images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [50 * torch.randn(3, *size, generator=generator) for size in sizes]


def _close(ours, theirs, tolerance=1e-4):
    return np.abs(np.asarray(ours) - theirs).max() <= tolerance * np.abs(theirs).max()


# published outputs -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baseline(shared, golden_tools):
    """The baseline network with the golden weights, from detectron2's names."""
    return _filled("maskrcnn_r50", "maskrcnn_baseline_r50_fpn", shared, golden_tools)


def _filled(name, keys_of, shared, golden_tools):
    keys = json.loads((shared / "goldens" / f"{keys_of}.keys.json").read_text())
    network = _build(name).eval()
    network.load_state_dict(names.from_detectron2({k: golden_tools.seeded(k, s) for k, s in keys.items()}))
    return network


def test_the_whole_baseline_equals_detectron2(baseline, golden, golden_tools):
    stored = golden("maskrcnn_baseline_r50_fpn")
    boxes, truth = torch.from_numpy(stored["boxes"]), torch.from_numpy(stored["gt_keypoints"])
    with torch.inference_mode():
        found = baseline.forward_raw(golden_tools.image(1, 256, 320, 3), settings={}, rois=boxes)
        head = torch.from_numpy(np.random.RandomState(11).standard_normal((2, 256, 14, 14)).astype(np.float32))
        assert _close(baseline.keypoint.logits(head), stored["iso_logits"])
    for level in range(2, 7):
        assert _close(found[f"feat_p{level}"].mean((2, 3)), stored[f"feat_mean_p{level}"])
    assert _close(found["feat_p2"][0, :8], stored["p2_0_8"])
    assert _close(found["roi_features"][:, :16], stored["roi_feat_ch0_16"])
    assert _close(found["roi_features"].mean((2, 3)), stored["roi_feat_mean"])
    assert _close(found["roi_logits"], stored["head_logits"])
    assert _close(found["keypoints"][..., :2], stored["keypoints"][..., :2])
    assert _close(found["keypoints"][..., 2], stored["keypoints"][..., 2], 1e-3)  # exponentials of the logits
    loss = keypoint_loss(found["roi_logits"], boxes, truth[..., :2], truth[..., 2])
    assert float(loss) == pytest.approx(float(stored["loss_keypoint"]), rel=1e-4)


@pytest.fixture(scope="module")
def refined(shared, golden_tools):
    return _filled("maskrcnn_refined_r50", "maskrcnn_refined_r50_fpn", shared, golden_tools)


def test_the_whole_refined_network_gives_the_published_loss(refined, golden, golden_tools):
    stored = golden("maskrcnn_baseline_r50_fpn")  # of the same boxes, which cross three edges once they are enlarged
    boxes, truth = torch.from_numpy(stored["boxes"]), torch.from_numpy(stored["gt_keypoints"])
    with torch.inference_mode():
        found = refined.forward_raw(golden_tools.image(1, 256, 320, 3), settings={}, rois=boxes)
    regions = refined.keypoint.regions([boxes])[0]
    loss = keypoint_loss(found["roi_logits"], regions, truth[..., :2], truth[..., 2])
    assert float(loss) == pytest.approx(8.11850, abs=1e-4)  # card, section 4


def test_the_refined_head_equals_the_published_one(refined, golden):
    stored = golden("maskrcnn_refined_head_parts")["iso_logits"]
    x = torch.from_numpy(np.random.RandomState(11).standard_normal((2, 256, 14, 14)).astype(np.float32))
    with torch.inference_mode():
        assert _close(refined.keypoint.logits(x), stored)


# counts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, params",
    [
        ("maskrcnn_r50", 59_133_158),
        ("maskrcnn_refined_r50", 66_754_790),
        ("maskrcnn_r101", 59_133_158 + 18_939_904),  # 17 more blocks of 1,114,112 in the third stage
        ("maskrcnn_refined_r101", 66_754_790 + 18_939_904),
    ],
)
def test_parameter_counts_are_the_published_ones(name, params):
    assert sum(p.numel() for p in _on_meta(name).parameters()) == params


def test_the_parts_have_the_parameters_of_the_card():
    network = _on_meta("maskrcnn_r50")
    sizes = {part: sum(p.numel() for p in getattr(network, part).parameters()) for part in ("backbone", "rpn", "box")}
    assert sizes == {"backbone": 26_799_296, "rpn": 593_935, "box": 13_901_830}
    heads = {
        n: sum(p.numel() for p in _on_meta(n).keypoint.parameters()) for n in ("maskrcnn_r50", "maskrcnn_refined_r50")
    }
    assert heads == {"maskrcnn_r50": 17_838_097, "maskrcnn_refined_r50": 25_459_729}


def test_the_cost_of_an_image_is_that_of_the_card():
    network = _on_meta("maskrcnn_r50")
    nothing = {"height": 800, "width": 1344, "proposals": 0, "persons": 0}
    fixed = int(network.macs(nothing)[0])
    assert fixed / 1e9 == pytest.approx((287.05 + 106.29) / 2, abs=0.01)  # as torch counts it
    assert (int(network.macs({**nothing, "proposals": 1000})[0]) - fixed) / 1e9 == pytest.approx(27.80 / 2, abs=0.01)


@pytest.mark.parametrize("name, gmacs", [("maskrcnn_r50", 3.50), ("maskrcnn_refined_r50", 5.08)])
def test_cost_is_linear_in_persons_with_the_slope_of_the_card(name, gmacs):
    network = _on_meta(name)
    counts = np.array([1, 5, 20, 100])
    same = np.ones_like(counts)
    costs = network.macs({"height": 800 * same, "width": 1344 * same, "proposals": 1000 * same, "persons": counts})
    slopes = np.diff(costs) / np.diff(counts)
    assert (slopes == slopes[0]).all() and round(slopes[0] / 1e9, 2) == gmacs


@pytest.mark.parametrize("sizes", [[(64, 64)], [(96, 128), (70, 33)]])
def test_closed_form_macs_of_the_very_forward_equal_the_counters(tiny, sizes):
    result = measure(tiny, {"score_threshold": 0.3}, paradigm="one-stage", images=_images(*sizes))
    assert result.macs == result.closed_form > 0
    assert sum(result.trace["persons"]) > 0 and len(result.trace["height"]) == len(sizes)


# what an answer is -------------------------------------------------------------------------------------------------


def test_an_answer_is_sorted_inside_its_image_and_says_what_was_done(tiny):
    assert isinstance(tiny, Predictor) and isinstance(tiny, Trainable)
    with torch.inference_mode():
        outputs = tiny.predict(_images((60, 100), (90, 40)), {})
    assert all(isinstance(one, OneStageOutput) for one in outputs)
    for one, (height, width) in zip(outputs, [(60, 100), (90, 40)], strict=True):
        n = len(one.boxes)
        assert one.trace == {"height": 96, "width": 128, "proposals": one.trace["proposals"], "persons": n}
        assert n <= 100 and one.scores.shape == (n,) and one.keypoints.shape == (n, 17, 3)
        assert (one.scores.diff() <= 0).all() and (one.boxes >= 0).all()
        assert (one.boxes[:, 2] <= width).all() and (one.boxes[:, 3] <= height).all()


def test_a_batch_of_four_gives_what_four_single_images_give_on_the_same_canvas(tiny):
    images = _images((96, 128), (96, 128), (80, 100), (96, 97))
    canvas = [torch.nn.functional.pad(i, (0, 128 - i.shape[2], 0, 96 - i.shape[1])) for i in images]
    with torch.inference_mode():
        together = tiny.predict(canvas, {})
        alone = [tiny.predict([image], {})[0] for image in canvas]
    assert sum(len(one.boxes) for one in together) > 4
    for one, other in zip(together, alone, strict=True):
        assert one.trace == other.trace
        assert torch.allclose(one.boxes, other.boxes, atol=1e-3) and torch.allclose(one.scores, other.scores, atol=1e-5)
        # scores are exponentials of random maps: rounding of a map is relative error of a score
        scores = torch.stack([one.keypoints[..., 2], other.keypoints[..., 2]]).flatten(1).clamp_min(1e-30).log()
        assert (scores[0] - scores[1]).abs().median() < 1e-2
        apart = (one.keypoints - other.keypoints)[..., :2].abs().amax(2).flatten()
        assert apart.quantile(0.99) < 1e-2  # two cells of a random map can be equal but for rounding


def test_an_image_does_not_change_with_what_stands_beside_it_in_the_batch(tiny):
    first, second = _images((96, 128), (90, 128))
    with torch.inference_mode():
        one, other = (tiny.predict([first, second], {})[0], tiny.predict([first, 3 * second.flip(1)], {})[0])
    assert torch.allclose(one.keypoints, other.keypoints, rtol=1e-4, atol=1e-3) and len(one.boxes)


def test_run_knobs_bound_proposals_and_persons(tiny):
    image = _images((96, 128))
    with torch.inference_mode():
        few = tiny.predict(image, {"proposals": 5, "score_threshold": 0.0})[0]
        none = tiny.predict(image, {"score_threshold": 1.0})[0]
    assert few.trace["proposals"] == 5 and 0 < len(few.boxes) <= 5
    assert none.boxes.shape == (0, 4) and none.keypoints.shape == (0, 17, 3) and none.trace["persons"] == 0


KNOBS = list(itertools.product(("p2-p5", "p2"), (1.0, 1.3, 0.8), (True, False), ("none", "first", "both")))


@pytest.mark.parametrize("levels, enlarge, pad, gcm", KNOBS)
def test_every_combination_of_knobs_runs_trains_and_is_counted(levels, enlarge, pad, gcm):
    network = _build(keypoint_levels=levels, enlarge=enlarge, border_pad=pad, gcm=gcm).eval()
    images = _images((64, 64))
    with torch.inference_mode():
        output = network.predict(images, {"proposals": 4})[0]
    assert output.trace["persons"] > 0 and torch.isfinite(output.keypoints).all()
    loss = network.train().losses(_batch(images), Progress(0, 0, 1))["loss_keypoint"]
    loss.backward()
    assert torch.isfinite(loss) and network.keypoint.predictor.kps_score_lowres.weight.grad.abs().sum() > 0


def test_each_knob_changes_what_it_names():
    boxes = torch.tensor([[20.0, 20.0, 90.0, 100.0]])
    maps = [torch.randn(1, 32, 96 // s, 128 // s) for s in (4, 8, 16, 32)]

    def features(**knobs):
        branch = _build(**{"keypoint_levels": "p2", "enlarge": 1.0, "border_pad": False, **knobs}).keypoint
        return branch.features(maps, branch.regions([boxes]))

    plain = features()
    assert torch.equal(plain, features(keypoint_levels="p2-p5"))  # a box of this size is read on p2 by rule, too
    assert not torch.allclose(plain, features(enlarge=1.3))
    assert not torch.allclose(features(enlarge=1.3), features(enlarge=1.3, border_pad=True))
    with torch.device("meta"):
        sizes = {
            gcm: sum(p.numel() for p in _build("maskrcnn_r50", gcm=gcm).keypoint.parameters())
            for gcm in ("none", "first", "both")
        }
    assert sizes["both"] - sizes["first"] == 3_155_200
    assert sizes["first"] - sizes["none"] == 3_155_200 + 131_584 + 9 * 512 * 256


def test_the_baseline_and_the_refined_network_differ_by_their_knobs_alone():
    knobs = {"keypoint_levels": "p2", "enlarge": 1.3, "border_pad": True, "gcm": "both"}
    refined, turned = _on_meta("maskrcnn_refined_r50"), _on_meta("maskrcnn_r50", **knobs)
    assert refined.keypoint.changes == turned.keypoint.changes
    assert {k: v.shape for k, v in refined.state_dict().items()} == {k: v.shape for k, v in turned.state_dict().items()}


# training ----------------------------------------------------------------------------------------------------------


def _batch(images, persons=1):
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(persons, 2, generator=generator) * 10
    boxes = torch.cat([corner, corner + torch.tensor([30.0, 50.0])], dim=1)
    joints = boxes[:, None, :2] + torch.rand(persons, 17, 2, generator=generator) * torch.tensor([30.0, 50.0])
    visible = torch.full((persons, 17), 2.0)
    n = len(images)
    return ImageBatch(list(images), [boxes] * n, [joints] * n, [visible] * n, [torch.zeros(0, 4)] * n)


def test_five_losses_reach_every_trained_parameter():
    network = _build().train()
    losses = network.losses(_batch(_images((96, 128), (64, 90)), persons=2), Progress(0, 0, 1))
    assert losses.keys() == {"loss_objectness", "loss_rpn_box_reg", "loss_cls", "loss_box_reg", "loss_keypoint"}
    assert all(value.ndim == 0 and torch.isfinite(value) for value in losses.values())
    sum(losses.values()).backward()
    silent = [n for n, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    # boxes of this size are pooled on p2; p3 serves neither them nor the anchors of the three coarsest levels
    assert set(silent) <= {"backbone.fpn.layer_blocks.1.0.weight", "backbone.fpn.layer_blocks.1.0.bias"}


def test_losses_depend_on_torchs_seed_alone():
    network = _build().train()
    for norm in (m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.momentum = 0.0
    batch, found = _batch(_images((96, 128))), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append([value.item() for value in network.losses(batch, Progress(0, 0, 1)).values()])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("name", ["nobody", "no joints", "a box without extent", "two hundred persons"])
def test_images_with_odd_annotations_train(name):
    batch = _batch(_images((96, 128), (64, 64)), persons=200 if name == "two hundred persons" else 1)
    if name == "nobody":
        batch = ImageBatch(
            batch.images, [torch.zeros(0, 4)] * 2, [torch.zeros(0, 17, 2)] * 2, [torch.zeros(0, 17)] * 2, batch.crowd
        )
    elif name == "no joints":
        batch = ImageBatch(batch.images, batch.boxes, batch.joints, [torch.zeros(1, 17)] * 2, batch.crowd)
    elif name == "a box without extent":
        batch = ImageBatch(
            batch.images, [b[:, [0, 1, 0, 3]] for b in batch.boxes], batch.joints, batch.visible, batch.crowd
        )
    network = _build().train()
    losses = network.losses(batch, Progress(0, 0, 1))
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert (float(losses["loss_keypoint"].detach()) > 0) == (name == "two hundred persons")


def test_keypoints_outside_the_box_count_where_the_box_is_enlarged():
    images = _images((96, 128))
    batch = _batch(images)
    beyond = batch.boxes[0][:, None, 2:] + torch.tensor([2.0, 0.0])
    joints = batch.joints[0].clone()
    joints[:, 1:] = beyond  # one joint within the box, sixteen a little outside it
    moved = ImageBatch(images, batch.boxes, [joints], batch.visible, batch.crowd)
    counted = {}
    for enlarge in (1.0, 1.3):
        network = _build(enlarge=enlarge).train()
        torch.manual_seed(0)
        network.losses(moved, Progress(0, 0, 1, pooled=lambda n, e=enlarge: counted.update({e: n}) or n))
    assert counted[1.3] > 4 * counted[1.0] > 0


def test_the_published_schedules_are_scaled_by_their_batch():
    official, refined = (find_variant(n).recipes["official"] for n in ("maskrcnn_r50", "maskrcnn_refined_r50"))
    assert (official.batch, official.lr, official.steps, official.milestones) == (16, 0.02, 270_000, (210_000, 250_000))
    assert (refined.batch, refined.lr, refined.steps) == (2, 0.0025, 2_160_000)
    assert refined.milestones == (1_680_000, 2_000_000)


def test_norms_are_trained_without_weight_decay():
    variant = find_variant("maskrcnn_refined_r50")
    groups = variant.recipes["official"].groups(_on_meta("maskrcnn_refined_r50"), variant.recipes["official"])
    assert groups[1]["weight_decay"] == 0 and sum(p.numel() for p in groups[1]["params"]) == 2 * 4 * 512
    trained = sum(p.numel() for group in groups for p in group["params"])
    assert trained == 66_754_790 - 64 * 3 * 49 - 212_992  # but the stem and the first stage


# checkpoints -------------------------------------------------------------------------------------------------------


def test_a_model_zoo_pickle_is_read_without_running_anything(tmp_path):
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in names.to_detectron2(_build("maskrcnn_r50").state_dict()).items()}
    state = {k: np.broadcast_to(np.float32(0.5), s) for k, s in shapes.items()}
    state |= {
        "pixel_mean": np.zeros((3, 1, 1), np.float32),
        "proposal_generator.anchor_generator.cell_anchors.0": np.zeros((3, 4)),
    }
    small = {k: np.array(v) if v.size < 1000 else np.zeros((0,), np.float32) for k, v in state.items()}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps({"model": small, "__author__": "detectron2", "matching_heuristics": True}))
    variant = find_variant("maskrcnn_r50")
    from harness.train.checkpoints import read, translate

    layout, own, ignored = translate(variant, read(path)[0])
    assert layout.name == "detectron2" and set(own) == set(_on_meta("maskrcnn_r50").state_dict())
    assert ignored == ("pixel_mean", "proposal_generator.anchor_generator.cell_anchors.0")


def test_a_pickle_that_names_a_callable_is_refused(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": print}}))
    with pytest.raises(WeightsError, match="refused"):
        open_variant(find_variant("maskrcnn_r50"), path)


def test_a_training_checkpoint_loads_and_another_trunk_or_head_is_refused(tmp_path):
    variant = find_variant("maskrcnn_tiny")
    network = _build(num_joints=5)
    torch.save({"model": network.state_dict(), "iteration": 7}, tmp_path / "w.pth")
    assert infer_joints(variant, network.state_dict()) == 5
    loaded, report = open_variant(variant, tmp_path / "w.pth", input_size=SIZE)
    assert report.layout == "own" and loaded.num_joints == 5 and not report.unexplained
    with torch.inference_mode():
        ours, theirs = (n.eval().predict(_images((64, 64)), {})[0] for n in (loaded, network))
    assert torch.equal(ours.keypoints, theirs.keypoints)


@pytest.mark.parametrize("gcm, said", [("none", "no keypoint.head.MHSA_1"), ("first", "no keypoint.head.MHSA_3")])
def test_weights_of_another_head_are_refused_with_the_knob(gcm, said):
    with pytest.raises(WeightsError, match=f"gcm={gcm}") as refused:
        _build(gcm=gcm).adapt_state(_build(gcm="both").state_dict())
    assert said in refused.value.expected
    assert _build().adapt_state({"backbone.body.conv1.weight": torch.zeros(1)})[1] == []  # a trunk has no head


def test_the_names_of_every_variant_are_explained_by_the_detectron2_layout(shared):
    for name, file in (
        ("maskrcnn_r50", "maskrcnn_baseline_r50_fpn"),
        ("maskrcnn_refined_r50", "maskrcnn_refined_r50_fpn"),
    ):
        wanted = {k: tuple(s) for k, s in json.loads((shared / "goldens" / f"{file}.keys.json").read_text()).items()}
        own = {k: tuple(v.shape) for k, v in _on_meta(name).state_dict().items()}
        layout = find_variant(name).layouts[1]
        assert layout.matches(wanted) and layout.to_own(wanted) == own and layout.from_own(own) == wanted


def test_the_protocol_is_detectron2s():
    protocol = find_variant("maskrcnn_r50").protocol
    assert (protocol.colour, protocol.shortest_edge, protocol.longest_edge) == ("bgr", 800, 1333)
    assert [round(255 * m, 3) for m in protocol.mean] == [103.53, 116.28, 123.675]
    assert [255 * s for s in protocol.std] == [1, 1, 1] and not protocol.flip and protocol.nms == "none"


# bad input ---------------------------------------------------------------------------------------------------------


def test_no_images_give_no_answers(tiny):
    assert tiny.predict([], {}) == []


def test_an_image_of_one_pixel_answers(tiny):
    with torch.inference_mode():
        output = tiny.predict(_images((1, 1)), {})[0]
    assert output.trace["height"] == output.trace["width"] == 32 and torch.isfinite(output.keypoints).all()


def test_a_huge_image_is_refused_with_what_to_do(tiny):
    with pytest.raises(UserError, match="8000x8000") as refused:
        tiny.predict([torch.zeros(1).expand(3, 8000, 8000)], {})
    assert "800x1333" in refused.value.hint


def test_a_uniform_image_is_no_error(tiny):
    with torch.inference_mode():
        output = tiny.predict([torch.zeros(3, 64, 64)], {})[0]
    assert torch.isfinite(output.boxes).all() and torch.isfinite(output.keypoints).all()


def test_regions_of_one_pixel_outside_and_by_the_hundred(tiny):
    image = torch.stack(_images((64, 64)))
    odd = torch.tensor(
        [[5.0, 5.0, 6.0, 6.0], [-500.0, -400.0, -300.0, -350.0], [9.0, 9.0, 9.0, 9.0], [0.0, 0.0, 64.0, 64.0]]
    )
    with torch.inference_mode():
        few = tiny.forward_raw(image, settings={}, rois=odd)
        many = tiny.forward_raw(image, settings={}, rois=odd.repeat(40, 1))
    assert few["keypoints"].shape == (4, 17, 3) and torch.isfinite(few["keypoints"]).all()
    assert (few["roi_features"][1] == 0).all()  # nothing is seen beyond the border
    assert torch.allclose(
        many["keypoints"].view(40, 4, 17, 3)[[0, 31, 39]], few["keypoints"].expand(3, 4, 17, 3), atol=1e-3
    )


def test_no_region_gives_empty_outputs(tiny):
    with torch.inference_mode():
        found = tiny.forward_raw(torch.stack(_images((64, 64))), settings={}, rois=torch.zeros(0, 4))
    assert found["roi_logits"].shape == (0, 17, 56, 56) and found["keypoints"].shape == (0, 17, 3)


def test_a_region_that_no_machine_could_decode_is_refused(tiny):
    with pytest.raises(UserError, match="too large"), torch.inference_mode():
        tiny.forward_raw(torch.stack(_images((64, 64))), settings={}, rois=torch.tensor([[0.0, 0.0, 1e6, 1e6]]))


@pytest.mark.parametrize("enlarge", [0.5, 1.0, 1.3])
def test_a_region_at_the_end_of_float32_is_refused_too(enlarge):
    network, end = _build(enlarge=enlarge).eval(), 3e38  # its extent is infinite, and growing it gives a nan
    for box in ([-end, 0.0, end, 10.0], [-end, -end, end, end]):
        with pytest.raises(UserError, match="too large"), torch.inference_mode():
            network.forward_raw(torch.stack(_images((64, 64))), settings={}, rois=torch.tensor([box]))


def test_bfloat16_runs_with_boxes_in_float32(tiny):
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        output = tiny.predict(_images((64, 64)), {})[0]
    assert output.boxes.dtype == output.keypoints.dtype == torch.float32 and len(output.boxes)


# command line ------------------------------------------------------------------------------------------------------


def test_forward_writes_features_and_keypoints_of_given_regions(tmp_path):
    import typer

    from harness.cli.forward import forward

    app = typer.Typer()
    app.command()(forward)
    network = _sane(_build()).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    images, rois = (
        torch.stack(_images((96, 128), (96, 128))),
        np.array([[10, 10, 60, 80], [90, 5, 127, 95]], np.float32),
    )
    np.save(tmp_path / "x.npy", images.numpy())
    np.save(tmp_path / "rois.npy", rois)
    arguments = ["maskrcnn_tiny", "--images", "x.npy", "--rois", "rois.npy", "--out", "y.npz", "--weights", "w.pth"]
    paths = [str(tmp_path / a) if "." in a else a for a in arguments]
    done = CliRunner().invoke(app, paths, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    found = np.load(tmp_path / "y.npz")
    assert set(found.files) == {*(f"feat_p{i}" for i in range(2, 7)), "roi_features", "roi_logits", "keypoints"}
    assert found["feat_p2"].shape == (2, 32, 24, 32) and found["keypoints"].shape == (2, 17, 3)
    with torch.inference_mode():
        maps = network.backbone(images[:1])
        wanted = network.keypoint(maps[:4], [torch.from_numpy(rois)])
    assert np.allclose(found["keypoints"], wanted.numpy(), atol=1e-3)


def test_without_regions_forward_names_the_persons_and_training_outputs(tiny):
    with torch.inference_mode():
        found = tiny.forward_raw(torch.stack(_images((64, 64))), settings={}, train=True)
    anchors = 3 * sum(h * w for h, w in ((8, 8), (4, 4), (2, 2), (1, 1)))
    assert found["train0"].shape == (1, anchors) and found["train1"].shape == (1, anchors, 4)
    assert found["keypoints0"].shape[1:] == (17, 3) and int(found["trace_persons0"]) == len(found["boxes0"])


def test_the_operator_counter_names_the_parts(tiny):
    ledger = count(lambda images: tiny.predict(images, {}), (_images((64, 64)),), network=tiny)
    assert {row.module for row in ledger.top_level()} == {"backbone", "rpn", "box", "keypoint"}
