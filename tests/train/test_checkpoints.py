"""Layouts, wrong variants, numbers of joints, trunks."""

import json
from functools import cache

import pytest
import torch

from harness.errors import WeightsError
from harness.method import Layout, Variant, find_variant
from harness.train.checkpoints import fitting_variants, infer_joints, load_into, open_variant, write
from methods.parts.resnet import BasicBlock
from methods.simplebaseline import SimpleBaseline

LAYOUTS = [("simplebaseline_r18", "mmpose0"), ("simplebaseline_r18", "mmpose1"), ("hrnet_w32", "mmpose1")]


@cache
def _network(name, joints=17):
    torch.manual_seed(1)
    variant = find_variant(name)
    return variant.build(num_joints=joints, input_size=variant.input_size).eval()


def _save(path, state):
    torch.save({"state_dict": state}, path)
    return path


def _layout(name, layout):
    return next(x for x in find_variant(name).layouts if x.name == layout)


@pytest.mark.parametrize("name, layout", LAYOUTS)
def test_a_foreign_layout_gives_the_same_network(tmp_path, name, layout):
    own = _network(name).state_dict()
    foreign = _layout(name, layout).from_own(own)
    assert not foreign.keys() & own.keys()
    loaded, report = open_variant(find_variant(name), _save(tmp_path / "w.pth", foreign))
    assert report.layout == layout and not report.unexplained and not report.missing
    assert all(torch.equal(value, own[key]) for key, value in loaded.state_dict().items())


def test_the_mmpose_names_of_simplebaseline_are_those_of_its_card():
    names = _layout("simplebaseline_r18", "mmpose1").from_own(_network("simplebaseline_r18").state_dict())
    assert {"backbone.layer1.0.conv1.weight", "head.deconv_layers.0.weight", "head.final_layer.bias"} <= names.keys()
    assert {key.split(".")[0] for key in names} == {"backbone", "head"}


def test_a_file_of_another_variant_is_named(tmp_path):
    path = _save(tmp_path / "w.pth", _network("simplebaseline_r34").state_dict())
    with pytest.raises(
        WeightsError, match=r"looks like simplebaseline_r34 \(17 joints\), asked for simplebaseline_r18"
    ):
        open_variant(find_variant("simplebaseline_r18"), path)


def test_a_file_of_another_method_is_named(tmp_path):
    path = _save(tmp_path / "w.pth", _network("simplebaseline_r18").state_dict())
    with pytest.raises(WeightsError, match="looks like simplebaseline_r18"):
        load_into(_network("hrnet_tiny"), find_variant("hrnet_tiny"), path)


def test_wider_channels_are_named_as_the_wider_variant(tmp_path):
    with torch.device("meta"):
        shapes = find_variant("hrnet_w48").build(num_joints=17, input_size=(256, 192)).state_dict()
    path = tmp_path / "w.safetensors"
    write(path, {k: torch.zeros(v.shape, dtype=torch.float16) for k, v in shapes.items()})
    with pytest.raises(WeightsError, match="looks like hrnet_w48"):
        load_into(_network("hrnet_w32"), find_variant("hrnet_w32"), path)


def test_another_number_of_joints_is_named(tmp_path):
    path = _save(tmp_path / "w.pth", _network("hrnet_tiny", 16).state_dict())
    with pytest.raises(WeightsError, match="for 16 joints, asked for 17"):
        load_into(_network("hrnet_tiny"), find_variant("hrnet_tiny"), path)


@pytest.mark.parametrize("joints", [1, 14, 133])
def test_the_number_of_joints_is_read_from_the_file(joints):
    assert infer_joints(find_variant("hrnet_tiny"), _network("hrnet_tiny", joints).state_dict()) == joints


def test_a_missing_tensor_is_an_error_that_names_it(tmp_path):
    state = dict(_network("hrnet_tiny").state_dict())
    del state["stage3.0.branches.1.0.conv2.weight"]
    with pytest.raises(WeightsError, match=r"stage3\.0\.branches\.1\.0\.conv2\.weight"):
        open_variant(find_variant("hrnet_tiny"), _save(tmp_path / "w.pth", state))


