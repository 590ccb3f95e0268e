"""Published figures: every row has a source, belongs to one network, and its convention reproduces it.

The figures are counted here once more, independently of the harness: hooks on the layers of a network that has
shapes but no values. Rules: methods/hrnet.md section H and design.md 'Cost protocol'.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import lru_cache
from math import prod
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from harness import published
from harness.cost.conventions import SCALED
from harness.errors import DataError
from harness.method import find_variant
from harness.published import fitting, reproduction, size_of

TABLE = published.load()
OURS = TABLE[(TABLE["our_variant"] != "") & (TABLE["gflops_text"] != "")]
CROPS = OURS[~OURS["our_variant"].str.contains("rcnn")]
GIVEN = os.environ.get("PARETOPOSE_DATA")


def test_every_row_has_a_source_and_a_figure():
    assert (TABLE["source"].str.len() > 5).all()
    assert TABLE[["ap", "pckh50", "params_m", "gflops", "fps", "latency_ms"]].notna().any(axis=1).all()
    assert not TABLE.duplicated().any()


def test_figures_are_in_their_ranges():
    for name in ("ap", "ap50", "ap75", "apm", "apl", "ar", "pckh50"):
        assert TABLE[name].dropna().between(0, 100).all()
    assert (TABLE["gflops"].dropna() > 0).all()


def test_a_network_that_is_timed_on_several_machines_states_its_cost_once():
    timed = TABLE[TABLE["source"].str.startswith("ViTPose-official") & TABLE["fps"].notna()]
    keys = ["variant", "input_h"]
    assert (timed.groupby(keys)["gflops"].count() == 1).all() and timed.groupby(keys).size().min() == 4


def test_nothing_is_claimed_for_a_network_without_published_figures():
    assert not TABLE["our_variant"].str.startswith("fasterpose").any()
    assert not TABLE["our_variant"].str.endswith("_tiny").any()


def test_headline_figures_are_found_under_our_names():
    row = published.rows_for(SimpleNamespace(name="simplebaseline_r50", published=()), (256, 192), dataset="COCO")
    official = row[row["gflops_text"] == "8.9"]
    assert 70.4 in set(official["ap"])
    assert set(official["convention"]) == {"hrnet-readme"}


def test_a_pattern_selects_rows_of_methods_that_are_not_ours():
    rows = published.rows_for(SimpleNamespace(name="mine", published=(("Lite-HRNet", "LiteHRNet-18"),)), (256, 192))
    assert len(rows) and set(rows["variant"]) == {"LiteHRNet-18"}


def test_a_pattern_does_not_take_rows_that_were_assigned():
    rows = published.rows_for(SimpleNamespace(name="mine", published=(("HRNet", "*"),)))
    assert rows.empty


def test_rows_that_name_knobs_are_about_the_network_with_these_knobs_alone():
    rows = TABLE[TABLE["our_variant"] == "simplebaseline_r50"].to_dict("records")
    assert {r["our_knobs"] for r in fitting(rows, {"style": "caffe"})} == {"style=caffe"}
    assert {r["our_knobs"] for r in fitting(rows, {"style": "pytorch"})} == {""}


def test_a_row_without_a_source_is_refused(tmp_path):
    values = dict.fromkeys(published.COLUMNS, "")
    (tmp_path / "bad.csv").write_text(",".join(values) + "\n" + ",".join(values.values()) + "\n")
    with pytest.raises(DataError, match="source"):
        published.load(tmp_path)
    (tmp_path / "bad.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns"):
        published.load(tmp_path)


def test_loading_does_not_import_torch():
    code = "import sys; from harness.published import load; load(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- nothing distinct was lost in cleaning -------------------------------------------------------------------------


@pytest.mark.skipif(GIVEN is None, reason="PARETOPOSE_DATA is not set")
def test_every_figure_of_the_collected_table_is_in_a_cleaned_row_of_the_same_network():
    given = pd.read_csv(Path(str(GIVEN)) / "published" / "published.csv", dtype=str, keep_default_na=False)
    clean = TABLE.to_dict("records")
    figures = ("params_m", "gflops", "ap", "ap50", "ap75", "apm", "apl", "ar", "pckh50", "fps", "latency_ms")
    lost = []
    for row in given.to_dict("records"):
        printed = {name: float(row[name]) for name in figures if row[name]}
        near = [c for c in clean if _about_the_same(row, c)]
        kept = {name for name in printed for c in near if c[name] == printed[name]}
        together = {name for name in printed if name in ("ap", "ar", "gflops", "params_m")}
        whole = any(all(c[name] == printed[name] for name in together) for c in near)
        if kept != set(printed) or not whole:
            lost.append((row["method"], row["variant"], row["input_h"], sorted(set(printed) - kept)))
    assert not lost


def _about_the_same(row, clean):
    size = float(row["input_h"] or "nan")
    same_size = clean["input_h"] == size or (size != size and clean["input_h"] != clean["input_h"])
    return same_size and (row["dataset"], row["split"]) == (clean["dataset"], clean["split"])


# -- GFLOPs, counted independently ---------------------------------------------------------------------------------

_COUNTED = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@lru_cache(maxsize=64)
def witness(variant, size, knobs=()):
    """Figures by convention of one forward of one crop, from the shapes that its layers see."""
    found = dict.fromkeys(("macs", "mmcv", "hrnet-readme"), 0)

    def hook(module, inputs, output):
        if isinstance(module, _COUNTED):
            weights, places = module.weight.numel(), prod(output.shape[2:])
            if isinstance(module, nn.Linear):
                places = output.numel() // module.out_features
            used = prod(inputs[0].shape[2:]) if isinstance(module, nn.ConvTranspose2d) else places
            found["macs"] += weights * used
            found["hrnet-readme"] += weights * places
            found["mmcv"] += weights * used + (0 if module.bias is None else output.numel())
        elif isinstance(module, nn.BatchNorm2d):
            found["mmcv"] += 2 * output.numel()
        elif isinstance(module, nn.ReLU | nn.MaxPool2d):
            found["mmcv"] += output.numel()

    with torch.device("meta"), torch.inference_mode():
        network = find_variant(variant).build(num_joints=17, input_size=size, **dict(knobs)).eval()
        for module in network.modules():
            module.register_forward_hook(hook)
        network.predict(torch.empty(1, 3, *size), {})
    units = {"hrnet-readme": 2**30}
    return {name: count / units.get(name, 10**9) for name, count in found.items()}


def _row_id(row):
    return f"{row['our_variant']}-{row['gflops_text']}-{row['convention']}".replace(" ", "-")


def _rows():
    unique = {_row_id(r): r for r in CROPS.to_dict("records")}
    return [pytest.param(row, id=name) for name, row in unique.items()]


@pytest.mark.parametrize("row", _rows())
def test_a_published_figure_is_given_by_the_convention_of_its_source(row):
    figures = witness(row["our_variant"], size_of(row))
    printed, unit = float(row["gflops_text"]), 10.0 ** -len(row["gflops_text"].partition(".")[2])
    verdict = reproduction(row, figures)
    if row["convention"] == "none":
        assert not verdict.reproduced and all(abs(f - printed) > unit for f in figures.values())
        return
    assert verdict.reproduced and verdict.convention == row["convention"]
    expected = figures.get(row["convention"])
    if row["convention"] == SCALED:
        small = {"simplebaseline_r50": 8.9, "simplebaseline_r152": 15.7}[row["our_variant"]]
        assert abs(figures["hrnet-readme"] - printed) > unit, "counted, the figure would be another one"
        expected = small * 2.25
    assert abs(expected - printed) <= unit


@pytest.mark.parametrize(
    ("variant", "printed", "convention", "not_by"),
    [
        ("simplebaseline_r50", "8.9", "hrnet-readme", ("macs", "mmcv")),
        ("simplebaseline_r50", "5.46", "mmcv", ("macs", "hrnet-readme")),
        ("hrnet_w32", "7.1", "hrnet-readme", ("macs", "mmcv")),
        ("hrnet_w32", "7.70", "mmcv", ("macs", "hrnet-readme")),
    ],
)
def test_a_bare_figure_is_not_reproduced_under_another_convention(variant, printed, convention, not_by):
    rows = CROPS[(CROPS["our_variant"] == variant) & (CROPS["gflops_text"] == printed) & (CROPS["input_h"] == 256)]
    row, figures = rows.iloc[0].to_dict(), witness(variant, (256, 192))
    assert reproduction(row, figures).convention == convention
    wrong = reproduction(row, {name: figures[name] for name in not_by})
    assert not wrong.reproduced and wrong.convention in not_by


def test_the_58_per_cent_of_fasterpose_are_those_of_one_convention_only():
    lean, full = witness("fasterpose_r50", (256, 192)), witness("simplebaseline_r50", (256, 192))
    saved = {name: 100 * (1 - lean[name] / full[name]) for name in full}
    assert saved["hrnet-readme"] == pytest.approx(58.1, abs=0.05)
    assert saved["macs"] == pytest.approx(25.5, abs=0.05) and saved["mmcv"] < 27


def test_figures_without_an_input_size_say_at_which_one_they_were_counted():
    bare = CROPS[CROPS["input_h"].isna()]
    assert len(bare) and (bare["counted_at"] != "").all() and bare["note"].str.contains("not stated").all()


def test_figures_of_other_networks_claim_no_convention():
    others = TABLE[(TABLE["our_variant"] == "") & (TABLE["gflops_text"] != "")]
    assert len(others) and (others["convention"] == "").all()


@pytest.mark.slow
@pytest.mark.parametrize("variant", sorted(set(CROPS["our_variant"])))
def test_the_harness_counts_what_the_witness_counts(variant):
    from harness.cost.account import measure
    from harness.cost.conventions import figures
    from harness.train.checkpoints import open_variant

    counted = figures(measure(open_variant(find_variant(variant), None, input_size=(256, 192))[0], {}).counts)
    assert {n: counted[n] for n in ("macs", "hrnet-readme")} == pytest.approx(
        {n: witness(variant, (256, 192))[n] for n in ("macs", "hrnet-readme")}, rel=1e-12
    )
    assert counted["mmcv"] == pytest.approx(witness(variant, (256, 192))["mmcv"], rel=2e-3)


@pytest.mark.slow
def test_torchvision_counts_a_square_image_with_one_person_or_nobody():
    """Multiply-accumulates of its parts: trunk and proposals at 800x800, box head on 1000 regions, keypoint head."""
    torchvision = pytest.importorskip("torchvision")
    count = 0

    def hook(module, inputs, output):
        nonlocal count
        if isinstance(module, nn.Linear):
            count += module.weight.numel() * (output.numel() // module.out_features)
        elif isinstance(module, _COUNTED):
            map_ = inputs[0] if isinstance(module, nn.ConvTranspose2d) else output
            count += module.weight.numel() * output.shape[0] * prod(map_.shape[2:])

    with torch.device("meta"), torch.inference_mode():
        network = torchvision.models.detection.keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None).eval()
        for module in network.modules():
            module.register_forward_hook(hook)
        network.rpn.head(list(network.backbone(torch.empty(1, 3, 800, 800)).values()))
        heads = network.roi_heads
        heads.box_predictor(heads.box_head(torch.empty(1000, 256, 7, 7)))
        nobody = count
        heads.keypoint_predictor(heads.keypoint_head(torch.empty(1, 256, 14, 14)))
    rows = OURS[OURS["our_variant"] == "keypointrcnn_r50_tv"]
    printed = {row["gflops_text"]: row for row in rows.to_dict("records")}
    for text, macs, found in (("133.92", nobody, "nobody"), ("137.42", count, "one person")):
        verdict = reproduction(printed[text], {"macs": macs / 1e9})
        assert verdict.reproduced and verdict.convention == printed[text]["convention"] == "macs"
        assert found in printed[text]["note"] and size_of(printed[text]) == (800, 800)
