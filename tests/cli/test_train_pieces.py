"""Training in pieces of a few minutes, with the interpreter that is there."""

from __future__ import annotations

import json
import subprocess

import pytest

from harness.cli import train_pieces


@pytest.fixture
def calls(monkeypatch):
    """Commands that were run; each answers that it is done, those named in `more` that they are not."""
    made: list[list[str]] = []
    more: set[str] = set()

    def run(command, **options):
        made.append(command)
        result = {"done": command[4] not in more, "steps": 3, "loss": 0.5, "images_per_second": 10.0}
        return subprocess.CompletedProcess(command, 0, json.dumps(result))

    monkeypatch.setattr(subprocess, "run", run)
    run.made, run.more = made, more
    return run


def minutes_of(command):
    return float(command[command.index("--minutes") + 1])


def test_variants_are_trained_in_turn_with_the_options_behind_the_dashes(calls, tmp_path, capsys):
    arguments = ["--out", str(tmp_path), "a", "b", "--", "--recipe", "quick"]
    assert train_pieces.main(arguments) == 0
    assert [command[3:5] for command in calls.made] == [["train", "a"], ["train", "b"]]
    assert all(command[-4:-2] == ["--recipe", "quick"] for command in calls.made)
    assert calls.made[0][calls.made[0].index("--out") + 1] == str(tmp_path / "a")
    assert 7 < minutes_of(calls.made[0]) < 8 and "a: done" in capsys.readouterr().out


def test_a_training_that_is_not_done_ends_the_call_with_another_exit_code(calls, tmp_path):
    calls.more.add("a")
    assert train_pieces.main(["a", "b"]) == 4 and len(calls.made) == 1


def test_no_training_is_begun_without_time(calls):
    assert train_pieces.main(["--minutes", "0.1", "a"]) == 4 and not calls.made


def test_packages_that_the_interpreter_lacks_are_named(calls, monkeypatch, capsys):
    monkeypatch.setattr(train_pieces, "_NEEDED", ("numpy", "no_such_package"))
    assert train_pieces.main(["a"]) == 3 and not calls.made
    assert "no_such_package" in capsys.readouterr().out


def test_a_training_that_fails_is_told(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda command, **o: subprocess.CompletedProcess(command, 3, ""))
    assert train_pieces.main(["a"]) == 2
