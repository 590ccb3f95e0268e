"""Ray as the engine of a run: orders become Ray tasks that declare CPU, GPU and memory."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from harness import stopping
from harness.errors import MeasurementError, MissingPackage, UserError
from harness.run.executors import Lost, Needs
from harness.run.worker import Order, Outcome, work

__all__ = ["Cluster"]

_LOOK = 1.0  # seconds between two looks whether somebody wants to stop, or the node that is needed has gone
_ANSWER = 10.0  # seconds for a cluster to answer; Ray itself asks for minutes
_STOPPING = 5.0  # seconds for a worker to put away its files


class Cluster:
    """A Ray cluster: the one at `address` ("auto": that of this machine), or this machine alone. Joined when the first
    order comes."""

    def __init__(self, address: str | None = None) -> None:
        self.here = address is None
        self._address = address
        self._ray: Any = None
        self._joined = False
        self._running: dict[Any, tuple[int, Needs]] = {}

    def open(self) -> None:
        """Nothing: a run to which nothing is missing needs no cluster, and joins none."""

    def room(self) -> int:
        """Twice as many orders as run at once: the next one is there when one ends."""
        self._join()
        return max(2, 2 * int(sum(node["Resources"]["CPU"] for node in self._nodes())))

    def start(self, number: int, order: Order, needs: Needs) -> None:
        """Hand an order to Ray. UserError when no node has the GPU or the memory."""
        self._join()
        node = self._biggest(needs)
        cpus = int(node["Resources"]["CPU"])
        needs = replace(needs, cpus=cpus if needs.alone else min(needs.cpus, cpus))
        options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus, "memory": needs.memory}
        if needs.alone:  # all CPUs of the node, of which every task needs one
            strategies = self._ray.util.scheduling_strategies
            options["scheduling_strategy"] = strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        # lost orders come back to who gave them, who says so and counts: Ray's own retries of a task that is killed
        # for its memory have no end
        task = self._ray.remote(work).options(max_retries=0, name=order.stage, **options)
        self._running[task.remote(replace(order, cpus=needs.cpus))] = (number, needs)

    def next(self) -> tuple[int, Outcome | Lost]:
        """Wait for the next order that ends. UserError when no node is left that has what one needs; Stopped."""
        ready: list[Any] = []
        while not ready:
            stopping.check()
            ready, _ = self._ray.wait(list(self._running), timeout=_LOOK)
            for _, needs in self._running.values() if not ready else ():
                self._biggest(needs)
        number, _ = self._running.pop(ready[0])
        errors = self._ray.exceptions
        try:
            return number, self._ray.get(ready[0])
        except errors.RayTaskError as error:
            raise _cause(error) from None
        except errors.RayError as error:
            return number, Lost(type(error).__name__)

    def close(self) -> None:
        """Stop what runs and leave the cluster; a cluster of this machine alone ends."""
        if self._ray is None:
            return
        left = list(self._running)
        for reference in left:
            self._ray.cancel(reference)
        if left:
            _, left = self._ray.wait(left, num_returns=len(left), timeout=_STOPPING)
        # whoever leaves a cluster ends its tasks; to force one that ends at this moment brings Ray itself to a fall
        for reference in left if not self._joined else ():
            self._ray.cancel(reference, force=True)
        self._running.clear()
        if self._joined:
            self._ray.shutdown()
        self._ray = None

    def _nodes(self) -> list[dict[str, Any]]:
        """The nodes that can take tasks."""
        return [node for node in self._ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]

    def _biggest(self, needs: Needs) -> dict[str, Any]:
        """The node with most CPUs of those that have what is needed; always the same one, as times are of a machine."""
        fitting = [
            node
            for node in self._nodes()
            if node["Resources"].get("GPU", 0) >= needs.gpus and node["Resources"].get("memory", 0) >= needs.memory
        ]
        if not fitting:
            gpu = f"{needs.gpus} GPU and " if needs.gpus else ""
            raise UserError(
                f"no node of the cluster has {gpu}{needs.memory / 2**30:.1f} GiB of memory",
                where=self._address or "this machine",
                hint="`ray status` shows the nodes; `ray start --memory BYTES --num-gpus N` declares more",
            )
        return max(fitting, key=lambda node: (node["Resources"]["CPU"], node["NodeManagerHostname"], node["NodeID"]))

    def _join(self) -> None:
        """Start or find the cluster, once. MissingPackage without Ray, UserError when nobody answers."""
        if self._ray is not None:
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            import ray.util.scheduling_strategies
        except ImportError as error:
            raise MissingPackage("--executor ray", "ray", "pip install 'paretopose[cluster]'") from error
        if not ray.is_initialized():
            with _signals_kept():
                self._begin(ray)
            self._joined = True
        self._ray = ray

    def _begin(self, ray: Any) -> None:
        alone: dict[str, Any] = {"include_dashboard": False} if self._address is None else {}
        try:
            _knock(self._address)
            ray.init(self._address or "local", log_to_driver=False, logging_level=logging.ERROR, **alone)
        except Exception as error:  # Ray raises Exception itself for a node that is too slow to start
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            if self._address is None:
                raise MeasurementError(f"Ray does not start: {why}", hint="once more, or --executor local") from error
            raise UserError(
                f"no Ray cluster answers: {why}",
                where=f"--address {self._address}",
                hint="`ray start --head` on one node, `ray start --address HEAD:6379` on the others",
            ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray takes SIGTERM for itself; the run has its own way to stop."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str | None) -> None:
    """OSError when nobody listens at HOST:PORT."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=_ANSWER).close()


def _cause(error: Any) -> Exception:
    """What the worker raised, without Ray's wrapping."""
    cause = error.cause
    if "failed to import on the worker" in str(cause):
        return UserError(
            "a worker cannot import paretopose",
            expected="the same version of it on every node",
            hint="install it in the environment in which `ray start` runs",
        )
    return cause if isinstance(cause, Exception) else error
