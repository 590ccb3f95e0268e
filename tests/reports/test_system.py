"""The cost of a whole image in a report: lines, crossings and the figure, from one record."""

from __future__ import annotations

import pytest

from harness.records.store import Record
from reports.canvas import save
from reports.formats import to_csv, to_markdown
from reports.report import write_report
from reports.system import crossing_table, system_table, system_tables
from reports.system_figure import system_figure


def line(fixed, each, persons=2.5):
    return {"fixed": fixed, "each": each, "typical": fixed + each * persons}


def result(**more):
    lines = [
        {"label": "maskrcnn_r50", "paradigm": "one-stage", "gmacs": line(211, 3.5), "ms": line(70, 3), "parts": {}},
        {
            "label": "simplebaseline_r50", "paradigm": "top-down", "gmacs": line(140, 5.4),
            "ms": {"reason": "not timed"}, "parts": {"crop_share": 0.031},
        },
    ]  # fmt: skip
    crossings = [
        {
            "one_stage": "maskrcnn_r50",
            "top_down": "simplebaseline_r50",
            "gmacs": {"verdict": "from", "persons": 37.4},
            "ms": {
                "verdict": "from", "persons": 12.04, "low": 9.5, "high": None,
                "shares": {"from": 0.9, "never": 0.1, "always": 0, "up to": 0}, "resamples": 1000,
            },
        }
    ]  # fmt: skip
    return {
        "detector": {"name": "yolo_x", "gmacs": 140},
        "latency": {"name": "latency_b1", "scope": "network"},
        "persons_per_image": 2.5,
        "rows": lines,
        "crossings": crossings,
        **more,
    }


def record(**more) -> Record:
    return Record.make("system", {"of": "a test", **{k: str(v) for k, v in more.items()}}, result(**more))


def test_the_lines_and_the_detector_are_told():
    text = to_markdown(system_table(record()))
    assert "| maskrcnn_r50 | one-stage | 211.00 | 3.50 | 219.8 | 70.00 | 3.00 | 77.5 |" in text
    assert "not timed" in text and "yolo_x" in text and "3.1 % of a top-down person's milliseconds" in text
    free = to_markdown(system_table(record(detector=None)))
    assert "their boxes are given" in free


def test_a_crossing_has_its_interval_or_its_verdict():
    shown = crossing_table(record())
    text = to_markdown(shown)
    assert "37.4" in text and "12.0" in text and "never in 10 % of the resamples" in text
    assert "37.4" in to_csv(shown)
    for verdict, persons, words in (
        ("always", None, "always"),
        ("never", None, "never"),
        ("up to", 9.0, "only up to 9.0"),
    ):
        pair = {**result()["crossings"][0], "gmacs": {"verdict": verdict, "persons": persons}}
        assert words in to_markdown(crossing_table(record(crossings=[pair])))


def test_the_figure_has_a_panel_for_each_unit_and_is_the_same_twice():
    figure = system_figure(record())
    assert len(figure.axes) == 2 and figure.axes[0].get_xlim()[1] > 37.4
    texts = {t.get_text() for legend in figure.legends for t in legend.get_texts()}
    assert {"maskrcnn_r50", "simplebaseline_r50"} <= texts
    assert save(figure)["png"] == save(system_figure(record()))["png"]
    bare = [{**row, "ms": {"reason": "no"}} for row in result()["rows"]]
    assert len(system_figure(record(rows=bare)).axes) == 1
    nothing = [{**row, "gmacs": {"reason": "no"}} for row in bare]
    assert system_figure(record(rows=nothing)) is None


def test_the_lines_are_told_apart_without_colour():
    rows = result()["rows"]
    figure = system_figure(
        record(rows=[rows[0], *({**rows[1], "label": f"network_{n}"} for n in range(6))], crossings=[])
    )
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 2]
    assert len(lines) == 7 == len({line.get_marker() for line in lines})


def test_of_many_rows_the_figure_draws_the_first_of_each_network():
    one, two = result()["rows"][:2]
    swept = [{**two, "label": f"{two['label']} alpha={n}"} for n in range(12)]
    figure = system_figure(record(rows=[one, *swept], crossings=[]))
    texts = {t.get_text() for legend in figure.legends for t in legend.get_texts()}
    assert texts == {one["label"], swept[0]["label"], "persons on an average image"}
    assert "first row of each network" in figure.axes[0].get_xlabel()


def test_a_run_of_both_paradigms_reports_its_systems(made, tmp_path):
    rows = [
        made.row("maskrcnn_r50", gmacs=200.0, ap=0.6, data="coco"),
        made.row("simplebaseline_r50", gmacs=5.4, ap=0.7, data="coco"),
    ]
    rows[0]["paradigm"], rows[1]["paradigm"] = "one-stage", "top-down"
    manifest = made.manifest(rows)
    manifest["system"] = made.store.put(record()).id
    names = {file.name for file in write_report(made.store, manifest, tmp_path)}
    assert {"system.csv", "crossings.csv", "system.png", "system.pdf"} <= names
    page = (tmp_path / "report.md").read_text()
    assert "## Cost of a whole image" in page and "![system](system.png)" in page
    assert "gmacs of a whole image with all its persons" in page
    manifest["system"] = "../../etc/passwd"
    assert "system.csv" not in {file.name for file in write_report(made.store, manifest, tmp_path / "b")}


def test_a_run_of_one_paradigm_has_no_systems(made):
    assert system_tables(None) == {}


@pytest.mark.parametrize("source", ["ground-truth", {"from": "maskrcnn_r50"}])
def test_the_source_of_the_boxes_is_readable_without_a_score(made, source):
    from reports.quantities import boxes

    row = made.row("simplebaseline_r50", gmacs=5.4)
    row["cell"]["data"]["boxes"] = source
    text = boxes(made.rows(row)[0]).text
    assert text == ("ground-truth" if source == "ground-truth" else "of maskrcnn_r50")
