"""`report --verify`: every derived number of a run once more, from its records; says what does not match."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress

from harness.records.store import Store
from harness.words import counted

if TYPE_CHECKING:
    from harness.run.recompute import Check

__all__ = ["verify"]

_MOST = 40  # lines about what does not match; --json has all
_LONGEST = 60


def verify(keep: Store, manifest: Mapping[str, Any], folder: Path, *, as_json: bool) -> int:
    """Check the records and the written files of a run, and print what does not match; the exit code: 1 for that."""
    from reports.verify import verify_files, verify_records

    named = {identity for row in manifest["rows"] for identity in (row.get("records") or {}).values()}
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("records", total=len(named))
        checks = list(verify_records(keep, manifest, lambda: progress.advance(task)))
    written = verify_files(keep, manifest, folder)
    wrong = [check for check in (*checks, *written) if check.verdict == "differs"]
    if as_json:
        found = [check.to_json() for check in (*checks, *written)]
        print(json.dumps({"differs": len(wrong), "checks": found}, indent=1))
    else:
        print("\n".join(_told(checks, written, wrong, folder)))
    for remark in keep.remarks():
        print(remark, file=sys.stderr)
    return 1 if wrong else 0


def _told(checks: Sequence[Check], written: Sequence[Check], wrong: Sequence[Check], folder: Path) -> list[str]:
    lines = [f"{c.record}: {c.field}: written {_short(c.written)}, now {_short(c.recomputed)}" for c in wrong[:_MOST]]
    if len(wrong) > _MOST:
        lines.append(f"and {len(wrong) - _MOST} more; --json lists all")
    absent = [c for c in checks if c.verdict == "not stored"]
    reasons: dict[str, list[str]] = {}
    for check in absent:
        reasons.setdefault(f"{check.field}: {check.reason}", []).append(check.record)
    for reason, names in reasons.items():
        lines.append(f"not verified in {counted(len(names), 'record')}: {reason}")
    files = f"{len(written)} entries and lines of the files in {folder}" if written else f"no report in {folder}"
    lines.append(
        f"{len(checks) - len(absent)} numbers of records recomputed, {files} compared: "
        + (f"{len(wrong)} do not match" if wrong else "all match")
        + (f"; {len({check.record for check in absent})} records could not be verified in full" if absent else "")
    )
    return lines


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
