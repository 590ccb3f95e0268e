"""The ablation of a run: base row, differences, main effects, forest plot; from records only."""

from __future__ import annotations

from typing import Any

import pytest

from harness.records.store import Record
from reports.ablation import load_ablations, stems
from reports.canvas import save
from reports.forest import forest
from reports.formats import entry, to_console, to_csv, to_html, to_latex, to_markdown
from reports.report import ablation_tables, write_report
from reports.rows import load_rows


def estimate(value: float, p: float | None = 0.004) -> dict[str, Any]:
    bounds = (None, None) if p is None else (value - 0.005, value + 0.01)
    return {"value": value, "low": bounds[0], "high": bounds[1], "p": p, "p_holm": p}


def setting(value: float, base: float, changed: list[str], seeds=(0,), **levels: Any) -> dict[str, Any]:
    difference = estimate(value - base) if changed else None
    return {
        "levels": levels,
        "changed": changed,
        "seeds": list(seeds),
        "ap": estimate(value, None),
        "difference": difference,
    }


def effect(factor: str, level: Any, base: Any, value: float, over: int, p: float = 0.004) -> dict[str, Any]:
    return {"factor": factor, "level": level, "base": base, "over": over, "estimate": estimate(value, p)}


def effects_of(made, *lines: dict[str, Any]) -> str:
    result = {"lines": list(lines), "resamples": 500, "seed": 0}
    return made.store.put(Record.make("effects", {"lines": "made up"}, result)).id


@pytest.fixture
def one_factor(made):
    """A manifest: net with three decoders, one of them not scored."""
    rows = [
        made.row(
            f"net decoder={d}", variant="net", gmacs=2.0, ap=ap, swept={"decoder": d}, protocol={"flip": d != "dark"}
        )
        for d, ap in (("quarter", 0.70), ("argmax", 0.68), ("dark", None))
    ]
    rows[2]["reasons"] = {"accuracy": "out of memory"}
    known = [setting(0.70, 0.70, [], decoder="quarter"), setting(0.68, 0.70, ["decoder"], decoder="argmax")]
    line = {"line": 0, "ablation": {"settings": known, "effects": [effect("decoder", "argmax", "quarter", -0.02, 1)]}}
    return made.manifest(rows) | {"effects": effects_of(made, line)}


@pytest.fixture
def grid(made):
    """A manifest: decoder by flip."""
    aps = {("quarter", True): 0.70, ("quarter", False): 0.69, ("argmax", True): 0.68, ("argmax", False): 0.66}
    rows = [
        made.row(
            f"net decoder={d} flip={f}",
            variant="net",
            gmacs=2.0,
            ap=ap,
            swept={"decoder": d, "flip": f},
            protocol={"flip": f},
        )
        for (d, f), ap in aps.items()
    ]
    for row in rows:  # the accuracy of a flip test counts two forwards
        del row["records"]["accuracy"]
    settings = [
        setting(ap, 0.70, [n for n, same in (("decoder", d == "quarter"), ("flip", f)) if not same], decoder=d, flip=f)
        for (d, f), ap in aps.items()
    ]
    found = [effect("decoder", "argmax", "quarter", -0.025, 2), effect("flip", False, True, -0.015, 2, p=0.2)]
    line = {"line": 0, "ablation": {"settings": settings, "effects": found}}
    return made.manifest(rows) | {"effects": effects_of(made, line)}


def tables(made, manifest):
    return ablation_tables(made.store, manifest, load_rows(made.store, manifest))


def printed(table) -> list[list[str]]:
    return [[entry(v, c) for v, c in zip(row, table.columns, strict=True)] for row in table.rows]


def test_the_base_comes_first_and_each_row_says_what_it_changes(made, one_factor):
    (table,) = tables(made, one_factor)
    assert table.title == "Ablation of net"
    base, argmax, dark = printed(table)
    assert base == ["base: decoder=quarter", "70.0 [68.8, 71.2]", "–", "–", "4.000", "–"]
    assert argmax == ["decoder=argmax", "68.0 [66.8, 69.2]", "-2.00 [-2.50, -1.00]", "0.004", "4.000", "0.000"]
    assert dark == ["decoder=dark", "failed", "–", "–", "2.000", "-2.000"]


def test_a_row_without_ap_says_why(made, one_factor):
    (table,) = tables(made, one_factor)
    assert "out of memory" in [note.text for note in table.notes]
    assert any("over 1 differences" in r or "500 resamples" in r for r in table.remarks)


def test_differences_in_one_factor_are_its_main_effects_and_are_not_told_twice(made, one_factor):
    (table,) = tables(made, one_factor)
    assert any("main effect" in remark for remark in table.remarks)


def test_a_grid_has_its_main_effects_beside_the_ablation(made, grid):
    ablation, effects = tables(made, grid)
    assert [row[0] for row in printed(ablation)] == [
        "base: decoder=quarter, flip=yes", "flip=no", "decoder=argmax", "decoder=argmax, flip=no",
    ]  # fmt: skip
    assert [row[5] for row in printed(ablation)] == ["–", "-2.000", "0.000", "-2.000"]
    assert printed(effects) == [
        ["decoder", "argmax", "quarter", "-2.50 [-3.00, -1.50]", "0.004", "2 settings of the others"],
        ["flip", "no", "yes", "-1.50 [-2.00, -0.50]", "0.200", "2 settings of the others"],
    ]