def test_files_from_before_the_batch_counter_existed_are_accepted(tmp_path):
    state = {k: v for k, v in _network("hrnet_tiny").state_dict().items() if not k.endswith("num_batches_tracked")}
    _, report = open_variant(find_variant("hrnet_tiny"), _save(tmp_path / "w.pth", state))
    assert not report.missing


def test_a_tensor_that_nothing_explains_is_reported(tmp_path):
    state = {**_network("hrnet_tiny").state_dict(), "teacher.weight": torch.ones(2)}
    _, report = open_variant(find_variant("hrnet_tiny"), _save(tmp_path / "w.pth", state))
    assert report.unexplained == ("teacher.weight",)


def _trunk(name, *heads):
    return {k: v + 1 for k, v in _network(name).state_dict().items() if not k.startswith(heads)}


def test_an_imagenet_trunk_starts_a_training_and_its_classifier_is_listed_as_ignored(tmp_path):
    variant = find_variant("simplebaseline_r18")
    state = {**_trunk(variant.name, "deconv_layers", "final_layer"), "fc.weight": torch.ones(1000, 512)}
    path = _save(tmp_path / "w.pth", state)
    with pytest.raises(WeightsError, match="only a trunk"):
        load_into(_network(variant.name), variant, path)
    network = variant.build(num_joints=17, input_size=(256, 192))
    report = load_into(network, variant, path, initialise=True)
    assert report.layout == "torchvision" and report.ignored == ("fc.weight",)
    assert {n.split(".")[0] for n in report.missing} == {"deconv_layers", "final_layer"}
    assert torch.equal(network.conv1.weight, state["conv1.weight"])


def test_a_trunk_of_another_depth_is_refused(tmp_path):
    path = _save(tmp_path / "w.pth", _trunk("simplebaseline_r34", "deconv_layers", "final_layer"))
    variant = find_variant("simplebaseline_r18")
    with pytest.raises(WeightsError, match="simplebaseline_r34"):
        load_into(_network(variant.name), variant, path, initialise=True)


def test_a_trunk_with_fewer_blocks_is_refused(tmp_path):
    path = _save(tmp_path / "w.pth", _trunk("simplebaseline_r18", "deconv_layers", "final_layer"))
    variant = find_variant("simplebaseline_r34")
    with pytest.raises(WeightsError, match="simplebaseline_r18"):
        load_into(_network(variant.name), variant, path, initialise=True)


def test_a_file_with_one_stage_more_is_another_network(tmp_path):
    longer = SimpleBaseline(BasicBlock, (1, 2, 2, 1), input_size=(128, 96), widths=(32, 64, 128, 128), deconvs=(64, 64))
    state = {**_network("simplebaseline_tiny").state_dict(), **longer.state_dict()}
    state |= {n: v for n, v in _network("simplebaseline_tiny").state_dict().items() if n.startswith("deconv_layers.0")}
    path = _save(tmp_path / "w.pth", state)
    for name in ("simplebaseline_tiny", "fasterpose_tiny"):
        with pytest.raises(WeightsError, match=r"no (backbone\.)?layer4"):
            load_into(_network(name), find_variant(name), path, initialise=True)


def test_the_surplus_of_an_hrnet_classifier_is_listed_as_ignored(tmp_path):
    variant = find_variant("hrnet_w32")
    surplus = ("stage4.2.fuse_layers.3.0.0.0.weight", "incre_modules.0.0.conv1.weight", "classifier.bias")
    state = {**_trunk("hrnet_w32", "final_layer"), **{k: torch.ones(1) for k in (*surplus, "odd.weight")}}
    network = variant.build(num_joints=17, input_size=(256, 192))
    report = load_into(network, variant, _save(tmp_path / "w.pth", state), initialise=True)
    assert report.ignored == surplus and report.unexplained == ("odd.weight",)
    assert report.missing == ("final_layer.weight", "final_layer.bias")


