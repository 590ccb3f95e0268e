"""The report folder: its files, their bytes, and that everything stays inside."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reports.report import write_report


def full(made):
    return [
        made.row("hrnet_w32", gmacs=7.1, ap=0.744, ms={1: 95.0}),
        made.row("vitpose_b", method="vitpose", gmacs=17.0, ap=0.758, ms={1: 150.0}),
        made.row("vitpose_l", method="vitpose", gmacs=60.0, reasons={"accuracy": "no weights"}),
    ]


def test_a_report_is_a_page_two_tables_and_the_figures(made, tmp_path):
    files = write_report(made.store, made.manifest(full(made)), tmp_path / "out")
    stems = ["ap_vs_gmacs", "ap_vs_latency"]
    expected = ["report.md", "table.csv", "table.tex", *(f"{s}.{k}" for s in stems for k in ("png", "svg", "pdf"))]
    assert [f.name for f in files] == expected and all(f.stat().st_size for f in files)
    assert {p.name for p in (tmp_path / "out").iterdir()} == set(expected)
    page = files[0].read_text()
    for part in (
        "# demo",
        "A demo.",
        "paretopose run demo.yaml",
        "![ap vs gmacs](ap_vs_gmacs.png)",
        "A CPU @ 2 GHz",
        "pycocotools",
    ):
        assert part in page


def test_the_same_records_give_the_same_bytes(made, tmp_path):
    manifest = made.manifest(full(made))
    first = write_report(made.store, manifest, tmp_path / "a")
    second = write_report(made.store, manifest, tmp_path / "b")
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_without_an_ap_there_is_no_figure_and_the_page_says_so(made, tmp_path):
    rows = [made.row("a", gmacs=1.0, reasons={"accuracy": "no weights"})]
    files = write_report(made.store, made.manifest(rows), tmp_path / "out")
    assert [f.name for f in files] == ["report.md", "table.csv", "table.tex"]
    assert "No figure: no row has both an AP and a cost." in files[0].read_text()


def test_figures_can_be_left_out(made, tmp_path):
    files = write_report(made.store, made.manifest(full(made)), tmp_path / "out", figures=False)
    assert len(files) == 3 and "No figure" not in files[0].read_text()


def test_hostile_names_stay_text_and_inside_the_folder(made, tmp_path):
    name = "../../<script>alert(1)</script>\n# $x_1 & %"
    manifest = made.manifest([made.row(name, method=name, gmacs=1.0, ap=0.5)], title=name)
    manifest["command"], manifest["suite"]["description"] = f"`{name}`", name
    before = {p for p in tmp_path.rglob("*") if "out" not in p.parts}
    page = write_report(made.store, manifest, tmp_path / "out")[0].read_text()
    assert {p for p in tmp_path.rglob("*") if "out" not in p.parts} == before
    text = "".join(part for i, part in enumerate(page.split("`")) if i % 2 == 0)  # a code span shows what it holds
    assert "<script" not in text and "\n# $" not in page


def test_published_figures_are_beside_ours_where_the_suite_asks(made, tmp_path):
    rows = [made.row("hrnet_w32", gmacs=7.1, ap=0.76, data="coco_val2017")]
    (page, *_) = write_report(made.store, made.manifest(rows, published=True), tmp_path / "a", figures=False)
    assert "| published AP | difference |" in page.read_text() and "76.5" in page.read_text()


def test_work_grows_with_the_rows_and_not_with_their_square(made, tmp_path):
    shared = [made.row(f"net_{i}", gmacs=1.0 + i, ap=0.5 + i / 100) for i in range(20)]

    def calls(count: int) -> int:
        manifest = made.manifest([shared[i % 20] | {"label": f"row {i}"} for i in range(count)])
        total = 0

        def counted(frame, event, argument):
            nonlocal total
            total += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            write_report(made.store, manifest, tmp_path / str(count), figures=False)
        finally:
            sys.setprofile(None)
        return total

    assert calls(800) < 9 * calls(100)


@pytest.mark.slow
def test_the_latex_table_compiles(made, tmp_path):
    compiler = shutil.which("pdflatex")
    if compiler is None:
        pytest.skip("no pdflatex here")
    rows = [*full(made), made.row("<b> $x_1 & % # ~ ^ \\ {} [é ï] Łukasz Dvořák 日本 'q' \"q\" –", gmacs=1.0)]
    write_report(made.store, made.manifest(rows), tmp_path / "out", figures=False)
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=Path(tmp_path / "out"), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
