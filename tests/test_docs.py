"""The pages in docs/ and the README name what is really there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.cli.main import VERBS
from harness.method import PoseProtocol
from harness.suite.schema import DataSpec, LatencySpec, MethodSpec, Suite

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
RECORDS = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")


def _committed():
    return sorted((ROOT / "results" / "quickstart" / "records").glob("*.json"))


@pytest.mark.parametrize("path", _committed(), ids=lambda p: p.stem)
def test_every_field_of_a_committed_record_is_documented(path):
    record = json.loads(path.read_text())
    named = set(re.findall(r"`([a-z_0-9]+)`", RECORDS))
    missing = {*record, *record["key"], *record["result"]} - named
    assert not missing, f"docs/records.md does not name {sorted(missing)}"


def test_there_are_committed_records_of_every_kind():
    assert {p.name.split("-")[0] for p in _committed()} >= {"accuracy", "cost", "latency"}


def test_the_readme_names_every_verb_and_every_suite_key():
    for verb in VERBS:
        assert f"`{verb}" in README, verb
    for model in (Suite, DataSpec, LatencySpec, MethodSpec, PoseProtocol):
        for name in model.model_fields:
            assert f"`{name}`" in README, f"{model.__name__}.{name}"
