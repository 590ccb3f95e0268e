"""The verbs `run` and `plan`: output, exit codes, and a run that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from harness.cli.main import app, main
from harness.data import synthetic
from harness.method import find_variant
from harness.train import checkpoints

TINY = "simplebaseline_tiny"
SUITE = f"""name: small
data: {{name: other, root: people, annotations: annotations/person_keypoints_val2017.json, images: val2017}}
measure: {{accuracy: {{bootstrap: 20}}, cost: true}}
methods:
  - {{variant: {TINY}, sweep: {{flip: [true, false]}}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with pictures, random weights and a suite file."""
    folder = tmp_path_factory.mktemp("place")
    synthetic.write(folder / "people", images=10, seed=5)
    torch.manual_seed(0)
    variant = find_variant(TINY)
    checkpoints.write(
        folder / "w.safetensors", variant.build(num_joints=17, input_size=variant.input_size).state_dict()
    )
    (folder / "small.yaml").write_text(SUITE)
    return folder


def arguments(place: Path, out: Path, *more: str) -> list[str]:
    files = ["--data", f"people={place / 'people'}", "--weights", f"{TINY}={place / 'w.safetensors'}"]
    return [str(place / "small.yaml"), *files, "--store", str(out / "records"), *more]


def run(place: Path, out: Path, *more: str):
    return CliRunner().invoke(app, ["run", *arguments(place, out, "--report", str(out / "reports"), *more)])


def results(out: Path) -> dict[str, dict]:
    """What was measured, by record; times and versions left out."""
    records = [json.loads(p.read_text()) for p in (out / "records/records").glob("*.json")]
    return {f"{r['kind']}-{r['id']}": r["result"] for r in records}


def test_run_prints_a_table_and_writes_a_report(place, tmp_path):
    done = run(place, tmp_path)
    assert done.exit_code == 0, done.output
    assert TINY.split("_")[0] in done.stdout
    assert "wrote" in done.stderr and "wrote" not in done.stdout
    assert (tmp_path / "reports/small/report.md").is_file()


def test_run_as_json_is_one_document_on_stdout(place, tmp_path):
    done = run(place, tmp_path, "--json", "--limit", "4", "--results", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert [row["label"] for row in content["manifest"]["rows"]] == [f"{TINY} flip=true", f"{TINY} flip=false"]
    assert content["manifest"]["suite"]["data"]["limit"] == 4 and content["table"] and content["files"]
    assert len(list((tmp_path / "out").glob("*.json"))) == 2


def test_plan_as_json_tells_before_and_after(place, tmp_path):
    def plan():
        done = CliRunner().invoke(app, ["plan", *arguments(place, tmp_path, "--json")])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    before = plan()
    assert before["passes"] == 1 and [c["state"]["accuracy"] for c in before["cells"]] == ["to do", "to do"]
    run(place, tmp_path)
    after = plan()
    assert after["passes"] == 0 and all(set(c["state"].values()) == {"cached"} for c in after["cells"])
    assert CliRunner().invoke(app, ["plan", *arguments(place, tmp_path)]).stdout.count("cached") == 4


def test_a_damaged_record_is_reported(place, tmp_path):
    run(place, tmp_path)
    path = next((tmp_path / "records/records").glob("accuracy-*.json"))
    path.write_text("{}")
    done = run(place, tmp_path)
    assert done.exit_code == 0 and path.name in done.stderr.replace("\n", "")


def command(*words: str, block: int = 4, pause: float = 0.0) -> list[str]:
    """`paretopose` in a process of its own, with small blocks and a pause before each batch."""
    program = (
        "import sys, time\nfrom harness.passes import predict\n"
        "predict.BLOCK = int(sys.argv[1]); pause = float(sys.argv[2])\n"
        "process = predict.TopDownRunner.process\n"
        "predict.TopDownRunner.process = lambda *a: (time.sleep(pause), process(*a))[1]\n"
        "sys.argv[1:] = sys.argv[3:]\n"
        "from harness.cli.main import main; main()"
    )
    return [sys.executable, "-c", program, str(block), str(pause), *words]


def blocks(out: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (out / "records/passes").rglob("block-*.npz")}


def test_a_run_that_was_killed_goes_on_where_it_was(place, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = ("run", *arguments(place, cut, "--report", str(cut / "reports")))
    killed = subprocess.Popen(
        command(*words, pause=0.5), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while len(blocks(cut)) < 2 and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    before = blocks(cut)
    assert len(before) >= 2 and not list((cut / "records/records").glob("accuracy-*"))
    subprocess.run(command(*words), env=environment, check=True, capture_output=True)
    after = blocks(cut)
    assert len(after) > len(before) and all(after[path] == stamp for path, stamp in before.items())
    uncut = run(place, whole)
    assert uncut.exit_code == 0 and results(whole) == results(cut) and len(results(whole)) >= 3


@pytest.mark.parametrize(
    "words", [["run", "--no-such-option"], ["gate"], ["gate", "a", "b", "--margin", "x"], ["nope"]]
)
def test_what_cannot_be_a_command_ends_with_exit_code_3(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["paretopose", *words])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert left.value.code == 3 and shown.err and "--debug" not in shown.err and not shown.out


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--data", "poeple=."], "did you mean people"),
        (["--weights", "simplebaseline_tny=."], f"did you mean {TINY}"),
        (["--data", "people=/no/such/folder"], "there is no /no/such/folder"),
        (["--set", "methods.0.sweep.flip=[maybe]"], "small.yaml:5"),
        (["--set", "mesure.cost=true"], "did you mean measure"),
    ],
)
def test_wrong_names_end_with_exit_code_3_and_a_suggestion(place, tmp_path, monkeypatch, capsys, extra, said):
    monkeypatch.setattr(sys, "argv", ["paretopose", "run", *arguments(place, tmp_path, *extra)])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr()
    assert left.value.code == 3 and said in " ".join(shown.err.split()) and not shown.out
