"""What a machine has of all that the harness uses.

Nothing but the standard library and `packaging` is imported before it is looked at: what is missing must not be what
keeps this from telling.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tomllib
import warnings
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from packaging.requirements import Requirement

from harness.errors import HarnessError

__all__ = ["Finding", "examine"]

_PYTHON = (3, 11)
_NAME = "paretopose"
# extras whose install line is not the plain one; `test` and other extras of developers are none of a user's
_INSTALL = {
    "crowdpose": 'pip install cython setuptools "numpy>=2" && '
    'pip install --no-build-isolation --no-binary xtcocotools "paretopose[crowdpose]"',
}
_DEVELOPERS = {"test"}
_CHECKOUT = Path(__file__).resolve().parent.parent / "pyproject.toml"
# modules that are not named as their package, or whose compiled part the package alone does not load
_MODULES = {
    "fvcore": "fvcore.nn", "matplotlib": "matplotlib.ft2font", "nvidia-ml-py": "pynvml",
    "opencv-python-headless": "cv2", "pycocotools": "pycocotools.mask", "pyyaml": "yaml", "scipy": "scipy.linalg",
    "xtcocotools": "xtcocotools.mask",
}  # fmt: skip
_SLOW = {"ray"}  # looked for, not imported


@dataclass(frozen=True)
class Finding:
    """One thing: `fine`, `missing` (every run needs it) or `absent` (some verbs need it); what was found, and how to
    get what was not."""

    what: str
    state: Literal["fine", "missing", "absent"]
    found: str
    how: str = ""


Check = Callable[["Path | None"], Finding]


def examine(store: Path | None = None) -> list[Finding]:
    """Python, packages, torch, the judges, programs, and the store; a check that fails itself is a finding, too."""
    findings = [_python(), *_packages()]
    for what, check in _CHECKS.items():
        try:
            findings.append(check(store))
        except Exception as error:  # whatever a broken installation raises
            findings.append(_broken(what, error))
    return findings


def _broken(what: str, error: Exception) -> Finding:
    if isinstance(error, HarnessError):
        return Finding(what, "missing", error.what, error.hint)
    return Finding(what, "missing", _words(error), "install the package anew")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


def _python() -> Finding:
    found, needed = sys.version_info[:3], ".".join(map(str, _PYTHON))
    state: Literal["fine", "missing"] = "fine" if found >= _PYTHON else "missing"
    return Finding("python", state, ".".join(map(str, found)), "" if state == "fine" else f"Python {needed} or newer")


def _packages() -> Iterator[Finding]:
    """Each requirement of the project: its version, or how to get it."""
    try:
        needed = _of_checkout() or _of_distribution()
    except PackageNotFoundError:
        yield Finding(_NAME, "missing", "it is not installed", "pip install -e . (or `make install`)")
        return
    for requirement, extra in needed:
        if extra not in _DEVELOPERS:
            yield _package(requirement, extra)


def _of_checkout() -> list[tuple[Requirement, str]]:
    """Requirements with their extras as the checkout tells them that the code runs from; none where it is none."""
    # what the distribution tells of an editable installation is as old as the installation
    try:
        project = tomllib.loads(_CHECKOUT.read_text(encoding="utf-8"))["project"]
        if project["name"] != _NAME:
            return []
        extras = {"": project["dependencies"], **project.get("optional-dependencies", {})}
        needed = [(Requirement(text), extra) for extra, texts in extras.items() for text in texts]
        return [(r, extra) for r, extra in needed if r.marker is None or r.marker.evaluate()]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _of_distribution() -> list[tuple[Requirement, str]]:
    needed = [Requirement(text) for text in requires(_NAME) or []]
    return [(requirement, _extra_of(requirement)) for requirement in needed]


def _extra_of(requirement: Requirement) -> str:
    """The extra that a requirement belongs to, empty for one of every installation."""
    marker = requirement.marker
    if marker is None or marker.evaluate({"extra": ""}):
        return ""
    text = str(marker)
    return text.partition("extra ==")[2].strip().strip("\"'")


def _package(requirement: Requirement, extra: str) -> Finding:
    what = f"{requirement.name} (extra {extra})" if extra else requirement.name
    how = _INSTALL.get(extra, f'pip install "{_NAME}[{extra}]"') if extra else f'pip install "{_plain(requirement)}"'
    lacking: Literal["absent", "missing"] = "absent" if extra else "missing"
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Finding(what, lacking, "not installed", how)
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(what, lacking, f"{found}, needed {requirement.specifier}", how)
    fault = _import_fault(requirement.name)
    if fault:
        return Finding(what, lacking, f"{found}, but it cannot be imported ({fault})", _anew(requirement, extra, fault))
    return Finding(what, "fine", found)


def _import_fault(package: str) -> str:
    """Why a package that is installed cannot be imported; empty where it can."""
    module = _MODULES.get(package.lower(), package.replace("-", "_"))
    try:
        if package in _SLOW:
            return "" if find_spec(module) else f"its module {module} is not there"
        # OpenCV prints its fault, which is no part of --json; torch warns of what fvcore uses
        with redirect_stdout(io.StringIO()), warnings.catch_warnings(action="ignore"):
            import_module(module)
    except Exception as error:  # whatever a broken installation raises
        return _words(error)
    return ""


def _anew(requirement: Requirement, extra: str, fault: str) -> str:
    if "cannot open shared object file" in fault:
        return "install the system's package that has this library (apt-get install ...)"
    return _INSTALL.get(extra) or f'pip install --force-reinstall --no-deps "{_plain(requirement)}"'


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"


def _torch(store: Path | None) -> Finding:
    import torch

    # a sum of products: an installation that does not fit the machine fails here, not at its import
    assert float((torch.ones(2, 2) @ torch.ones(2, 2)).sum()) == 8
    return Finding("torch works", "fine", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _cuda(store: Path | None) -> Finding:
    import torch

    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("CUDA", "fine", f"{torch.version.cuda}: {', '.join(names)}")
    why = "torch is built without it" if torch.version.cuda is None else "no device, or no driver"
    return Finding("CUDA", "absent", why, "a machine with a GPU and its driver; everything runs on the CPU, too")


def _bfloat16(store: Path | None) -> Finding:
    flags = _cpu_flags()
    found = [name for name in ("amx_bf16", "avx512_bf16", "bf16") if name in flags]
    if found:
        return Finding("bfloat16 instructions", "fine", ", ".join(found))
    how = "dtype: float32; without them bfloat16 is many times slower on this CPU"
    return Finding("bfloat16 instructions", "absent", "this CPU has none, as far as the system tells", how)


def _cpu_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {flag for line in lines if line.startswith(("flags", "Features")) for flag in line.partition(":")[2].split()}


def _compiler(store: Path | None) -> Finding:
    named = os.environ.get("CXX")
    found = next((place for name in (named, "g++", "clang++") if name and (place := shutil.which(name))), None)
    if found:
        return Finding("compiler (runtime: compile)", "fine", found)
    return Finding("compiler (runtime: compile)", "absent", "no C++ compiler", "apt-get install g++, or runtime: eager")


def _program(what: str, names: tuple[str, ...], how: str) -> Check:
    def look(store: Path | None) -> Finding:
        found = next((place for name in names if (place := shutil.which(name))), None)
        return Finding(what, "fine", found) if found else Finding(what, "absent", "not found", how)

    return look


def _judge(evaluator: Literal["coco", "crowdpose"]) -> Check:
    """A judge on two persons, one found and one missed: every statistic has to be as our matcher has it."""

    def look(store: Path | None) -> Finding:
        from harness.accuracy.evaluate import evaluate
        from harness.accuracy.judges import JUDGES
        from harness.pose.skeletons import COCO, CROWDPOSE

        what = f"{JUDGES[evaluator]} agrees on a small case"
        truth, results = _small_case((COCO if evaluator == "coco" else CROWDPOSE).num_joints)
        try:
            verdict = evaluate(truth, results, evaluator=evaluator, bootstrap=0).verdict
        except HarnessError as error:
            return Finding(what, "missing" if evaluator == "coco" else "absent", error.what, error.hint)
        assert verdict is not None
        return Finding(what, "fine", f"{verdict.version}, largest difference {verdict.largest_difference:g}")

    return look


def _small_case(joints: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of two persons on one image, and results that find the first, a few pixels off."""
    poses = [[[left + 7 * n, 20 + 11 * n, 2] for n in range(joints)] for left in (10, 300)]
    persons: list[dict[str, Any]] = [
        {
            "id": n + 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": joints,
            "bbox": [pose[0][0], 20, 7 * joints, 11 * joints], "area": 77 * joints**2,
            "keypoints": [value for joint in pose for value in joint],
        }
        for n, pose in enumerate(poses)
    ]  # fmt: skip
    image = {"id": 1, "file_name": "1.jpg", "width": 640, "height": 480, "crowdIndex": 0.5}
    truth = {"images": [image], "annotations": persons, "categories": [{"id": 1, "name": "person"}]}
    found = [value + 2.0 for value in persons[0]["keypoints"]]
    return truth, [{"image_id": 1, "category_id": 1, "keypoints": found, "score": 0.9}]


def _store(folder: Path | None) -> Finding:
    from harness.records.store import DEFAULT_FOLDER, Store

    place = folder or DEFAULT_FOLDER
    Store(place).check_writable()
    return Finding("store", "fine", f"{place} can be written, {shutil.disk_usage(place).free / 1e9:.1f} GB free")


_CHECKS: dict[str, Check] = {
    "torch works": _torch,
    "CUDA": _cuda,
    "bfloat16 instructions": _bfloat16,
    "compiler": _compiler,
    "pycocotools": _judge("coco"),
    "xtcocotools": _judge("crowdpose"),
    "browser": _program(
        "browser (tests of the HTML page)", ("chromium", "google-chrome"), "apt-get install chromium chromium-driver"
    ),
    "pdflatex": _program("pdflatex (to set the LaTeX tables)", ("pdflatex",), "apt-get install texlive-latex-extra"),
    "store": _store,
}
