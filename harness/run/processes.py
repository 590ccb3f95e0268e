"""Processes of this machine as the engine of a run: one for each order, several at a time."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from harness import stopping
from harness.errors import MeasurementError
from harness.run.executors import Lost, Needs
from harness.run.worker import Order, Outcome, work

__all__ = ["Processes"]

_LOOK = 0.5  # seconds between two looks whether somebody wants to stop
_STOPPING = 5.0  # seconds for a process to put away its files


class _Running(NamedTuple):
    number: int
    process: BaseProcess
    answer: Connection


class Processes:
    """`count` processes at a time, which share the threads that this one would use.

    Each carries out one order, so that what a network breaks or leaves in memory ends with it.
    """

    here = True

    def __init__(self, count: int) -> None:
        self._count = count
        # forked from one that has imported torch and done nothing else: as quick as a fork of this one, and as safe
        # as a new one
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["harness.run.processes", "harness.passes.predict"])
        self._running: list[_Running] = []

    def room(self) -> int:
        """As many orders as run at once."""
        return self._count

    def start(self, number: int, order: Order, needs: Needs) -> None:
        """Begin with an order; one that is alone has all threads of this process."""
        import torch

        cpus = torch.get_num_threads()
        order = replace(order, cpus=cpus if needs.alone else max(1, cpus // self._count))
        answer, end = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_carry_out, args=(pickle.dumps(order), end))
        process.start()
        end.close()
        self._running.append(_Running(number, process, answer))

    def next(self) -> tuple[int, Outcome | Lost]:
        """Wait for the next order that ends. Raises what its process raised; Stopped."""
        ready: list[object] = []
        while not ready:
            stopping.check()
            ready = list(wait([running.answer for running in self._running], timeout=_LOOK))
        ended = next(running for running in self._running if running.answer is ready[0])
        self._running.remove(ended)
        found = _answer(ended)
        if isinstance(found, Exception):
            raise found
        return ended.number, found

    def close(self) -> None:
        """Stop what still runs."""
        for running in self._running:
            running.process.terminate()
        for running in self._running:
            running.process.join(_STOPPING)
            running.process.kill()
            running.answer.close()
        self._running.clear()


def _answer(ended: _Running) -> Outcome | Lost | Exception:
    """What a process has sent; Lost for one that died before."""
    try:
        found: Outcome | Exception = pickle.loads(ended.answer.recv_bytes())
    except (EOFError, OSError):  # before it answered, or in the middle of its answer
        ended.process.join()
        code = ended.process.exitcode or 0
        return Lost(signal.Signals(-code).name if code < 0 else f"exit code {code}")
    finally:
        ended.answer.close()
    ended.process.join()
    return found


def _carry_out(order: bytes, answer: Connection) -> None:
    """In the process of an order: send its outcome, or what was raised."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the one that gave the order decides
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # temporary files are put away
    found: Outcome | Exception
    try:
        found = work(pickle.loads(order))
    except Exception as error:  # told by whoever gave the order
        found = error
    answer.send_bytes(_pickled(found))


def _pickled(found: Outcome | Exception) -> bytes:
    try:
        data = pickle.dumps(found)
        pickle.loads(data)
        return data
    except Exception:  # an exception of a foreign package may hold anything
        return pickle.dumps(MeasurementError(f"{type(found).__name__}: {found}"))
