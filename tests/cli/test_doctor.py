"""The verb `doctor`: what is there, what is not, and the exit code that follows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import harness.doctor as own
from harness.cli.main import app
from harness.errors import JudgeDisagreement


@pytest.fixture
def quick(monkeypatch):
    """Without the checks that start torch and the judges."""
    kept = ("compiler", "pdflatex", "store")
    monkeypatch.setattr(own, "_CHECKS", {name: own._CHECKS[name] for name in kept})


def call(tmp_path, *more):
    return CliRunner().invoke(app, ["doctor", "--store", str(tmp_path / "records"), *more])


def by_name(done) -> dict[str, dict]:
    return {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_a_whole_installation_is_fine_and_names_versions(quick, tmp_path):
    done = call(tmp_path, "--json")
    found = by_name(done)
    assert done.exit_code == 0 and json.loads(done.stdout)["fine"]
    assert found["torch"]["state"] == found["numpy"]["state"] == found["store"]["state"] == "fine"
    assert found["python"]["found"] == ".".join(map(str, sys.version_info[:3]))
    assert not any("extra test" in name for name in found)
    lines = call(tmp_path).stdout.splitlines()
    assert any(line.startswith("fine    numpy: ") for line in lines)


def test_what_every_run_needs_is_missing_with_exit_2_and_an_install_line(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "requires", lambda name: ["nosuchpackage>=3", "numpy>=99"])
    done = call(tmp_path, "--json")
    found = by_name(done)
    assert done.exit_code == 2 and not json.loads(done.stdout)["fine"]
    assert found["nosuchpackage"] == {
        "what": "nosuchpackage", "state": "missing", "found": "not installed", "how": 'pip install "nosuchpackage>=3"',
    }  # fmt: skip
    assert found["numpy"]["state"] == "missing" and ">=99" in found["numpy"]["found"]
    assert 'to do: pip install "nosuchpackage>=3"' in call(tmp_path).stdout


def test_a_missing_extra_is_told_and_does_no_harm(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "requires", lambda name: ['nosuchpackage>=3; extra == "crowdpose"'])
    done = call(tmp_path, "--json")
    finding = by_name(done)["nosuchpackage (extra crowdpose)"]
    assert done.exit_code == 0 and finding["state"] == "absent" and "--no-build-isolation" in finding["how"]


def test_a_store_that_cannot_be_written_is_missing_with_the_way_out(quick, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    done = CliRunner().invoke(app, ["doctor", "--store", str(tmp_path / "file" / "records")])
    assert done.exit_code == 2 and "cannot write records" in done.stdout and "--store" in done.stdout


def test_a_check_that_breaks_is_a_finding(quick, tmp_path, monkeypatch):
    def broken(store):
        raise OSError("libnothing.so: cannot open shared object file")

    monkeypatch.setitem(own._CHECKS, "torch works", broken)
    done = call(tmp_path, "--json")
    assert done.exit_code == 2 and "libnothing" in by_name(done)["torch works"]["found"]


def test_the_judge_is_asked_about_a_small_case(tmp_path, monkeypatch):
    fine = own._judge("coco")(tmp_path)
    assert fine.state == "fine" and "largest difference 0" in fine.found

    def disagreeing(*arguments, **options):
        raise JudgeDisagreement("AP is 0.5 here and 0.6 in pycocotools")

    monkeypatch.setattr("harness.accuracy.evaluate.judged", disagreeing)
    assert own._judge("coco")(tmp_path).state == "missing" and own._judge("crowdpose")(tmp_path).state == "absent"


def test_it_tells_what_is_missing_where_even_numpy_and_torch_cannot_be_imported(tmp_path):
    program = (
        "import sys\nfor name in ('numpy', 'torch', 'pydantic', 'rich.console'): sys.modules[name] = None\n"
        f"sys.argv = ['paretopose', 'doctor', '--store', {str(tmp_path)!r}]\n"
        "from harness.doctor import examine\nfor found in examine(): print(found.state, found.what)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=own.__file__[: -len("harness/doctor.py")]
    )
    assert done.returncode == 0, done.stderr
    assert (
        "missing torch works" in done.stdout and "missing pycocotools" in done.stdout and "fine python" in done.stdout
    )
