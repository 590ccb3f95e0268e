"""Training in two processes is training in one: through `accelerate launch` and `torchrun`, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from harness.data import synthetic

pytestmark = pytest.mark.slow
pytest.importorskip("accelerate")

TRAIN = ["-m", "harness", "train", "vitpose_tiny", "--recipe", "quick", "--device", "cpu", "--workers", "0"]
TRAIN += ["--set", "batch=7", "--set", "warmup_steps=2", "--epochs", "2"]
LONGER = ("--epochs", "6", "--save-every", "2")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    synthetic.write(folder, images=6, seed=3, split="train")
    return folder


def start(root: Path, out: Path, launcher: list[str], *options: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launcher, *TRAIN, "--data", f"coco={root}", "--out", str(out), *options]
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def train(root: Path, out: Path, launcher: list[str], *options: str) -> list[dict]:
    succeed(start(root, out, launcher, *options))
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def succeed(process: subprocess.Popen[str]) -> str:
    _, said = process.communicate(timeout=600)
    assert process.returncode == 0, said[-3000:]
    return said


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


def worker(launching: int, rank: str) -> int:
    """The process of this rank, of those that a launcher has started."""
    children = Path(f"/proc/{launching}/task/{launching}/children").read_text().split()
    mine = f"RANK={rank}".encode()
    return next(int(pid) for pid in children if mine in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    succeed(start(root, out, launcher("torchrun"), *LONGER))
    return tensors(out)


@pytest.mark.parametrize("lost", ["0", "1"])
def test_a_process_that_is_lost_ends_the_others_and_the_same_command_goes_on_to_the_same_bits(
    root, whole, tmp_path, lost
):
    process = start(root, tmp_path, launcher("torchrun"), *LONGER)
    # neither at the start nor at the end
    while not list(tmp_path.glob("state/state-000000006.pt")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(worker(process.pid, lost), signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode, "the training was over before the process was killed"

    said = succeed(start(root, tmp_path, launcher("torchrun"), *LONGER))
    assert "epoch 6/6" in said and "epoch 1/6" not in said
    assert tensors(tmp_path) == whole


def tensors(out: Path) -> dict[str, bytes]:
    """Of the weights: the provenance in the file, when and how long, differs."""
    loaded = load_file(out / "vitpose_tiny.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}
