"""A sweep on a real Ray cluster, three nodes on this machine: what is killed costs time and nothing else."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.run.cluster import Cluster as Engine
from harness.run.executors import OnEngine
from harness.run.rows import Heard

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]  # a node has one CPU
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
SUITE = sweeps.TWO + sweeps.EXITS + "  - {variant: srpose_tiny}\n"


class Eventful(Heard):
    """Something happens when the first task is done."""

    def __init__(self, event: Callable[[], None]) -> None:
        super().__init__()
        self._event: Callable[[], None] | None = event

    def say(self, text: str) -> None:
        super().say(text)
        if " s on " in text and self._event is not None:
            event, self._event = self._event, None
            event()


@pytest.fixture(scope="module")
def bench(tmp_path_factory, people) -> Any:
    """For all tests, so that the local run is measured once."""
    return sweeps.Bench(tmp_path_factory.mktemp("sweeps"), people)


@pytest.fixture(scope="module")
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


def compare(bench: Any, name: str, manifest: dict[str, Any], local: dict[str, Any]) -> None:
    """The store `name` has the local records, but for milliseconds; nothing failed."""
    for row, other in zip(manifest["rows"], local["rows"], strict=True):
        assert not row["reasons"] and not row["failed"]
        assert {k: v for k, v in row["records"].items() if k in other["records"]} == other["records"]
    assert manifest["effects"] == local["effects"]
    assert bench.equal("local", name) > 15


def test_a_node_that_is_killed_in_mid_sweep_costs_only_time(bench, cluster):
    local = bench.run("local", SUITE)
    bench.said = Eventful(lambda: kill_a_node_at_work(cluster))
    manifest = bench.run("without-a-node", SUITE, sweeps.TIMED, executor=on(cluster))
    assert any("once more" in line for line in bench.said.lines), "the node died under a task"
    assert len(cluster.worker_nodes) == 1
    cluster.add_node(**NODE)
    compare(bench, "without-a-node", manifest, local)
    assert all("latency_b1" in row["records"] for row in manifest["rows"])


def test_a_worker_that_is_killed_in_mid_sweep_costs_only_time(bench, cluster):
    local = bench.run("local", SUITE)
    killed: list[int] = []

    def kill() -> None:
        process, _ = held_at_work(cluster)
        killed.append(process)
        os.kill(process, signal.SIGKILL)

    bench.said = Eventful(kill)
    manifest = bench.run("without-a-worker", SUITE, executor=on(cluster))
    assert killed and any("once more" in line for line in bench.said.lines)
    compare(bench, "without-a-worker", manifest, local)


def kill_a_node_at_work(cluster: Any) -> None:
    """A node that is lost takes all its processes with it: the task that was held on it cannot end in between."""
    process, node = held_at_work(cluster)
    cluster.remove_node(node, allow_graceful=False)
    with contextlib.suppress(ProcessLookupError):  # its node may have taken it along
        os.kill(process, signal.SIGKILL)


def held_at_work(cluster: Any) -> tuple[int, Any]:
    """A worker in the middle of a task, stopped there, and its node, which is not the head."""
    for _ in range(1200):
        for process in busy():
            node = next((n for n in cluster.worker_nodes if below(process, raylet(n))), None)
            if node is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGSTOP)
                if process in busy():  # not one that ended while it was looked at
                    return process, node
                os.kill(process, signal.SIGCONT)
        time.sleep(0.05)
    raise AssertionError("no node got a task within a minute")


def raylet(node: Any) -> int:
    """The process that starts the workers of `node`."""
    return node.all_processes["raylet"][0].process.pid


def busy() -> Iterator[int]:
    """The worker processes of this test's cluster that carry out a task."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            name = (path / "cmdline").read_bytes().split(b"\0")[0]
        except OSError:
            continue
        if name in (b"ray::accuracy", b"ray::cost") and below(int(path.name), os.getpid()):
            yield int(path.name)


def below(process: int, other: int) -> bool:
    """`process` is `other` or was started below it."""
    while process > 1 and process != other:
        try:
            stat = Path(f"/proc/{process}/stat").read_text()
        except OSError:  # it has just ended
            return False
        process = int(stat.rpartition(")")[2].split()[1])
    return process == other


def test_a_sweep_that_is_terminated_keeps_what_is_done_and_goes_on(bench, cluster):
    local = bench.run("local", SUITE)
    command = [sys.executable, "-m", "harness", "run", str(bench.folder / "suite.yaml"), "--executor", "ray"]
    command += ["--address", cluster.address, "--data", f"people={bench.people}", "--workers", "0"]
    command += ["--store", str(bench.folder / "stopped"), "--report", str(bench.folder / "reports")]
    for _ in range(3):
        shutil.rmtree(bench.folder / "stopped", ignore_errors=True)
        child, said = at_its_second_task(command)
        child.send_signal(signal.SIGTERM)
        said += child.stderr.read()
        if "You have likely discovered a bug in Ray" not in said:  # a task that ends while it is cancelled
            break
    assert child.wait(timeout=120) == 128 + signal.SIGTERM, said
    done = {record.id for record in bench.store("stopped").records()}
    wanted = {record.id for record in bench.store("local").records()}
    assert done and done < wanted and (bench.folder / "stopped/runs/small.json").is_file()
    bench.said = Heard()
    compare(bench, "stopped", bench.run("stopped", SUITE, executor=on(cluster)), local)
    tasks = [line for line in bench.said.lines if " s on " in line]
    assert 0 < len(tasks) < 8, "what was there was not measured again"


def at_its_second_task(command: list[str]) -> tuple[subprocess.Popen[str], str]:
    """A run that has done a task, and what it said. On a busy machine a driver has ended before, with exit 1, which is
    none of ours, and without an exception: such a one is started again."""
    said = ""
    for _ in range(3):
        child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert child.stderr is not None
        for line in child.stderr:
            said += line
            if " s on " in line:
                return child, said
        assert child.wait() == 1, said
    raise AssertionError(said)


def test_a_cluster_that_does_not_answer_is_a_message(bench):
    from harness.errors import UserError

    with pytest.raises(UserError, match="no Ray cluster answers") as caught:
        bench.run("swept", SUITE, executor=OnEngine(Engine("127.0.0.1:1")))
    assert "ray start" in caught.value.hint
