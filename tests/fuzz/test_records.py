"""Records and run manifests that somebody damaged, or made to do damage."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pytest

from harness.provenance import content_id
from harness.records.frame import load
from harness.records.merge import merge
from harness.records.store import Store, record_id
from reports.formats import to_csv, to_html, to_latex, to_markdown
from reports.joined import joined_manifest
from reports.report import table_of
from reports.rows import load_rows

RECORDS = Path(__file__).resolve().parents[2] / "results" / "quickstart" / "records"


def _smallest(kind: str) -> dict:
    path = min(RECORDS.glob(f"{kind}-*.json"), key=lambda p: p.stat().st_size)
    return json.loads(path.read_text())


VALID = [_smallest(kind) for kind in ("accuracy", "cost", "latency")]


@pytest.fixture
def look(tmp_path):
    """look(data, name) reads a store with this one record: as rows, as a table in every format, as a frame."""
    warnings.simplefilter("ignore")

    def run(data: bytes, name: str = "cost-0123456789abcdef.json") -> None:
        folder = tmp_path / "records"
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_bytes(data)
        store = Store(tmp_path, read_only=True)
        manifest = joined_manifest(store, "all")
        table = table_of(load_rows(store, manifest), manifest)
        for text in (to_markdown(table), to_latex(table), to_csv(table), to_html(table)):
            assert "<script>" not in text or text.startswith("<") is False
        load(tmp_path)
        merge(Store(tmp_path / "ours"), store, dry_run=True)

    return run


def _signed(tree) -> tuple[bytes, str]:
    """The record with the id and the digest of its new content, under its own name."""
    if isinstance(tree, dict) and isinstance(tree.get("kind"), str):
        try:
            tree["id"] = record_id(tree["kind"], tree.get("key"))
            tree["digest"] = content_id(tree.get("result"))
        except (ValueError, UnicodeEncodeError):  # no number, or no text, that a key can hold
            pass
    kind = tree.get("kind") if isinstance(tree, dict) else None
    name = (
        f"{kind}-{tree.get('id')}.json" if isinstance(kind, str) and kind.isalpha() and len(kind) < 99 else "x-0.json"
    )
    return json.dumps(tree).encode(), name


def test_changed_records_are_read_or_set_aside(fuzz, look):
    fuzz.bytes([json.dumps(tree).encode() for tree in VALID], look)


def test_sound_records_of_other_content_are_read_or_refused(fuzz, look):
    fuzz.trees(VALID, lambda tree: look(*_signed(tree)))
