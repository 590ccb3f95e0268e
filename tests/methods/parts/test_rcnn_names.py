"""Names of R-CNN checkpoints, there and back."""

import json

import pytest
import torch
from torchvision.ops import FrozenBatchNorm2d

from methods.parts import rcnn_names as names


@pytest.mark.parametrize("golden_name", ["maskrcnn_baseline_r50_fpn", "maskrcnn_refined_r50_fpn"])
def test_every_published_name_goes_to_ours_and_back(shared, golden_name):
    keys = json.loads((shared / "goldens" / f"{golden_name}.keys.json").read_text())
    own = names.from_detectron2(keys)
    assert len(own) == len(keys) and not [k for k in own if "bottom_up" in k or "roi_heads" in k]
    assert names.to_detectron2(own) == keys


@pytest.mark.parametrize(
    "theirs, ours",
    [
        ("backbone.bottom_up.stem.conv1.weight", "backbone.body.conv1.weight"),
        ("backbone.bottom_up.stem.conv1.norm.running_mean", "backbone.body.bn1.running_mean"),
        ("backbone.bottom_up.res4.22.conv3.norm.bias", "backbone.body.layer3.22.bn3.bias"),
        ("backbone.bottom_up.res2.0.shortcut.weight", "backbone.body.layer1.0.downsample.0.weight"),
        ("backbone.bottom_up.res2.0.shortcut.norm.weight", "backbone.body.layer1.0.downsample.1.weight"),
        ("backbone.fpn_output5.bias", "backbone.fpn.layer_blocks.3.0.bias"),
        ("roi_heads.keypoint_head.score_lowres.bias", "keypoint.predictor.kps_score_lowres.bias"),
        ("roi_heads.keypoint_head.MHSA_5.norm1.bias", "keypoint.head.MHSA_5.norm1.bias"),
        ("optimizer.lr", "optimizer.lr"),
        ("backbone.bottom_up.res9.0.conv1.weight", "backbone.bottom_up.res9.0.conv1.weight"),
    ],
)
def test_names_one_by_one(theirs, ours):
    assert list(names.from_detectron2({theirs: 1})) == [ours]
    assert list(names.to_detectron2({ours: 1})) == [theirs]


def test_the_imagenet_trunk_of_either_kind_is_renamed():
    one = torch.ones(2)
    folded = names.from_msra({"conv1_w": one, "conv1_b": one, "res_conv1_bn_s": 3 * one, "res_conv1_bn_b": one})
    assert folded.keys() == {
        "backbone.body.conv1.weight",
        *(f"backbone.body.bn1.{leaf}" for leaf in ("weight", "bias", "running_mean", "running_var")),
    }
    norm = {leaf: folded[f"backbone.body.bn1.{leaf}"] for leaf in ("weight", "running_mean", "running_var")}
    assert torch.equal(norm["weight"], 3 * one) and not norm["running_mean"].any()
    assert torch.allclose(norm["running_var"] + 1e-5, one)
    whole = names.from_msra({f"res5_2_branch2c_bn_{leaf}": one for leaf in ("gamma", "beta", "running_mean")})
    assert list(whole) == [f"backbone.body.layer4.2.bn3.{leaf}" for leaf in ("weight", "bias", "running_mean")]
    rest = names.from_msra({"res3_0_branch1_w": one, "res3_0_branch1_bn_beta": one, "res3_0_branch2b_w": one, "x": one})
    assert list(rest) == [
        "backbone.body.layer2.0.downsample.0.weight",
        "backbone.body.layer2.0.downsample.1.bias",
        "backbone.body.layer2.0.conv2.weight",
        "x",
    ]


def test_torchvisions_published_variance_is_without_epsilon_and_comes_back():
    published = {"backbone.body.bn1.running_var": torch.ones(3), "roi_heads.box_head.fc6.bias": torch.ones(1)}
    own = names.from_torchvision(published)
    assert torch.allclose(own["network.backbone.body.bn1.running_var"], torch.ones(3) - 1e-5, atol=1e-7)
    back = names.to_torchvision(own)
    assert back.keys() == published.keys() and torch.allclose(back["backbone.body.bn1.running_var"], torch.ones(3))


def test_a_frozen_norm_of_a_dead_channel_gives_what_torchvision_gives():
    norm = {leaf: torch.full((5,), 0.5) for leaf in ("weight", "bias", "running_mean")}
    norm["running_var"] = torch.tensor([1.0, 1.01e-5, 1e-7, 1e-12, 5.6e-45])
    own = names.from_torchvision({f"backbone.body.bn1.{leaf}": value for leaf, value in norm.items()})
    back = names.to_torchvision(own)
    theirs, again, ours = FrozenBatchNorm2d(5, eps=0.0), FrozenBatchNorm2d(5, eps=0.0), FrozenBatchNorm2d(5)
    theirs.load_state_dict(norm)
    again.load_state_dict({name.rsplit(".", 1)[1]: value for name, value in back.items()})
    ours.load_state_dict({name.rsplit(".", 1)[1]: value for name, value in own.items()})
    x = torch.randn(1, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ours(x), theirs(x), rtol=1e-5) and torch.allclose(again(x), theirs(x), rtol=1e-5)


def test_torchvisions_trained_norms_keep_their_variance_and_lose_their_counter():
    trained = {"backbone.body.bn1.running_var": torch.ones(3), "backbone.body.bn1.num_batches_tracked": torch.tensor(7)}
    assert list(names.from_torchvision(trained)) == ["network.backbone.body.bn1.running_var"]
    assert torch.equal(names.from_torchvision(trained)["network.backbone.body.bn1.running_var"], torch.ones(3))


def test_torchvisions_older_names_of_single_convolutions_are_known():
    older = {"rpn.head.conv.weight": 1, "backbone.fpn.inner_blocks.2.bias": 2, "backbone.fpn.layer_blocks.0.0.bias": 3}
    assert list(names.from_torchvision(older)) == [
        "network.rpn.head.conv.0.0.weight",
        "network.backbone.fpn.inner_blocks.2.0.bias",
        "network.backbone.fpn.layer_blocks.0.0.bias",
    ]
