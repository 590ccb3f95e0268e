"""The verb `doctor`: what is there, what is not, and the exit code that follows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

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


def needing(monkeypatch, *texts):
    """An installed distribution with these requirements, and no checkout."""
    monkeypatch.setattr(own, "_CHECKOUT", Path("nowhere.toml"))
    monkeypatch.setattr(own, "requires", lambda name: list(texts))


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
    needing(monkeypatch, "nosuchpackage>=3", "numpy>=99")
    done = call(tmp_path, "--json")
    found = by_name(done)
    assert done.exit_code == 2 and not json.loads(done.stdout)["fine"]
    assert found["nosuchpackage"] == {
        "what": "nosuchpackage", "state": "missing", "found": "not installed", "how": 'pip install "nosuchpackage>=3"',
    }  # fmt: skip
    assert found["numpy"]["state"] == "missing" and ">=99" in found["numpy"]["found"]
    assert 'to do: pip install "nosuchpackage>=3"' in call(tmp_path).stdout


def test_a_missing_extra_is_told_and_does_no_harm(quick, tmp_path, monkeypatch):
    needing(monkeypatch, 'nosuchpackage>=3; extra == "crowdpose"')
    done = call(tmp_path, "--json")
    finding = by_name(done)["nosuchpackage (extra crowdpose)"]
    assert done.exit_code == 0 and finding["state"] == "absent" and "--no-build-isolation" in finding["how"]


def test_a_checkout_tells_what_it_needs_whatever_was_true_when_it_was_installed(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(own, "requires", lambda name: ["numpy"])
    assert "ray (extra cluster)" in by_name(call(tmp_path, "--json"))
    pulled = tmp_path / "pyproject.toml"
    pulled.write_text(
        '[project]\nname = "paretopose"\ndependencies = ["nix; python_version < \'3\'"]\n'
        '[project.optional-dependencies]\nx = ["nosuch"]\n'
    )
    monkeypatch.setattr(own, "_CHECKOUT", pulled)
    found = by_name(call(tmp_path, "--json"))
    assert found["nosuch (extra x)"]["how"] == 'pip install "paretopose[x]"' and "nix" not in found


@pytest.mark.parametrize("text", ["", "<<<<<<<", '[project]\nname = "another"\ndependencies = ["nosuch"]'])
def test_a_pyproject_that_tells_nothing_of_this_project_is_left_alone(quick, tmp_path, monkeypatch, text):
    needing(monkeypatch, "numpy")
    monkeypatch.setattr(own, "_CHECKOUT", tmp_path / "pyproject.toml")
    own._CHECKOUT.write_text(text)
    found = by_name(call(tmp_path, "--json"))
    assert found["numpy"]["state"] == "fine" and "nosuch" not in found


@pytest.mark.parametrize(
    ("requirement", "module", "state", "how"),
    [
        ("opencv-python-headless>=4", "cv2", "missing", 'pip install --force-reinstall --no-deps "opencv-python-'),
        ('onnxruntime>=1; extra == "onnx"', "onnxruntime", "absent", "pip install --force-reinstall"),
    ],
)
def test_what_is_installed_and_cannot_be_imported_is_not_fine(
    quick, tmp_path, monkeypatch, requirement, module, state, how
):
    needing(monkeypatch, requirement)
    pytest.importorskip(module)
    monkeypatch.setitem(sys.modules, module, None)
    (finding,) = [f for name, f in by_name(call(tmp_path, "--json")).items() if name.startswith(requirement[:8])]
    assert f"cannot be imported (ModuleNotFoundError: import of {module}" in finding["found"]
    assert finding["state"] == state and finding["how"].startswith(how)


def test_a_library_that_the_system_lacks_is_no_reason_to_install_the_package_anew(quick, tmp_path, monkeypatch):
    def broken(module):
        raise ImportError(f"libGL.so.1: cannot open shared object file, for {module}")

    needing(monkeypatch, "opencv-python-headless")
    monkeypatch.setattr(own, "import_module", broken)
    finding = by_name(call(tmp_path, "--json"))["opencv-python-headless"]
    assert "libGL.so.1" in finding["found"] and "for cv2" in finding["found"] and "system's package" in finding["how"]


def test_a_slow_package_is_looked_for_and_not_imported(monkeypatch):
    monkeypatch.setattr(own, "import_module", None)
    assert own._import_fault("ray") in ("", "its module ray is not there")


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
