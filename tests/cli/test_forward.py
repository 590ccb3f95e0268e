"""`forward` as a user calls it, and its parts."""

import json

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from harness.cli.forward import forward, parse_settings, parse_size, raw_outputs
from harness.errors import DataError, SuiteError, UserError
from harness.method import OneStageOutput, TopDownOutput, find_variant

app = typer.Typer()
app.command()(forward)


def _call(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result


def _images(tmp_path, size=(128, 96), n=2):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).standard_normal((n, 3, *size)).astype(np.float32))
    return path


def test_a_wrapped_official_checkpoint_gives_the_published_heatmaps(tmp_path, golden, golden_tools):
    network = find_variant("simplebaseline_r50").build(num_joints=17, input_size=(256, 192))
    golden_tools.fill(network)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, tmp_path / "w.pth")
    np.save(tmp_path / "x.npy", golden_tools.image().numpy())
    out = tmp_path / "y.npz"
    _call("simplebaseline_r50", "--images", tmp_path / "x.npy", "--out", out, "--weights", tmp_path / "w.pth")
    maps, stored = np.load(out)["exit0"], golden("simplebaseline_r50_256x192")["heatmap"]
    assert np.abs(maps - stored).max() <= 1e-4 * np.abs(stored).max()


def test_joints_come_from_the_file_and_the_size_from_the_option(tmp_path):
    network = find_variant("hrnet_tiny").build(num_joints=5, input_size=(64, 64)).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    images = _images(tmp_path, (64, 64))
    arguments = ["hrnet_tiny", "--images", images, "--out", tmp_path / "y.npz", "--input-size", "64x64", "--json"]
    found = json.loads(_call(*arguments, "--weights", tmp_path / "w.pth").stdout)
    assert found["outputs"] == {"exit0": [2, 5, 16, 16]} and found["layout"] == "official"
    with torch.inference_mode():
        wanted = network(torch.from_numpy(np.load(images))).numpy()
    assert np.allclose(np.load(tmp_path / "y.npz")["exit0"], wanted, atol=1e-6)


def test_without_weights_the_start_is_fixed_and_said_on_stderr(tmp_path):
    images = _images(tmp_path)
    results = [_call("hrnet_tiny", "--images", images, "--out", tmp_path / f"{i}.npz") for i in (0, 1)]
    assert "random weights" in results[0].stderr and "random" not in results[0].stdout
    assert np.array_equal(np.load(tmp_path / "0.npz")["exit0"], np.load(tmp_path / "1.npz")["exit0"])


def test_images_of_another_size_are_refused_with_the_option_to_add(tmp_path):
    with pytest.raises(DataError, match="--input-size 64x64"):
        _call("hrnet_tiny", "--images", _images(tmp_path, (64, 64)), "--out", tmp_path / "y.npz")


@pytest.mark.parametrize("array", [np.zeros((2, 3, 8, 8)), np.zeros((3, 8, 8), np.float32)])
def test_images_of_another_shape_or_type_are_refused(tmp_path, array):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match="float32"):
        _call("hrnet_tiny", "--images", tmp_path / "x.npy", "--out", tmp_path / "y.npz")


def test_settings_are_checked_and_sorted_by_kind():
    variant = find_variant("simplebaseline_r50")
    assert parse_settings(variant, ["style=caffe", "input_size=256x256"])[0] == {
        "style": "caffe",
        "input_size": (256, 256),
    }
    with pytest.raises(SuiteError, match="pytorch, caffe"):
        parse_settings(variant, ["style=keras"])
    with pytest.raises(SuiteError, match="did you mean style"):
        parse_settings(variant, ["stile=caffe"])
    with pytest.raises(UserError, match="height x width"):
        parse_size("256")


class _Exits:
    def predict(self, images, settings):
        trace = {"tokens": torch.arange(len(images))}
        return TopDownOutput([images, 2 * images], quality=images.mean((1, 2, 3)), trace=trace)


class _OneStage:
    def predict(self, images, settings):
        return [OneStageOutput(torch.ones(i, 4), torch.ones(i), torch.ones(i, 17, 3), {"rois": i}) for i in (1, 2)]


class _Own(_Exits):
    def forward_raw(self, images, *, settings, train, rois):
        return {"exit0": images, **({"train0": images} if train else {}), **({} if rois is None else {"roi": rois})}


def test_exits_quality_and_trace_are_named():
    images = np.ones((3, 3, 2, 2), np.float32)
    found = raw_outputs(_Exits(), images, {})
    assert found.keys() == {"exit0", "exit1", "quality", "trace_tokens"}
    assert (found["exit1"] == 2 * images).all() and found["trace_tokens"].tolist() == [0, 1, 2]


def test_one_stage_outputs_are_numbered_by_image():
    found = raw_outputs(_OneStage(), np.ones((2, 3, 2, 2), np.float32), {})
    assert found["keypoints1"].shape == (2, 17, 3) and found["trace_rois0"] == 1


def test_a_network_may_name_its_own_raw_outputs():
    images, rois = np.ones((1, 3, 2, 2), np.float32), np.ones((1, 4), np.float32)
    assert raw_outputs(_Own(), images, {}, train=True, rois=rois).keys() == {"exit0", "train0", "roi"}
    with pytest.raises(UserError, match="no training outputs"):
        raw_outputs(_Exits(), images, {}, train=True)


@pytest.mark.parametrize(
    "array, said",
    [
        (np.zeros((2, 5), np.float32), r"shape \(2, 5\)"),
        (np.zeros(4, np.float32), r"shape \(4,\)"),
        (np.zeros((2, 4)), "float64"),
        (np.array([[0, 0, 5, 5], [9, 0, 3, 5]], np.float32), "box 1 is .9.0, 0.0, 3.0, 5.0."),
        (np.full((1, 4), np.nan, np.float32), "box 0 is .nan"),
    ],
)
def test_regions_of_another_shape_or_type_or_inside_out_are_refused(tmp_path, array, said):
    np.save(tmp_path / "rois.npy", array)
    with pytest.raises(DataError, match=said) as refused:
        _call(
            *["maskrcnn_tiny", "--images", _images(tmp_path, (64, 64)), "--rois", tmp_path / "rois.npy"],
            *["--out", tmp_path / "y.npz"],
        )
    assert "rois.npy" in refused.value.where and "x1 y1 x2 y2" in refused.value.expected


@pytest.mark.parametrize("content", [None, b"", b"no array"])
def test_a_file_of_regions_that_is_missing_or_no_array_is_refused(tmp_path, content):
    path = tmp_path / "rois.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        _call(
            *["maskrcnn_tiny", "--images", _images(tmp_path, (64, 64)), "--rois", path],
            *["--out", tmp_path / "y.npz"],
        )


def test_several_arrays_in_one_file_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="several arrays"):
        _call("hrnet_tiny", "--images", tmp_path / "x.npz", "--out", tmp_path / "y.npz")
