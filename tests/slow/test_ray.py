"""A sweep on a real Ray cluster, three nodes on this machine: what is killed costs time and nothing else."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.run.cluster import Cluster as Engine
from harness.run.executors import OnEngine
from harness.run.rows import Progress

pytestmark = pytest.mark.slow
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
NODE = {"num_cpus": 1, "memory": 4 * 2**30, "object_store_memory": 100 * 2**20}


def _loaded():
    path = Path(__file__).parent.parent / "run" / "test_executors.py"
    spec = importlib.util.spec_from_file_location("executor_tests", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sweeps = _loaded()
people, bench = sweeps.people, sweeps.bench
SUITE = sweeps.TWO + sweeps.EXITS + "  - {variant: srpose_tiny}\n"


class Eventful(Progress):
    """Something happens when the first task is done."""

    def __init__(self, event: Callable[[], None]) -> None:
        self.lines: list[str] = []
        self._event: Callable[[], None] | None = event

    def say(self, text: str) -> None:
        self.lines.append(text)
        if " s on " in text and self._event is not None:
            event, self._event = self._event, None
            event()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """A node has one CPU; sums over more threads end in other bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Three nodes with a CPU each."""
    made = started()
    try:
        yield made
    finally:
        made.shutdown()


def started() -> Any:
    """A cluster of three; Ray gives a node 30 s to start, which a busy machine may need more than."""
    from ray.cluster_utils import Cluster

    for left in (2, 1, 0):
        made = Cluster()
        try:
            made.add_node(**NODE, include_dashboard=False)
            for _ in range(2):
                made.add_node(wait=False, **NODE)
            made.wait_for_nodes(timeout=120)
            return made
        except Exception:
            made.shutdown()
            if not left:
                raise


def on(cluster: Any) -> OnEngine:
    return OnEngine(Engine(cluster.address))


def compare(bench: Any, manifest: dict[str, Any], local: dict[str, Any]) -> None:
    """Same records, but for milliseconds; nothing failed."""
    for row, other in zip(manifest["rows"], local["rows"], strict=True):
        assert not row["reasons"] and not row["failed"]
        assert {k: v for k, v in row["records"].items() if k in other["records"]} == other["records"]
    assert manifest["effects"] == local["effects"]
    assert bench.equal("local", "swept") > 15


def test_a_node_that_is_killed_in_mid_sweep_costs_only_time(bench, cluster):
    local = bench.run("local", SUITE)
    victim = next(iter(cluster.worker_nodes))
    bench.said = Eventful(lambda: cluster.remove_node(victim, allow_graceful=False))
    manifest = bench.run("swept", SUITE, sweeps.TIMED, executor=on(cluster))
    assert any("once more" in line for line in bench.said.lines), "the node died under a task"
    assert len(cluster.worker_nodes) == 1
    compare(bench, manifest, local)
    assert all("latency_b1" in row["records"] for row in manifest["rows"])


def test_a_worker_that_is_killed_in_mid_sweep_costs_only_time(bench, cluster):
    local = bench.run("local", SUITE)
    killed: list[int] = []

    def kill() -> None:
        killed.append(next(iter(busy())))
        os.kill(killed[0], signal.SIGKILL)

    bench.said = Eventful(kill)
    manifest = bench.run("swept", SUITE, executor=on(cluster))
    assert killed and any("once more" in line for line in bench.said.lines)
    compare(bench, manifest, local)


def busy() -> Iterator[int]:
    """The worker processes of this test's cluster that carry out a task."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if name in (b"ray::accuracy", b"ray::cost") and ours(int(path.name)):
            yield int(path.name)


def ours(process: int) -> bool:
    """Below this process in the tree of processes."""
    while process > 1 and process != os.getpid():
        stat = Path(f"/proc/{process}/stat").read_text()
        process = int(stat.rpartition(")")[2].split()[1])
    return process == os.getpid()


def test_a_sweep_that_is_terminated_keeps_what_is_done_and_goes_on(bench, cluster):
    local = bench.run("local", SUITE)
    command = [sys.executable, "-m", "harness", "run", str(bench.folder / "suite.yaml"), "--executor", "ray"]
    command += ["--address", cluster.address, "--data", f"people={bench.people}", "--workers", "0"]
    command += ["--store", str(bench.folder / "swept"), "--report", str(bench.folder / "reports")]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in child.stderr:
        if " s on " in line:
            break
    child.send_signal(signal.SIGTERM)
    child.stderr.read()
    assert child.wait(timeout=120) == 128 + signal.SIGTERM
    done = {record.id for record in bench.store("swept").records()}
    wanted = {record.id for record in bench.store("local").records()}
    assert done and done < wanted and (bench.folder / "swept/runs/small.json").is_file()
    bench.said = sweeps.Said()
    compare(bench, bench.run("swept", SUITE, executor=on(cluster)), local)
    tasks = [line for line in bench.said.lines if " s on " in line]
    assert 0 < len(tasks) < 8, "what was there was not measured again"


def test_a_cluster_that_does_not_answer_is_a_message(bench):
    from harness.errors import UserError

    with pytest.raises(UserError, match="no Ray cluster answers") as caught:
        bench.run("swept", SUITE, executor=OnEngine(Engine("127.0.0.1:1")))
    assert "ray start" in caught.value.hint
