"""A training killed at any moment, and on a disk that fills up, ends with the bits of an undisturbed one."""

from __future__ import annotations

import importlib.util
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.data import synthetic
from harness.train.recipes import Augmentation, Recipe

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
TOY = Path(__file__).parent.parent / "train" / "test_loop.py"
LONG = Recipe(epochs=60, batch=3, lr=1e-3, augmentation=Augmentation(rotation=20))
CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
import test_training_interrupted as own
out = Path(sys.argv[2])
torch.set_num_threads(1)
own.toy.run(own.toy.make(out / "images"), out / "run", save_every=3, recipe=own.LONG)
"""


def _loaded():
    spec = importlib.util.spec_from_file_location("toy_tests", TOY)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


toy = _loaded()


def child(folder, limit=None):
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), str(folder)]
    return subprocess.Popen(command, preexec_fn=limit, stderr=subprocess.PIPE, text=True)


def finished(folder):
    result, _ = toy.run(toy.make(folder / "images"), folder / "run", recipe=LONG, save_every=3)
    return result


@pytest.fixture
def whole(tmp_path):
    result, _ = toy.run(toy.make(tmp_path / "images"), tmp_path / "whole", recipe=LONG)
    return result


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bits(tmp_path, whole):
    kills = 0
    for seconds in (0.05, 0.2, 0.35):
        process = child(tmp_path)
        states = tmp_path / "run" / "state"
        known = set(states.glob("*.pt"))
        while set(states.glob("*.pt")) == known and process.poll() is None:
            time.sleep(0.01)
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 1
    assert toy.equal_bits(whole.weights, finished(tmp_path).weights)


def test_a_run_whose_files_cannot_grow_says_so_and_goes_on_when_they_can(tmp_path, whole):
    """The limit is below the size of a state, which the disk would refuse in the middle of the file."""
    size = max(path.stat().st_size for path in (tmp_path / "whole" / "state").glob("*.pt"))

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))

    process = child(tmp_path, limited)
    _, said = process.communicate()
    assert process.returncode and "the disk is full" in said
    assert not list((tmp_path / "run" / "state").iterdir())
    assert toy.equal_bits(whole.weights, finished(tmp_path).weights)


def test_a_scheduler_that_stops_all_processes_of_a_job_finds_the_state_saved(tmp_path):
    synthetic.write(tmp_path, images=4, seed=3, split="train")
    command = [sys.executable, "-m", "harness", "train", "simplebaseline_tiny", "--data", f"coco={tmp_path}"]
    more = [
        "--recipe",
        "quick",
        "--set",
        "batch=4",
        "--epochs",
        "500",
        "--workers",
        "2",
        "--out",
        str(tmp_path / "run"),
    ]
    process = subprocess.Popen([*command, *more], start_new_session=True, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run" / "log.jsonl"
    while not (log.is_file() and log.read_text()) and process.poll() is None:
        time.sleep(0.05)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGTERM)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM and "what was done is kept" in said, said
    assert list((tmp_path / "run" / "state").glob("*.pt"))
