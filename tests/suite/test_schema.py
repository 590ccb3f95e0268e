"""Suite files: what they expand to, and how they are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SuiteError, UserError
from harness.suite.cells import expand
from harness.suite.schema import load_suite


@pytest.fixture
def suite_file(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "s.yaml"
        path.write_text(text)
        return path

    return write


def cells_of(path: Path, *assignments: str):
    suite, marked = load_suite(path, assignments)
    return expand(suite, marked)


BASE = "name: s\nmethods:\n  - {variant: simplebaseline_r50}\n"


def test_a_suite_with_one_line_is_one_cell_with_the_published_protocol(suite_file):
    (cell,) = cells_of(suite_file(BASE))
    assert (cell.variant, cell.input_size, cell.label) == ("simplebaseline_r50", (256, 192), "simplebaseline_r50")
    assert cell.protocol.flip and cell.protocol.decoder == "quarter" and cell.protocol.nms_threshold == 0.9


def test_a_grid_is_the_product_of_its_sweeps_in_the_order_of_the_file(suite_file):
    path = suite_file(
        "name: s\nmethods:\n  - variant: simplebaseline_r50\n"
        "    sweep: {input_size: [128x96, 256x192], decoder: [argmax, quarter]}\n"
    )
    assert [(c.input_size, c.protocol.decoder) for c in cells_of(path)] == [
        ((128, 96), "argmax"),
        ((128, 96), "quarter"),
        ((256, 192), "argmax"),
        ((256, 192), "quarter"),
    ]


def test_one_factor_varies_each_knob_from_the_base_row(suite_file):
    path = suite_file(
        "name: s\ndesign: one_factor\nmethods:\n  - variant: simplebaseline_r50\n"
        "    sweep: {input_size: [256x192, 128x96], decoder: [quarter, argmax, dark]}\n"
    )
    assert [(c.input_size[0], c.protocol.decoder) for c in cells_of(path)] == [
        (256, "quarter"),
        (128, "quarter"),
        (256, "argmax"),
        (256, "dark"),
    ]


def test_leave_one_out_needs_exactly_two_values_a_factor(suite_file):
    path = suite_file(
        "name: s\ndesign: leave_one_out\nmethods:\n  - variant: simplebaseline_r50\n"
        "    sweep: {decoder: [quarter, argmax, dark]}\n"
    )
    with pytest.raises(SuiteError, match=r"s\.yaml:5: decoder has 3 values"):
        cells_of(path)


def test_set_overrides_reach_into_protocol_and_lists(suite_file):
    (cell,) = cells_of(suite_file(BASE), "protocol.flip=false", "methods.0.variant=simplebaseline_r101")
    assert cell.variant == "simplebaseline_r101" and cell.protocol.flip is False


@pytest.mark.parametrize(
    ("text", "line", "suggestion"),
    [
        ("name: s\nmethod:\n  - {variant: simplebaseline_r50}\n", 2, "methods"),
        ("name: s\nmethods:\n  - {varient: simplebaseline_r50}\n", 3, "variant"),
        ("name: s\nmethods:\n  - {variant: simplebaselin_r50}\n", 3, "simplebaseline_r50"),
        ("name: s\nmethods:\n  - variant: simplebaseline_r50\n    sweep:\n      decodr: [argmax]\n", 5, "decoder"),
        ("name: s\nmethods:\n  - variant: simplebaseline_r50\n    protocol:\n      flop: false\n", 5, "flip"),
        ("name: s\ndata:\n  nam: x\nmethods:\n  - {variant: simplebaseline_r50}\n", 3, "name"),
        ("name: s\nmeasure:\n  latency: {bach: [1]}\nmethods:\n  - {variant: simplebaseline_r50}\n", 3, "batch"),
    ],
)
def test_an_unknown_name_is_refused_with_its_line_and_the_near_one(suite_file, text, line, suggestion):
    with pytest.raises(SuiteError) as caught:
        cells_of(suite_file(text))
    assert f"s.yaml:{line}:" in str(caught.value)
    assert suggestion in str(caught.value)


@pytest.mark.parametrize(
    ("keys", "line", "fault", "expected"),
    [
        ("    sweep: {flip: [maybe]}", 4, "flip is 'maybe'", "true or false"),
        ("    set:\n      flip: [maybe]", 5, "flip is ['maybe']", "true or false"),
        ("    protocol:\n      colour: cmyk", 5, "colour is 'cmyk'", "one of rgb, bgr"),
        ("    set: {protocol.box_padding: wide}", 4, "box_padding is 'wide'", "a number"),
        ("protocol:\n  mean: [0.5, 0.5]", 5, "mean is [0.5, 0.5]", "a list of 3 numbers"),
    ],
)
def test_a_protocol_value_that_cannot_be_is_refused_where_it_stands(suite_file, keys, line, fault, expected):
    text = f"name: s\nmethods:\n  - variant: simplebaseline_r50\n{keys}\n"
    with pytest.raises(SuiteError) as caught:
        cells_of(suite_file(text))
    error = caught.value
    assert error.where.endswith(f"s.yaml:{line}") and (error.what, error.expected) == (fault, expected)


@pytest.mark.parametrize(
    "text",
    [
        "- a list\n",
        "name: [unclosed\n",
        "name: s\nmethods: []\n",
        "name: ../../etc\nmethods:\n  - {variant: simplebaseline_r50}\n",
        "name: s\nmethods:\n  - {variant: simplebaseline_r50, set: {input_size: big}}\n",
        "name: s\nmethods:\n  - {variant: simplebaseline_r50, set: {style: tensorflow}}\n",
        "name: s\nmethods:\n  - {variant: simplebaseline_r50, set: {decoder: udp_dark}}\n",
        "name: !!python/object/apply:os.system ['true']\nmethods: []\n",
    ],
)
def test_a_faulty_suite_is_a_user_error_and_nothing_is_executed(suite_file, text):
    with pytest.raises(UserError):
        cells_of(suite_file(text))


def test_what_a_validator_finds_is_told_with_its_line_and_what_to_do_without_words_of_the_library(suite_file):
    values = list(range(699))
    grid = f"    sweep:\n      decoder: {values}\n      flip: {values}\n      dtype: {values}\n"
    small = "name: s\nmethods:\n  - {variant: simplebaseline_r50, sweep: {flip: [true, false]}}\n"
    for text, place, what, hint in (
        (f"{small}  - variant: simplebaseline_r50\n{grid}", "5: methods.1.sweep", "more than 100,000", "one_factor"),
        (f"{small}seeds: {list(range(50_001))}\n", "4: seeds", "more than 100,000", "fewer"),
        (f"{small}train:\n  recipe: quick\n  epochs: 0\n", "6: train.epochs", "0 epochs need", "`from: quickstart`"),
    ):
        with pytest.raises(SuiteError) as caught:
            load_suite(suite_file(text))
        assert f"s.yaml:{place}: {what}" in caught.value.what and hint in caught.value.hint
        assert "Value error" not in str(caught.value) and "lists every key" not in caught.value.hint


def test_aliases_that_expand_without_bound_are_refused(suite_file):
    levels = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    with pytest.raises(SuiteError, match="aliases expand"):
        cells_of(suite_file(levels + BASE))


def test_a_missing_suite_file_says_so(tmp_path):
    with pytest.raises(SuiteError, match="cannot read the suite"):
        load_suite(tmp_path / "none.yaml")
