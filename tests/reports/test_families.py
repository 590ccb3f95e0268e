"""Families of curves over a swept number."""

from __future__ import annotations

import warnings

from reports.canvas import save
from reports.families import curves_over, families


def swept(made, thresholds=("never", 0.9, "always"), alphas=(0.2, 0.5)):
    return made.rows(*(
        made.row(f"s a={a} t={t}", variant="s", gmacs=1.0 + i, ap=0.5 + 0.05 * i, swept={"alpha": a, "t": t})
        for a in alphas for i, t in enumerate(thresholds)
    ))  # fmt: skip


def test_there_is_one_curve_for_each_other_setting_in_the_order_of_the_knob(made):
    found = curves_over(swept(made, thresholds=("always", "never", 0.9)), "t")
    assert [c.name for c in found] == ["s alpha=0.2", "s alpha=0.5"]
    assert [p[0] for p in found[0].points] == ["never", 0.9, "always"]


def test_each_swept_number_has_a_figure_and_a_word_has_none(made):
    rows = made.rows(*(
        made.row(f"{d}{s}", variant="v", gmacs=s / 100, ap=0.5, swept={"decoder": d, "input_size": f"{s}x192"})
        for d in ("quarter", "dark") for s in (128, 256)
    ))  # fmt: skip
    assert list(families(rows)) == ["curves_input_size"]
    assert families(made.rows(made.row("a", gmacs=1.0, ap=0.5))) == {}


def test_words_and_sizes_stand_in_equal_steps_and_numbers_at_themselves(made):
    figures = families(swept(made))
    ticks = {name: figure.axes[0].get_xticks().tolist() for name, figure in figures.items()}
    assert ticks == {"curves_alpha": [0.2, 0.5], "curves_t": [0.0, 1.0, 2.0]}
    assert [t.get_text() for t in figures["curves_t"].axes[0].get_xticklabels()] == ["never", "0.9", "always"]


def test_curves_are_told_apart_without_colour(made):
    left = families(swept(made, alphas=(0.1, 0.2, 0.3)))["curves_t"].axes[0]
    lines = [line for line in left.get_lines() if not line.get_label().startswith("_")]
    assert len({(line.get_marker(), str(line._dash_pattern)) for line in lines}) == 3
    grey = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b, _ in (line.get_color() for line in lines)]
    assert grey == sorted(grey)


def test_bars_are_explained_where_there_are_any(made):
    dynamic = {"cost_more": {"trace": {"exit": [1]}}, "sd": 0.3}
    made_rows = [
        made.row(f"s t={t}", variant="s", gmacs=2.0 + t, ap=0.5, swept={"t": t}, **dynamic) for t in (0.1, 0.9)
    ]
    spread, plain = (families(rows)["curves_t"].axes for rows in (made.rows(*made_rows), swept(made)))
    assert "95 % interval" in spread[0].get_ylabel() and "95 % interval" in plain[0].get_ylabel()
    assert "5th to 95th percentile" in spread[1].get_xlabel() and "bars" not in plain[1].get_xlabel()


def test_a_family_is_the_same_bytes_twice_and_warns_of_nothing(made):
    rows = swept(made, alphas=("0.1 $x_", 0.2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first, second = (save(families(rows)["curves_t"]) for _ in range(2))
    assert first == second


def test_a_knob_never_becomes_a_path(made):
    rows = made.rows(*(made.row(f"a{v}", variant="a", gmacs=1.0, ap=0.5, swept={"../../x": v}) for v in (1, 2)))
    assert list(families(rows)) == ["curves__x"]
