"""The log of a run, and its clock."""

from __future__ import annotations

import json
import sys
import time
import types
from typing import ClassVar

import pytest

from harness.train.log import Clock, Log


class Board:
    """Stands in for TensorBoard's writer."""

    made: ClassVar[list[Board]] = []

    def __init__(self, folder, purge_step):
        self.folder, self.purge_step, self.scalars, self.closed = folder, purge_step, [], False
        Board.made.append(self)

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def flush(self):
        pass

    def close(self):
        self.closed = True


@pytest.fixture
def board(monkeypatch):
    Board.made = []
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Board))


def test_a_line_holds_the_means_since_the_line_before_and_tensorboard_the_same(tmp_path, board):
    log = Log(tmp_path)
    log.open(0)
    for loss in (1.0, 3.0):
        log.add({"loss": loss, "part": loss / 2})
    log.write(step=1, lr=0.1)
    log.add({"loss": 5.0, "part": 2.5})
    log.write(step=2, lr=0.1)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "lr": 0.1, "loss": 2.0, "part": 1.0}, {"step": 2, "lr": 0.1, "loss": 5.0, "part": 2.5}]
    (made,) = Board.made
    assert ("loss", 2.0, 1) in made.scalars and ("loss", 5.0, 2) in made.scalars and made.closed
    assert log.last == 5.0


def test_what_was_logged_after_the_last_state_is_dropped_and_a_cut_line_too(tmp_path, board):
    lines = [json.dumps({"step": step, "loss": float(step)}) for step in (1, 3, 5)]
    (tmp_path / "log.jsonl").write_text("\n".join(lines) + '\n{"step": 6, "lo')
    log = Log(tmp_path)
    log.open(4)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == lines[:2]
    assert log.last == 3.0 and Board.made[0].purge_step == 4


def test_a_log_that_is_not_active_writes_nothing(tmp_path, board):
    log = Log(tmp_path / "none", active=False)
    log.open(0)
    log.add({"loss": 1.0})
    log.write(step=0)
    log.close()
    assert not (tmp_path / "none").exists() and not Board.made and log.last == 1.0


def test_without_tensorboard_there_are_json_lines_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    log = Log(tmp_path)
    log.open(0)
    log.add({"loss": 1.0})
    log.write(step=0)
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_the_clock_tells_how_much_of_the_time_was_waiting():
    clock = Clock()

    def slow():
        for item in range(2):
            time.sleep(0.05)
            yield item

    for _ in clock.waiting(slow()):
        time.sleep(0.05)
        clock.count(8)
    facts = clock.facts()
    assert 0.3 < facts["waiting_share"] < 0.7
    assert facts["images_per_second"] == pytest.approx(16 / 0.2, rel=0.4)
