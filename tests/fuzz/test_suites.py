"""Suite files that somebody damaged, or made to do damage."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from harness.suite.cells import expand
from harness.suite.schema import load_suite

SUITES = sorted((Path(__file__).resolve().parents[2] / "suites").rglob("*.yaml"))


@pytest.fixture
def plan(tmp_path):
    """plan(data) -> the cells of a suite file with this content."""

    def run(data: bytes):
        path = tmp_path / "s.yaml"
        path.write_bytes(data)
        suite, marked = load_suite(path)
        return expand(suite, marked)

    return run


def test_changed_texts_are_read_or_refused(fuzz, plan):
    small = [path.read_bytes() for path in SUITES if path.stat().st_size < 1500]
    fuzz.bytes(small, plan)


def test_values_of_other_types_are_read_or_refused(fuzz, plan):
    trees = [yaml.safe_load(path.read_text()) for path in SUITES if path.stat().st_size < 2500]
    fuzz.trees(trees, lambda tree: plan(yaml.safe_dump(tree).encode("utf-8", "surrogatepass")))
