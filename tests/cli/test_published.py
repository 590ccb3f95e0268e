"""`paretopose methods --published`."""

from __future__ import annotations

import json

from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UserError

RUN = CliRunner()


def listed(*arguments: str) -> dict[tuple[str, str, str], str]:
    done = RUN.invoke(app, ["methods", *arguments, "--published", "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)["figures"]
    assert all(f["sources"] for f in found)
    return {(f["network"], f["input"], f["printed"]): f"{f['verdict']} {f['convention']}".strip() for f in found}


def test_every_printed_figure_is_listed_with_its_convention_or_why_there_is_none():
    found = listed()
    assert found["simplebaseline_r50", "256x192", "8.9"] == "reproduced hrnet-readme"
    assert found["simplebaseline_r50", "256x192", "5.46"] == "reproduced mmcv"
    assert found["hrnet_w32", "256x192", "7.70"] == "reproduced mmcv"
    assert found["simplebaseline_r50", "384x288", "20.0"] == "reproduced hrnet-readme scaled"
    assert found["simplebaseline_r152", "384x288", "35.6"] == "no convention"
    assert found["keypointrcnn_r50_tv", "800x800", "137.42"] == "reproduced macs"
    assert found["RTMPose RTMPose-t (coco+aic) CSPNeXt-t", "256x192", "0.36"] == "not in project"


def test_a_pattern_chooses_and_no_match_is_an_error():
    assert {network for network, _, _ in listed("hrnet_w*")} == {"hrnet_w32", "hrnet_w48", "hrnet_w32_srhead"}
    assert isinstance(RUN.invoke(app, ["methods", "nobody", "--published"]).exception, UserError)


def test_the_table_names_the_source():
    assert "HRNet-official" in RUN.invoke(app, ["methods", "hrnet_w48", "--published"]).stdout
