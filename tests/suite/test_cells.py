"""Knob values in a suite: what is out of range, not a number, or answered twice is refused where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import SuiteError
from harness.method import Knob, find_variant
from harness.suite.cells import expand
from harness.suite.schema import load_suite


def cells_of(folder: Path, line: str):
    path = folder / "s.yaml"
    path.write_text(f"name: s\nmethods:\n  - variant: sharpose_b\n    {line}\n")
    suite, marked = load_suite(path)
    return expand(suite, marked)


@pytest.mark.parametrize(
    ("line", "what", "expected"),
    [
        ("set: {alpha: 0}", "alpha is 0", "0 < alpha <= 1"),
        ("set: {alpha: 1.2}", r"alpha is 1\.2", "0 < alpha <= 1"),
        ("sweep: {alpha: [0.5, .nan]}", "alpha is nan", "0 < alpha <= 1"),
        ("set: {alpha: half}", "alpha is 'half'", "0 < alpha <= 1"),
        ("set: {quality_threshold: .nan}", "quality_threshold is nan", "a finite number or 'always' or 'never'"),
        ("set: {quality_threshold: .inf}", "quality_threshold is inf", "'always'"),
        ("set: {quality_threshold: -.inf}", "quality_threshold is -inf", "'never'"),
        ("set: {quality_threshold: sometimes}", "quality_threshold is 'sometimes'", "'always' or 'never'"),
        ("set: {quality_threshold: yes}", "quality_threshold is True", "a finite number"),
        ("set: {exit_rate: 60}", "exit_rate is 60", "0 <= exit_rate <= 1"),
        ("set: {exit_rate: .nan}", "exit_rate is nan", "0 <= exit_rate <= 1"),
        ("set: {dtype: int8}", "dtype is 'int8'", "float32, bfloat16, float16"),
        ("set: {runtime: fast}", "runtime is 'fast'", "eager, compile"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_its_line_and_the_range(tmp_path, line, what, expected):
    with pytest.raises(SuiteError, match=rf"(?s)s\.yaml:4: {what}.*{expected}"):
        cells_of(tmp_path, line)


@pytest.mark.parametrize("value", ["always", "never", -0.3, 0, 0.99, 7, None])
def test_any_real_number_is_a_threshold_and_so_are_two_words_and_the_published_one(value):
    assert find_variant("sharpose_tiny").knob("quality_threshold").check(value) == value


def test_a_whole_number_that_no_float_holds_is_refused():
    with pytest.raises(SuiteError, match="a finite number"):
        find_variant("sharpose_tiny").knob("quality_threshold").check(10**400)


@pytest.mark.parametrize(
    "line",
    [
        "set: {exit_rate: 0.5, quality_threshold: 0.9}",
        "set: {quality_threshold: never}\n    sweep: {exit_rate: [0.2, 0.4]}",
        "sweep: {quality_threshold: [0.9, always], exit_rate: [0.5]}",
    ],
)
def test_an_exit_rate_beside_a_threshold_is_refused_with_the_reason(tmp_path, line):
    with pytest.raises(SuiteError, match="exit_rate and quality_threshold are both set") as caught:
        cells_of(tmp_path, line)
    assert "exit_rate decides what quality_threshold is" in str(caught.value)


def test_one_of_the_two_may_be_set_while_the_other_is_left_open(tmp_path):
    (cell,) = cells_of(tmp_path, "set: {exit_rate: 0.5, quality_threshold: null}")
    assert cell.select == {"exit_rate": 0.5, "quality_threshold": None}


def test_ranges_are_written_as_people_write_them():
    texts = [
        Knob("a", "run", 1, "", low=0, high=1, low_open=True).range_text(),
        Knob("a", "run", 1, "", low=0).range_text(),
        Knob("a", "run", 1, "", high=4, words=("auto",)).range_text(),
        Knob("a", "run", 1, "", low=float("-inf")).range_text(),
    ]
    assert texts == ["0 < a <= 1", "0 <= a", "a <= 4 or 'auto'", "a finite number"]


def suite_of(folder: Path, text: str):
    path = folder / "s.yaml"
    path.write_text(text)
    return expand(*load_suite(path))


TRAINED = """name: s
train: {recipe: quick%s}
protocol: {%s}
methods:
  - {variant: fasterpose_tiny, sweep: {%s}}
"""


@pytest.mark.parametrize(
    ("settings", "protocol", "sweep", "reason"),
    [
        ("", "codec: udp, decoder: udp_dark", "flip: [true]", "placed for the plain crop"),
        (", set: {target.encoder: simcc}", "", "flip: [true]", "two vectors of bins"),
        ("", "", "loss: [rce_soft, focal]", "exactly 1"),
        ("", "", "loss: [rce_soft, dsnt]", "coordinates"),
    ],
)
def test_a_training_whose_parts_do_not_go_together_is_refused_before_it_begins(
    tmp_path, settings, protocol, sweep, reason
):
    with pytest.raises(SuiteError, match=rf"(?s)s\.yaml:5: .*{reason}"):
        suite_of(tmp_path, TRAINED % (settings, protocol, sweep))


def test_a_decoder_that_does_not_go_with_the_codec_is_refused_where_it_stands(tmp_path):
    with pytest.raises(SuiteError, match=r"s\.yaml:4: decoder simcc does not go with codec udp"):
        cells_of(tmp_path, "sweep: {decoder: [quarter, simcc]}")


def test_a_value_that_is_swept_twice_is_refused(tmp_path):
    with pytest.raises(SuiteError, match=r"s\.yaml:4: sweep of decoder has a value twice"):
        cells_of(tmp_path, "sweep: {decoder: [quarter, quarter]}")


def test_beta_belongs_to_soft_argmax_alone(tmp_path):
    (soft, *_) = cells_of(tmp_path, "set: {decoder: soft_argmax, protocol.beta: 5}")
    (plain, *_) = cells_of(tmp_path, "set: {decoder: quarter}")
    assert soft.protocol.applying("top-down")["beta"] == 5 and "beta" not in plain.protocol.applying("top-down")


def test_a_reconstruction_says_so_in_every_label(tmp_path):
    for cell in suite_of(tmp_path, TRAINED % ("", "", "head: [project_shuffle, bilinear]")):
        assert cell.label.startswith("fasterpose_tiny (reconstruction) head=")
