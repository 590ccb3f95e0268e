"""Two processes that measure the same suite, killed 200 times: every record is there once, whole, and the right one."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from harness.data import synthetic
from harness.method import find_variant
from harness.records.store import Store
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

pytestmark = pytest.mark.slow
KILLS, TOGETHER = 200, 2
TINY = "simplebaseline_tiny"
SUITE = f"""name: many
data: {{name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}}
measure: {{accuracy: {{bootstrap: 5, judge: false}}, cost: true}}
methods:
  - variant: {TINY}
    sweep:
      input_size: [64x48, 96x64]
      decoder: [argmax, quarter]
      flip: [true, false]
      protocol.nms_threshold: {[round(0.05 * n, 2) for n in range(1, 21)]}
"""
CELLS = 2 * 2 * 2 * 20


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    synthetic.write(folder / "people", images=4, seed=5)
    torch.manual_seed(0)
    network = find_variant(TINY).build(num_joints=17, input_size=(64, 48))
    network.final_layer.weight.data.mul_(300)
    checkpoints.write(folder / "w.safetensors", network.state_dict())
    (folder / "many.yaml").write_text(SUITE)
    return folder


def measure(place: Path, store: Path) -> dict:
    suite, marked = load_suite(place / "many.yaml")
    sources = Sources({"people": place / "people"}, {TINY: place / "w.safetensors"})
    return run_suite(suite, Store(store), sources, Options(workers=0, batch=4), Progress(), marked)


def forked(place: Path, store: Path) -> int:
    """A process that measures; it has torch and everything else in memory already."""
    child = os.fork()
    if not child:
        code = 1
        try:
            measure(place, store)
            code = 0
        finally:
            os._exit(code)
    return child


def ended(child: int) -> bool:
    """It has ended by itself; the test fails when that was an error."""
    done, status = os.waitpid(child, os.WNOHANG)
    assert not done or status == 0, f"a process ended with {status}"
    return bool(done)


def results(store: Path) -> dict[str, dict]:
    """What was measured, by file; what one run may say otherwise than another (times, revision) left out."""
    found = {path.name: json.loads(path.read_text()) for path in (store / "records").glob("*.json")}
    return {name: {"key": r["key"], "result": r["result"], "digest": r["digest"]} for name, r in found.items()}


@pytest.mark.skipif(sys.platform == "win32", reason="fork")
def test_no_record_is_lost_torn_or_double_after_200_kills(place, tmp_path, one_thread):
    manifest = measure(place, tmp_path / "whole")
    whole = results(tmp_path / "whole")
    assert len(manifest["rows"]) == CELLS and len(whole) >= CELLS and not any(r["failed"] for r in manifest["rows"])

    rng, store = random.Random(0), tmp_path / "cut"
    running: list[int] = []
    kept: dict[str, bytes] = {}
    kills = finished = 0
    while kills < KILLS:
        left = [child for child in running if not ended(child)]
        finished += len(running) - len(left)
        running = left
        if finished >= TOGETHER:  # all is measured: begin again, so that every kill has something to hit
            for child in running:
                assert os.waitpid(child, 0)[1] == 0
            running, kept, finished = [], {}, 0
            for path in (store / "records").glob("*.json"):
                path.unlink()
        running += [forked(place, store) for _ in range(TOGETHER - len(running))]
        time.sleep(rng.expovariate(1 / 0.15))
        victim = rng.choice(running)
        os.kill(victim, signal.SIGKILL)
        status = os.waitpid(victim, 0)[1]
        running.remove(victim)
        kills += os.WIFSIGNALED(status)
        now = {path.name: path.read_bytes() for path in (store / "records").glob("*.json")}
        assert kept.keys() <= now.keys(), "a record that was there is gone"
        kept = now
    for child in running:
        assert os.waitpid(child, 0)[1] == 0
    again = measure(place, store)

    assert results(store) == whole
    assert not any(row["failed"] or row["reasons"] for row in again["rows"])
    assert [row["records"] for row in again["rows"]] == [row["records"] for row in manifest["rows"]]
    reader = Store(store)
    assert len(list(reader.records())) == len(whole) and not reader.quarantined, "a torn record was set aside"
    assert not (store / "quarantine").exists()
    assert all(reader.arrays(row["records"]["accuracy"]) is not None for row in again["rows"])
