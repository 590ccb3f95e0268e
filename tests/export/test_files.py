"""A network and its ONNX file: the same numbers, the same work, and nothing left where they differ."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch

from harness.cost.account import measure
from harness.errors import MeasurementError, UserError
from harness.export import files, graph
from harness.export.contract import METADATA
from harness.export.graph import TOLERANCE, check_size, difference, parts_of
from harness.method import TopDownOutput, find_variant
from harness.train.checkpoints import open_variant

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(network, origin, the exported file); families and full sizes: tests/slow/test_export.py."""
    variant = find_variant("vitpose_tiny")
    network = open_variant(variant, None)[0]
    origin = files.origin_of(network, variant, {}, {}, "ab" * 32)
    out = tmp_path_factory.mktemp("out") / "folder" / "n.onnx"
    return network, origin, files.export(network, origin, out, {})[0]


def test_the_file_gives_the_networks_heatmaps_for_any_batch(written):
    network, _, exported = written
    session = onnxruntime.InferenceSession(exported.path)
    for batch in (1, 2, 5):
        images = torch.randn(batch, 3, *network.input_size, generator=torch.Generator().manual_seed(99))
        with torch.inference_mode():
            ours = network.predict(images, {}).exits[-1].numpy()
        theirs = session.run(["heatmaps"], {"images": images.numpy()})[0]
        assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


def test_the_file_runs_as_a_method_of_the_same_cost(written):
    network, _, exported = written
    opened, report = open_variant(find_variant("onnx"), exported.path)
    assert (opened.input_size, opened.num_joints, opened.batch) == (tuple(network.input_size), 17, None)
    assert measure(opened, {}).macs == measure(network, {}).macs
    assert report.notes[0].startswith(f"exported from vitpose_tiny (weights {'ab' * 6})")
    assert report.protocol == find_variant("vitpose_tiny").protocol.applying("top-down")


def test_the_file_holds_its_origin_and_nothing_of_this_machine(written):
    content = written[2].path.read_bytes()
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model)
    assert [entry.key for entry in model.metadata_props] == [METADATA]
    assert json.loads(model.metadata_props[0].value)["variant"] == model.graph.name
    for trace in (b"site-packages", b"methods/", b".py", b"stack_trace"):
        assert trace not in content


def test_a_file_of_other_numbers_is_seen(written):
    network, _, exported = written
    assert difference(exported.content, exported.part, (1, 3))["heatmaps"] < 1e-5
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.keypoint_head.final_layer.bias += 5e-4 * network(exported.part.example(1)["images"]).abs().max()
    changed = dataclasses.replace(exported.part, module=parts_of(other, {})[0].module)
    assert 10 * TOLERANCE > difference(exported.content, changed, (1, 3))["heatmaps"] > TOLERANCE


def test_a_file_that_differs_is_not_left_there(written, tmp_path, monkeypatch):
    network, origin, exported = written
    monkeypatch.setattr(files, "to_onnx", lambda *_: onnx.load_from_string(exported.content))
    monkeypatch.setattr(files, "difference", lambda *_: {"heatmaps": 1.1 * TOLERANCE})
    out = tmp_path / "n.onnx"
    out.write_bytes(b"the one before")
    with pytest.raises(MeasurementError, match="heatmaps of the file differs"):
        files.export(network, origin, out, {})
    assert out.read_bytes() == b"the one before" and [p.name for p in tmp_path.iterdir()] == ["n.onnx"]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_none_is_the_largest_difference(wrong):
    own = np.ones(3, np.float32)
    assert graph._relative(own, np.array([1, wrong, 1], np.float32)) == np.inf
    assert graph._relative(own, np.ones(2, np.float32)) == np.inf
    assert graph._relative(2 * own, np.array([2, 2, 1.5], np.float32)) == 0.25


class _Moody(torch.nn.Module):
    input_size = (16, 16)

    def predict(self, images, settings):
        return TopDownOutput(exits=[images], quality=images.mean(dim=(1, 2, 3)))


def test_a_network_that_looks_at_the_person_is_refused_unless_it_names_its_parts():
    with pytest.raises(UserError, match="depends on the person") as caught:
        parts_of(_Moody(), {})
    assert "export_parts" in caught.value.expected


def test_what_one_file_cannot_hold_is_refused_before_anything_is_computed():
    with torch.device("meta"):
        network = find_variant("vitpose_h").build(num_joints=17, input_size=(256, 192))
    with pytest.raises(UserError, match=r"2\.4 GiB"):
        check_size(network)
