"""`choose`: the best configurations for a budget of work or time, from records."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.report import find_manifest
from harness.errors import MeasurementError, UserError
from harness.records.store import DEFAULT_FOLDER, Store

if TYPE_CHECKING:
    from reports.choose import Budget, Choice
    from reports.rows import RowData

__all__ = ["choose"]

_MOST_LABELS = 3

Limit = Annotated[float | None, typer.Option(min=0.0, help="Most gmacs of the mean forward.", show_default=False)]
Data = Annotated[list[str], typer.Option("--data", help="NAME=PATH: images of a suite, which --replay scores again.")]
Time = Annotated[float | None, typer.Option(min=0.0, help="Most milliseconds of one call.", show_default=False)]


def choose(
    target: Annotated[
        str | None, typer.Argument(metavar="SUITE", help="Only this run; default: all records of the store.")
    ] = None,
    max_gmacs: Limit = None,
    max_ms: Time = None,
    device: Annotated[str, typer.Option(help="Where --max-ms was timed: cpu, cuda, ...")] = "cpu",
    batch: Annotated[int, typer.Option(min=1, help="Persons in the timed call.")] = 1,
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Also thresholds that were not run, from stored predictions.")
    ] = True,
    data: Data = [],  # noqa: B006
    store: Annotated[Path, typer.Option("--store", help="Folder of the records.")] = DEFAULT_FOLDER,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Print the Pareto-best configurations within a budget: method, knobs, threshold, AP with its interval."""
    from reports.choose import Budget, choice_table
    from reports.choose import choose as choose_rows
    from reports.formats import to_console

    if max_gmacs is None and max_ms is None:
        raise UserError("no budget", expected="--max-gmacs X, --max-ms X or both")
    keep = Store(store) if target else Store.find(store)
    budget = Budget(max_gmacs, max_ms, device, batch)
    rows = _rows(keep, target, data, replay)
    choices = choose_rows(rows, budget)
    _check(choices, rows, budget)
    if as_json:
        print(json.dumps({"budget": vars(budget), "choices": [_json(choice) for choice in choices]}, indent=1))
    else:
        for choice in choices:
            if choice.best:
                to_console(choice_table(choice, budget))
            print(_counted(choice, budget), file=sys.stderr)
    for remark in keep.remarks():
        print(remark, file=sys.stderr)


def _rows(keep: Store, target: str | None, data: list[str], replay: bool) -> list[RowData]:
    """The rows of a run or of the whole store, and of thresholds between them."""
    from reports.joined import joined_manifest
    from reports.rows import load_rows

    manifests = [find_manifest(keep, target)] if target else _runs(keep)
    new = _replayed(keep, manifests, data) if replay else []
    manifest = {"rows": [*manifests[0]["rows"], *new]} if target else joined_manifest(keep, "all")
    return load_rows(keep, manifest)


def _runs(keep: Store) -> list[dict[str, Any]]:
    """All run manifests of a store: they know the images and knobs behind a record."""
    found = [find_manifest(keep, str(path)) for path in sorted((keep.folder / "runs").glob("*.json"))]
    return [manifest for manifest in found if isinstance(manifest.get("rows"), list)]


def _replayed(keep: Store, manifests: list[dict[str, Any]], data: list[str]) -> list[dict[str, Any]]:
    from harness.run.thresholds import replay_thresholds
    from harness.suite.sources import Sources, assignments

    done = replay_thresholds(
        [row for manifest in manifests for row in manifest["rows"]],
        keep,
        Sources(assignments(data, "--data")),
        say=lambda text: print(text, file=sys.stderr),
    )
    for line in _grouped(done.reasons):
        print(line, file=sys.stderr)
    return done.rows


def _grouped(reasons: Mapping[str, str]) -> Iterator[str]:
    """Each reason once, with the rows that it is of; of many rows the first ones and their number."""
    for reason in dict.fromkeys(reasons.values()):
        labels = [label for label, own in reasons.items() if own == reason]
        more = f" and {len(labels) - _MOST_LABELS} more rows" if len(labels) > _MOST_LABELS else ""
        yield f"no threshold replayed of {', '.join(labels[:_MOST_LABELS])}{more}: {reason}"


def _check(choices: list[Choice], rows: list[RowData], budget: Budget) -> None:
    """MeasurementError when there is no answer: nothing was measured, or nothing fits."""
    if not choices:
        what = f"timed on {budget.device} at batch {budget.batch}" if budget.ms is not None else "with gmacs"
        raise MeasurementError(
            f"none of {len(rows)} configurations has an AP and was measured {what}",
            hint="`paretopose run SUITE` with accuracy, cost and latency in `measure`",
        )
    if not any(choice.best for choice in choices):
        least = "; ".join(f"the least is {_least(choice, budget)} ({choice.ground})" for choice in choices)
        raise MeasurementError(f"no configuration fits {budget.words}", hint=least)


def _least(choice: Choice, budget: Budget) -> str:
    found = choice.cheapest
    if found is None:
        return "unknown"
    spent = f"{found.ms.value:.3g} ms" if budget.ms is not None else f"{found.gmacs.value:.3g} gmacs"
    return f"{found.row.label} at {spent}, AP {found.ap.value:.1f}"


def _counted(choice: Choice, budget: Budget) -> str:
    if not choice.best:
        return f"on {choice.ground}: nothing fits; the least is {_least(choice, budget)}"
    every = choice.fitting + choice.over
    return f"{choice.fitting} of {every} configurations fit; {len(choice.best)} that no cheaper one equals are shown"


def _json(choice: Choice) -> dict[str, Any]:
    best = [
        {
            "label": c.row.label,
            "variant": c.row.variant,
            "input_size": list(c.row.input_size),
            "knobs": c.knobs,
            "quality_threshold": c.threshold,
            "ap": c.ap.to_json(),
            "gmacs": c.gmacs.to_json(),
            "ms": c.ms.to_json(),
            "protocol": dict(c.row.protocol),
            "records": {name: f"{r.kind}-{r.id}" for name, r in c.row.records.items()},
        }
        for c in choice.best
    ]
    return {"ground": choice.ground, "fitting": choice.fitting, "over": choice.over, "best": best}
