"""A training in pieces of limited time, through the script, on a CPU."""

from __future__ import annotations

import pytest

from harness.cli import train_pieces
from harness.data import synthetic

pytestmark = pytest.mark.slow


def test_the_same_call_goes_on_until_everything_is_trained(tmp_path, capfd):
    synthetic.write(tmp_path / "people", images=4, seed=3, split="train")
    call = ["--out", str(tmp_path / "out"), "simplebaseline_tiny", "--", "--data", f"coco={tmp_path / 'people'}"]
    call += ["--recipe", "quick", "--epochs", "2", "--set", "batch=4", "--device", "cpu", "--workers", "0"]
    assert train_pieces.main(["--minutes", "0.51", *call]) == 4  # half a second for steps: one is taken
    assert "simplebaseline_tiny: so far, 1 steps" in capfd.readouterr().out
    assert train_pieces.main(["--minutes", "10", *call]) == 0
    assert "simplebaseline_tiny: done" in capfd.readouterr().out
    assert (tmp_path / "out/simplebaseline_tiny/simplebaseline_tiny.safetensors").is_file()
    assert train_pieces.main(["--minutes", "10", *call]) == 0  # nothing is left to do
