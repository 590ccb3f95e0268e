"""A published table as a target: ours, published, difference, verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.errors import UserError
from harness.suite.schema import PaperSpec, Suite
from reports.formats import to_csv, to_markdown
from reports.paper import paper_ap, paper_of, paper_rows, paper_table, verdict_table
from reports.published import published_ap
from reports.report import write_report

SUITES = sorted((Path(__file__).resolve().parents[2] / "suites" / "paper").glob("*.yaml"))
HRNET = {"source": "*HRNet-official@*README*", "method": "HRNet", "split": "val2017", "dataset": "COCO"}
SRPOSE = {"method": "SRPose paper", "variant": "*(top-down*"}
GIGA = {"macs": 7.645, "fvcore": 7.685, "torch": 15.29, "mmcv": 7.702, "hrnet-readme": 7.12}


def spec(*rows, columns=("gflops",), **more):
    return PaperSpec(caption="A table", rows=rows, columns=columns, **more)


def counted(giga):
    return {"conventions": {name: {"count": int(value * 1e9), "giga": value} for name, value in giga.items()}}


def w32(made, **more):
    return made.row(
        "hrnet_w32", gmacs=7.645, cost_more=counted(GIGA), data="coco_val2017", **{"ap": 0.744, "half": 0.006, **more}
    )


def verdicts(table, quantity):
    keys = [c.key for c in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for row in table.rows]
    return [r for r in rows if quantity in r["quantity"].text]


@pytest.mark.parametrize("file", SUITES, ids=lambda f: f.stem)
def test_every_paper_suite_names_a_table_whose_rows_are_published(file):
    suite = Suite.model_validate(yaml.safe_load(file.read_text()))
    if suite.report.paper is None:
        pytest.skip("no published table")
    found = paper_rows(suite.report.paper, [])
    assert found and suite.report.paper.caption
    variants = {method.variant for method in suite.methods}
    assert variants & {p.published["our_variant"] for p in found}
    assert all({claim.row, claim.against} <= variants for claim in suite.report.paper.claims)


def test_gflops_are_judged_under_the_convention_of_their_source(made):
    rows = made.rows(w32(made))
    (readme, *_) = verdicts(verdict_table(spec(HRNET | {"backbone": "*w32", "input_h": "256"}), rows), "GFLOPs")
    assert (readme["verdict"].text, readme["how"].text) == ("reproduced", "hrnet-readme")
    assert (readme["ours"].value, readme["published"].value) == (7.12, 7.1)
    (mmpose, *_) = verdicts(verdict_table(spec(SRPOSE | {"backbone": "HRNet-W32", "gflops": "7.7"}), rows), "GFLOPs")
    assert (mmpose["verdict"].text, mmpose["how"].text) == ("reproduced", "mmcv")
    assert mmpose["published"].digits == 2


def test_a_figure_that_no_convention_gives_names_the_nearest(made):
    rows = made.rows(made.row("hrnet_w32", gmacs=6.0, cost_more=counted({"macs": 6.0, "hrnet-readme": 6.8})))
    (only,) = verdicts(verdict_table(spec(HRNET | {"backbone": "*w32", "input_h": "256"}), rows), "GFLOPs")
    assert only["verdict"].text == "differs" and only["how"].text == "not reproduced; nearest: hrnet-readme"
    assert only["difference"].value == pytest.approx(-0.3)


def det(**stats):
    return {"box_source": "det.json (sha 1)", **stats}


@pytest.mark.parametrize(
    ("ap", "half", "verdict"), [(0.744, 0.0, "reproduced"), (0.738, 0.0055, "reproduced"), (0.738, 0.005, "differs")]
)
def test_an_ap_is_reproduced_within_its_interval_and_the_rounding_of_the_print(made, ap, half, verdict):
    rows = made.rows(w32(made, ap=ap, half=half, more=det()))
    (only,) = verdicts(verdict_table(spec(HRNET | {"backbone": "*w32", "input_h": "256"}, columns=("ap",)), rows), "AP")
    assert only["verdict"].text == verdict and only["difference"].value == pytest.approx(100 * ap - 74.4)


def test_an_ap_on_other_images_or_boxes_is_not_compared(made):
    for more in ({}, {"more": det(), "data": "coco_val188"}):
        rows = made.rows(made.row("hrnet_w32", ap=0.7, **{"data": "coco_val2017", **more}))
        (only, *_) = verdicts(verdict_table(spec(HRNET | {"backbone": "*w32"}, columns=("ap",)), rows), "AP")
        assert only["verdict"].text == "not compared" and only["difference"].value is None
        assert "differ" in only["how"].text or "other images" in only["how"].text


def test_what_is_missing_says_so(made):
    rows = made.rows(
        made.row("hrnet_w32", gmacs=7.645, cost_more=counted(GIGA), reasons={"accuracy": "no weights"}),
        made.row("fasterpose_r50", note="reconstruction", gmacs=4.04, reasons={"accuracy": "no weights"}),
    )
    rows_of = (HRNET | {"backbone": "*w32", "input_h": "256"}, HRNET | {"backbone": "*w48", "input_h": "256"})
    others = SRPOSE | {"backbone": "HRFormer-S", "post_process": "none", "variant": "SRPose*"}
    table = verdict_table(spec(*rows_of, others, columns=("gflops", "ap")), rows)
    found = [(r[0].text, r[3].text, r[7].text) for r in table.rows]
    assert found == [
        ("hrnet_w32", "GFLOPs (source's count)", "reproduced"),
        ("hrnet_w32", "AP", "no weights"),
        ("–", "GFLOPs (source's count)", "not measured"),
        ("–", "AP", "not measured"),
        ("–", "–", "not in project"),
        ("fasterpose_r50", "GFLOPs (source's count)", "not published"),
        ("fasterpose_r50", "AP", "not published"),
    ]
    assert table.rows[4][8].text == "GFLOPs (source's count) 3.34, AP 75.5"
    assert table.remarks[0].startswith("2 not measured, 2 not published, 1 reproduced, 1 no weights, 1 not in project.")


def test_rows_with_and_without_post_processing_are_told_apart_by_the_decoder(made):
    rows = made.rows(
        w32(made, protocol={"decoder": "argmax"}, more=det()), w32(made, protocol={"decoder": "quarter"}, more=det())
    )
    which = SRPOSE | {"backbone": "HRNet-W32", "variant": "Simple*(top-down*"}
    pairs = paper_rows(spec(which), rows)
    assert [(p.published["ap"], p.row.protocol["decoder"]) for p in pairs] == [(74.5, "quarter"), (72.3, "argmax")]


def test_the_58_per_cent_are_reproduced_under_one_convention_and_the_others_stand_beside(made):
    lean = {"macs": 4.0423, "torch": 8.0845, "mmcv": 4.071, "hrnet-readme": 3.765}
    full = {"macs": 5.4264, "torch": 10.8528, "mmcv": 5.4615, "hrnet-readme": 8.991}
    rows = made.rows(
        made.row("fasterpose_r50", gmacs=4.04, cost_more=counted(lean)),
        made.row("simplebaseline_r50", gmacs=5.43, cost_more=counted(full)),
    )
    claim = {
        "text": "58 % fewer", "row": "fasterpose_r50", "against": "simplebaseline_r50", "quantity": "gflops",
        "measure": "percent_less", "printed": "58", "source": "abstract", "convention": "hrnet-readme",
    }  # fmt: skip
    (only,) = verdicts(verdict_table(spec(claims=(claim,)), rows), "% less")
    assert only["verdict"].text == "reproduced" and only["ours"].value == pytest.approx(58.1, abs=0.05)
    assert "macs 25.5" in only["how"].text and only["how"].text.startswith("hrnet-readme")
    (other,) = verdicts(verdict_table(spec(claims=({**claim, "convention": "macs"},)), rows), "% less")
    assert other["verdict"].text == "differs"
    vague = {**claim, "quantity": "ap", "measure": "more", "printed": "1.3", "unclear": "on which data"}
    (unclear,) = verdicts(verdict_table(spec(claims=(vague,)), rows), "AP (more)")
    assert (unclear["verdict"].text, unclear["how"].text) == ("not compared", "on which data")


def test_a_claim_may_compare_networks_of_images_and_of_persons_at_their_own_sizes(made):
    whole = made.row("maskrcnn_refined_r50", ap=0.7)
    whole["paradigm"], whole["cell"]["input_size"] = "one-stage", [800, 1333]
    rows = made.rows(whole, made.row("simplebaseline_r50", ap=0.6))
    claim = {
        "text": "more", "row": "maskrcnn_refined_r50", "against": "simplebaseline_r50", "quantity": "ap",
        "measure": "more", "printed": "10.0", "source": "abstract",
    }  # fmt: skip
    (only,) = verdicts(verdict_table(spec(claims=(claim,)), rows), "AP (more)")
    assert only["verdict"].text == "reproduced" and only["input"].text == "800x1333 and 256x192"


def test_the_table_keeps_the_rows_columns_and_order_of_the_suite(made):
    asked = spec(HRNET | {"input_h": "384"}, HRNET | {"input_h": "256"}, columns=("ap", "params_m"))
    table = paper_table(asked, made.rows(w32(made)))
    assert [c.key for c in table.columns][3:] == ["ap", "published_ap", "params_m", "published_params_m"]
    assert [row[2].text for row in table.rows] == ["384x288"] * 2 + ["256x192"] * 2
    assert table.title == "A table"


def test_a_figure_has_the_ap_of_the_suites_own_table_before_that_of_another_source(made):
    of_refined = {"source": "*maskrcnn_keypoint_refined*", "dataset": "COCO", "split": "val2017"}
    more = {"data": "coco_val2017", "more": det(), "gmacs": 5.4, "ap": 0.7}
    plain = made.row("simplebaseline_r50", protocol={"flip": False}, **more)
    flipped = made.row("simplebaseline_r50", **more)
    found = [paper_ap(spec(of_refined, columns=("ap",)), [row])(row) for row in made.rows(plain, flipped)]
    assert [ap.value for ap in found] == [68.9, 70.4]
    assert [published_ap(row) for row in made.rows(plain)] == [None]  # nobody else prints it without flip test


def test_a_pattern_on_an_unknown_column_or_on_nothing_is_refused(made):
    with pytest.raises(UserError, match="unknown column of results/published 'bakbone'") as caught:
        verdict_table(spec({"bakbone": "*"}), [])
    assert "backbone" in caught.value.hint
    with pytest.raises(UserError, match="no published row"):
        verdict_table(spec({"method": "Nobody"}), [])
    with pytest.raises(UserError, match="no published table"):
        paper_of({"suite": {"report": {"paper": {"rows": 3}}}})


def test_the_report_of_a_paper_suite_has_the_table_and_the_verdicts(made, tmp_path):
    paper = spec(HRNET, columns=("gflops", "ap")).model_dump(mode="json")
    files = write_report(made.store, made.manifest([w32(made)], paper=paper), tmp_path / "out", figures=False)
    names = {f.name for f in files}
    assert {"paper.csv", "paper.tex", "verdicts.csv", "verdicts.tex"} <= names
    page = (tmp_path / "out" / "report.md").read_text()
    assert "## A table" in page and "## Verdicts: A table" in page and "reproduced" in page
    table = verdict_table(PaperSpec.model_validate(paper), made.rows(w32(made)))
    assert "HRNet-official" in to_markdown(table) and "hrnet-readme" in to_csv(table)
