"""torchvision's Keypoint R-CNN inside the contract: its own answers, names, counts and losses."""

import pytest
import torch
from torchvision.models.detection import keypointrcnn_resnet50_fpn

from harness.cost.account import measure
from harness.errors import UserError
from harness.method import Predictor, Trainable, find_variant
from harness.train.checkpoints import open_variant
from harness.train.recipes import ImageBatch, Progress

NAME, SIZE = "keypointrcnn_r50_tv", (96, 128)
MEAN, STD = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def _few(model):
    """Little work for the heads, which random weights would give a hundred persons."""
    model.roi_heads.detections_per_img = 3
    model.rpn._post_nms_top_n = {"training": 40, "testing": 40}
    return model


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, min_size=SIZE[0], max_size=SIZE[1])
    return _few(model).eval()


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("tv") / "w.pth"
    torch.save(theirs.state_dict(), path)
    network, report = open_variant(find_variant(NAME), path, input_size=SIZE)
    assert report.layout == "torchvision" and not report.unexplained and not report.missing
    _few(network.network)
    return network


def _images():
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *SIZE, generator=generator) for _ in range(2)]


def test_answers_equal_torchvisions_own(ours, theirs):
    images = _images()
    with torch.inference_mode():
        wanted = theirs(images)
        found = ours.predict([(image - MEAN) / STD for image in images], {})
    for one, other in zip(found, wanted, strict=True):
        assert len(one.boxes) == one.trace["persons"] == len(other["boxes"]) > 0
        assert torch.allclose(one.boxes, other["boxes"], atol=1e-3)
        assert torch.allclose(one.scores, other["scores"], atol=1e-5)
        assert torch.allclose(one.keypoints[..., :2], other["keypoints"][..., :2], atol=1e-2)
        assert torch.allclose(one.keypoints[..., 2], other["keypoints_scores"], rtol=1e-3, atol=1e-3)


def test_closed_form_macs_equal_the_counters(ours):
    result = measure(ours, {}, paradigm="one-stage", images=[torch.randn(3, 64, 64)])
    assert result.macs == result.closed_form and result.trace["persons"] == [3]


def test_counts_are_the_published_ones():
    with torch.device("meta"):
        network = find_variant(NAME).build()
    assert isinstance(network, Predictor) and isinstance(network, Trainable)
    assert sum(p.numel() for p in network.parameters()) == 59_137_258
    whole = {"height": 800, "width": 1344, "proposals": 1000, "persons": 0}
    wanted = (296.96 + 106.29 + 27.81) / 2
    assert int(network.macs(whole)[0]) / 1e9 == pytest.approx(wanted, abs=0.02)
    person = int((network.macs({**whole, "persons": 1}) - network.macs(whole))[0])
    assert round(person / 1e9, 3) == round(6.991 / 2, 3)


def test_a_small_first_image_does_not_fix_wrong_strides(ours):
    with torch.inference_mode():
        before = ours.predict([_images()[0]], {})[0]
        ours.predict([torch.zeros(3, 1, 1)], {})
        after = ours.predict([_images()[0]], {})[0]
    assert torch.equal(before.keypoints, after.keypoints)


def test_losses_are_torchvisions_and_an_image_without_persons_trains(ours):
    box, joints = torch.tensor([[10.0, 10.0, 60.0, 90.0]]), torch.full((1, 17, 2), 30.0)
    nobody = torch.zeros(0, 4)
    batch = ImageBatch(
        _images(), [box, nobody], [joints, joints[:0]], [torch.full((1, 17), 2.0), torch.zeros(0, 17)], [nobody] * 2
    )
    losses = ours.train().losses(batch, Progress(0, 0, 1))
    ours.eval()
    assert losses.keys() == {
        "loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_keypoint",
    }  # fmt: skip
    assert all(torch.isfinite(value) for value in losses.values()) and losses["loss_keypoint"].item() > 0


def test_features_and_keypoints_of_given_regions(ours):
    rois = torch.tensor([[10.0, 10.0, 60.0, 90.0], [5.0, 5.0, 6.0, 6.0]])
    with torch.inference_mode():
        found = ours.forward_raw(torch.stack(_images()), settings={}, rois=rois)
    assert {k: tuple(v.shape) for k, v in found.items() if not k.startswith("feat")} == {
        "roi_features": (2, 256, 14, 14),
        "roi_logits": (2, 17, 56, 56),
        "keypoints": (2, 17, 3),
    }
    assert tuple(found["feat_p6"].shape) == (2, 256, 2, 2)


@pytest.mark.parametrize("end", [20_000.0, 3e38])
def test_a_region_that_no_machine_could_decode_is_refused(ours, end):
    with pytest.raises(UserError, match="too large"), torch.inference_mode():
        ours.forward_raw(torch.stack(_images()), settings={}, rois=torch.tensor([[-end, 0.0, end, end]]))


def test_names_of_detectron2s_arithmetic_are_not_its_own():
    with torch.device("meta"):
        other = find_variant("maskrcnn_r50").build().state_dict()
    foreign = find_variant("maskrcnn_r50").layouts[1].from_own(other)
    assert not any(layout.matches(keys) for keys in (other, foreign) for layout in find_variant(NAME).layouts)


def test_no_image_and_a_huge_image(ours):
    assert ours.predict([], {}) == []
    with pytest.raises(UserError, match="8000x8000"):
        ours.predict([torch.zeros(1).expand(3, 8000, 8000)], {})