def test_the_protocol_that_weights_want_comes_from_layout_and_metadata(tmp_path):
    variant, state = find_variant("simplebaseline_r18"), _network("simplebaseline_r18").state_dict()
    mmpose = _save(tmp_path / "w.pth", _layout(variant.name, "mmpose1").from_own(state))
    assert load_into(_network(variant.name), variant, mmpose).protocol == {"colour": "rgb"}
    write(tmp_path / "w.safetensors", state, {"protocol": json.dumps({"colour": "rgb"})})
    assert load_into(_network(variant.name), variant, tmp_path / "w.safetensors").protocol == {"colour": "rgb"}


def test_only_the_variant_itself_fits_its_tensors():
    fits = fitting_variants(_network("hrnet_tiny").state_dict())
    assert [(fit.variant.name, fit.layout.name, fit.joints) for fit in fits] == [("hrnet_tiny", "official", 17)]


class _Resizable(torch.nn.Module):
    """Fits a position table of any length to its own, as transformers do."""

    input_size, num_joints = (8, 8), 3

    def __init__(self, num_joints=3, input_size=(8, 8)):
        super().__init__()
        self.positions = torch.nn.Parameter(torch.zeros(4))
        self.head = torch.nn.Parameter(torch.zeros(num_joints))

    def adapt_state(self, state):
        if state["positions"].ndim != 1:
            raise WeightsError("no position table")
        return {**state, "positions": state["positions"][:4]}, ["positions cut"]


def test_a_network_may_fit_a_file_to_its_input_size_and_says_so(tmp_path):
    layout = Layout("official", matches=lambda keys: "positions" in keys, to_own=dict)
    variant = Variant("resizable", "resizable", _Resizable, (8, 8), layouts=(layout,))
    path = _save(tmp_path / "w.pth", {"positions": torch.arange(6.0), "head": torch.ones(5)})
    network, report = open_variant(variant, path)
    assert network.positions.tolist() == [0, 1, 2, 3] and report.notes == ("positions cut",)
    with pytest.raises(WeightsError, match="no position table") as caught:
        open_variant(variant, _save(path, {"positions": torch.ones(2, 2), "head": torch.ones(5)}))
    assert caught.value.where == str(path)


def test_a_file_that_says_at_which_size_it_was_trained_is_taken_as_it_is_there(tmp_path):
    """12x16 positions are as many as the 16x12 of a published file."""
    network = find_variant("vitpose_tiny").build(num_joints=17, input_size=(96, 128))
    own = network.backbone.pos_embed.detach()
    notes = {}
    for name, facts in (("silent", {}), ("own", {"input_size": "[96, 128]"}), ("other", {"input_size": "[128, 96]"})):
        write(tmp_path / f"{name}.safetensors", network.state_dict(), facts)
        loaded, report = open_variant(
            find_variant("vitpose_tiny"), tmp_path / f"{name}.safetensors", input_size=(96, 128)
        )
        notes[name] = report.notes, torch.equal(loaded.backbone.pos_embed, own)
    assert notes["own"] == ((), True)
    assert notes["silent"] == notes["other"] and not notes["silent"][1]
    assert "from 16x12 to 12x16" in notes["silent"][0][0]


def test_a_trunk_that_a_whole_file_could_start_is_not_what_it_looks_like():
    from types import SimpleNamespace

    from harness.train.checkpoints import Fit, _names

    whole, trunk = (SimpleNamespace(name=name) for name in ("vitpose_s", "sharpose_s"))
    fits = [
        Fit(trunk, SimpleNamespace(partial=True), None),
        Fit(whole, SimpleNamespace(partial=False), 17),
    ]
    assert _names(fits) == "vitpose_s (17 joints)"
    assert _names(fits[:1]) == "sharpose_s"
