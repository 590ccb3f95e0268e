"""Export of every family, tiny and full-size: the same numbers in onnxruntime, the same work, the same bytes again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.cost.account import measure
from harness.export import files
from harness.export.graph import TOLERANCE, parts_of, to_onnx
from harness.method import find_variant
from harness.train.checkpoints import open_variant

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.slow

TINY = ("simplebaseline_tiny", "hrnet_tiny", "fasterpose_tiny", "srpose_tiny", "vitpose_tiny")
FULL = ("simplebaseline_r50", "hrnet_w32", "fasterpose_r50", "vitpose_b_simple")


def _network(name):
    variant = find_variant(name)
    network = open_variant(variant, None)[0]
    return network, files.origin_of(network, variant, {}, {}, "")


@pytest.mark.parametrize("name", TINY + FULL)
def test_a_static_network_is_its_file(tmp_path, name):
    network, origin = _network(name)
    exported = files.export(network, origin, tmp_path / "n.onnx", {})[0]
    opened, report = open_variant(find_variant("onnx"), exported.path)
    images = torch.randn(2, 3, *network.input_size, generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        ours, theirs = (one.predict(images, {}).exits[-1] for one in (network, opened))
    assert float((ours - theirs).abs().max()) <= TOLERANCE * float(ours.abs().max())
    assert opened.macs({}) == measure(network, {}).macs
    assert report.notes[0].startswith(f"exported from {name} (random weights)")


def test_the_same_network_gives_the_same_bytes():
    network, origin = _network("simplebaseline_tiny")
    part = parts_of(network, {})[0]
    assert to_onnx(part, origin).SerializeToString() == to_onnx(part, origin).SerializeToString()


def test_a_fixed_batch_is_fixed(tmp_path):
    network, origin = _network("vitpose_tiny")
    exported = files.export(network, origin, tmp_path / "n.onnx", {}, batch=2)[0]
    assert exported.shapes["images"] == [2, 3, *network.input_size]
    assert onnxruntime.InferenceSession(exported.path).get_inputs()[0].shape[0] == 2


@pytest.mark.parametrize(
    "name, knobs",
    [
        ("sharpose_s", {}),
        ("sharpose_b", {"input_size": (384, 288)}),
        ("sharpose_tiny", {"quality": "abs"}),
        ("sharpose_tiny", {"replace_oks": True}),
    ],
)
def test_both_stages_of_sharpose_are_their_files(tmp_path, name, knobs):
    variant = find_variant(name)
    network = open_variant(variant, None, **knobs)[0]
    with torch.no_grad():  # apart from one another, so that regions differ by more than rounding
        for block in network.backbone.blocks:
            block.attn.qkv.weight.mul_(2)
    files.export(network, files.origin_of(network, variant, knobs, {}, ""), tmp_path / "s.onnx", {})
    opened = open_variant(find_variant("onnx_two_stage"), tmp_path / "s.coarse.onnx")[0]
    images = torch.randn(4, 3, *network.input_size, generator=torch.Generator().manual_seed(5))
    for alpha in (0.2, 0.3, 0.5, 1.0):
        settings = {"alpha": alpha, "quality_threshold": "always", "all_exits": True}
        with torch.inference_mode():
            ours, theirs = (one.predict(images, settings) for one in (network, opened))
        for a, b in zip(ours.exits, theirs.exits, strict=True):
            assert float((a - b).abs().max()) <= TOLERANCE * float(a.abs().max())
        traces = [{n: v.numpy() for n, v in output.trace.items()} for output in (ours, theirs)]
        assert np.array_equal(opened.macs(traces[1]), network.macs(traces[0]))
        if ours.rival is not None:
            assert torch.allclose(ours.rival, theirs.rival, atol=1e-4)
