"""Processes of this machine as the engine of a run: each carries out one order after the other."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import NamedTuple

from harness import stopping
from harness.data.apart import ended
from harness.errors import MeasurementError
from harness.method import variants
from harness.run.executors import Lost, Needs
from harness.run.worker import Order, Outcome, work

__all__ = ["Processes"]

_LOOK = 0.5  # seconds between two looks whether somebody wants to stop
_STOPPING = 5.0  # seconds for a process to put away its files


class _Worker(NamedTuple):
    process: BaseProcess
    line: Connection


class Processes:
    """`count` processes, which share the threads that this one would use."""

    here = True

    def __init__(self, count: int) -> None:
        self._count = count
        self._idle: list[_Worker] = []
        self._busy: dict[int, _Worker] = {}

    def open(self) -> None:
        """Start the processes: they import torch while this one looks for what is missing."""
        while len(self._idle) + len(self._busy) < self._count:
            self._idle.append(_started())

    def room(self) -> int:
        """As many orders as there are processes."""
        return self._count

    def start(self, number: int, order: Order, needs: Needs) -> None:
        """Hand an order to a process that is idle; one that is alone has all threads of this process."""
        import torch

        self.open()  # again, where one was lost
        threads = torch.get_num_threads()
        order = replace(order, cpus=threads if needs.alone else max(1, threads // self._count))
        worker = self._idle.pop()
        with suppress(OSError):  # it has died: `next` finds its line at an end
            worker.line.send_bytes(pickle.dumps(order))
        self._busy[number] = worker

    def next(self) -> tuple[int, Outcome | Lost]:
        """Wait for the next order that ends. Raises what its process raised; Stopped."""
        ready: list[object] = []
        while not ready:
            stopping.check()
            ready = list(wait([worker.line for worker in self._busy.values()], timeout=_LOOK))
        number = next(number for number, worker in self._busy.items() if worker.line is ready[0])
        worker = self._busy.pop(number)
        try:
            found: Outcome | Exception = pickle.loads(worker.line.recv_bytes())
        except (EOFError, OSError):  # it died before it answered, or in the middle of its answer
            return number, _lost(worker)
        self._idle.append(worker)
        if isinstance(found, Exception):
            raise found
        return number, found

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for worker in self._idle:
            worker.process.kill()  # its files are put away, and torch takes seconds to take itself apart
        for worker in self._busy.values():
            worker.process.terminate()
        for worker in (*self._idle, *self._busy.values()):
            worker.process.join(_STOPPING)
            worker.process.kill()
            worker.line.close()
        self._idle.clear()
        self._busy.clear()


def _started() -> _Worker:
    context = multiprocessing.get_context("spawn")
    line, end = context.Pipe()
    process = context.Process(target=_serve, args=(end,))
    resource_tracker.ensure_running()  # the first process starts it otherwise, which lifts the mask
    # Ctrl-C reaches all processes: the one that gives the orders decides, and this mask is inherited
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    end.close()
    return _Worker(process, line)


def _lost(worker: _Worker) -> Lost:
    worker.line.close()
    worker.process.join()
    return Lost(ended(worker.process.exitcode or 0))


def _serve(line: Connection) -> None:
    """In a process: carry out orders, send their outcomes or what was raised, until nobody gives any more."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # temporary files are put away
    with suppress(Exception):  # what is wrong with them, the first order tells
        variants()  # imported before somebody waits for it
    while True:
        try:
            order = line.recv_bytes()
        except EOFError:
            return
        line.send_bytes(_carried_out(order))


def _carried_out(order: bytes) -> bytes:
    """The pickled outcome, or exception: told by whoever gave the order."""
    found: Outcome | Exception
    try:
        found = work(pickle.loads(order))
    except Exception as error:
        found = error
    try:
        data = pickle.dumps(found)
        pickle.loads(data)
        return data
    except Exception:  # an exception of a foreign package may hold anything
        return pickle.dumps(MeasurementError(f"{type(found).__name__}: {found}"))
