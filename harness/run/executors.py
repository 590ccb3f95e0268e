"""Where the stages of a run are measured: in this process, or as tasks that an engine places on other machines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol

from harness.errors import MeasurementError, UserError
from harness.run.rows import Options
from harness.run.session import Session
from harness.run.stages import Stage, measure_here
from harness.run.tasks import Board, Task
from harness.run.worker import Order, Outcome, keep, order_of

__all__ = ["HERE", "Engine", "Executor", "Lost", "Needs", "OnEngine", "needs_of"]

Executor = AbstractContextManager[Callable[..., None]]
"""What it gives is called with a session and the names of stages, and fills the rows."""

HERE: Executor = nullcontext(measure_here)

_TRIES = 4  # under which so many workers die kills them
_MEMORY = 2 * 2**30  # torch, data and crops; a network comes on top, with copies of its weights


@dataclass(frozen=True)
class Needs:
    """What a task asks of its node. `memory` in bytes; `alone`: nothing else may run there meanwhile."""

    cpus: int
    gpus: int
    memory: int
    alone: bool = False


@dataclass(frozen=True)
class Lost:
    """The worker or its node died under an order; `why` in the engine's words."""

    why: str


class Engine(Protocol):
    """Carries out orders somewhere, several at a time."""

    here: bool
    """on this very machine"""

    def open(self) -> None:
        """Begin what takes long: soon it will be known whether there are orders. May be called again."""

    def room(self) -> int:
        """How many orders it takes at once."""

    def start(self, number: int, order: Order, needs: Needs) -> None:
        """Take an order; `number` names it. UserError when no node has what it needs."""

    def next(self) -> tuple[int, Outcome | Lost]:
        """Wait for the next order that ends. Raises what its worker raised."""

    def close(self) -> None:
        """Stop what still runs."""


class OnEngine:
    """Stages as tasks on an engine. What a task has measured is kept when it ends; a lost one is given out again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> OnEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._engine.close()

    def __call__(self, session: Session, *stages: Stage) -> None:
        """Fill the rows of `session` as `measure_here` does."""
        self._engine.open()
        board = Board(session, stages, here=self._engine.here)
        waiting = board.ready()
        if not waiting:
            return
        left = board.left
        with session.progress.task(f"{', '.join(stages)}: measurements", left) as advance:
            for task in self._carried_out(waiting, session):
                board.ended(task)
                waiting.extend(board.ready())
                advance(left - board.left)
                left = board.left

    def _carried_out(self, waiting: list[Task], session: Session) -> Iterator[Task]:
        """Gives out what is waiting; yields each task when it has ended and its results are kept."""
        running: dict[int, Task] = {}
        tries: dict[Task, int] = {}
        while waiting or running:
            while waiting and len(running) < self._engine.room():
                task = max(waiting, key=lambda task: len(task.rows))  # a long one that is last runs alone
                waiting.remove(task)
                tries[task] = tries.get(task, 0) + 1
                number = sum(tries.values())
                self._engine.start(number, order_of(task, session), needs_of(task, session.options))
                running[number] = task
            number, outcome = self._engine.next()
            task = running.pop(number)
            if isinstance(outcome, Lost) and tries[task] < _TRIES:
                session.progress.say(f"{task.title}: its worker was lost ({outcome.why}); once more")
                waiting.append(task)
                continue
            if isinstance(outcome, Lost):
                _give_up(task, outcome, session)
            else:
                keep(outcome, task, session)
                _tell(task, outcome, session)
            yield task


def _tell(task: Task, outcome: Outcome, session: Session) -> None:
    failed = any(told.failed for told in outcome.rows)
    for line in outcome.lines if failed else ():
        session.progress.say(f"{outcome.node}: {line}")
    session.progress.say(f"{task.title}: {outcome.seconds:.1f} s on {outcome.node}{', failed' if failed else ''}")


def _give_up(task: Task, lost: Lost, session: Session) -> None:
    """The reason in the rows of a task that no worker survives."""
    latency = session.suite.measure.latency
    names = [f"latency_b{batch}" for batch in latency.batch] if task.stage == "latency" and latency else [task.stage]
    for name in names:
        with session.guard(task.rows, name):
            raise MeasurementError(f"{_TRIES} workers were lost under it, the last one so: {lost.why}")
    if task.stage == "training":
        for row in task.rows:
            row.lacking = row.reasons.pop("training")


def needs_of(task: Task, options: Options) -> Needs:
    """What a task asks of its node. UserError for a GPU by number: the engine chooses it."""
    kind, _, number = options.device.partition(":")
    if number:
        raise UserError(f"--device {options.device} on a cluster", expected=kind, hint="the cluster chooses the GPU")
    files = {row.weights for row in (*task.rows, *task.beside) if row.weights is not None}
    memory = _MEMORY + 4 * max((file.stat().st_size for file in files), default=0)
    if task.stage == "cost":
        return Needs(1, 0, memory)
    return Needs(1 + options.workers, int(kind == "cuda"), memory, alone=task.stage == "latency")
