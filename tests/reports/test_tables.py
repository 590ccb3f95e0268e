"""The table: which columns there are, what stands in them, and what stands below."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from harness.errors import UserError
from harness.records.store import Record
from reports.footnotes import general_notes
from reports.model import Value
from reports.rows import load_rows
from reports.tables import build_table, to_console, to_csv, to_html, to_latex, to_markdown

HOSTILE = "<script>alert(1)</script> $x_1 & % ../../ | `a` \\input{x} \x1b[31m\n# head ![i](j)"


def column(table, key):
    return [row[[c.key for c in table.columns].index(key)] for row in table.rows]


def keys(table):
    return [c.key for c in table.columns]


def read_csv(table):
    return list(csv.DictReader(io.StringIO(to_csv(table))))


def test_ap_is_printed_times_100_with_its_interval_and_gflops_are_twice_gmacs(made):
    table = build_table(made.rows(made.row("hrnet_w32", gmacs=7.1, ap=0.744)))
    assert "74.4 [73.2, 75.6]" in to_markdown(table)
    (row,) = read_csv(table)
    assert (float(row["ap"]), float(row["ap_low"]), float(row["ap_high"])) == (74.4, 73.2, 75.6)
    assert (float(row["gmacs"]), float(row["gflops"]), float(row["params_m"])) == (7.1, 14.2, 34.0)


def test_a_cost_that_depends_on_the_person_is_a_mean_with_sd_and_percentiles(made):
    rows = made.rows(made.row("sharpose_s", gmacs=5.0, ap=0.7, sd=0.8, cost_more={"trace": {"exit": [1]}}))
    table = build_table(rows)
    assert "5.00 ± 0.80 (3.80 to 6.36)" in to_markdown(table)
    (row,) = read_csv(table)
    assert [float(row[f"gmacs{n}"]) for n in ("", "_sd", "_p5", "_p95")] == [5.0, 0.8, 3.8, 6.36]
    assert "5th to 95th percentile" in to_markdown(table)


def test_a_rounding_error_in_the_sd_makes_no_cost_vary(made):
    table = build_table(made.rows(made.row("a", gmacs=5.0, ap=0.7, sd=1e-15)))
    assert column(table, "gmacs")[0] == Value(value=5.0) and "±" not in to_markdown(table)


def test_the_cost_of_a_threshold_at_which_everybody_leaves_early_is_that_of_the_early_exit(made):
    row = made.row("sharpose_s", gmacs=2.0, ap=0.7)
    row["records"]["cost"] = made.put("cost", "everybody", {"gmacs": 5.0, "trace": {"exit": [1]}})
    assert column(build_table(made.rows(row)), "gmacs")[0] == Value(value=2.0)


def test_a_median_of_few_samples_says_that_it_has_no_interval(made):
    row = made.row("a", gmacs=1.0)
    result = made.latency(9.0, 1)
    result |= {"warmed_up": False, "median": {"value": 9.0, "low": None, "high": None, "reason": "5 samples"}}
    row["records"]["latency_b1"] = made.put("latency", "a", result)
    entry = column(build_table(made.rows(row)), "latency_b1_ms")[0]
    assert (entry.value, entry.low, entry.note) == (9.0, None, "5 samples; the warm-up did not become stationary")


def test_a_dynamic_cost_without_scored_persons_says_that_it_was_counted_on_noise(made):
    table = build_table(made.rows(made.row("sharpose_s", gmacs=5.0, cost_more={"trace": {"exit": [1]}})))
    assert column(table, "gmacs")[0].value == 5.0
    assert "noise image" in to_markdown(table)


def test_a_flip_test_doubles_the_cost_of_a_pose_and_not_that_of_a_forward(made):
    rows = made.rows(
        made.row("a", gmacs=3.0, ap=0.5), made.row("b", gmacs=4.0), made.row("c", gmacs=5.0, protocol={"flip": False})
    )
    table = build_table(rows)
    assert [v.value for v in column(table, "gmacs")] == [3.0, 4.0, 5.0]
    assert [v.value for v in column(table, "gmacs_per_pose")] == [6.0, 8.0, 5.0]


def test_parameters_that_only_training_uses_get_a_column_of_their_own(made):
    plain = build_table(made.rows(made.row("a", gmacs=1.0)))
    table = build_table(made.rows(made.row("b", gmacs=1.0, cost_more={"trained_only": 2_500_000})))
    assert "params_train_only_m" not in keys(plain)
    assert (column(table, "params_m")[0].value, column(table, "params_train_only_m")[0].value) == (34.0, 2.5)


def test_a_missing_value_says_why_and_is_never_a_number(made):
    rows = made.rows(
        made.row("a", gmacs=1.0, ap=0.7),
        made.row("b", gmacs=1.0, reasons={"accuracy": "no weights"}),
        made.row("c", reasons={"cost": "Disagreement: 3\n  to do: look", "accuracy": "no data (--data coco=PATH)"}),
        made.row("d", gmacs=1.0, ap=0.7, more={"stats": {"AP": {"value": None, "interval": None}}}),
    )  # fmt: skip
    table = build_table(rows)
    assert [v.text for v in column(table, "ap")] == ["", "no weights", "no data", "n/a"]
    assert column(table, "gmacs")[2].text == "failed"
    text = to_markdown(table)
    assert "Disagreement: 3; to do: look" in text and "no data (--data coco=PATH)" in text
    assert [row["ap"] for row in read_csv(table)] == ["70.0", "", "", ""]
    assert "AP: no weights" in read_csv(table)[1]["notes"]
    assert "nan" not in to_csv(table).lower() and "None" not in text


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), True, "7"])
def test_what_is_no_finite_number_is_not_available(value):
    assert Value.number(value).value is None and Value.number(value).text == "n/a"


def test_a_statistic_that_is_undefined_carries_the_reason_of_its_record(made):
    table = build_table(made.rows(made.row("a", gmacs=1.0, ap=0.7)))
    assert column(table, "apm")[0].reason == "no person of medium size"
    assert "no person of medium size" in to_markdown(table)
    assert "no person of medium size" not in to_markdown(table.narrow(1))


def test_protocol_fields_become_columns_only_where_rows_differ(made):
    same = build_table(made.rows(made.row("a", gmacs=1.0, ap=0.7), made.row("b", gmacs=1.0, ap=0.7)))
    mixed = build_table(
        made.rows(
            made.row("a", gmacs=1.0, ap=0.7),
            made.row("b", gmacs=1.0, ap=0.7, protocol={"flip": False, "decoder": "argmax"}),
        )
    )
    assert not [k for k in keys(same) if k.startswith("protocol")]
    assert "decoder quarter" in to_markdown(same)
    assert [v.text for v in column(mixed, "protocol_flip")] == ["yes", "no"]
    assert [v.text for v in column(mixed, "protocol_decoder")] == ["quarter", "argmax"]
    assert "decoder quarter" not in to_markdown(mixed)


def test_latency_has_a_column_for_each_batch_size_and_states_its_protocol(made):
    table = build_table(made.rows(made.row("a", gmacs=1.0, ms={32: 90.0, 1: 10.0})))
    assert [k for k in keys(table) if k.endswith("_ms") and "p9" not in k] == ["latency_b1_ms", "latency_b32_ms"]
    text = to_markdown(table)
    for part in (
        "10.0 [9.0, 12.0]",
        "inside the timer: network",
        "A CPU @ 2 GHz",
        "threads: 2",
        "float32",
        "of 32 persons",
    ):
        assert part in text


def test_refined_share_is_there_for_methods_with_exits_only(made):
    exits = made.row("s", gmacs=1.0, ap=0.7, more={"refined_share": 0.42, "quality_threshold": 0.9})
    table = build_table(made.rows(exits, made.row("a", gmacs=1.0, ap=0.7)))
    assert column(table, "refined_percent")[0].value == 42.0
    assert column(table, "refined_percent")[1].reason == "it has one exit"
    assert "refined_percent" not in keys(build_table(made.rows(made.row("a", gmacs=1.0, ap=0.7))))


def test_people_are_spared_columns_that_tell_nothing_and_a_spreadsheet_is_not(made, capsys):
    slow, fast = made.row("slow", gmacs=1.0, ap=0.7, ms={1: 10.0}), made.row("fast", gmacs=1.0, ap=0.7, ms={1: 5.0})
    table = build_table(made.rows(slow, fast))
    assert {"apm", "latency_b1_p90_ms", "ratio_b1"} <= set(keys(table)) and "latency_b1_p90_ms_low" in to_csv(table)
    assert not {"apm", "latency_b1_p90_ms", "ratio_b1"} & set(keys(table.telling()))
    assert {"ap", "ap50", "latency_b1_ms"} <= set(keys(table.telling()))
    to_console(table)
    for text in (capsys.readouterr().out, to_latex(table)):
        assert "p90" not in text and "70.0" in text


def test_an_ap_that_nobody_has_keeps_its_column_and_a_zero_stands_where_another_row_has_a_number(made):
    none = build_table(made.rows(made.row("a", gmacs=1.0, reasons={"accuracy": "no weights"}))).telling()
    assert [v.text for v in column(none, "ap")] == ["no weights"]
    some = made.rows(made.row("a", gmacs=1.0), made.row("b", gmacs=1.0, cost_more={"trained_only": 62_832}))
    text = to_markdown(build_table(some).telling())
    assert "| 0 |" in text and "| 0.0628 |" in text and "0.0000" not in text


def test_a_short_note_stands_beside_the_name_and_a_long_one_below(made):
    table = build_table(
        made.rows(
            made.row("f", note="reconstruction", gmacs=1.0),
            made.row("t", note="not a published network, " * 2, gmacs=1.0),
        )
    )
    assert column(table, "method")[0].text == "f (reconstruction)"
    assert column(table, "method")[1].text == "t" and "<sup>a</sup> not a published network" in to_markdown(table)


def test_columns_of_what_was_not_asked_for_are_not_there(made):
    assert keys(build_table(made.rows(made.row("a", gmacs=1.0)))) == ["method", "input", "params_m", "gmacs", "gflops"]
    assert build_table([]).rows == ()


def test_one_of_a_thing_is_singular_below_a_table(made):
    one = {
        "images": 1, "persons": 1, "judge": {"name": "pycocotools", "version": "2", "images": 1, "sampled": True},
        "bootstrap": {"resamples": 1, "seed": 0},
    }  # fmt: skip
    text = to_markdown(build_table(made.rows(made.row("a", gmacs=1.0, ap=0.7, ms={1: 5.0}, more=one))))
    for words in ("(1 image, 1 person)", "1 resample,", "a sample of 1 image,", "one call of 1 person,"):
        assert words in text


@pytest.mark.parametrize(
    ("skipped", "told"),
    [
        ([(0, 0), (0, 0)], ""),
        ([(1, 1), (1, 1)], "1 image file is missing; 1 person box was skipped with it."),
        ([(2, 5), (2, 5)], "2 image files are missing; 5 person boxes were skipped with them."),
        (
            [(0, 0), (2, 5)],
            "0 to 2 image files are missing; 0 to 5 person boxes were skipped with them (fewest to most of a row).",
        ),
        ([(3, None), (3, None)], "3 image files are missing."),  # one-stage: no boxes
        ([(None, 5), (None, 5)], "5 person boxes were skipped, their image files are missing."),  # older records
    ],
)
def test_missing_image_files_and_their_boxes_are_counted_below_a_table(made, skipped, told):
    rows = []
    for name, (images, boxes) in zip("ab", skipped, strict=True):
        counts = {"skipped_images": images, "skipped_boxes": boxes}
        result = {"evaluator": "coco", "stats": {}, **{k: n for k, n in counts.items() if n is not None}}
        rows.append(made.row(name))
        rows[-1]["records"]["accuracy"] = made.put("accuracy", name, result)
    notes = [n for n in general_notes(made.rows(*rows), ["ap"]) if "missing" in n or "skipped" in n]
    assert notes == ([told] if told else [])


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)


def test_a_hostile_name_is_only_text_in_every_format(made, capsys):
    row = made.row(HOSTILE, note="=1+1", gmacs=1.0, reasons={"accuracy": HOSTILE})
    table = build_table(made.rows(row), title=HOSTILE)
    seen = Tags()
    seen.feed(to_html(table))
    assert seen.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "sup", "p"}
    markdown = to_markdown(table)
    assert "<script" not in markdown and "![" not in markdown.replace("!\\[", "") and "\n# head" not in markdown
    assert len({line.replace("\\|", "").count("|") for line in markdown.splitlines() if line.startswith("|")}) == 1
    latex = to_latex(table)
    assert r"\textbackslash{}input\{x\}" in latex and r"\$x\_1 \& \%" in latex and r"\input{" not in latex
    to_console(table)
    assert "\x1b" not in capsys.readouterr().out + markdown + latex + to_csv(table) + to_html(table)


def test_a_name_that_a_spreadsheet_would_run_is_quoted(made):
    assert read_csv(build_table(made.rows(made.row("=cmd()", gmacs=1.0))))[0]["method"] == "'=cmd()"


def test_latex_has_letters_with_accents_and_the_code_of_what_it_has_not(made):
    text = to_latex(build_table(made.rows(made.row("Dvořák nai\u0308ve ß ế 姿", gmacs=1.0))))
    assert r"Dvo\v{r}\'{a}k na\"{\i}ve {\ss} (U+1EBF) (U+59FF)" in text


def test_latex_prints_an_interval_as_plus_minus(made):
    even, odd = made.row("a", gmacs=1.0, ap=0.744), made.row("b", gmacs=1.0, ap=0.7, ms={1: 10.0})
    text = to_latex(build_table(made.rows(even, odd)))
    assert r"$74.4 \pm 1.2$" in text and r"$10.0_{-1.0}^{+2.0}$" in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1 and r"\textbf" not in text
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len({line.replace(r"\&", "").count("&") for line in body}) == 1


def test_a_pipe_gets_the_whole_table_on_lines_that_do_not_wrap(made, capsys):
    to_console(build_table(made.rows(made.row("hrnet_w32 " + "x=1 " * 60, gmacs=7.1, ap=0.744))))
    lines = capsys.readouterr().out.splitlines()
    assert any("hrnet_w32" in line and "74.4 [73.2, 75.6]" in line for line in lines)


def test_json_names_columns_rows_and_records(made):
    row = made.row("a", gmacs=1.0, ap=0.7)
    found = json.loads(json.dumps(build_table(made.rows(row)).to_json(), allow_nan=False))
    assert found["rows"][0]["ap"] == {"value": 70.0, "low": 68.8, "high": pytest.approx(71.2)}
    assert found["rows"][0]["records"] == [f"cost-{row['records']['cost']}", f"accuracy-{row['records']['accuracy']}"]


@pytest.mark.parametrize("identity", ["../../etc/passwd", "0" * 16, "", "A" * 16])
def test_a_record_that_is_not_in_the_store_is_a_reason_and_nothing_else_is_touched(made, identity, tmp_path):
    outside = tmp_path / "cost-outside.json"
    outside.write_text("keep me")
    row = made.row("a") | {"records": {"cost": identity, "../x": "0" * 16, "accuracy": f"/../../../{outside.stem}"}}
    (loaded,) = made.rows(row)
    assert not loaded.records and "the store has no record" in loaded.reasons["cost"]
    assert outside.read_text() == "keep me"


@pytest.mark.parametrize(
    "manifest", [{}, {"rows": [{"label": 1}]}, {"rows": "x"}, {"rows": [{"label": "a", "cell": {}}]}]
)
def test_what_is_no_manifest_is_a_user_error_that_names_the_field(made, manifest):
    with pytest.raises(UserError, match="no run manifest: rows"):
        load_rows(made.store, manifest)


def test_published_figures_are_compared_only_under_the_same_boxes_and_images(made):
    rows = made.rows(
        made.row("a", variant="hrnet_w32", ap=0.76, data="coco_val2017"),
        made.row("b", variant="hrnet_w32", ap=0.75, data="coco_val2017", more={"box_source": "det.json (sha 1)"}),
        made.row("c", variant="hrnet_w32", ap=0.74),
        made.row("vitpose_b", gmacs=17.0, ap=0.758, data="coco_val2017", protocol={"decoder": "udp_dark"}),
        made.row("nobody", gmacs=7.1, ap=0.74),
    )
    table = build_table(rows, published=True)
    ours, difference = column(table, "published_ap"), column(table, "published_difference")
    assert (ours[0].value, round(difference[0].value, 6)) == (76.5, -0.5)
    assert difference[1].value == pytest.approx(75.0 - ours[1].value) and ours[1].value != 76.5
    assert difference[2].value is None and "other images" in difference[2].reason
    assert difference[3].text == "boxes differ" and "detections in the source" in difference[3].reason
    assert ours[4].value is None and "HRNet-official" in to_markdown(table)


def test_a_published_ap_with_flip_test_is_no_match_for_a_row_without(made):
    boxes = {"box_source": "d.json"}
    rows = made.rows(
        made.row("yes", variant="hrnet_w32", ap=0.74, data="coco_val2017", more=boxes),
        made.row("no", variant="hrnet_w32", ap=0.74, data="coco_val2017", more=boxes, protocol={"flip": False}),
    )
    yes, no = column(build_table(rows, published=True), "published_difference")
    assert yes.value == pytest.approx(74 - 74.4)
    assert no.text == "flip differs" and no.reason == "flip test: no here, the other way in the source"


@pytest.mark.parametrize(("p", "told"), [(0.01, True), (0.05, False), (None, False)])
def test_the_best_ap_is_bold_only_where_paired_tests_tell_it_from_every_other(made, p, told):
    rows = [made.row("a", gmacs=1.0, ap=0.7), made.row("b", gmacs=2.0, ap=0.75), made.row("c", gmacs=3.0, ap=0.6)]
    others = [{"value": 0.05, "low": 0.01, "high": 0.09, "p": 0.001, "p_holm": value} for value in (p, 0.003)]
    key = {"lines": [], "rows": [row["records"]["accuracy"] for row in rows]}
    result = {"lines": [], "lead": {"best": 1, "differences": others}}
    record = made.store.put(Record.make("effects", key, result))
    table = build_table(load_rows(made.store, made.manifest(rows) | {"effects": record.id}))
    assert [value.bold for value in column(table, "ap")] == [False, told, False]
    assert (r"\textbf" in to_latex(table)) is told and ("**75.0" in to_markdown(table)) is told
    assert any("Bold AP" in remark for remark in table.remarks) is told


def test_the_published_ap_is_that_of_the_same_decoder(made):
    rows = [
        made.row(f"hrnet_w32 {d}", variant="hrnet_w32", ap=0.74, protocol={"decoder": d}, more={"box_source": "d.json"})
        for d in ("quarter", "argmax", "dark", "soft_argmax")
    ]
    table = build_table(made.rows(*rows), published=True)
    assert [v.value for v in column(table, "published_ap")] == [74.4, 72.3, 75.7, None]


def test_the_published_ap_of_a_network_for_whole_images_does_not_ask_for_an_input_size(made):
    found = made.row("maskrcnn_refined_r50", ap=0.67, data="coco_val2017", more={"box_source": "own"})
    found["paradigm"] = "one-stage"
    stated = made.row("simplebaseline_r50", ap=0.67, data="coco_val2017", more={"box_source": "d.json"})
    table = build_table(made.rows(found, stated), published=True)
    assert column(table, "published_ap")[0].value == 68.1
    assert column(table, "published_difference")[0].value == pytest.approx(67 - 68.1)
    assert column(table, "published_ap")[1].value != 68.9  # its source does not state the input size


def test_the_table_does_without_torch():
    code = (
        "import sys, reports.report, reports.families, reports.strips, harness.cli.report, harness.records.frame; "
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
