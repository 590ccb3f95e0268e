"""Nothing talks to a network unless it is asked to."""

from __future__ import annotations

import re
import socket

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.method import variants
from harness.suite.cells import expand
from harness.suite.schema import load_suite
from harness.suite.sources import QUICKSTART

SUITE = """
name: offline
data: {name: people, root: people, limit: 2, annotations: annotations/person_keypoints_val2017.json}
measure: {accuracy: {bootstrap: 0}, cost: true}
weights: quickstart
methods: [{variant: simplebaseline_tiny}]
"""


@pytest.fixture
def offline(monkeypatch):
    """Every attempt to reach or to look up a host fails the test."""

    def refuse(*arguments, **_):
        pytest.fail(f"a connection was tried: {arguments[-1]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_suite_is_run_reported_and_explained_without_a_connection(offline, tmp_path, two_exits):
    (tmp_path / "offline.yaml").write_text(SUITE)
    store, data = str(tmp_path / "store"), f"people={two_exits / 'people'}"
    for verb in (
        ["plan", str(tmp_path / "offline.yaml"), "--store", store, "--data", data],
        [
            "run",
            str(tmp_path / "offline.yaml"),
            "--store",
            store,
            "--data",
            data,
            "--report",
            str(tmp_path / "reports"),
        ],
        ["report", "offline", "--store", store, "--html", str(tmp_path / "page.html")],
        ["choose", "--store", store, "--max-gmacs", "10"],
        ["weights", "inspect", str(QUICKSTART / "simplebaseline_tiny.safetensors")],
        ["methods", "simplebaseline*"],
    ):
        done = CliRunner().invoke(app, verb)
        assert done.exit_code == 0, f"{verb}: {done.output}\n{done.exception!r}"


def test_the_page_asks_for_nothing_from_elsewhere(offline, two_exits):
    page = two_exits / "page.html"
    done = CliRunner().invoke(app, ["report", "two", "--store", str(two_exits / "records"), "--html", str(page)])
    assert done.exit_code == 0, done.output
    text = page.read_text().replace("&#39;", "'")
    assert "default-src 'none'" in text
    assert not re.search(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=.?https?:", text)


@pytest.mark.parametrize("name", ["keypointrcnn_r50_tv", "maskrcnn_r50", "hrnet_w32", "vitpose_s"])
def test_a_network_without_weights_downloads_none(offline, name):
    import torch

    variant = variants()[name]
    with torch.device("meta"):
        assert variant.build(num_joints=17, input_size=variant.input_size)


def test_suites_of_papers_are_planned_without_a_connection(offline):
    for path in sorted((QUICKSTART.parents[1] / "suites" / "paper").glob("*.yaml")):
        assert expand(*load_suite(path))
