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

__all__ = ["PROJECT", "code", "content_id", "file_sha256", "revision", "versions"]

PROJECT = Path(__file__).resolve().parent.parent

# fmt: off
_STAGES: dict[str, tuple[str, ...]] = {
    # what a stage's result depends on, besides the method's own files; a change elsewhere re-runs nothing
    "predict": (
        "harness/predict.py", "harness/data/crops.py", "harness/data/boxes.py", "harness/data/reading.py",
        "harness/pose/decoders.py", "harness/pose/peaks.py", "harness/pose/refine.py", "harness/pose/flip.py",
        "harness/pose/codecs.py",
    ),
    "score": ("harness/replay.py", "harness/score.py", "harness/pose/nms.py", "harness/accuracy"),
    "train": (
        "harness/train/loop.py", "harness/train/samples.py", "harness/train/schedules.py", "harness/data/augment.py",
        "harness/data/crops.py", "harness/data/boxes.py", "harness/data/reading.py", "harness/pose/targets.py",
        "harness/pose/codecs.py",
    ),
    "effects": ("harness/effects.py", "harness/accuracy/bootstrap.py", "harness/accuracy/ap.py"),
    "cost": (
        "harness/cost/macs.py", "harness/cost/witnesses.py", "harness/cost/free.py", "harness/cost/account.py",
        "harness/cost/conventions.py",
    ),
    "latency": (
        "harness/cost/latency.py", "harness/cost/statistics.py", "harness/timing.py", "harness/timed_calls.py",
    ),
}
# fmt: on


def content_id(value: Any) -> str:
    """16 hex digits of the SHA-256 of `value` as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, cached by path, size and modification time."""
    stat = path.stat()
    return _file_sha256(str(path.resolve()), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _file_sha256(path: str, size: int, mtime: int) -> str:
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def code(stage: str, method_file: Path | None = None) -> str:
    """Fingerprint of the code that `stage` (predict, score, train, ...) runs, comments and layout left out.

    The method counts with its own file and the parts that it imports: another method's change re-runs nothing.
    """
    files = sorted(_with_parts(method_file)) if method_file else []
    for name in _STAGES[stage]:
        path = PROJECT / name
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return content_id([_tree_digest(str(f), f.stat().st_mtime_ns) for f in files if f.is_file()])


def _with_parts(file: Path) -> set[Path]:
    """A method's file and the files of methods/parts that it imports, directly or through one another."""
    found, waiting = {file}, [file]
    while waiting:
        current = waiting.pop()
        for part in _parts_of(str(current), current.stat().st_mtime_ns) - found:
            found.add(part)
            waiting.append(part)
    return found


@lru_cache(maxsize=256)
def _parts_of(path: str, mtime: int) -> frozenset[Path]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("methods.parts"):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    files = {PROJECT / f"{name.replace('.', '/')}.py" for name in names}
    return frozenset(f for f in files if f.is_file())


@lru_cache(maxsize=256)
def _tree_digest(path: str, mtime: int) -> str:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            node.body = body[1:] or [ast.Pass()]  # type: ignore[attr-defined]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


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
