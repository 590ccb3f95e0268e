"""`paretopose doctor`: is everything here that the verbs need, and how to get what is not."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from harness.doctor import examine

__all__ = ["doctor"]


def doctor(
    store: Annotated[Path | None, typer.Option(help="Folder of the records; default: results/records.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Check the installation and this machine: what is there, what is not, and how to get it.

    Exit 2 when something is missing that every run needs; what only some verbs need is told and does no harm.
    """
    findings = examine(store)
    fine = not any(finding.state == "missing" for finding in findings)
    if as_json:
        print(json.dumps({"schema": 1, "fine": fine, "findings": [asdict(f) for f in findings]}, indent=1))
    else:
        for finding in findings:
            print(f"{finding.state:8}{finding.what}: {finding.found}")
            if finding.how:
                print(f"{'':8}to do: {finding.how}")
    raise typer.Exit(0 if fine else 2)
