"""`weights inspect` and `weights convert` as a user calls them."""

import json

import pytest
import torch
from typer.testing import CliRunner

from harness.cli.weights import app
from harness.errors import UserError, WeightsError
from harness.method import find_variant
from harness.train.checkpoints import read, write

NAME = "simplebaseline_r18"


def _call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.pth"
    torch.save({"state_dict": find_variant(NAME).build(num_joints=16, input_size=(256, 192)).state_dict()}, path)
    return path


def test_inspect_names_variant_layout_joints_and_parameters(checkpoint):
    found = json.loads(_call("inspect", checkpoint, "--json").stdout)
    (fit,) = found["fits"]
    assert (fit["variant"], fit["layout"], fit["joints"]) == (NAME, "official", 16)
    assert found["values"] == sum(p.numel() for p in find_variant(NAME).build(num_joints=16).parameters())
    assert NAME in _call("inspect", checkpoint).stdout


def test_inspect_shows_the_tensors_of_a_file_that_fits_nothing(tmp_path):
    torch.save({"odd.weight": torch.ones(2, 3)}, tmp_path / "w.pth")
    assert "odd.weight (2, 3)" in _call("inspect", tmp_path / "w.pth").stdout


def test_inspect_tells_the_command_that_made_a_file_and_keeps_long_facts_for_json(tmp_path):
    facts = {"command": "paretopose train x", "recipe": "r" * 500}
    write(tmp_path / "w.safetensors", {"odd.weight": torch.ones(2, 3)}, facts)
    shown = _call("inspect", tmp_path / "w.safetensors").stdout
    assert "command: paretopose train x" in shown and "rrr" not in shown
    assert json.loads(_call("inspect", tmp_path / "w.safetensors", "--json").stdout)["metadata"] == facts


def test_an_onnx_file_is_sent_to_the_method_that_opens_it(tmp_path):
    (tmp_path / "w.onnx").write_bytes(b"\x08\x07")
    with pytest.raises(WeightsError) as caught:
        _call("inspect", tmp_path / "w.onnx")
    assert "cost onnx --weights" in caught.value.hint


def test_a_round_trip_over_another_layout_keeps_every_tensor(checkpoint, tmp_path):
    foreign, back = tmp_path / "foreign.pth", tmp_path / "back.safetensors"
    result = _call("convert", checkpoint, foreign, "--layout", "mmpose1")
    assert "wants colour=bgr" in result.stderr  # mmpose's layout stands for RGB weights
    assert "head.final_layer.weight" in read(foreign)[0]
    assert json.loads(_call("convert", foreign, back, "--json").stdout)["from"] == "mmpose1"
    state, metadata = read(back)
    wanted = read(checkpoint)[0]
    assert state.keys() == wanted.keys() and all(torch.equal(state[k], wanted[k]) for k in wanted)
    assert metadata == {"variant": NAME, "protocol": '{"colour": "rgb"}'}


def test_an_unknown_layout_lists_the_known_ones(checkpoint, tmp_path):
    with pytest.raises(UserError, match="mmpose1"):
        _call("convert", checkpoint, tmp_path / "o.pth", "--layout", "mmpose2")


def test_a_file_that_fits_nothing_cannot_be_converted(tmp_path):
    torch.save({"odd.weight": torch.ones(2, 3)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="fits no variant"):
        _call("convert", tmp_path / "w.pth", tmp_path / "o.safetensors")


def test_an_ending_that_cannot_be_written_is_refused(checkpoint, tmp_path):
    with pytest.raises(UserError, match=r"\.safetensors or \.pth"):
        _call("convert", checkpoint, tmp_path / "o.onnx")
