"""What the instrument itself costs: planning, resuming, and what is around a network that costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.data import synthetic
from harness.method import TopDownOutput, find_variant
from harness.records.store import Store
from harness.run.plan import plan_suite
from harness.run.rows import Options, Progress
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints
from methods import simplebaseline

pytestmark = pytest.mark.benchmark_suite
TINY = "simplebaseline_tiny"
HEAD = """name: many
data: {name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}
measure: {accuracy: {bootstrap: 0, judge: false}, cost: true}
methods:
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Two pictures and random weights."""
    folder = tmp_path_factory.mktemp("many")
    synthetic.write(folder / "people", images=2, seed=5)
    torch.manual_seed(0)
    network = find_variant(TINY).build(num_joints=17, input_size=find_variant(TINY).input_size)
    checkpoints.write(folder / "w.safetensors", network.state_dict())
    return folder


@pytest.fixture
def free(place, tmp_path, monkeypatch) -> None:
    """The network answers at once, after it has been counted as it is."""
    suite_of(place, 2)
    counted, _ = load_suite(place / "many.yaml", ["measure.accuracy=null"])
    run_suite(counted, Store(tmp_path), sources(place), Options(), Progress())
    maps = torch.rand(64, 17, 32, 24)
    answer: Callable[..., Any] = lambda self, images, settings: TopDownOutput(exits=[maps[: len(images)]])  # noqa: E731
    monkeypatch.setattr(simplebaseline.SimpleBaseline, "predict", answer)


def timed(name: str, limit: float, unit: str, capsys, call: Callable[[], Any], cells: int = 1) -> tuple[float, Any]:
    """Prints and returns the time for each cell in seconds, and what `call` gave."""
    began, spent = time.perf_counter(), time.process_time()
    result = call()
    seconds, busy = (time.perf_counter() - began) / cells, (time.process_time() - spent) / cells
    factor = 1e3 if unit == "ms" else 1.0
    with capsys.disabled():
        print(
            f"\n{name}: {factor * seconds:.2f} {unit}, {factor * busy:.2f} of the processor (limit {factor * limit:g})"
        )
    return seconds, result


def suite_of(place: Path, cells: int, shared: bool = True) -> Any:
    """A suite of so many cells that share a pass, or that have one each."""
    name, low = ("protocol.nms_threshold", 0.1) if shared else ("protocol.box_padding", 1.0)
    values = [round(low + 0.8 * n / (cells // 2), 6) for n in range(cells // 2)]
    line = f"  - {{variant: {TINY}, sweep: {{flip: [true, false], {name}: {values}}}}}\n"
    (place / "many.yaml").write_text(HEAD + line)
    return load_suite(place / "many.yaml")


def sources(place: Path) -> Sources:
    return Sources({"people": place / "people"}, {TINY: place / "w.safetensors"})


def run(place: Path, store: Path, suite: Any, marked: Any) -> dict[str, Any]:
    manifest = run_suite(suite, Store(store), sources(place), Options(workers=0), Progress(), marked)
    assert all(row["records"].keys() == {"cost", "accuracy"} for row in manifest["rows"])
    return manifest


def test_ten_thousand_cells_are_planned_in_three_seconds(place, tmp_path, capsys):
    suite, marked = suite_of(place, 10_000)
    store, files = Store(tmp_path), sources(place)
    taken = []
    for _ in range(5):  # the least counts: what else the machine does only adds
        seconds, plan = timed("plan over 10,000 cells", 3, "s", capsys, lambda: plan_suite(suite, store, files, marked))
        assert len(plan.cells) == 10_000 and plan.passes == 1
        taken.append(seconds)
    assert min(taken) < 3


def test_a_cell_costs_less_than_50_ms_and_a_finished_suite_of_a_thousand_is_resumed_in_5_s(
    place, tmp_path, free, capsys
):
    suite, marked = suite_of(place, 1_000)
    seconds, first = timed(
        "a cell that shares a pass", 0.05, "ms", capsys, lambda: run(place, tmp_path, suite, marked), 1_000
    )
    assert seconds < 0.05
    seconds, again = timed(
        "a finished suite of 1,000 cells", 5, "s", capsys, lambda: run(place, tmp_path, suite, marked)
    )
    assert [row["records"] for row in again["rows"]] == [row["records"] for row in first["rows"]] and seconds < 5


def test_a_cell_with_a_pass_of_its_own_costs_less_than_50_ms(place, tmp_path, free, capsys):
    suite, marked = suite_of(place, 200, shared=False)
    seconds, _ = timed("a cell with half a pass", 0.05, "ms", capsys, lambda: run(place, tmp_path, suite, marked), 200)
    assert seconds < 0.05
