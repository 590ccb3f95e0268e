"""Suite files that are made to exhaust their reader, or to reach elsewhere."""

from __future__ import annotations

import time

import pytest

from harness.errors import SuiteError
from harness.suite.cells import expand
from harness.suite.file import parse_value
from harness.suite.schema import load_suite
from harness.suite.sources import inside

LINE = "name: s\nmethods:\n  - {variant: simplebaseline_r50}\n"
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30)
)
MERGES = "b0: &b0 {x: 1}\n" + "".join(f"b{i}: &b{i} {{<<: [{', '.join([f'*b{i - 1}'] * 9)}]}}\n" for i in range(1, 30))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (LAUGHS, "aliases expand"),
        (MERGES, "aliases expand"),
        ("a: &a [*a]\n", "aliases expand"),
        ("a: &a {b: *a}\n", "aliases expand"),
        (f"t: &t {'x' * 90_000}\nu: [{', '.join(['*t'] * 900)}]\n", "aliases expand"),
        (LAUGHS + "? *a29\n: 1\n", "aliases expand"),
        ("a: " + "[" * 5000 + "\n", "nested too deeply|not YAML"),
        ("a: " + "x" * 1_000_000, "more than 1,000,000 bytes"),
        ("name: s\nname: t\n", r"s\.yaml:2: the key 'name' is there twice"),
        ("data: {root: a, root: b}\n", r"s\.yaml:1: the key 'root' is there twice"),
        ("a: " + "9" * 5000, "a number of 5000 digits"),
        ("a: 0x" + "f" * 5000, "a number of 5002 digits"),
        ("? [1, 2]\n: 3\n", "a key that is no word"),
        ("a: 2001-99-99\n", "put it in quotes"),
        ("a: !!python/object/apply:os.mkdir [planted]\n", r"type tag:yaml\.org,2002:python/object/apply:os\.mkdir"),
        ("a: !!binary aGVsbG8=\n", "type .*binary"),
        ("a: !!int abc\n", "not YAML"),
        ("a: !!timestamp b\n", "type .*timestamp"),
        ("\x00", "not YAML"),
    ],
)
def test_a_bomb_is_refused_quickly_with_its_reason(tmp_path, text, fault):
    (tmp_path / "s.yaml").write_text(text + ("" if text.endswith("\n") else "\n") + LINE.replace("name: s\n", ""))
    begin = time.process_time()
    with pytest.raises(SuiteError, match=fault):
        load_suite(tmp_path / "s.yaml")
    assert time.process_time() - begin < 5 and not (tmp_path / "planted").exists()


def test_values_of_the_command_line_are_read_as_carefully():
    assert parse_value("[1, 0.5, x, null]", "--set a") == [1, 0.5, "x", None]
    for text in ("!!python/name:os.system", "&a [*a]", "9" * 5000, "[" * 5000):
        with pytest.raises(SuiteError, match="is no value"):
            parse_value(text, "--set a")


@pytest.mark.parametrize(
    ("key", "fault"),
    [
        ("measure: {accuracy: {bootstrap: 1000000000000}}", "less than or equal to"),
        ("measure: {latency: {batch: [1000000000000]}}", "less than or equal to"),
        ("measure: {latency: {seconds: .inf}}", "finite number"),
        ("protocol: {box_padding: .nan}", "box_padding"),
        ("protocol: {blur_kernel: 1000000001}", "blur_kernel"),
        ("seeds: [-1]", "greater than or equal to"),
    ],
)
def test_a_number_that_no_measurement_has_is_refused(tmp_path, key, fault):
    (tmp_path / "s.yaml").write_text(f"{LINE}{key}\n")
    with pytest.raises(SuiteError, match=fault):
        expand(*load_suite(tmp_path / "s.yaml"))


def test_more_combinations_than_anybody_measures_are_refused_before_they_are_made(tmp_path):
    values = list(range(100))
    sweep = ", ".join(f"{name}: {values}" for name in ("decoder", "flip", "input_size", "dtype"))
    (tmp_path / "s.yaml").write_text(f"name: s\nmethods:\n  - {{variant: simplebaseline_r50, sweep: {{{sweep}}}}}\n")
    with pytest.raises(SuiteError, match=r"s\.yaml:3: methods\.0\.sweep: more than 100,000 combinations"):
        load_suite(tmp_path / "s.yaml")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "link/x", "a\0b"])
def test_a_path_of_a_suite_stays_below_its_root(tmp_path, name):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path)
    with pytest.raises(SuiteError, match="root"):
        inside(tmp_path / "root", name)
