"""`export` as a user calls it."""

import json
import sys

import pytest
import typer
from typer.testing import CliRunner

from harness.cli.export import export
from harness.errors import MissingPackage, SuiteError, UserError, WeightsError
from harness.export import files
from harness.provenance import file_sha256
from harness.suite.sources import own_weights

pytest.importorskip("onnxscript")
app = typer.Typer()
app.command()(export)


def _call(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (["maskrcnn_tiny"], UserError, "depends on what it finds"),
        (["keypointrcnn_r50_tv"], UserError, "depends on what it finds"),
        (["onnx"], UserError, "a file already"),
        (["hrnet_tinny"], SuiteError, "hrnet_tinny"),
        (["hrnet_tiny", "--set", "alpha=0.3"], SuiteError, "unknown knob of hrnet_tiny 'alpha'"),
        (["hrnet_tiny", "--set", "dtype=float16"], SuiteError, "dtype changes nothing"),
        (["sharpose_tiny", "--set", "alpha=0"], SuiteError, "alpha is 0"),
        (["sharpose_tiny", "--set", "exit_rate=0.5"], UserError, "share of persons"),
        (["sharpose_tiny", "--batch", "2"], UserError, "a stage of sharpose_tiny"),
        (["hrnet_w32"], WeightsError, "hrnet_w32 has no weights here"),
        (["hrnet_tiny", "--weights", "nowhere.pth"], WeightsError, "no such weights file"),
        (["vitpose_tiny", "--input-size", "100x100"], UserError, "100x100"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_the_reason(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        _call(*arguments, "--onnx", tmp_path / "n.onnx")
    assert caught.value.exit_code == 3 and not list(tmp_path.iterdir())


def test_missing_weights_name_the_way_out(tmp_path):
    with pytest.raises(WeightsError) as caught:
        _call("hrnet_w32", "--onnx", tmp_path / "n.onnx")
    assert "--weights FILE" in caught.value.hint and "--random-weights" in caught.value.hint


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "n.onnx").mkdir()
    for out, message in (("file/n.onnx", "cannot write"), ("n.onnx", "is a folder"), ("n.pth", "cannot write n.pth")):
        with pytest.raises(UserError, match=message):
            _call("hrnet_tiny", "--onnx", tmp_path / out)


def test_without_the_extra_the_install_line_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackage, match="onnxscript") as caught:
        _call("hrnet_tiny", "--onnx", tmp_path / "n.onnx")
    assert caught.value.hint == 'pip install "paretopose[onnx]"'


def test_the_files_of_a_tiny_one_hold_the_projects_own_weights(tmp_path):
    result = _call("simplebaseline_tiny", "--onnx", tmp_path / "n.onnx", "--input-size", "64x64", "--json")
    found = json.loads(result.stdout)
    own = file_sha256(own_weights("simplebaseline_tiny"))
    assert (found["origin"]["weights"], found["origin"]["input_size"]) == (own, [64, 64])
    file = found["files"][0]
    assert file["inputs"] == {"images": ["batch", 3, 64, 64]} and file["differences"]["heatmaps"] < 1e-4
    assert file["outputs"] == {"heatmaps": ["batch", 17, 16, 16]} and file["file"] == str(tmp_path / "n.onnx")


def test_random_weights_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "export", lambda *_, **__: [])
    result = _call("hrnet_tiny", "--onnx", tmp_path / "n.onnx", "--random-weights", "--json")
    assert json.loads(result.stdout)["origin"]["weights"] == "" and "random weights" in result.stderr
    assert "random" not in _call("hrnet_tiny", "--onnx", tmp_path / "n.onnx").stderr
