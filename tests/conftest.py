"""Shared fixtures. Goldens and photographs live outside the project, in the folder that PARETOPOSE_DATA names."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads starve each other on shared machines


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with goldens, photographs and weights; the test is skipped, visibly, without it."""
    root = os.environ.get("PARETOPOSE_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("PARETOPOSE_DATA is not set: goldens and photographs are not here")
    return Path(root).resolve()


@pytest.fixture(scope="session")
def golden(shared: Path):
    """golden(name) -> the arrays of goldens/NAME.npz as a dict."""

    def load(name: str) -> dict[str, np.ndarray]:
        path = shared / "goldens" / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no golden {name}")
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files}

    return load


@pytest.fixture(scope="session")
def golden_tools(shared: Path) -> ModuleType:
    """tools/golden.py: fill(module), seeded(key, shape), image(n, h, w, seed)."""
    spec = importlib.util.spec_from_file_location("golden_tools", shared / "tools" / "golden.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def one_thread():
    """Sums of several threads are added in another order: bits are compared at one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> Path:
    """The root of a set of four pictures of the built-in people."""
    from harness.data import synthetic

    root = tmp_path_factory.mktemp("people")
    synthetic.write(root, images=4, seed=3)
    return root


def _module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its classes are looked up by module name
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def one_stage() -> ModuleType:
    """tests/one_stage.py: a one-stage network and pictures that it can read."""
    return _module("one_stage")


@pytest.fixture(scope="session")
def other_sets() -> ModuleType:
    """tests/other_sets.py: the built-in people in the formats of CrowdPose and MPII."""
    return _module("other_sets")


def relative_error(ours, theirs) -> float:
    """Largest difference relative to the largest absolute value of the reference."""
    ours, theirs = np.asarray(ours, dtype=np.float64), np.asarray(theirs, dtype=np.float64)
    return float(np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), 1e-30))


@pytest.fixture(scope="session")
def _two_exits(tmp_path_factory) -> Path:
    """What tests/two_exits.py builds."""
    spec = importlib.util.spec_from_file_location("two_exits", Path(__file__).parent / "two_exits.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("two_exits")
    module.build(folder)
    return folder


@pytest.fixture
def two_exits(_two_exits, tmp_path) -> Path:
    """A copy of its own of a network that may leave early: `records/` (run `two`, row `two_exits`) and `people/`."""
    return Path(shutil.copytree(_two_exits, tmp_path / "two_exits"))
