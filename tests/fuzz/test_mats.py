"""Mat files that somebody damaged: each is read in a process of its own, which it may end."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from harness.errors import DataError
from harness.provenance import PROJECT

READER = """
import sys, traceback
from pathlib import Path
from harness.data.mat_file import answer
from harness.errors import DataError
for line in sys.stdin:
    try:
        answer(Path(line.strip()), ["headboxes_src", "pos_gt_src", "jnt_missing", "RELEASE", "preds"])
        outcome = "read"
    except (DataError, MemoryError):
        outcome = "refused"
    except Exception:
        traceback.print_exc()
        outcome = "failed"
    print(outcome, flush=True)
"""


class Reader:
    """A process that reads file after file; another one, where a file has ended it."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-c", READER]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(command, **pipes, text=True, cwd=PROJECT)

    def outcome(self, path: Path) -> str:
        self.process.stdin.write(f"{path}\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline().strip()
        if not told:
            assert self.process.wait() < 0, "ended by a signal"
            self._start()
        return told or "refused"

    def close(self) -> None:
        self.process.communicate()


def _written(content: dict, **how) -> bytes:
    stream = io.BytesIO()
    scipy.io.savemat(stream, content, **how)
    return stream.getvalue()


def _person(x: float) -> dict:
    return {"objpos": {"x": x, "y": 2.0}, "x1": 1.0, "y1": 2.0, "x2": 3.0, "y2": 4.0}


SPLIT = {"headboxes_src": np.ones((2, 2, 3)), "pos_gt_src": np.zeros((16, 2, 3)), "jnt_missing": np.zeros((16, 3))}
RELEASE = {"RELEASE": {"annolist": [{"image": {"name": "a.jpg"}, "annorect": [_person(1.0), _person(2.0)]}]}}
PREDS = {"preds": np.zeros((3, 16, 2), np.float32), "note": "text", "cells": np.array([1, "x"], dtype=object)}
VALID = [
    _written(SPLIT), _written(SPLIT, do_compression=True), _written(RELEASE), _written(RELEASE, do_compression=True),
    _written(PREDS), _written({"preds": np.zeros((4, 16))}, format="4"),
]  # fmt: skip


@pytest.fixture
def reader():
    made = Reader()
    yield made
    made.close()


def test_changed_mat_files_are_read_or_refused_or_end_their_reader(fuzz, tmp_path, reader):
    path = tmp_path / "a.mat"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        outcome = reader.outcome(path)
        assert outcome != "failed"
        if outcome == "refused":
            raise DataError("refused", where=str(path))

    fuzz.bytes(VALID, read)
