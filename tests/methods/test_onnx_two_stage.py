"""SHaRPose in two files: the glue that a user copies, and the method that runs them in a suite."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from harness.cli.export import export
from harness.cost.account import account, measure
from harness.errors import UserError, WeightsError
from harness.method import find_variant
from harness.provenance import PROJECT
from harness.suite.sources import own_weights
from harness.train.checkpoints import open_variant

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
GLUE = PROJECT / "methods" / "parts" / "sharpose_onnx.py"
ALPHAS = (0.01, 0.25, 0.5, 0.75, 1.0)
IMAGES = torch.randn(6, 3, 128, 96, generator=torch.Generator().manual_seed(11))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """s.coarse.onnx and s.fine.onnx, exported with alpha 0.3."""
    place = tmp_path_factory.mktemp("two")
    app = typer.Typer()
    app.command()(export)
    arguments = ["sharpose_tiny", "--onnx", str(place / "s.onnx"), "--set", "alpha=0.3"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "sharpose_onnx.py" in result.stdout and not (place / "s.onnx").exists()
    return place


@pytest.fixture(scope="module")
def network():
    return open_variant(find_variant("sharpose_tiny"), own_weights("sharpose_tiny"))[0]


@pytest.fixture(scope="module")
def opened(folder):
    return open_variant(find_variant("onnx_two_stage"), folder / "s.coarse.onnx")[0]


def _halving(network):
    """A threshold that three of the six images reach."""
    quality = network.predict(IMAGES, {"quality_threshold": "never"}).quality.sort().values
    return float(quality[2:4].mean())


def _close(ours, theirs):
    ours, theirs = (np.asarray(x) for x in (ours, theirs))
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()


@pytest.mark.parametrize("alpha", ALPHAS)
@torch.inference_mode()
def test_the_glue_gives_the_heatmaps_of_the_network(folder, network, alpha):
    from methods.parts.sharpose_onnx import TwoStage

    stages = TwoStage.open(str(folder / "s.coarse.onnx"), str(folder / "s.fine.onnx"))
    for threshold, count in (("always", 6), ("never", 0), (_halving(network), 3)):
        settings = {"alpha": alpha, "quality_threshold": threshold}
        heatmaps, refined = stages.predict(IMAGES.numpy(), **settings)
        output = network.predict(IMAGES, settings)
        _close(output.exits[-1], heatmaps)
        assert refined.sum() == count and np.array_equal(refined, output.trace["exit"].numpy() == 1)


@torch.inference_mode()
def test_left_out_options_are_those_of_the_export(folder, network):
    from methods.parts.sharpose_onnx import TwoStage

    stages = TwoStage.open(str(folder / "s.coarse.onnx"), str(folder / "s.fine.onnx"))
    assert (stages.alpha, stages.quality_threshold) == (0.3, network.quality_threshold)
    _close(
        network.predict(IMAGES, {"alpha": 0.3, "quality_threshold": None}).exits[-1], stages.predict(IMAGES.numpy())[0]
    )


def test_the_glue_is_a_file_that_runs_alone(folder, tmp_path):
    shutil.copy(GLUE, tmp_path / "two_stage.py")
    code = (
        "import sys, numpy as np\nfrom two_stage import TwoStage\n"
        f"stages = TwoStage.open({str(folder / 's.coarse.onnx')!r}, {str(folder / 's.fine.onnx')!r})\n"
        "maps, refined = stages.predict(np.zeros((2, 3, 128, 96), np.float32), quality_threshold='always')\n"
        "assert maps.shape == (2, 17, 32, 24) and refined.all()\n"
        "assert not {'torch', 'harness', 'methods'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("alpha", ALPHAS)
@torch.inference_mode()
def test_the_method_gives_both_exits_the_quality_and_the_work_of_the_network(network, opened, alpha):
    settings = {"alpha": alpha, "quality_threshold": _halving(network), "all_exits": True}
    ours, theirs = (one.predict(IMAGES, settings) for one in (network, opened))
    for a, b in zip(ours.exits, theirs.exits, strict=True):
        _close(a, b)
    _close(ours.quality, theirs.quality)
    traces = [{n: v.numpy() for n, v in output.trace.items()} for output in (ours, theirs)]
    assert np.array_equal(opened.macs(traces[1]), network.macs(traces[0]))
    everybody = opened.predict(IMAGES, {"alpha": alpha}).trace
    left = opened.trace_at({n: v.numpy() for n, v in everybody.items()}, traces[1]["exit"])
    assert all(np.array_equal(left[name], traces[1][name]) for name in left)


def test_its_cost_is_that_of_its_settings(network, opened):
    for settings in ({"alpha": 0.25}, {"alpha": 0.75}, {"quality_threshold": "never"}):
        assert measure(opened, settings).macs == measure(network, {**settings, "all_exits": True}).macs


def test_its_cost_record_says_that_it_depends_on_the_person(opened):
    """So that tables show what the scored persons took, not the cost of refining everybody."""
    record = account(opened, {"quality_threshold": "never"})
    assert record["trace"] == {"exit": [0], "regions": [0]} and record["macs"] == record["closed_form"]
    assert account(opened, {})["macs"] > record["macs"]


def test_the_coarse_file_alone_is_an_onnx_method_that_refines_nobody(folder, network):
    alone, report = open_variant(find_variant("onnx"), folder / "s.coarse.onnx")
    _close(
        network.predict(IMAGES, {"quality_threshold": "never"}).exits[-1].detach(), alone.predict(IMAGES, {}).exits[-1]
    )
    assert "sharpose_tiny, part coarse" in report.notes[0]
    assert alone.macs({}) == measure(network, {"quality_threshold": "never"}).macs


def test_files_that_do_not_belong_together_are_refused(folder, tmp_path):
    variant = find_variant("onnx_two_stage")
    shutil.copy(folder / "s.coarse.onnx", tmp_path)
    with pytest.raises(WeightsError, match="no such file"):
        open_variant(variant, tmp_path / "s.coarse.onnx")
    shutil.copy(folder / "s.coarse.onnx", tmp_path / "s.fine.onnx")
    with pytest.raises(WeightsError, match="does not belong to s"):
        open_variant(variant, tmp_path / "s.coarse.onnx")
    with pytest.raises(WeightsError, match="not the first of two stages: it is exported from sharpose_tiny, part fine"):
        open_variant(variant, folder / "s.fine.onnx")
    with pytest.raises(WeightsError, match="inputs are images") as caught:
        open_variant(find_variant("onnx"), folder / "s.fine.onnx")
    assert "part fine" in caught.value.hint
    with pytest.raises(WeightsError, match="is for 128x96, asked for 64x64"):
        open_variant(variant, folder / "s.coarse.onnx", input_size=(64, 64))


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"input_size": [99999, 99999]}, "different input sizes"),
        ({"facts": {"quality_threshold": 0.9}}, "alpha"),
        ({"facts": {"alpha": 0.3, "quality_threshold": "mostly"}}, "mostly"),
    ],
)
def test_metadata_that_the_export_never_writes_is_refused(folder, tmp_path, changes, named):
    model = onnx.load(folder / "s.coarse.onnx")
    entry = model.metadata_props[0]
    entry.value = json.dumps({**json.loads(entry.value), **changes})
    onnx.save(model, tmp_path / "s.coarse.onnx")
    shutil.copy(folder / "s.fine.onnx", tmp_path)
    with pytest.raises(WeightsError, match=named):
        open_variant(find_variant("onnx_two_stage"), tmp_path / "s.coarse.onnx")


def test_a_share_of_persons_and_an_alpha_out_of_range_are_refused(opened):
    with pytest.raises(UserError, match="share of persons"):
        opened.predict(IMAGES, {"exit_rate": 0.5})
    with pytest.raises(UserError, match="alpha is 0"):
        opened.predict(IMAGES, {"alpha": 0})
