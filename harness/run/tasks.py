"""A run cut into tasks that can run anywhere: what can start now, given what has ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.run.costing import alike, state_of_cost
from harness.run.rows import Row
from harness.run.scoring import pass_folders, sharing, waits
from harness.run.scoring_images import find_boxes
from harness.run.session import Session
from harness.run.stages import Stage, asked
from harness.run.timing import attach_known
from harness.suite.schema import BoxesFrom

__all__ = ["Board", "Task"]


@dataclass(frozen=True, eq=False)
class Task:
    """A piece of a stage that cannot be divided: a training, a network to count, a shared pass, a comparison of
    times. It fills `rows`; `beside` are rows whose results it needs."""

    stage: Stage
    rows: tuple[Row, ...]
    beside: tuple[Row, ...] = ()

    @property
    def title(self) -> str:
        """The task in words, for messages."""
        more = f" and {len(self.rows) - 1} more" if len(self.rows) > 1 else ""
        return f"{self.stage} of {self.rows[0].cell.label}{more}"


class Board:
    """The tasks of some stages. Each row is looked at once for each stage, as soon as what it needs is there.

    `here`: the tasks run on this very machine, so that its latency records count as measured.
    """

    def __init__(self, session: Session, stages: Sequence[Stage], *, here: bool) -> None:
        self._session, self._here = session, here
        self._unseen = {stage: list(session.rows) for stage in stages if asked(session, stage)}
        self._running: dict[Stage, set[Row]] = {stage: set() for stage in self._unseen}

    @property
    def left(self) -> int:
        """Measurements that have not ended: rows, once for each stage."""
        return sum(map(len, self._unseen.values())) + sum(map(len, self._running.values()))

    def ready(self) -> list[Task]:
        """The tasks that can start now and were not given out before."""
        kinds = {"cost": self._costs, "training": self._trainings, "accuracy": self._passes, "latency": self._times}
        return [task for stage in list(self._unseen) for task in kinds[stage]()]

    def ended(self, task: Task) -> None:
        """`task` has ended, one way or the other."""
        self._running[task.stage] -= set(task.rows)

    def _pending(self, stage: Stage) -> set[Row]:
        return {*self._unseen.get(stage, ()), *self._running.get(stage, ())}

    def _look(self, stage: Stage, rows: Sequence[Row]) -> Sequence[Row]:
        """These rows are looked at now."""
        taken = set(rows)
        self._unseen[stage] = [row for row in self._unseen[stage] if row not in taken]
        return rows

    def _task(self, stage: Stage, rows: Sequence[Row], beside: tuple[Row, ...] = ()) -> Task:
        self._running[stage] |= set(rows)
        return Task(stage, tuple(rows), beside)

    def _costs(self) -> Iterator[Task]:
        for rows in alike(self._session, self._look("cost", self._unseen["cost"])):
            state = ""
            with self._session.guard(rows, "cost"):
                state = state_of_cost(self._session, rows)
            if state == "to do":
                yield self._task("cost", rows)

    def _trainings(self) -> Iterator[Task]:
        groups: dict[str, list[Row]] = {}
        for row in self._look("training", self._unseen["training"]):
            training = self._session.trainings.get(row)
            if training is not None and row.weights is None:
                groups.setdefault(training.id, []).append(row)
        yield from (self._task("training", rows) for rows in groups.values())

    def _passes(self) -> Iterator[Task]:
        session, spec = self._session, self._session.suite.measure.accuracy
        assert spec is not None
        untrained = self._pending("training")
        free = [row for row in self._unseen["accuracy"] if row not in untrained]
        whole = [row for row in free if row.variant.paradigm == "one-stage"]
        for rows in sharing(session, self._look("accuracy", whole), spec):
            if self._has_work(rows):
                yield self._task("accuracy", rows)
        rest = [row for row in free if row.variant.paradigm == "top-down"]
        if not rest or (session.box_sources() and self._images_pending()):
            return
        find_boxes(session)
        for rows in sharing(session, self._look("accuracy", rest), spec):
            if self._has_work(rows):
                yield self._task("accuracy", rows, self._origin(rows[0]))

    def _has_work(self, rows: Sequence[Row]) -> bool:
        """A record, a result file or the boxes of other rows wait for the pass of `rows`."""
        if any(waits(self._session, row) for row in rows):
            return True
        wanted = rows[0].variant.name in self._session.box_sources()
        return wanted and not all((f / "complete.json").is_file() for f in pass_folders(self._session, rows))

    def _images_pending(self) -> bool:
        return any(row.variant.paradigm == "one-stage" for row in self._pending("accuracy"))

    def _origin(self, row: Row) -> tuple[Row, ...]:
        """The row whose boxes `row` takes."""
        source = row.cell.data.boxes
        if not isinstance(source, BoxesFrom):
            return ()
        return (next(r for r in self._session.rows if r.variant.name == source.variant),)

    def _times(self) -> Iterator[Task]:
        """One task for all: methods are compared in rounds, on one machine, when nothing else of the suite runs."""
        session, spec = self._session, self._session.suite.measure.latency
        assert spec is not None
        if any(self._pending(stage) for stage in ("cost", "training", "accuracy")):
            return
        rows = self._look("latency", self._unseen["latency"])
        if self._here:
            timed = [row for row in rows if row.weights is not None or row.variant.open_file is None]
            for batch in spec.batch:
                attach_known(session, timed, spec, batch)
            rows = rows if any(f"latency_b{b}" not in row.records for b in spec.batch for row in rows) else []
        if rows:
            yield self._task("latency", rows)
