"""`paretopose cost` and `paretopose latency`."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import SuiteError, UserError
from harness.method import variants

RUN = CliRunner()


def _json(*arguments: str):
    result = RUN.invoke(app, [*arguments, "--json"])
    if result.exception:
        raise result.exception
    return json.loads(result.stdout)


def _fails(*arguments: str) -> BaseException:
    result = RUN.invoke(app, arguments)
    assert result.exception is not None
    return result.exception


def test_cost_prints_ledger_conventions_and_parameters():
    data = _json("cost", "simplebaseline_r50")
    assert data["macs"] == data["closed_form"] == 5_426_380_800
    assert data["params"] == 33_999_697
    assert data["gflops"] == 2 * data["gmacs"]
    assert {n: round(c["giga"], 2) for n, c in data["conventions"].items()} == {
        "macs": 5.43, "fvcore": 5.45, "torch": 10.85, "mmcv": 5.46, "hrnet-readme": 8.99,
    }  # fmt: skip
    groups = data["ledger"]["groups"]["convolution"]
    assert groups["fvcore"] == groups["torch"] == data["macs"]
    printed = {figure["printed"]: figure["convention"] for figure in data["published"]}
    assert printed["8.9"] == "hrnet-readme" and printed["5.46"] == "mmcv"


def test_cost_follows_the_input_size_and_build_knobs():
    assert (
        _json("cost", "simplebaseline_tiny", "--input-size", "256x192")["macs"]
        == 4 * _json("cost", "simplebaseline_tiny")["macs"]
    )
    caffe = _json("cost", "simplebaseline_r50", "--set", "style=caffe")
    assert caffe["conventions"]["hrnet-readme"]["giga"] == pytest.approx(8.780, abs=5e-4)
    assert caffe["knobs"] == {"style": "caffe"}


def test_cost_against_another_gives_the_reduction_under_each_convention():
    data = _json("cost", "hrnet_tiny", "--against", "simplebaseline_tiny")
    ours, theirs = data["macs"], data["against"]["macs"]
    assert data["reduction_percent"]["macs"] == pytest.approx(100 * (1 - ours / theirs))
    assert data["reduction_percent"]["torch"] == pytest.approx(data["reduction_percent"]["macs"])
    assert "params" in data["reduction_percent"]


@pytest.mark.skipif("fasterpose_r50" not in variants(), reason="no fasterpose_r50")
def test_fasterpose_saves_58_per_cent_only_under_the_readme_convention():
    saved = _json("cost", "fasterpose_r50", "--against", "simplebaseline_r50")["reduction_percent"]
    assert saved["hrnet-readme"] == pytest.approx(58.1, abs=0.1)
    assert saved["macs"] == pytest.approx(25.5, abs=0.1)


def test_cost_for_people_names_modules_and_what_is_free():
    result = RUN.invoke(app, ["cost", "hrnet_tiny"])
    assert result.exit_code == 0
    for text in ("convolution", "batch_norm", "free", "closed form", "hrnet-readme", "final_layer"):
        assert text in result.stdout
    assert "counting" not in result.stdout  # progress is no data


def test_unknown_names_and_knobs_are_refused_with_the_near_ones():
    assert "simplebaseline_r50" in str(_fails("cost", "simplebaseline_r5"))
    assert isinstance(_fails("cost", "simplebaseline_r50", "--set", "stile=caffe"), SuiteError)
    assert "multiples of" in str(_fails("cost", "simplebaseline_tiny", "--input-size", "100x100"))


def test_latency_states_its_protocol_and_keeps_the_samples():
    data = _json("latency", "simplebaseline_tiny", "hrnet_tiny", "--rounds", "3", "--threads", "1", "--seconds", "5")
    assert list(data["results"]) == ["simplebaseline_tiny", "hrnet_tiny"]
    first, second = data["results"].values()
    assert first["ratio"] is None and second["ratio"]["n"] <= len(second["samples"])
    assert first["execution"]["batch"] == 1 and first["settings"]["threads"] == 1
    assert len(first["samples"]) >= 3
    assert len(data["machine_id"]) == 12


def test_latency_for_people(tmp_path):
    crops = tmp_path / "crops.npy"
    np.save(crops, np.zeros((2, 3, 128, 96), dtype=np.float32))
    arguments = [
        "latency",
        "simplebaseline_tiny",
        "--batch",
        "2",
        "--rounds",
        "3",
        "--seconds",
        "3",
        "--images",
        str(crops),
    ]
    result = RUN.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    for text in ("median", "ratio", "starved", "batch 2", "interleaved"):
        assert text in result.stdout
    assert "shape" in str(_fails(*arguments[:3], "3", *arguments[4:]))
    assert isinstance(_fails("latency", "hrnet_tiny", "hrnet_tiny"), UserError)


@pytest.mark.skipif("sharpose_tiny" not in variants(), reason="no sharpose_tiny")
def test_an_early_exit_is_not_timed_on_noise():
    assert "--images" in str(_fails("latency", "sharpose_tiny", "--set", "quality_threshold=0.9", "--rounds", "3"))
    fixed = _json("latency", "sharpose_tiny", "--set", "quality_threshold=always", "--rounds", "3", "--seconds", "3")
    assert fixed["results"]["sharpose_tiny"]["samples"]


@pytest.mark.skipif("sharpose_tiny" not in variants(), reason="no sharpose_tiny")
@pytest.mark.parametrize("threshold", ["always", "never"])
def test_a_dynamic_cost_equals_its_closed_form_in_both_exits(threshold):
    data = _json("cost", "sharpose_tiny", "--set", f"quality_threshold={threshold}")
    assert data["macs"] == data["closed_form"]
    assert data["trace"]
    assert data["as_published"] >= data["macs"] or threshold == "always"
