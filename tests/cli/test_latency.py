"""`paretopose latency`: what stands beside the milliseconds."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from harness.cli.main import app

RUN = CliRunner()
ARGUMENTS = ["latency", "simplebaseline_tiny", "--rounds", "3", "--threads", "1", "--seconds", "1", "--batch", "2"]


def test_latency_records_memory_energy_rate_clocks_and_versions():
    result = RUN.invoke(app, [*ARGUMENTS, "--json"])
    assert result.exit_code == 0, result.output
    data = json.loads(result.stdout)
    found = data["results"]["simplebaseline_tiny"]
    macs = found["roofline"]["gmacs_per_second"] * found["median_ms"] * 1e6
    cost = json.loads(RUN.invoke(app, ["cost", "simplebaseline_tiny", "--json"]).stdout)["macs"]
    assert macs == pytest.approx(2 * cost)
    assert found["peak_memory_mb"] is None or found["peak_memory_mb"] > 1
    assert found["energy"]["joules_per_call"] is not None or found["energy"]["reason"]
    assert {"before", "after"} == data["passing"].keys() and "torch" in data["versions"]


def test_people_are_told_the_same():
    result = RUN.invoke(app, ARGUMENTS)
    assert result.exit_code == 0, result.output
    for text in ("peak MB", "J per batch", "gmacs/s", "of the machine's", "3x3 convolution", "governor", "first core"):
        assert text in result.stdout
