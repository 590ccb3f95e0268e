"""Training in two processes is training in one: through `accelerate launch` and `torchrun`, on the CPU."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.data import synthetic

pytestmark = pytest.mark.slow
pytest.importorskip("accelerate")

TRAIN = ["-m", "harness", "train", "vitpose_tiny", "--recipe", "quick", "--device", "cpu", "--workers", "0"]
TRAIN += ["--set", "batch=7", "--set", "warmup_steps=2", "--epochs", "2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    synthetic.write(folder, images=6, seed=3, split="train")
    return folder


def train(root: Path, out: Path, launcher: list[str], *options: str) -> list[dict]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *TRAIN, "--data", f"coco={root}", "--out", str(out), *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def launcher(kind: str) -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    if kind == "accelerate":
        words = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
        words += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", port]
    else:
        words = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port", port]
    return [sys.executable, "-m", *words]


@pytest.mark.parametrize("kind", ["accelerate", "torchrun"])
def test_two_processes_have_the_losses_of_one(root, tmp_path, kind):
    """The last batch of an epoch is odd, so that the two have unequal shares of it."""
    alone = train(root, tmp_path / "one", [sys.executable])
    together = train(root, tmp_path / "two", launcher(kind), *(["--accumulate", "2"] if kind == "torchrun" else []))
    assert [line["step"] for line in together] == [line["step"] for line in alone] and len(alone) == 2
    for one, two in zip(alone, together):
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert (tmp_path / "two" / "vitpose_tiny.safetensors").is_file()
