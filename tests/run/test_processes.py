"""Processes of this machine as the engine of a run: the records of a run in one process, whatever happens to them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import stopping
from harness.cli.main import app
from harness.errors import NonFiniteOutput, UserError
from harness.records.parcel import pack
from harness.records.store import Store
from harness.run.executors import HERE, Executor, OnEngine
from harness.run.processes import Processes
from harness.run.rows import Heard, Options
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import QUICKSTART, Sources

SUITE = """name: small
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
weights: quickstart
measure: {accuracy: {bootstrap: 10}, cost: true}
methods:
  - {variant: simplebaseline_tiny, sweep: {decoder: [argmax, quarter]}}
  - {variant: sharpose_tiny, sweep: {exit_rate: [0.5, 0.0]}}
"""

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def said() -> Heard:
    return Heard()


@pytest.fixture
def run(tmp_path, people, said) -> Run:
    """Runs SUITE with the store `name`."""

    def run_it(
        name: str, executor: Executor, *assignments: str, suite: str = SUITE, weights: Any = None, **options: Any
    ) -> dict[str, Any]:
        path = tmp_path / "suite.yaml"
        path.write_text(suite)
        loaded, marked = load_suite(path, assignments)
        sources, kept = Sources({"people": people}, weights or {}), Store(tmp_path / name)
        return run_suite(loaded, kept, sources, Options(**{"workers": 0, **options}), said, marked, executor=executor)

    return run_it


class Watched(Processes):
    """`meet` is called with the process of each order, as soon as it has that."""

    def __init__(self, count: int, meet: Callable[[int, Any], None]) -> None:
        super().__init__(count)
        self._meet = meet
        self.begun: list[Any] = []
        """the process of each order"""

    def start(self, number: int, order: Any, needs: Any) -> None:
        super().start(number, order, needs)
        self.begun.append(self._busy[number].process)
        self._meet(number, self.begun[-1])


def test_processes_leave_the_records_of_a_run_in_one_process(run, tmp_path, one_thread):
    local = run("local", HERE)
    apart = run("apart", OnEngine(Processes(2)))
    assert [row["records"] for row in apart["rows"]] == [row["records"] for row in local["rows"]]
    assert not any(row["reasons"] for row in apart["rows"]) and apart["effects"] == local["effects"] is not None
    arrays = [{n: d for n, d in pack(tmp_path / s).items() if n.endswith(".npz")} for s in ("local", "apart")]
    assert arrays[0] == arrays[1] and len(arrays[0]) > 3


@pytest.mark.slow
def test_times_are_taken_with_all_threads(run, tmp_path):
    manifest = run("apart", OnEngine(Processes(2)), "measure.latency={rounds: 3, seconds: 1}")
    found = Store(tmp_path / "apart").by_id("latency", manifest["rows"][0]["records"]["latency_b1"])
    assert found is not None and found.result["settings"]["threads"] == torch.get_num_threads()


@pytest.mark.slow
def test_a_process_that_is_killed_costs_only_time(run, said):
    engine = Watched(2, lambda number, process: process.kill() if number == 2 else None)
    manifest = run("apart", OnEngine(engine))
    assert not any(row["reasons"] for row in manifest["rows"])
    assert [line for line in said.lines if "SIGKILL); once more" in line]


@pytest.mark.slow
def test_a_training_has_processes_of_its_own_that_load_its_data(run):
    text = SUITE.split("methods:")[0].replace("weights: quickstart\n", "") + (
        "train: {recipe: quick, epochs: 1, limit: 4, data: {root: people, annotations:"
        " annotations/person_keypoints_val2017.json, images: val2017}}\n"
        "methods:\n  - {variant: simplebaseline_tiny}\n"
    )
    manifest = run("apart", OnEngine(Processes(2)), suite=text, workers=1)
    assert not manifest["rows"][0]["reasons"] and manifest["rows"][0]["records"].keys() == {"accuracy", "cost"}


def test_what_a_process_raises_is_raised_here_and_none_stays(run, tmp_path):
    state = load_file(QUICKSTART / "simplebaseline_tiny.safetensors")
    state["final_layer.bias"].fill_(torch.nan)
    wrong = tmp_path / "nan.safetensors"
    save_file(state, wrong)
    engine = Watched(2, lambda number, process: None)
    with pytest.raises(NonFiniteOutput, match="image"):
        run("apart", OnEngine(engine), weights={"simplebaseline_tiny": wrong}, fail_fast=True)
    assert engine.begun and not any(process.is_alive() for process in engine.begun)


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_ends_its_processes_and_the_next_one_does_the_rest(run):
    def ask(number: int, process: Any) -> None:
        if number == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    engine = Watched(1, ask)
    with pytest.raises(stopping.Stopped), stopping.graceful():
        run("apart", OnEngine(engine))
    assert not any(process.is_alive() for process in engine.begun)
    rest = Watched(1, lambda number, process: None)
    manifest = run("apart", OnEngine(rest))
    assert not any(row["reasons"] for row in manifest["rows"])
    assert 0 < len(rest.begun) < 1 + len(engine.begun)


def test_a_run_that_lacks_nothing_ends_the_processes_that_it_began_at_once(run, one_thread):
    class Open(Processes):
        def open(self) -> None:
            super().open()
            began.extend(worker.process for worker in self._idle)

    began: list[Any] = []
    first = run("apart", HERE)
    assert run("apart", OnEngine(Open(2)))["rows"] == first["rows"]
    assert len(set(began)) == 2 and {process.exitcode for process in began} == {-signal.SIGKILL}


@pytest.mark.slow
def test_ctrl_c_is_a_matter_of_the_process_that_gave_the_orders(run, said):
    engine = Watched(2, lambda number, process: os.kill(process.pid, signal.SIGINT))
    manifest = run("apart", OnEngine(engine))
    assert not any(row["reasons"] for row in manifest["rows"])
    assert len(set(engine.begun)) == 2 and not [line for line in said.lines if "once more" in line]


@pytest.mark.slow
def test_processes_that_die_between_two_orders_are_replaced(run, said):
    def kill_the_idle(number: int, process: Any) -> None:
        for idle in engine._idle if number == 1 else ():
            idle.process.kill()
            idle.process.join()

    engine = Watched(2, kill_the_idle)
    manifest = run("apart", OnEngine(engine))
    assert not any(row["reasons"] for row in manifest["rows"])
    assert [line for line in said.lines if "SIGKILL); once more" in line]


def test_a_cluster_has_no_number_of_jobs(tmp_path):
    (tmp_path / "suite.yaml").write_text(SUITE)
    with pytest.raises(UserError, match="--jobs 2 on a cluster"):
        app(["run", str(tmp_path / "suite.yaml"), "--executor", "ray", "--jobs", "2"], standalone_mode=False)
