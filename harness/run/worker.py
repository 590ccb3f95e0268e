"""A task away from the run that it belongs to: what is sent, the work in a store of its own, what comes back."""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from harness import provenance
from harness.errors import HarnessError, UserError
from harness.records.parcel import Parcel, pack, unpack
from harness.records.store import Record, Store, write_atomically
from harness.run.rows import Heard, Options, Row, code_of, file_names
from harness.run.scoring import joint_key, pass_folders
from harness.run.scoring_images import find_boxes
from harness.run.session import Session
from harness.run.stages import STAGES, Stage
from harness.run.tasks import Task
from harness.suite.schema import BoxesFrom, Cell, Suite
from harness.suite.sources import Sources

__all__ = ["Order", "Outcome", "Told", "keep", "order_of", "work"]


@dataclass(frozen=True)
class Order:
    """A task as it is sent. `known`: record ids of each cell; `files`: what they need of the store; `seen`: the code,
    data and weights that they are to be measured with, by name; `folder`: where relative paths begin."""

    stage: Stage
    suite: Suite
    cells: tuple[Cell, ...]
    known: tuple[dict[str, str], ...]
    sources: Sources
    options: Options
    files: Parcel
    seen: dict[str, str]
    command: tuple[str, ...]
    folder: str
    cpus: int = 1


@dataclass(frozen=True)
class Told:
    """What a worker says of one cell: see `Row`. `results`: the COCO result file, where one is asked for."""

    records: dict[str, str]
    reasons: dict[str, str]
    failed: frozenset[str]
    lacking: str
    results: bytes | None = None


@dataclass(frozen=True)
class Outcome:
    """What comes back: of each cell of the order, new files of the store, and what was said meanwhile."""

    node: str
    seconds: float
    rows: tuple[Told, ...]
    files: Parcel
    lines: tuple[str, ...]


# -- where the order is given ----------------------------------------------------------------------------------


def _resolved(places: Mapping[str, Path]) -> dict[str, Path]:
    return {name: place.resolve() for name, place in places.items()}


def order_of(task: Task, session: Session) -> Order:
    """The order of a task, with everything that it needs of the session's store."""
    rows, sources = _in_order(task, session), session.sources
    return Order(
        stage=task.stage,
        suite=session.suite,
        cells=tuple(row.cell for row in rows),
        known=tuple({name: record.id for name, record in row.records.items()} for row in rows),
        sources=Sources(_resolved(sources.data), _resolved(sources.weights)),
        options=session.options,
        files=pack(session.store.folder, _needed(task, rows, session)),
        seen=_seen(session, rows),
        command=tuple(sys.argv),
        folder=str(Path.cwd()),
    )


def _in_order(task: Task, session: Session) -> list[Row]:
    """The rows of a task as they stand in the table: the first of a variant, or of all, has a meaning."""
    wanted = {*task.rows, *task.beside}
    return [row for row in session.rows if row in wanted]


def _needed(task: Task, rows: Sequence[Row], session: Session) -> Iterator[Path]:
    """Files and folders of the store that the task reads."""
    folder = session.store.folder
    for row in rows:
        yield from (folder / "records" / f"{r.kind}-{r.id}.json" for r in row.records.values())
    if task.stage in ("accuracy", "latency"):
        yield from dict.fromkeys(session.trainings[row].folder for row in rows if row in session.trainings)
        yield from _passes(rows, session)
    if task.stage == "latency":  # those of the machine that the task will meet need no second measurement
        variants = {row.variant.name for row in rows}
        found = (r for r in session.store.records() if r.kind == "latency" and r.key.get("variant") in variants)
        yield from (folder / "records" / f"latency-{record.id}.json" for record in found)


def _passes(rows: Sequence[Row], session: Session) -> Iterator[Path]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        try:
            if row.weights is not None and session.dataset(row) is not None and not session.lacking_boxes(row):
                groups.setdefault(joint_key(session, row), []).append(row)
        except HarnessError:  # told in its row
            continue
    for group in groups.values():
        yield from pass_folders(session, group)


