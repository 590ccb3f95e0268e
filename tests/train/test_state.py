"""States on disk: whole, two of them, of one run."""

from __future__ import annotations

import pytest
import torch

from harness.errors import DataError, UserError
from harness.train import state

ME = {"variant": "toy", "seed": 0}


def save(folder, step):
    return state.save(folder, step, {"identity": ME, "network": {"w": torch.full((2,), float(step))}})


def test_the_last_two_states_are_kept_and_the_newest_is_loaded(tmp_path):
    for step in (5, 10, 15):
        save(tmp_path, step)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-000000010.pt", "state-000000015.pt"]
    found = state.load(tmp_path, ME)
    assert found["step"] == 15 and found["network"]["w"].tolist() == [15.0, 15.0]


def test_a_damaged_state_is_passed_over_for_the_one_before(tmp_path):
    save(tmp_path, 5)
    newest = save(tmp_path, 10)
    newest.write_bytes(newest.read_bytes()[:100])
    assert state.load(tmp_path, ME)["step"] == 5


def test_a_run_whose_every_state_is_damaged_says_so(tmp_path):
    save(tmp_path, 5).write_bytes(b"")
    with pytest.raises(DataError, match="no state of the run can be read"):
        state.load(tmp_path, ME)


def test_a_state_of_another_run_is_refused_with_what_differs(tmp_path):
    save(tmp_path, 5)
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        state.load(tmp_path, {**ME, "seed": 1})


def test_an_empty_or_missing_folder_has_no_state(tmp_path):
    assert state.load(tmp_path / "none", ME) is None


def test_clearing_removes_states_and_half_written_ones_only(tmp_path):
    save(tmp_path, 5)
    (tmp_path / ".state-000000006.pt.abc.tmp").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("mine")
    state.clear(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_damaged_state_does_not_take_a_place_for_long(tmp_path):
    save(tmp_path, 5)
    save(tmp_path, 10).write_bytes(b"cut")
    save(tmp_path, 6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state-000000005.pt", "state-000000006.pt"]


def test_what_differs_is_named_field_by_field(tmp_path):
    state.save(tmp_path, 5, {"identity": {"recipe": {"lr": 0.1, "target": {"sigma": 2}}}})
    with pytest.raises(UserError, match=r"another run \(recipe.target.sigma: 2 there, 3 now\)"):
        state.load(tmp_path, {"recipe": {"lr": 0.1, "target": {"sigma": 3}}})