def test_several_seeds_make_one_row_with_the_mean_of_the_effects_record(made):
    rows = []
    for loss in ("mse", "rce"):
        for seed in (0, 1):
            row = made.row(
                f"net loss={loss}", gmacs=1.0, ap=0.6 + 0.01 * seed, swept={"loss": loss}, more={"run": f"{loss}{seed}"}
            )
            row["cell"]["seed"] = seed
            rows.append(row)
    known = [setting(0.605, 0.605, [], (0, 1), loss="mse"), setting(0.625, 0.605, ["loss"], (0, 1), loss="rce")]
    line = {"line": 0, "ablation": {"settings": known, "effects": [effect("loss", "rce", "mse", 0.02, 1)]}}
    manifest = made.manifest(rows) | {"effects": effects_of(made, line)}
    manifest["suite"]["train"] = {"recipe": "quick", "epochs": 5, "limit": 600}
    (table,) = tables(made, manifest)
    assert [row[1] for row in printed(table)] == ["60.5", "62.5"]
    remarks = " ".join(table.remarks)
    assert "images and 2 training seeds" in remarks and "recipe quick, 5 epochs" in remarks and "rough" in remarks


def test_every_format_takes_the_tables(made, grid):
    for table in tables(made, grid):
        assert table.title in to_markdown(table) and "quarter" in to_html(table) and "quarter" in to_latex(table)
        assert "'-" not in to_csv(table).split("\n")[2]
        to_console(table)


def test_the_report_holds_tables_files_and_the_plot(made, grid, tmp_path):
    names = [file.name for file in write_report(made.store, grid, tmp_path / "a")]
    assert {
        "ablation.csv",
        "ablation.tex",
        "effects.csv",
        "effects.tex",
        "forest.png",
        "forest.svg",
        "forest.pdf",
    } < set(names)
    page = (tmp_path / "a" / "report.md").read_text()
    assert "## Ablation of net" in page and "## Main effects of net" in page and "![effects](forest.png)" in page
    write_report(made.store, grid, tmp_path / "b")
    assert all((tmp_path / "a" / n).read_bytes() == (tmp_path / "b" / n).read_bytes() for n in names)


def test_a_run_without_an_ablation_has_none_of_it(made, tmp_path):
    manifest = made.manifest([made.row("net", gmacs=1.0, ap=0.6)])
    for effects in (None, "../../secret", "0" * 16, 7):
        names = [f.name for f in write_report(made.store, manifest | {"effects": effects}, tmp_path, figures=False)]
        assert names == ["report.md", "table.csv", "table.tex"]


def test_a_base_without_ap_leaves_the_rows_and_says_so(made):
    rows = [made.row(f"net k={k}", gmacs=1.0, ap=ap, swept={"k": k}) for k, ap in ((1, None), (2, 0.6))]
    manifest = made.manifest(rows) | {"effects": effects_of(made, {"line": 0, "ablation": None})}
    (table,) = tables(made, manifest)
    assert table.rows[1][2].reason == "the base has no AP" and "60.0" in printed(table)[1][1]
    assert forest(load_ablations(made.store, manifest, load_rows(made.store, manifest))) is None


def test_two_lines_are_two_ablations_with_files_of_their_own(made):
    rows = []
    for line, name in enumerate(("one", "two")):
        for k, ap in ((1, 0.5), (2, 0.6)):
            row = made.row(f"{name} k={k}", gmacs=1.0, ap=ap, swept={"k": k})
            row["cell"]["line"] = line
            rows.append(row)
    known = {
        "settings": [setting(0.5, 0.5, [], k=1), setting(0.6, 0.5, ["k"], k=2)],
        "effects": [effect("k", 2, 1, 0.1, 1)],
    }
    manifest = made.manifest(rows) | {"effects": effects_of(made, *({"line": n, "ablation": known} for n in (0, 1)))}
    found = load_ablations(made.store, manifest, load_rows(made.store, manifest))
    assert [(stem, table.title) for stem, table in stems(found)] == [
        ("ablation", "Ablation of one"), ("ablation_2", "Ablation of two"),
    ]  # fmt: skip
    axes = forest(found).axes[0]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["k: 2 instead of 1"] * 2


def test_the_plot_fills_what_is_significant_and_draws_each_interval(made, grid):
    figure = forest(load_ablations(made.store, grid, load_rows(made.store, grid)))
    axes = figure.axes[0]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([-2.5, -1.5])
    assert [line.get_markerfacecolor() == "white" for line in points] == [False, True]
    bars = [line.get_xdata() for line in axes.lines if line.get_marker() == "None" and len(set(line.get_xdata())) == 2]
    assert [list(b) for b in bars] == [pytest.approx([-3.0, -1.5]), pytest.approx([-2.0, -0.5])]
    assert save(figure)["png"].startswith(b"\x89PNG")
