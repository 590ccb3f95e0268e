"""The house: who may import whom, what stays free of torch, what may not be in a file."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("harness", "methods", "reports")


def _files(*folders: str) -> list[Path]:
    return sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py"))


def _imports(path: Path, *, top_only: bool = False) -> set[str]:
    """Full names of what a file imports; `from a import b` counts as a.b too. Type-checking blocks are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    nodes = list(_runtime_nodes(tree, top_only))
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _runtime_nodes(tree: ast.AST, top_only: bool):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if top_only and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield node
        yield from _runtime_nodes(node, top_only)


def _belongs(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == a or name.startswith(a + ".") for a in allowed)


# fmt: off
METHODS_MAY = (
    "harness.method", "harness.errors", "harness.pose", "harness.train.recipes", "harness.export.contract",
    "methods.parts", "torch", "torchvision", "numpy", "onnx", "onnxruntime",
)
# fmt: on


@pytest.mark.parametrize("path", _files("methods"), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_method_imports_the_contract_its_parts_and_torch_and_never_another_method(path):
    parts = path.parent.name == "parts"
    allowed = ("harness.errors", *METHODS_MAY[5:]) if parts else METHODS_MAY
    strangers = {n for n in _imports(path) if not _belongs(n, allowed)}
    strangers = {n for n in strangers if n.split(".")[0] not in sys.stdlib_module_names}
    assert not strangers - {"harness", "methods"}, f"{path.name} imports {sorted(strangers)}"


@pytest.mark.parametrize("path", _files("harness"), ids=lambda p: str(p.relative_to(ROOT)))
def test_the_harness_names_no_method_and_nobody_imports_the_command_line(path):
    names = _imports(path)
    assert not [n for n in names if _belongs(n, ("methods",))]
    if path.parent.name != "cli" and path.name != "__main__.py":
        assert not [n for n in names if _belongs(n, ("harness.cli", "reports"))]


@pytest.mark.parametrize(
    "path",
    _files("harness/data", "harness/pose", "harness/accuracy", "harness/cost"),
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_the_pure_packages_know_neither_store_nor_command_line(path):
    allowed = (
        "harness.errors", "harness.foreign", "harness.pose", "harness.data", "harness.accuracy", "harness.cost",
        "harness.method", "harness.words",
    )  # fmt: skip
    strangers = [n for n in _imports(path) if n.startswith("harness.") and not _belongs(n, allowed)]
    assert not strangers


ORDER = ("records", "suite", "passes", "train", "run", "pictures", "gate")


@pytest.mark.parametrize("path", _files(*(f"harness/{name}" for name in ORDER)), ids=lambda p: str(p.relative_to(ROOT)))
def test_packages_import_only_what_comes_before_them_on_the_way_of_the_data(path):
    later = [f"harness.{name}" for name in ORDER[ORDER.index(path.parent.name) + 1 :]]
    assert not [name for name in _imports(path) if _belongs(name, tuple(later))]


@pytest.mark.parametrize("path", _files("reports"), ids=lambda p: str(p.relative_to(ROOT)))
def test_reports_read_records_only(path):
    allowed = (
        "harness.records.store",
        "harness.errors",
        "harness.foreign",
        "harness.published",
        "harness.provenance",
        "harness.records.frame",
        "harness.pose",
        "harness.run.recompute",
        "harness.suite.schema",
        "harness.cost.conventions",
        "harness.words",
    )
    strangers = [n for n in _imports(path) if n.startswith("harness.") and not _belongs(n, allowed)]
    assert not strangers and not [n for n in _imports(path) if _belongs(n, ("torch", "methods"))]


@pytest.mark.parametrize("verb", ["", "report", "evaluate", "choose", "explain", "store", "gate"])
def test_verbs_without_networks_do_not_import_torch(verb):
    arguments = [*verb.split(), "--help"]
    code = (
        "import sys\nfrom harness.cli.main import app\n"
        f"try:\n    app({arguments!r})\nexcept SystemExit:\n    pass\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_holds_a_path_of_one_machine_or_a_photograph():
    words = re.compile(r"(?<![\w.])/(?:work|root|home)/[a-z.]")
    for path in _tracked():
        assert path.suffix.lower() not in (".jpg", ".jpeg", ".onnx", ".pkl"), path
        if (
            path.suffix in (".py", ".md", ".yaml", ".toml", ".json", ".csv", ".cff", "")
            and path.stat().st_size < 1_000_000
        ):
            assert not words.search(path.read_text(encoding="utf-8", errors="replace")), path


def test_every_public_name_that_a_module_lists_exists():
    for path in _files(*PACKAGES):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {
            n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.ClassDef)
        }
        imported = {a.asname or a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for a in n.names}
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                listed = set(ast.literal_eval(node.value))
                assert listed <= defined | imported, f"{path}: {listed - defined - imported}"


def test_the_readme_shows_the_very_method_that_the_tests_install():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert (ROOT / "tests" / "outside_package" / "oneconv.py").read_text(encoding="utf-8").strip() in readme