def _seen(session: Session, rows: Sequence[Row]) -> dict[str, str]:
    """What the results of `rows` depend on beside the order itself: fingerprints by name."""
    variants = {row.variant.name: row.variant for row in rows}
    code = [[code_of(stage, variant) for stage in provenance.STAGES] for _, variant in sorted(variants.items())]
    found = {"the code": provenance.content_id(code)}
    for row in rows:
        found[f"the data {row.cell.data.name}"] = _data_seen(session, row)
        found[f"the weights of {row.cell.label}"] = provenance.file_sha256(row.weights) if row.weights else "none"
    return found


def _data_seen(session: Session, row: Row) -> str:
    try:
        dataset = session.dataset(row)
        if dataset is None or isinstance(row.cell.data.boxes, BoxesFrom):
            return dataset.fingerprint if dataset else "none"
        return provenance.content_id(session.inputs(row).key)
    except HarnessError as error:
        return f"not readable: {error}"


def _records(session: Session, ids: Mapping[str, str]) -> dict[str, Record]:
    """The records of a row, by measurement (`latency_b16` is of kind latency)."""
    found = {name: session.store.by_id(name.partition("_")[0], identity) for name, identity in ids.items()}
    return {name: record for name, record in found.items() if record is not None}


def keep(outcome: Outcome, task: Task, session: Session) -> None:
    """Put what a worker has measured into the store and the rows of the session."""
    unpack(session.store.folder, outcome.files)
    for row, told in zip(_in_order(task, session), outcome.rows, strict=True):
        if row not in task.rows:
            continue
        row.records |= _records(session, told.records)
        row.reasons |= told.reasons
        row.failed |= told.failed
        if task.stage == "training":
            row.weights, row.lacking = session.trainings[row].weights, told.lacking
        if told.results is not None and session.options.results is not None:
            path = session.options.results / f"{file_names(session.rows)[row]}.json"
            write_atomically(path, told.results)


# -- where it is carried out -----------------------------------------------------------------------------------


def work(order: Order) -> Outcome:
    """Carry out an order in a store of its own.

    Raises UserError where this machine has other code, data or weights than the one that gave the order; a failure of
    the measurement itself comes back as the reason in its row.
    """
    began, heard = time.perf_counter(), Heard()
    with tempfile.TemporaryDirectory(prefix="paretopose-") as place, _as_ordered(order, Path(place)):
        folder, results = Path(place) / "store", Path(place) / "results"
        unpack(folder, order.files)
        options = replace(order.options, results=results if order.options.results else None)
        session = Session(order.suite, order.cells, Store(folder), order.sources, options, heard)
        _check(order.seen, _seen(session, session.rows))
        for row, known in zip(session.rows, order.known, strict=True):
            row.records |= _records(session, known)
        if order.stage == "latency":
            find_boxes(session)
        STAGES[order.stage](session)
        names = file_names(session.rows)
        told = tuple(_told(row, results / f"{names[row]}.json") for row in session.rows)
        files = {name: data for name, data in pack(folder).items() if order.files.get(name) != data}
        return Outcome(platform.node(), time.perf_counter() - began, told, files, tuple(heard.lines))


def _told(row: Row, results: Path) -> Told:
    return Told(
        {name: record.id for name, record in row.records.items()},
        dict(row.reasons),
        frozenset(row.failed),
        row.lacking,
        results.read_bytes() if results.is_file() else None,
    )


def _check(wanted: dict[str, str], found: dict[str, str]) -> None:
    for name, value in wanted.items():
        other = found.get(name, "none")
        if other == value:
            continue
        same = "is not that" if name == "the code" else "are not those"
        raise UserError(
            f"{name} are not here ({other})" if other.startswith("no") else f"{name} {same} of the machine that asks",
            where=f"worker on {platform.node()}",
            expected="the same code, data and weights on every node",
            hint="install the same version everywhere" if name == "the code" else "put them on a shared file system",
        )


@contextmanager
def _as_ordered(order: Order, place: Path) -> Iterator[None]:
    """Relative paths, threads and the command that records name are those of the order."""
    import torch

    before = Path.cwd(), torch.get_num_threads(), sys.argv
    os.chdir(order.folder if Path(order.folder).is_dir() else place)  # without it, the built-in people are drawn here
    torch.set_num_threads(order.cpus)
    sys.argv = list(order.command)
    try:
        yield
    finally:
        os.chdir(before[0])
        torch.set_num_threads(before[1])
        sys.argv = before[2]
