"""Networks under `runtime: compile`: the same answers, exits included, and the network itself is left as it was."""

from __future__ import annotations

import pytest
import torch

from harness.method import find_variant
from harness.passes.predict import TopDownRunner
from harness.pose.skeletons import COCO
from harness.train.checkpoints import open_variant

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["vitpose_tiny", "sharpose_tiny"])
def test_a_compiled_transformer_answers_like_the_plain_one(name):
    variant = find_variant(name)
    network = open_variant(variant, None, num_joints=17)[0]
    plain, compiled = (TopDownRunner(network, variant.protocol, COCO, runtime=how) for how in ("eager", "compile"))
    images = torch.randn(6, 3, *network.input_size, generator=torch.Generator().manual_seed(0))
    every = [{"quality_threshold": "always"}, {"quality_threshold": "never"}, {"all_exits": True}]
    if name == "sharpose_tiny":
        qualities = plain.forward_many(images, [{}])[0].quality.sort().values
        every.append({"quality_threshold": float(qualities[2] + qualities[3]) / 2})
    for settings in every if name == "sharpose_tiny" else [{}]:
        ours, theirs = (runner.forward_many(images, [settings])[0] for runner in (compiled, plain))
        for a, b in zip(ours.exits, theirs.exits, strict=True):
            assert float((a - b).abs().max() / b.abs().max()) < 1e-4
        assert ours.trace.keys() == theirs.trace.keys()
        assert all(torch.equal(ours.trace[n], theirs.trace[n]) for n in theirs.trace)
