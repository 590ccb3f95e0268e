"""The ResNet trunk against torchvision's."""

import pytest
import torch
import torchvision

from methods.parts.resnet import DEPTHS, ResNet


@pytest.mark.parametrize("depth", DEPTHS)
def test_names_and_shapes_are_those_of_torchvision_without_its_classifier(depth):
    with torch.device("meta"):
        ours, theirs = ResNet(*DEPTHS[depth]), getattr(torchvision.models, f"resnet{depth}")()
    wanted = {k: v.shape for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert {k: v.shape for k, v in ours.state_dict().items()} == wanted


@pytest.mark.parametrize("depth", [18, 50])
def test_stages_equal_those_of_torchvision(depth):
    torch.manual_seed(0)
    ours, theirs = ResNet(*DEPTHS[depth]).eval(), getattr(torchvision.models, f"resnet{depth}")().eval()
    theirs.load_state_dict(ours.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        maps = ours.stages(x)
        y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i, layer in enumerate((theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4)):
            y = layer(y)
            assert torch.allclose(maps[i], y, atol=1e-5)
    assert tuple(m.shape[1] for m in maps) == ours.channels
