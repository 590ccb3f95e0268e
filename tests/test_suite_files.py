"""The suites of the project: each can be read, says how it is run, and covers what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.suite.cells import expand
from harness.suite.schema import load_suite

ROOT = Path(__file__).resolve().parents[1]
SUITES = sorted((ROOT / "suites").rglob("*.yaml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda p: str(p.relative_to(ROOT / "suites")))
def test_every_suite_expands_and_its_first_line_is_the_command_that_runs_it(path):
    assert path.read_text().startswith(f"# paretopose run {path.relative_to(ROOT)}")
    suite, marked = load_suite(path)
    assert expand(suite, marked) and suite.description


def _cells(name: str):
    suite, marked = load_suite(ROOT / "suites" / name)
    return expand(suite, marked)


def test_the_comparison_of_sharpose_has_all_four_methods_at_both_sizes():
    found = {(c.variant.partition("_")[0], c.input_size) for c in _cells("paper/sharpose.yaml")}
    methods = ("simplebaseline", "hrnet", "vitpose", "sharpose")
    assert found == {(name, size) for name in methods for size in ((256, 192), (384, 288))}


def test_the_tradeoff_sweeps_alpha_and_threshold_at_each_size_of_sharpose():
    cells = [c for c in _cells("sharpose_tradeoff.yaml") if c.variant.startswith("sharpose")]
    networks = {(c.variant, c.input_size) for c in cells}
    assert networks == {("sharpose_s", (256, 192)), ("sharpose_b", (256, 192)), ("sharpose_b", (384, 288))}
    for network in networks:
        own = [c for c in cells if (c.variant, c.input_size) == network]
        alphas = {c.run["alpha"] for c in own}
        assert len(alphas) >= 3
        for alpha in alphas:
            thresholds = [c.select["quality_threshold"] for c in own if c.run["alpha"] == alpha]
            assert {"never", "always"} < set(thresholds) and len(thresholds) >= 5


def test_number_format_and_runtime_are_swept_one_at_a_time():
    kinds = {(c.variant, c.run["dtype"], c.run["runtime"]) for c in _cells("dtype_runtime.yaml")}
    one = {("float32", "eager"), ("bfloat16", "eager"), ("float32", "compile")}
    assert kinds == {(variant, *kind) for variant in ("vitpose_tiny", "sharpose_tiny") for kind in one}
