"""What a report tells of a latency record beside its milliseconds, and the figure of its samples."""

from __future__ import annotations

import pytest

from harness.cost.roofline import IMPOSSIBLE
from reports.canvas import save
from reports.report import write_report
from reports.strips import latency_distributions
from reports.tables import build_table

PEAK = {"gemm": 40.0, "convolution": 60.0, "dtype": "float32", "device": "cpu", "threads": 2}


@pytest.fixture
def timed(made):
    """timed(ms, ...) -> a row whose latency record holds samples and what stands beside them."""

    def row(label, times, starved=(), batch=1, **more):
        result = made.latency(sorted(times)[len(times) // 2], batch)
        result["samples"] = [
            {"round": i, "wall_ms": t, "cpu_ms": t, "starved": i in starved} for i, t in enumerate(times)
        ]
        line = {"gmacs_per_second": 12.0, "share": 0.2, "peaks": [PEAK], "warning": "", "reason": ""}
        result |= {
            "peak_memory_mb": 12.5,
            "memory": {"reason": ""},
            "energy": {"joules_per_call": None, "reason": "the system has no RAPL counter"},
            "roofline": line,
            **more,
        }
        found = made.row(label, gmacs=1.0)
        found["records"][f"latency_b{batch}"] = made.put("latency", label, result, batch=batch)
        return found

    return row


def _entry(table, key):
    (row,) = table.to_json()["rows"]
    return row[key]


def test_the_full_table_has_memory_share_and_energy_or_the_reason(made, timed):
    table = build_table(made.rows(timed("one", [10.0, 11.0, 12.0])))
    assert _entry(table, "peak_memory_mb_b1")["value"] == 12.5
    assert _entry(table, "peak_share_percent_b1")["value"] == pytest.approx(20.0)
    assert _entry(table, "joules_b1") == {
        "value": None, "text": "n/a", "reason": "the system has no RAPL counter",
    }  # fmt: skip
    keys = {c.key for c in table.narrow(1).columns}
    assert "latency_b1_ms" in keys and not keys & {"peak_memory_mb_b1", "peak_share_percent_b1", "joules_b1"}
    assert any("convolution 60" in note.text for note in table.notes)


def test_an_impossible_rate_is_a_footnote_of_the_milliseconds(made, timed):
    line = {"gmacs_per_second": 90.0, "share": 1.5, "peaks": [PEAK], "warning": IMPOSSIBLE, "reason": ""}
    table = build_table(made.rows(timed("one", [10.0, 11.0, 12.0], roofline=line))).narrow(0)
    assert _entry(table, "latency_b1_ms")["note"] == IMPOSSIBLE
    assert IMPOSSIBLE in [note.text for note in table.notes]


def test_the_words_of_the_record_stand_below_the_table_and_images_are_no_persons(made, timed):
    row = timed(
        "one", [10.0, 11.0], inside_timer="reading, everything", ms_per_person=made.latency(4.0, 1)["median"],
        execution={**made.latency(1.0, 1)["execution"], "scope": "end-to-end"}, pose_difference_px=0.004,
    )  # fmt: skip
    table = build_table(made.rows(row))
    text = "\n".join(note.text for note in table.notes)
    assert "inside the timer: reading, everything" in text and "one call of one image" in text
    assert "at most 0.004 px" in text
    assert _entry(table, "ms_per_person_b1")["value"] == 4.0


def test_every_sample_is_drawn_and_the_rejected_ones_are_hollow(made, timed):
    times = [10.0, 11.0, 12.0, 13.0, 40.0]
    figure = latency_distributions(made.rows(timed("one", times, starved={4}), timed("$two_", times)))
    (axes,) = figure.axes
    strips = [line for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata())]
    hollow = [x for line in strips if line.get_markerfacecolor() == "none" for x in line.get_xdata()]
    full = [x for line in strips if line.get_markerfacecolor() != "none" for x in line.get_xdata()]
    assert hollow == [40.0] and sorted(full) == sorted([*times[:4], *times])
    assert axes.get_xscale() == "linear"
    assert save(figure)["png"] == save(figure)["png"]


def test_a_panel_for_each_batch_and_logarithms_for_wide_ones(made, timed):
    rows = made.rows(timed("one", [1.0, 2.0, 3.0]), timed("two", [1.0, 30.0, 31.0], batch=8))
    figure = latency_distributions(rows)
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "log"]
    assert "batch 8" in figure.axes[1].get_xlabel()


def test_the_report_holds_the_figure_only_where_samples_were_kept(made, timed, tmp_path):
    with_samples = made.manifest([timed("one", [1.0, 2.0, 3.0])])
    without = made.manifest([made.row("other", gmacs=1.0, ms={1: 5.0})])
    names = {p.name for p in write_report(made.store, with_samples, tmp_path / "a")}
    assert {"latency_distributions.png", "latency_distributions.svg", "latency_distributions.pdf"} <= names
    assert "(latency_distributions.png)" in (tmp_path / "a/report.md").read_text()
    assert not [p for p in write_report(made.store, without, tmp_path / "b") if "distributions" in p.name]
