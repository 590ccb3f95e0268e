"""What goes wrong in the middle of a run: memory, signals, damaged files, a data set that does not stay as it is."""

from __future__ import annotations

import json
import os
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness import stopping
from harness.data import synthetic
from harness.method import find_variant
from harness.passes import predict
from harness.records.store import Store
from harness.run.rows import Heard, Options
from harness.run.run import run_suite
from harness.suite.schema import load_suite
from harness.suite.sources import Sources
from harness.train import checkpoints

TINY = "simplebaseline_tiny"
SUITE = f"""name: small
data: {{name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}}
measure: {{accuracy: {{bootstrap: 5, judge: false}}, cost: false}}
methods:
  - {{variant: {TINY}, sweep: {{decoder: [argmax, quarter]}}}}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    synthetic.write(folder / "people", images=8, seed=3)
    torch.manual_seed(0)
    network = find_variant(TINY).build(num_joints=17, input_size=find_variant(TINY).input_size)
    network.final_layer.weight.data.mul_(300)
    checkpoints.write(folder / "w.safetensors", network.state_dict())
    return folder


@dataclass
class Bench:
    """A store, a data set of its own, and a network whose forward passes call `before(number of the call, persons)`."""

    folder: Path
    said: Heard = field(default_factory=Heard)
    sizes: list[int] = field(default_factory=list)
    before: Any = None
    quarantined: list[str] = field(default_factory=list)

    def run(self, *assignments: str, **options: Any) -> list[dict[str, Any]]:
        (self.folder / "small.yaml").write_text(SUITE)
        suite, marked = load_suite(self.folder / "small.yaml", assignments)
        sources = Sources({"people": self.folder / "people"}, {TINY: self.folder / "w.safetensors"})
        store, how = Store(self.folder / "records"), Options(**{"workers": 0, "batch": 4, **options})
        self.sizes.clear()
        try:
            return run_suite(suite, store, sources, how, self.said, marked)["rows"]
        finally:
            self.quarantined = store.quarantined

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        return json.loads((self.folder / f"records/records/accuracy-{row['records']['accuracy']}.json").read_text())

    def pictures(self) -> list[Path]:
        return sorted((self.folder / "people/val2017").iterdir())

    def parts(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "records/passes").rglob("*.npz"))


@pytest.fixture
def bench(tmp_path, made, monkeypatch) -> Bench:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    bench, process = Bench(tmp_path), predict.TopDownRunner.process

    def watched(self, crops, *rest):
        bench.sizes.append(len(crops))
        if bench.before:
            bench.before(len(bench.sizes), len(crops))
        return process(self, crops, *rest)

    monkeypatch.setattr(predict.TopDownRunner, "process", watched)
    return bench


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["CUDA", "Python", "CPU", "cuDNN"],
)
def test_a_batch_that_does_not_fit_is_halved_once_and_gives_the_same_record(bench, tmp_path, error):
    def before(number: int, persons: int) -> None:
        if persons > 2:
            raise error

    bench.before = before
    rows = bench.run()
    assert bench.sizes[0] == 4 and set(bench.sizes[1:]) <= {1, 2} and not any(row["failed"] for row in rows)
    bench.before, halved = None, bench.record(rows[0])
    shutil.rmtree(tmp_path / "records")
    whole = bench.record(bench.run()[0])
    assert set(bench.sizes[:-1]) == {4}
    assert halved["result"]["stats"]["AP"]["value"] == pytest.approx(whole["result"]["stats"]["AP"]["value"], abs=1e-6)


def test_half_a_batch_that_does_not_fit_either_is_a_failed_row_with_a_hint(bench):
    def before(number: int, persons: int) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    bench.before = before
    rows = bench.run()
    assert bench.sizes == [4, 2] and all(row["failed"] == ["accuracy"] for row in rows)
    assert "a batch of 2 does not fit into memory" in rows[0]["reasons"]["accuracy"]
    assert "--batch 1" in rows[0]["reasons"]["accuracy"]


def test_an_error_of_any_library_is_the_reason_of_its_row(bench):
    class Foreign(Exception):  # as onnxruntime's, which share no base with others
        pass

    def before(number: int, persons: int) -> None:
        raise Foreign("the driver went away")

    bench.before = before
    assert "the driver went away" in bench.run()[0]["reasons"]["accuracy"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_a_run_after_the_batch_and_nothing_of_it_is_done_twice(bench, tmp_path, number, code):
    whole, handled = bench.record(bench.run()[0]), signal.getsignal(number)
    calls = len(bench.sizes)
    shutil.rmtree(tmp_path / "records")
    bench.before = lambda at, persons: os.kill(os.getpid(), number) if at == 2 else None
    with pytest.raises(SystemExit) as left, stopping.graceful():
        bench.run()
    assert left.value.code == code and bench.sizes == [4, 4] and bench.parts() == ["part-0000000.npz"]
    assert signal.getsignal(number) == handled and not stopping.asked()
    bench.before = None
    again = bench.record(bench.run()[0])
    assert len(bench.sizes) == calls - 2 and bench.parts() == ["block-0000000.npz"]
    assert again["result"] == whole["result"] and again["key"] == whole["key"]


def test_a_second_interrupt_ends_at_once(bench):
    bench.before = lambda at, persons: [os.kill(os.getpid(), signal.SIGINT) for _ in range(2)]
    with pytest.raises(KeyboardInterrupt), stopping.graceful():
        bench.run()
    assert len(bench.sizes) == 1 and not list(bench.folder.rglob("*.tmp"))


def test_a_damaged_block_and_damaged_matches_are_set_aside_measured_again_and_told(bench, monkeypatch):
    monkeypatch.setattr(predict, "BLOCK", 8)
    rows = bench.run()
    before = bench.record(rows[0])
    block = min((bench.folder / "records/passes").rglob("block-*.npz"))
    matches = bench.folder / f"records/arrays/{before['id']}.npz"
    for path in (block, matches):
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 4
        path.write_bytes(data)
    again = bench.run()
    assert set(bench.quarantined) == {matches.name, f"{block.parent.name}-{block.name}"} and sum(bench.sizes) == 8
    assert bench.record(again[0])["result"] == before["result"]
    assert Store(bench.folder / "records").arrays(before["id"]) is not None


def test_a_picture_that_vanishes_during_a_run_fails_it_by_name_or_is_counted_as_missing(bench):
    def before(number: int, persons: int) -> None:
        bench.pictures()[-1].unlink(missing_ok=True) if number == 1 else None

    kept = bench.pictures()[-1].read_bytes()
    name = bench.pictures()[-1].name
    bench.before = before
    rows = bench.run()
    assert name in rows[0]["reasons"]["accuracy"] and rows[0]["failed"]
    (bench.folder / "people/val2017" / name).write_bytes(kept)
    rows = bench.run("data.missing=skip")
    skipped = bench.record(rows[0])
    assert skipped["result"]["skipped_boxes"] >= 1 and "went missing" in " ".join(bench.said.lines)
    bench.before = None
    rows = bench.run("data.missing=skip")
    assert bench.sizes == [] and bench.record(rows[0])["id"] == skipped["id"], "its key says that the file is missing"
    (bench.folder / "people/val2017" / name).write_bytes(kept)
    rows = bench.run("data.missing=skip")
    assert bench.record(rows[0])["id"] != skipped["id"] and not bench.record(rows[0])["result"]["skipped_boxes"]


def test_pictures_that_are_exchanged_during_a_run_give_no_record(bench):
    def before(number: int, persons: int) -> None:
        picture = bench.pictures()[-1]
        picture.write_bytes(picture.read_bytes() + b"\0")

    bench.before = before
    rows = bench.run()
    assert "exchanged while they were read" in rows[0]["reasons"]["accuracy"] and bench.parts() == []
    bench.before = None
    assert not any(row["failed"] for row in bench.run())


def test_a_changed_data_set_is_measured_again_in_the_same_process_too(bench):
    first = bench.record(bench.run()[0])["id"]
    assert bench.record(bench.run()[0])["id"] == first and bench.sizes == []
    picture = bench.pictures()[0]
    picture.write_bytes(picture.read_bytes() + b"\0")
    second = bench.record(bench.run()[0])["id"]
    file = bench.folder / "people/annotations/person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["keypoints"][0] += 1
    file.write_text(json.dumps(content))
    third = bench.record(bench.run()[0])["id"]
    assert len({first, second, third}) == 3


def test_a_changed_box_file_is_predicted_again(bench):
    file = bench.folder / "people/annotations/person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    boxes = [
        {"image_id": a["image_id"], "category_id": 1, "bbox": a["bbox"], "score": 0.9} for a in content["annotations"]
    ]
    places = []
    for score in (0.9, 0.8):
        boxes[0]["score"] = score
        (bench.folder / "people/boxes.json").write_text(json.dumps(boxes))
        places.append(bench.record(bench.run("data.boxes=boxes.json")[0])["id"])
        assert sum(bench.sizes) == len(boxes)
    assert places[0] != places[1]


def test_a_clock_that_goes_back_does_no_harm(bench, monkeypatch):
    first = bench.record(bench.run()[0])
    monkeypatch.setattr("time.time", lambda: 0.0)
    monkeypatch.setattr("time.gmtime", lambda *at: (1970, 1, 1, 0, 0, 0, 3, 1, 0))
    rows = bench.run("protocol.nms_threshold=0.5")
    assert bench.sizes == [] and bench.record(rows[0])["info"]["created"].startswith("1970")
    assert bench.record(bench.run()[0])["info"]["created"] == first["info"]["created"]
    found = Store(bench.folder / "records").arrays(first["id"])
    assert found is not None and all(np.isfinite(v).all() for v in found.values() if v.dtype.kind == "f")
