"""Number formats of a forward pass."""

from __future__ import annotations

import pytest
import torch

from harness.errors import UserError
from harness.method import PoseProtocol, find_variant
from harness.passes.number_format import number_format
from harness.passes.predict import TopDownRunner
from harness.pose.skeletons import COCO


@pytest.mark.parametrize(("dtype", "expected"), [("float32", torch.float32), ("bfloat16", torch.bfloat16)])
def test_products_are_computed_in_the_number_format_and_weights_stay_as_they_are(dtype, expected):
    layer = torch.nn.Linear(4, 4)
    opened = number_format(dtype, "cpu")
    for _ in range(2):  # it can be opened again
        with torch.no_grad(), opened():
            assert layer(torch.ones(1, 4)).dtype == expected
    assert layer.weight.dtype == torch.float32


def test_float16_on_a_cpu_is_refused_with_the_reason():
    with pytest.raises(UserError, match=r"(?s)float16 on the CPU.*emulated.*bfloat16"):
        number_format("float16", "cpu")
    network = find_variant("simplebaseline_tiny").build(num_joints=17, input_size=(128, 96))
    with pytest.raises(UserError, match="float16 on the CPU"):
        TopDownRunner(network, PoseProtocol(), COCO, dtype="float16")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_gpu_computes_in_either_short_format(dtype):
    layer = torch.nn.Linear(4, 4).cuda()
    with torch.no_grad(), number_format(dtype, "cuda:0")():
        assert layer(torch.ones(1, 4, device="cuda")).dtype == getattr(torch, dtype)
