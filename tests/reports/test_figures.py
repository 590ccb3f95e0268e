"""Trade-off figures: the front, curves, bars, and labels that do not collide."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.text import Annotation

from harness.errors import UserError
from reports.canvas import save
from reports.figures import tradeoff
from reports.labels import Box, place
from reports.points import axis_of, curves, figure_axes, pareto, points
from reports.published import published_ap


def labels(figure):
    return [c for c in figure.axes[0].texts if isinstance(c, Annotation) and c.get_text()]


def overlap(a, b):
    return max(0, min(a.x1, b.x1) - max(a.x0, b.x0)) * max(0, min(a.y1, b.y1) - max(a.y0, b.y0))


def test_the_front_is_made_of_what_no_other_point_beats():
    assert pareto([(1, 50), (2, 49), (3, 60), (3, 55), (4, 60), (5, 61)]) == [0, 2, 5]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
@settings(max_examples=50)
def test_a_point_is_off_the_front_exactly_when_another_beats_it(found):
    front = {found[i] for i in pareto(found)}
    for point in found:
        beaten = any(o != point and o[0] <= point[0] and o[1] >= point[1] for o in found)
        assert (point in front) != beaten


def test_rows_on_other_images_have_a_front_of_their_own(made):
    """Otherwise an easy data set would beat a hard one."""
    easy = [made.row(f"easy_{i}", gmacs=1.0 + i, ap=0.8 + 0.01 * i, data="easy") for i in range(2)]
    hard = [made.row(f"hard_{i}", gmacs=1.0 + i, ap=0.4 + 0.01 * i, data="hard") for i in range(2)]
    for rows, fronts in ((easy, 1), (easy + hard, 2)):
        axes = tradeoff(made.rows(*rows)).axes[0]
        dashed = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
        assert len(dashed) == fronts and all(len(line.get_xdata()) == 3 for line in dashed)


@pytest.mark.parametrize("seed", range(4))
def test_no_label_of_twelve_points_overlaps_another_or_a_marker(made, seed):
    rng = np.random.default_rng(seed)
    rows = [
        made.row(f"method_{i} knob={i}", method=f"m{i % 4}", gmacs=float(g), ap=float(a))
        for i, (g, a) in enumerate(zip(rng.uniform(4, 6, 12), rng.uniform(0.70, 0.74, 12)))
    ]
    figure = tradeoff(made.rows(*rows))
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in labels(figure)]
    assert len(boxes) == 12
    assert sum(overlap(a, b) for a, b in itertools.combinations(boxes, 2)) == 0
    axes = figure.axes[0]
    for x, y in axes.transData.transform([p.at for p in points(made.rows(*rows))]):
        assert not any(b.x0 < x < b.x1 and b.y0 < y < b.y1 for b in boxes)
    assert all(axes.bbox.x0 <= b.x0 and b.x1 <= axes.bbox.x1 for b in boxes)


def test_a_figure_of_both_paradigms_says_what_is_per_person_per_image_and_in_the_bars(made):
    costs = {f"gmacs_per_{per}": {"mean": 2.0, "sd": 0.5, "p5": 1.0, "p95": 3.0} for per in ("forward", "image")}
    whole, crop = (made.row(label, gmacs=2.0, ap=0.5, ms={1: 9.0}, more={"cost": costs}) for label in "ab")
    whole["paradigm"] = "one-stage"
    per_image = tradeoff(made.rows(whole, crop), x="gmacs_per_image").axes[0].get_xlabel()
    assert "per image" in per_image and "5th to 95th percentile over images" in per_image
    timed = [tradeoff(made.rows(*rows), x="latency").axes[0].get_xlabel() for rows in ([whole, crop], [crop])]
    assert ["one-stage: 1 image" in label for label in timed] == [True, False]


def test_a_label_without_room_is_left_out_rather_than_put_over_another():
    sizes, bounds = [(60.0, 10.0)] * 9, Box(0, 0, 100, 40)
    placed = place([(50.0, 20.0)] * 9, sizes, hard=[], soft=[], bounds=bounds)
    kept = [b for b in placed if b]
    assert 0 < len(kept) < 9
    for a, b in itertools.combinations(kept, 2):
        assert min(a.right, b.right) <= max(a.left, b.left) or min(a.top, b.top) <= max(a.bottom, b.bottom)


def test_points_that_are_alike_in_place_and_name_have_one_label(made):
    seeds = [made.row("vitpose train.epochs=0", gmacs=1.0, ap=0.5) for _ in range(2)]
    figure = tradeoff(made.rows(*seeds, made.row("other", gmacs=2.0, ap=0.5)))
    assert [label.get_text() for label in labels(figure)] == ["vitpose train.epochs=0", "other"]


def test_a_label_prefers_a_place_that_covers_no_bar():
    (free,) = place([(50, 50)], [(20, 8)], hard=[], soft=[], bounds=Box(0, 0, 100, 100))
    (moved,) = place([(50, 50)], [(20, 8)], hard=[], soft=[free], bounds=Box(0, 0, 100, 100))
    assert moved != free and (
        moved.left >= free.right or moved.right <= free.left or moved.bottom >= free.top or moved.top <= free.bottom
    )


def test_cells_that_differ_in_one_number_are_a_curve_in_its_order(made):
    rows = made.rows(*(
        made.row(f"s a={a} t={t}", variant="s", gmacs=1.0, ap=0.5, swept={"a": a, "t": t})
        for a in (0.2, 0.3) for t in ("always", 0.9, "never")
    ), made.row("other", gmacs=1.0, ap=0.5))  # fmt: skip
    found = [[p.row.swept["t"] for p in curve] for curve in curves(points(rows))]
    assert found == [["never", 0.9, "always"]] * 2


def test_image_sizes_and_lists_in_a_sweep_are_no_trouble(made):
    sizes = ["256x192", [128, 96]]
    rows = made.rows(*(made.row(f"s{v}", variant="s", gmacs=1.0, ap=0.5, swept={"input_size": v}) for v in sizes))
    assert [p.row.label for p in curves(points(rows))[0]] == ["s[128, 96]", "s256x192"]
    rows = made.rows(*(made.row(f"d{v}", variant="d", gmacs=1.0, ap=0.5, swept={"decoder": v}) for v in ("a", "b")))
    assert curves(points(rows)) == []


def test_cost_is_logarithmic_when_it_spans_more_than_tenfold(made):
    near = tradeoff(made.rows(made.row("a", gmacs=1.0, ap=0.5), made.row("b", gmacs=9.0, ap=0.6)))
    far = tradeoff(made.rows(made.row("a", gmacs=1.0, ap=0.5), made.row("b", gmacs=11.0, ap=0.6)))
    assert (near.axes[0].get_xscale(), far.axes[0].get_xscale()) == ("linear", "log")
    assert "multiply-accumulates" in far.axes[0].get_xlabel()
    assert "Pareto front" in [t.get_text() for t in far.legends[0].get_texts()]


def hollow(figure):
    return [
        line for line in figure.axes[0].get_lines() if line.get_markerfacecolor() == "white" and len(line.get_xdata())
    ]


def test_published_points_stand_hollow_at_our_cost_beside_ours(made):
    rows = made.rows(
        made.row("hrnet_w32", gmacs=7.6, ap=0.72, data="coco_val2017", more={"box_source": "d.json"}),
        made.row("hrnet_w48", gmacs=15.7, data="coco_val2017", reasons={"accuracy": "no weights"}),
        made.row("simplebaseline_r50", gmacs=5.4, ap=0.7, data="coco_val188"),
    )
    figure = tradeoff(rows, published=published_ap)
    found = {(line.get_xdata()[0], line.get_ydata()[0]) for line in hollow(figure)}
    assert found == {(7.6, 74.4), (15.7, 77.6)}  # each of its own kind of boxes
    assert "hollow: published" in [t.get_text() for t in figure.legends[0].get_texts()]
    assert "hrnet_w48" in [t.get_text() for t in labels(figure)]
    assert not hollow(tradeoff(rows))


def test_a_latency_axis_says_what_one_call_works_on(made):
    assert "one call of 8 persons)" in axis_of("latency_b8", made.rows(made.row("a", ms={8: 3.0}))).title
    whole = made.row("a")
    timed = made.latency(3.0, 1)
    timed["execution"]["scope"] = "end-to-end"
    whole["records"]["latency_b1"] = made.put("latency", "a", timed, batch=1)
    assert "one call of one image, all its persons)" in axis_of("latency", made.rows(whole)).title


def test_forty_points_all_get_a_label_and_none_collides(made):
    rng = np.random.default_rng(1)
    rows = []
    for i in range(40):
        gmacs = float(10 ** rng.uniform(0.3, 2))
        ap = float(0.6 + 0.08 * np.log10(gmacs) + rng.normal(0, 0.015))
        rows.append(made.row(f"method_{i} knob={i}", method=f"m{i % 8}", gmacs=gmacs, ap=ap))
    figure = tradeoff(made.rows(*rows))
    figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in labels(figure)]
    assert len(boxes) == 40
    assert sum(overlap(a, b) for a, b in itertools.combinations(boxes, 2)) == 0


def test_of_a_thousand_points_the_front_is_named_and_barred(made):
    (row,) = made.rows(made.row("one", gmacs=1.0, ap=0.5))
    points_of = [replace(row, label=f"m{i}", records=row.records) for i in range(600)]
    figure = tradeoff(points_of)
    assert "of the labelled points" in figure.axes[0].get_ylabel()
    assert 0 < len(labels(figure)) <= 40


def test_there_is_no_figure_without_an_ap(made):
    assert tradeoff(made.rows(made.row("a", gmacs=1.0, reasons={"accuracy": "no weights"}))) is None


def test_figures_are_the_same_bytes_twice_and_hostile_names_are_drawn_as_text(made):
    rows = made.rows(
        made.row("<b>$x_1$ & % \\frac{", method="_m$a$", gmacs=1.0, ap=0.5, ms={1: 3.0}),
        made.row("b", gmacs=2.0, ap=0.6),
    )
    first, second = save(tradeoff(rows)), save(tradeoff(rows))
    assert set(first) == {"png", "svg", "pdf"} and first == second
    assert first["png"][:4] == b"\x89PNG" and first["pdf"][:4] == b"%PDF" and b"<b>" not in first["svg"]
    assert [t.get_text().strip() for t in tradeoff(rows, x="latency").legends[0].get_texts()] == [r"_m\$a\$"]


def test_an_unknown_axis_is_refused_with_the_near_one(made):
    with pytest.raises(UserError, match="unknown axis 'gmac'") as caught:
        tradeoff(made.rows(made.row("a", gmacs=1.0, ap=0.5)), x="gmac")
    assert "gmacs" in caught.value.hint


def test_a_report_has_a_figure_for_each_batch_size_and_for_the_axes_of_its_suite(made):
    rows = made.rows(made.row("a", gmacs=1.0, ap=0.5, ms={1: 3.0, 32: 50.0}))
    assert [stem for stem, _, _ in figure_axes(rows, ("params", "ar"))] == [
        "ap_vs_gmacs", "ar_vs_params", "ap_vs_latency", "ap_vs_latency_b32",
    ]  # fmt: skip
