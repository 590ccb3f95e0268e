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

TRAIN = ("--recipe", "quick", "--device", "cpu", "--workers", "0", "--set", "batch=7", "--set", "warmup_steps=2")
# neither has norms over the batch; the second has a loss that is no mean over samples, in the second half of a training
EPOCHS = {"vitpose_tiny": 2, "sharpose_tiny": 4}
LOSSES = {"vitpose_tiny": ("loss",), "sharpose_tiny": ("loss", "heatmap_coarse", "heatmap_fine", "quality")}
LONGER = ("--epochs", "6", "--save-every", "2")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    synthetic.write(folder, images=6, seed=3, split="train")
    return folder


def start(
    root: Path, out: Path, launcher: list[str], *options: str, network: str = "vitpose_tiny"
) -> subprocess.Popen[bytes]:
    """What it says goes to the file `said` in `out`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    train = ["-m", "harness", "train", network, *TRAIN, "--epochs", str(EPOCHS[network])]
    command = [*launcher, *train, "--data", f"coco={root}", "--out", str(out), *options]
    out.mkdir(parents=True, exist_ok=True)
    with (out / "said").open("wb") as said:
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)


def train(root: Path, out: Path, launcher: list[str], *options: str, network: str) -> list[dict]:
    succeed(start(root, out, launcher, *options, network=network), out)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def succeed(process: subprocess.Popen[bytes], out: Path) -> str:
    code = process.wait(timeout=600)
    said = (out / "said").read_text()
    assert code == 0, said[-3000:]
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


@pytest.mark.parametrize(
    "kind, network", [("accelerate", "vitpose_tiny"), ("torchrun", "vitpose_tiny"), ("torchrun", "sharpose_tiny")]
)
def test_two_processes_have_the_losses_of_one(root, tmp_path, kind, network):
    """The last batch of an epoch is odd, so that the two have unequal shares of it."""
    pieces = ["--accumulate", "2"] if kind == "torchrun" else []
    alone = train(root, tmp_path / "one", [sys.executable], network=network)
    together = train(root, tmp_path / "two", launcher(kind), *pieces, network=network)
    assert [line["step"] for line in together] == [line["step"] for line in alone]
    assert len(alone) == EPOCHS[network] and all(alone[-1][name] > 0 for name in LOSSES[network])
    for epoch, (one, two) in enumerate(zip(alone, together, strict=True)):
        # AdamW gives the rounding of other piece sizes back with each step
        assert {name: two[name] for name in LOSSES[network]} == pytest.approx(
            {name: one[name] for name in LOSSES[network]}, rel=5e-5 if epoch else 1e-5
        )
    assert (tmp_path / "two" / f"{network}.safetensors").is_file()


def worker(launching: int, rank: str) -> int:
    """The process of this rank, of those that a launcher has started."""
    children = Path(f"/proc/{launching}/task/{launching}/children").read_text().split()
    mine = f"RANK={rank}".encode()
    return next(int(pid) for pid in children if mine in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole")
    succeed(start(root, out, launcher("torchrun"), *LONGER), out)
    return tensors(out)


@pytest.mark.parametrize("lost", ["0", "1"])
def test_a_process_that_is_lost_ends_the_others_and_the_same_command_goes_on_to_the_same_bits(
    root, whole, tmp_path, lost
):
    process = start(root, tmp_path, launcher("torchrun"), *LONGER)
    deadline = time.monotonic() + 300
    while not (tmp_path / "state" / "state-000000006.pt").exists():  # neither at the start nor at the end
        assert process.poll() is None, "the training was over before a process could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(worker(process.pid, lost), signal.SIGKILL)
    assert process.wait(timeout=120) != 0

    said = succeed(start(root, tmp_path, launcher("torchrun"), *LONGER), tmp_path)
    assert "epoch 6/6" in said and "epoch 1/6" not in said
    assert tensors(tmp_path) == whole


def tensors(out: Path) -> dict[str, bytes]:
    """Of the weights: the provenance in the file, when and how long, differs."""
    loaded = load_file(out / "vitpose_tiny.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in loaded.items()}
