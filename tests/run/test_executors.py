"""A suite as tasks on an engine: the records of a run in one process, whatever happens to the workers."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.cli.main import app
from harness.cost import machine
from harness.errors import MeasurementError, MissingPackage, NonFiniteOutput, UserError
from harness.records.parcel import pack, unpack
from harness.records.store import Store
from harness.run import executors, timing, worker
from harness.run.cluster import Cluster
from harness.run.executors import HERE, Lost, Needs, OnEngine
from harness.run.rows import Heard, Options
from harness.run.run import run_suite
from harness.run.worker import Order, Outcome
from harness.suite.schema import load_suite
from harness.suite.sources import QUICKSTART, Sources

HEAD = """name: small
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
weights: quickstart
measure: {accuracy: {bootstrap: 10}, cost: true}
methods:
"""
TWO = HEAD + "  - {variant: simplebaseline_tiny, sweep: {decoder: [argmax, quarter]}}\n  - {variant: vitpose_tiny}\n"
EXITS = "  - {variant: sharpose_tiny, sweep: {exit_rate: [0.5, 0.0]}}\n"
TIMED = "measure.latency={rounds: 3, seconds: 1}"


@dataclass
class Desk:
    """An engine in this process. `meets`: what happens instead of the n-th order; `after`: what happens when one has
    been carried out."""

    here: bool = True
    meets: dict[int, Any] = field(default_factory=dict)
    change: Callable[[Order], Order] = lambda order: order
    orders: list[Order] = field(default_factory=list)
    needs: list[Needs] = field(default_factory=list)
    opened: bool = False
    closed: int = 0
    _given: list[tuple[int, bytes]] = field(default_factory=list)

    def open(self) -> None:
        self.opened = True

    def room(self) -> int:
        return 2

    def start(self, number: int, order: Order, needs: Needs) -> None:
        assert self.opened
        self.orders.append(order)
        self.needs.append(needs)
        self._given.append((number, pickle.dumps(order)))  # as it would travel

    def next(self) -> tuple[int, Outcome | Lost]:
        number, data = self._given.pop()  # not in the order of the table
        found = self.meets.get(number, self.meets.get(0))
        if isinstance(found, BaseException):
            raise found
        if found is not None:
            return number, found
        order = replace(self.change(pickle.loads(data)), cpus=torch.get_num_threads())
        return number, pickle.loads(pickle.dumps(worker.work(order)))

    def close(self) -> None:
        self.closed += 1

    @property
    def stages(self) -> list[str]:
        return [order.stage for order in self.orders]


@dataclass
class Bench:
    folder: Path
    people: Path
    said: Heard = field(default_factory=Heard)

    def run(self, name: str, text: str, *assignments: str, executor: Any = HERE, **options: Any) -> dict[str, Any]:
        """Run a suite with the store `name`."""
        path = self.folder / "suite.yaml"
        path.write_text(text)
        suite, marked = load_suite(path, assignments)
        sources = Sources({"people": self.people} if "root: people" in text else {}, options.pop("weights", {}))
        return run_suite(
            suite, self.store(name), sources, Options(workers=0, **options), self.said, marked, executor=executor
        )

    def store(self, name: str) -> Store:
        return Store(self.folder / name)

    def equal(self, one: str, other: str) -> int:
        """Both stores hold the same: records but for their `info`, arrays and passes to the byte; how many files."""
        first, second = (self._content(name) for name in (one, other))
        assert first.keys() == second.keys()
        for name in first:
            assert first[name] == second[name], name
        return len(first)

    def _content(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            path: data for path, data in pack(self.folder / name).items() if path.endswith((".npz", ".safetensors"))
        }
        for record in self.store(name).records():
            if record.kind != "latency":
                found[record.id] = record.model_dump(exclude={"info"})
        return found


@pytest.fixture
def bench(tmp_path, people) -> Bench:
    return Bench(tmp_path, people)


def rows_of(manifest: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(row["label"], row["records"], row["reasons"], row["failed"]) for row in manifest["rows"]]


@pytest.mark.parametrize("text", [TWO + EXITS, TWO + "  - {variant: maskrcnn_tiny}\n"], ids=["exits", "whole images"])
def test_tasks_leave_the_records_of_a_run_in_one_process(bench, text):
    from_row = ["data.boxes={from: maskrcnn_tiny}"] if "maskrcnn" in text else []
    local = bench.run("local", text, *from_row)
    desk = Desk()
    manifest = bench.run("tasks", text, *from_row, executor=OnEngine(desk))
    assert rows_of(manifest) == rows_of(local) and not any(row["reasons"] for row in manifest["rows"])
    assert manifest["effects"] == local["effects"] is not None and manifest["system"] == local["system"]
    assert bench.equal("local", "tasks") > 10
    assert desk.stages.count("accuracy") == 3, "decoders share a pass, and so do exit rates"
    assert desk.closed == 1


def test_the_pass_that_most_rows_wait_for_is_given_out_first(bench):
    desk = Desk()
    bench.run("tasks", HEAD + "  - {variant: hrnet_tiny}\n" + EXITS, executor=OnEngine(desk))
    passes = [order for order in desk.orders if order.stage == "accuracy"]
    assert [len(order.cells) for order in passes] == [2, 1]


def test_an_engine_is_opened_before_it_is_known_what_is_missing(bench, monkeypatch):
    desk, seen = Desk(), []
    board = executors.Board
    monkeypatch.setattr(executors, "Board", lambda *a, **k: seen.append(desk.opened) or board(*a, **k))
    bench.run("tasks", TWO, executor=OnEngine(desk))
    assert set(seen) == {True}


def test_a_second_run_gives_out_nothing(bench):
    first = bench.run("tasks", TWO, TIMED, executor=OnEngine(Desk()))
    desk = Desk()
    again = bench.run("tasks", TWO, TIMED, executor=OnEngine(desk))
    assert desk.orders == [] and rows_of(again) == rows_of(first)


def test_a_store_of_a_local_run_lacks_only_the_new_row(bench):
    bench.run("store", TWO)
    desk = Desk()
    manifest = bench.run("store", TWO + EXITS, executor=OnEngine(desk))
    assert sorted(desk.stages) == ["accuracy", "cost"] and all(len(r["records"]) == 2 for r in manifest["rows"])


def test_a_stored_pass_travels_to_the_task_that_scores_it_anew(bench):
    bench.run("local", TWO)
    bench.run("store", TWO)
    before = {p: p.stat().st_mtime_ns for p in (bench.folder / "store/passes").rglob("*.npz")}
    for store, executor in (("local", HERE), ("store", OnEngine(Desk()))):
        bench.run(store, TWO, "protocol.nms_threshold=0.5", executor=executor)
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert bench.equal("local", "store") > 10


def test_a_lost_worker_costs_only_time(bench):
    bench.run("local", TWO)
    desk = Desk(meets={2: Lost("WorkerCrashedError"), 3: Lost("NodeDiedError"), 6: Lost("NodeDiedError")})
    manifest = bench.run("tasks", TWO, executor=OnEngine(desk))
    assert not any(row["reasons"] for row in manifest["rows"])
    assert bench.equal("local", "tasks") > 5
    assert sum("once more" in line for line in bench.said.lines) == 3


def test_a_task_that_no_worker_survives_is_a_failed_row_and_the_others_go_on(bench):
    class Deadly(Desk):
        def next(self):
            if self.orders[self._given[-1][0] - 1].cells[0].variant == "vitpose_tiny":
                return self._given.pop()[0], Lost("OutOfMemoryError")
            return super().next()

    desk = Deadly()
    good, other, bad = bench.run("tasks", TWO, executor=OnEngine(desk))["rows"]
    assert set(bad["failed"]) == {"accuracy", "cost"} and "OutOfMemoryError" in bad["reasons"]["accuracy"]
    assert desk.stages.count("accuracy") == 1 + 4
    assert not good["reasons"] and not other["reasons"]


def test_a_row_that_fails_on_a_worker_has_the_reason_of_a_local_run_and_is_not_tried_again(bench):
    state = load_file(QUICKSTART / "vitpose_tiny.safetensors")
    save_file(
        {name: torch.full_like(tensor, torch.nan) for name, tensor in state.items()}, bench.folder / "nan.safetensors"
    )
    wrong = {"vitpose_tiny": bench.folder / "nan.safetensors"}
    local = bench.run("local", TWO, weights=wrong)
    desk = Desk()
    manifest = bench.run("tasks", TWO, weights=wrong, executor=OnEngine(desk))
    assert rows_of(manifest) == rows_of(local)
    assert "nan" in manifest["rows"][2]["reasons"]["accuracy"]
    assert desk.stages.count("accuracy") == 2
    with pytest.raises(NonFiniteOutput):
        bench.run("fast", TWO, weights=wrong, executor=OnEngine(Desk()), fail_fast=True)


def test_a_stopped_run_keeps_what_is_done_and_the_next_one_does_the_rest(bench):
    desk = Desk(meets={4: KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        bench.run("tasks", TWO, executor=OnEngine(desk))
    kept = {record.id for record in bench.store("tasks").records()}
    assert desk.closed == 1 and kept and (bench.folder / "tasks/runs/small.json").is_file()
    rest = Desk()
    bench.run("tasks", TWO, executor=OnEngine(rest))
    bench.run("local", TWO)
    assert bench.equal("local", "tasks") > 5
    assert 0 < len(rest.orders) < 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda o: replace(o, seen={**o.seen, "the code": "0" * 16}),
            "the code is not that of the machine that asks",
        ),
        (lambda o: replace(o, sources=Sources({"people": Path("nowhere")})), "the data other are not here"),
        (lambda o: replace(o, suite=o.suite.model_copy(update={"weights": ""})), "the weights of .* are not here"),
    ],
    ids=["code", "data", "weights"],
)
def test_a_node_with_other_code_data_or_weights_ends_the_run_with_a_message(bench, change, said):
    desk = Desk(change=change)
    with pytest.raises(UserError, match=said) as caught:
        bench.run("tasks", TWO, executor=OnEngine(desk))
    assert "worker on" in caught.value.where and caught.value.hint and desk.closed == 1


def test_trainings_are_tasks_and_their_passes_follow(bench):
    text = (
        "name: trained\ndata: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json,"
        " images: val2017}\nmeasure: {accuracy: {bootstrap: 10}, cost: true}\n"
        "train: {recipe: quick, epochs: 1, limit: 4, data: {root: people, annotations:"
        " annotations/person_keypoints_val2017.json, images: val2017}}\nseeds: [0, 1]\n"
        "methods:\n  - {variant: simplebaseline_tiny, sweep: {flip: [true, false]}}\n"
    )
    bench.run("local", text)
    desk = Desk()
    manifest = bench.run("tasks", text, executor=OnEngine(desk))
    assert all(row["records"].keys() == {"accuracy", "cost"} and not row["reasons"] for row in manifest["rows"])
    assert sorted(desk.stages) == ["accuracy"] * 2 + ["cost"] + ["training"] * 2
    for path in (bench.folder / "local").glob("trained/*/*.safetensors"):  # each file also says when it was made
        one, other = load_file(path), load_file(bench.folder / "tasks" / path.relative_to(bench.folder / "local"))
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def elsewhere(order: Order) -> Order:
    """The order meets a machine that is not this one."""
    timing.machine = lambda: {**machine.machine(), "cpu": "another one"}
    return order


@pytest.fixture
def this_machine() -> Iterator[None]:
    yield
    timing.machine = machine.machine


def test_times_are_one_task_alone_on_a_node_and_carry_that_nodes_machine(bench, this_machine):
    text = TWO + EXITS
    desk = Desk(here=False, change=elsewhere)
    manifest = bench.run("tasks", text, TIMED, executor=OnEngine(desk))
    assert desk.stages.count("latency") == 1 and desk.stages[-1] == "latency"
    assert [needs.alone for needs in desk.needs].count(True) == 1 and desk.needs[-1].alone
    for row in manifest["rows"]:
        record = bench.store("tasks").by_id("latency", row["records"]["latency_b1"])
        assert record.result["machine"]["cpu"] == "another one" and record.result["pose_difference_px"] is not None
    timing.machine = machine.machine
    again = Desk(here=False, change=elsewhere)
    assert rows_of(bench.run("tasks", text, TIMED, executor=OnEngine(again))) == rows_of(manifest)
    assert again.stages == ["latency"], "only the node itself can say which machine it is"


def test_result_files_come_back(bench):
    bench.run("local", TWO, results=bench.folder / "one")
    bench.run("tasks", TWO, results=bench.folder / "two", executor=OnEngine(Desk()))
    names = sorted(path.name for path in (bench.folder / "one").iterdir())
    assert len(names) == 3 and names == sorted(path.name for path in (bench.folder / "two").iterdir())
    for name in names:
        assert (bench.folder / "one" / name).read_bytes() == (bench.folder / "two" / name).read_bytes()


def test_a_gpu_by_number_is_refused(bench):
    with pytest.raises(UserError, match="cuda:1"):
        bench.run("tasks", TWO, executor=OnEngine(Desk()), device="cuda:1")


def test_without_ray_the_message_names_the_feature_and_the_install_line(bench, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingPackage, match="--executor ray needs the package ray") as caught:
        bench.run("tasks", TWO, executor=OnEngine(Cluster()))
    assert "paretopose[cluster]" in caught.value.hint


def test_an_address_without_a_cluster_is_refused(bench):
    (bench.folder / "suite.yaml").write_text(TWO)
    with pytest.raises(UserError, match="--address auto without a cluster") as caught:
        app(["run", str(bench.folder / "suite.yaml"), "--address", "auto"], standalone_mode=False)
    assert caught.value.hint == "--executor ray"


@pytest.mark.parametrize("name", ["../records/x.json", "records/../../x", "/etc/x", "runs/x.json", ""])
def test_a_parcel_stays_inside_the_store(tmp_path, name):
    with pytest.raises(MeasurementError, match="a parcel holds"):
        unpack(tmp_path / "store", {"records/good.json": b"{}", name: b"x"})
    assert not list(tmp_path.iterdir())
