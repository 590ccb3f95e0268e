"""`paretopose methods`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UserError
from harness.method import variants

RUN = CliRunner()


def _listed(*arguments: str) -> dict[str, dict]:
    result = RUN.invoke(app, ["methods", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return {row["variant"]: row for row in json.loads(result.stdout)["methods"]}


def test_a_pattern_chooses_and_published_figures_stand_beside():
    rows = _listed("simplebaseline_r*")
    assert {"simplebaseline_r50", "simplebaseline_r101", "simplebaseline_r152"} <= set(rows)
    row = rows["simplebaseline_r50"]
    assert row["params_train_only"] == 0 and (row["params"], row["gmacs"]) == (33_999_697, 5.4263808)
    assert (row["published_ap"], row["published_gflops"], row["convention"]) == (70.4, "8.9", "hrnet-readme")
    assert row["published_source"]


def test_parameters_of_training_stand_apart():
    row = _listed("srpose_hrnet_w32")["srpose_hrnet_w32"]
    assert (round(row["params"] / 1e6, 2), row["params_train_only"]) == (29.95, 317_696)


def test_part_of_a_name_is_enough_and_notes_are_shown():
    rows = _listed("tiny")
    assert {"simplebaseline_tiny", "hrnet_tiny"} <= set(rows)
    assert rows["hrnet_tiny"]["published_ap"] is None
    assert RUN.invoke(app, ["methods", "hrnet_tiny"]).stdout.count("hrnet_tiny") == 1


def test_a_reconstruction_says_so():
    assert all(
        "reconstruction" in row["note"] for name, row in _listed("tiny").items() if name.startswith("fasterpose")
    )


def test_no_match_is_an_error():
    assert isinstance(RUN.invoke(app, ["methods", "nothing_like_this"]).exception, UserError)


def test_published_tables_name_only_variants_that_exist():
    from harness.published import load

    methods = {variant.method for variant in variants().values()}
    named = set(load()["our_variant"]) - {""}
    if not {"srpose", "sharpose", "maskrcnn", "vitpose", "hrnet", "simplebaseline"} <= methods:
        pytest.skip("not all built-in methods are here")
    assert named - set(variants()) == set()
