import pytest
import torch

from harness.method import find_variant
from harness.train import checkpoints


def _network(name):
    variant = find_variant(name)
    return variant.build(num_joints=17, input_size=variant.input_size)


@pytest.mark.parametrize("name", ["fasterpose_tiny", "srpose_tiny"])
def test_the_tiny_simplebaseline_starts_stem_and_stages_of_the_other_convolutional_ones(name, tmp_path):
    given, network = _network("simplebaseline_tiny").state_dict(), _network(name)
    checkpoints.write(tmp_path / "w.safetensors", given)
    report = checkpoints.load_into(network, find_variant(name), tmp_path / "w.safetensors", initialise=True)
    assert (report.layout, report.unexplained) == ("simplebaseline", ())
    trunk = [key for key in given if not key.startswith(("deconv_layers.", "final_layer."))]
    assert {key.split(".")[0] for key in trunk} == {"conv1", "bn1", "layer1", "layer2", "layer3"}
    own = network.state_dict()
    assert all(torch.equal(own[f"backbone.{key}"], given[key]) for key in trunk)
    rest = own.keys() - {f"backbone.{key}" for key in trunk}
    assert set(report.missing) == {key for key in rest if not key.endswith("num_batches_tracked")}


def test_a_simplebaseline_is_never_taken_for_a_classifier():
    given = _network("simplebaseline_r18").state_dict()
    assert not [layout.name for layout in find_variant("fasterpose_r18").layouts if layout.matches(given)]
