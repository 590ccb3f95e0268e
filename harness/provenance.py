"""Fingerprints: of values, files and code. Torch-free."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["PROJECT", "STAGES", "code", "content_id", "file_sha256", "files_of", "revision", "stamp", "versions"]

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
PROJECT = Path(__file__).resolve().parent.parent

STAGES = {
    "predict": "harness.passes.predict",
    "predict_images": "harness.passes.predict_images",
    "score": "harness.passes.score",
    "score_images": "harness.passes.score_images",
    "train": "harness.train.loop",
    "effects": "harness.run.effects",
    "cost": "harness.cost.account",
    "system": "harness.run.systems",
    "latency": "harness.run.timing",
}
"""Where each stage begins. Its result depends on that module and on what it imports, up to the neutral ones."""

# They hold what is in an id by its value (settings, protocol, data), or only read, write and show: a change there
# moves no number.
_NEUTRAL = {
    f"harness.{name}"
    for name in (
        "errors", "method", "provenance", "stopping", "suite.cells", "suite.file", "suite.schema", "suite.sources",
        "run.plan", "run.rows", "run.session", "run.scoring", "run.scoring_images", "records.files", "records.store",
        "cost.machine", "data.annotation_file", "train.checkpoints", "train.display", "train.files", "train.log",
        "train.recipes", "train.state",
    )
}  # fmt: skip


def content_id(value: Any) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(value).encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, computed again when anything tells that it is another one."""
    return _file_sha256(str(path), *stamp(path))


def stamp(path: Path) -> tuple[int, ...]:
    """What tells a file from others and changes with it, whatever the clock does: place, size, times of content and
    entry."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=256)
def _file_sha256(path: str, *stamp: int) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@lru_cache(maxsize=1024)
def code(stage: str, method_file: Path | None = None) -> str:
    """Fingerprint of the code that `stage` (predict, score, train, ...) runs, comments and layout left out.

    The method counts with its own file and the parts that it imports: another method's change re-runs nothing. Looked
    at once: what is edited while a process runs is not what it runs.
    """
    files = files_of(stage)
    if method_file:
        files |= _closure(method_file, "methods.parts")
    return content_id([_tree_digest(str(f), f.stat().st_mtime_ns) for f in sorted(files)])


def files_of(stage: str) -> set[Path]:
    """The harness's files that a stage's result depends on."""
    return _closure(_file(STAGES[stage]), "harness")


def _closure(start: Path, package: str) -> set[Path]:
    """`start` and the files of `package` that it imports, directly or through one another, but for neutral ones."""
    found, waiting = {start}, [start]
    while waiting:
        current = waiting.pop()
        for file in _imports(str(current), current.stat().st_mtime_ns, package) - found:
            found.add(file)
            waiting.append(file)
    return found


@lru_cache(maxsize=1024)
def _imports(path: str, mtime: int, package: str) -> frozenset[Path]:
    names = {name for name in _looked_at(path, mtime)[0] if name.startswith(f"{package}.")}
    return frozenset(file for file in map(_file, names - _NEUTRAL) if file.is_file())


def _file(module: str) -> Path:
    return PROJECT / f"{module.replace('.', '/')}.py"


def _tree_digest(path: str, mtime: int) -> str:
    return _looked_at(path, mtime)[1]


@lru_cache(maxsize=1024)
def _looked_at(path: str, mtime: int) -> tuple[frozenset[str], str]:
    """The modules that a file may import from, and the digest of its code without docstrings."""
    names: set[str] = set()
    plain = _plain(ast.parse(Path(path).read_text(encoding="utf-8")), names)
    return frozenset(names), hashlib.sha256(repr(plain).encode()).hexdigest()


def _plain(node: Any, names: set[str]) -> Any:
    """A syntax tree as tuples and lists, without docstrings and places; what it imports from goes to `names`."""
    if isinstance(node, list):
        if node and isinstance(node[0], ast.Expr) and isinstance(node[0].value, ast.Constant):
            node = node[1:]
        return [_plain(part, names) for part in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.ImportFrom):
        names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return (type(node).__name__, *[_plain(getattr(node, name, None), names) for name in node._fields])


@lru_cache(maxsize=1)
def revision() -> str:
    """The project's Git revision, '+' when files differ from it, 'unknown' outside a checkout."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=PROJECT, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


@lru_cache(maxsize=1)
def versions() -> dict[str, str]:
    """Python, operating system and the packages that can move a number."""
    found = {"python": platform.python_version(), "os": f"{platform.system()} {platform.release()}"}
    for name in (
        "torch",
        "torchvision",
        "numpy",
        "scipy",
        "opencv-python-headless",
        "pycocotools",
        "fvcore",
        "onnxruntime",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def command() -> str:
    """The command line, with the program's name alone (paths of a machine stay out of records)."""
    return " ".join([Path(sys.argv[0]).name, *(_relative(a) for a in sys.argv[1:])])


def _relative(argument: str) -> str:
    name, sign, text = argument.rpartition("=")
    path = Path(text)
    if not path.is_absolute():
        return argument
    return name + sign + (os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name)
