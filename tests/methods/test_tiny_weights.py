"""The weights that are part of the project, as files: what they fit, what made them, what was measured with them."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from harness.method import find_variant, variants
from harness.train import checkpoints
from harness.train.recipes import determined

QUICKSTART = Path(__file__).parents[2] / "results" / "quickstart"
TINY = sorted(name for name in variants() if name.endswith("_tiny"))


def test_every_method_of_the_papers_has_them():
    methods = {find_variant(name).method for name in TINY}
    assert methods == {"fasterpose", "hrnet", "maskrcnn", "sharpose", "simplebaseline", "srpose", "vitpose"}


@pytest.mark.parametrize("name", TINY)
def test_they_fit_their_network_and_are_of_its_quick_recipe(name):
    variant, path = find_variant(name), QUICKSTART / f"{name}.safetensors"
    _, report = checkpoints.open_variant(variant, path, num_joints=17)
    assert report is not None and not report.missing and not report.unexplained
    _, metadata = checkpoints.read(path)
    made_by = json.loads(metadata["recipe"])
    wanted = json.loads(json.dumps(determined(variant.recipes["quick"])))
    assert {field: made_by.get(field) for field in wanted} == wanted
    assert metadata["seed"] == "0" and metadata["data_name"] == "synthetic_train2017"


@pytest.mark.parametrize("name", TINY)
def test_their_recorded_ap_is_worth_measuring(name):
    table = pd.read_csv(QUICKSTART / "table.csv")
    labels = table["method"].str.replace(" (reconstruction)", "", regex=False)
    found = table[labels.isin([name, f"{name} input_size=128x96", f"{name} exit_rate=0"])]
    assert len(found) == 1
    assert found["ap"].item() >= (50 if name == "maskrcnn_tiny" else 70)
