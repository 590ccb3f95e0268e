"""`paretopose evaluate`: anybody's result files against anybody's annotations."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from harness.accuracy.anatomy import Anatomy
from harness.accuracy.breakdown import Breakdown
from harness.accuracy.checks import evaluator_of, read_json
from harness.accuracy.evaluate import Comparison, Evaluation, check_coverage, compare
from harness.accuracy.evaluate import evaluate as measure
from harness.accuracy.evaluate_pckh import evaluate_pckh, read_poses
from harness.accuracy.evaluation import Evaluated
from harness.accuracy.resampled import MOST_RESAMPLES
from harness.errors import UserError

__all__ = ["evaluate"]

Details = Breakdown | Anatomy
Ticker = Callable[..., Callable[[], None]]


def evaluate(
    gt: Annotated[Path, typer.Option("--gt", help="COCO-format annotations, or MPII's JSON list of persons.")],
    pred: Annotated[
        Path, typer.Option("--pred", help="COCO-format keypoint results; of MPII with `person`, or a mat file `preds`.")
    ],
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", help="Other results on the same images: paired difference. May be repeated."),
    ] = None,
    evaluator: Annotated[
        str, typer.Option(help="coco (AP), crowdpose (AP), mpii (PCKh); default: what the annotations are.")
    ] = "",
    heads: Annotated[
        Path | None, typer.Option("--heads", help="MPII: the mat file with the head boxes of the split.")
    ] = None,
    bootstrap: Annotated[int, typer.Option(help="Resamples of images for the intervals; 0 for none.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the resamples.", min=0)] = 0,
    no_judge: Annotated[bool, typer.Option("--no-judge", help="Skip the check by the reference evaluator.")] = False,
    missing_as_empty: Annotated[
        bool,
        typer.Option(
            "--missing-as-empty",
            help="With --against: an image without results is one with nobody found. MPII: a person without is wrong.",
        ),
    ] = False,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="AP per keypoint, by size, crowding, occlusion and truncation.")
    ] = False,
    anatomy: Annotated[
        bool, typer.Option("--anatomy", help="What jitter, inversion, swap, miss, background and score order cost.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout instead of a table.")] = False,
) -> None:
    """AP or PCKh of a result file with intervals, and where AP is lost; --against another one: paired difference."""
    truth = read_json(gt)
    evaluator = evaluator or evaluator_of(truth)
    if evaluator == "mpii":
        _check_options(gt, heads, breakdown or anatomy)
    paths = [pred, *(against or [])]
    with _progress() as ticker:
        evaluations: list[Any] = []
        for path in paths:
            advance = ticker(f"intervals of {path.name}", bootstrap)
            options: dict[str, Any] = {"bootstrap": bootstrap, "seed": seed, "progress": advance}
            if evaluator == "mpii":
                evaluations.append(_pckh(gt, path, heads, missing_as_empty, **options))
            else:
                options |= {"evaluator": evaluator, "judge": not no_judge, "gt_name": str(gt)}
                evaluations.append(measure(truth, path, **options))
        for path, other in zip(paths[1:], evaluations[1:], strict=True):
            if not missing_as_empty and evaluator != "mpii":
                check_coverage(evaluations[0], other, where=f"{pred} and {path}")
        comparisons = _comparisons(evaluations, bootstrap, seed, ticker)
        details = [
            _details(path, found, breakdown, anatomy, ticker) for path, found in zip(paths, evaluations, strict=True)
        ]
    answer = _as_json(gt, paths, evaluations, comparisons, details)
    if as_json:
        print(json.dumps(answer, indent=2, allow_nan=False))
    else:
        names = _names(paths)
        _show(names, evaluations, comparisons)
        _show_details(names, answer)


def _names(paths: Sequence[Path]) -> list[str]:
    """What the tables call the files: their names, with folders where two have the same."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _check_options(gt: Path, heads: Path | None, details: bool) -> None:
    """What PCKh needs, and what it does not have."""
    if details:
        raise UserError("--breakdown and --anatomy are of AP", where=str(gt), hint="PCKh is told joint by joint anyway")
    if heads is None:
        raise UserError(
            "PCKh needs head sizes", where=str(gt), expected="--heads FILE.mat, the head boxes of the split"
        )


def _pckh(gt: Path, pred: Path, heads: Path | None, absent_as_wrong: bool, **options: Any) -> Evaluated:
    from harness.data import mpii

    dataset = mpii.load(gt, gt.parent, heads=heads)
    poses = read_poses(pred, len(dataset.persons))
    return evaluate_pckh(dataset, poses, absent_as_wrong=absent_as_wrong, where=str(pred), **options)


def _details(path: Path, found: Any, breakdown: bool, anatomy: bool, ticker: Ticker) -> dict[str, Details]:
    """Where AP is lost, as far as it was asked for."""
    total = min(found.resamples, MOST_RESAMPLES) + 1
    details: dict[str, Details] = {}
    if breakdown:
        details["breakdown"] = found.breakdown(ticker(f"parts of {path.name}", total))
    if anatomy:
        details["anatomy"] = found.anatomy(ticker(f"errors of {path.name}", total))
    return details


def _comparisons(evaluations: list[Evaluation], bootstrap: int, seed: int, ticker: Ticker) -> list[Comparison]:
    if len(evaluations) < 2:
        return []
    others = evaluations[1:]
    return compare(
        evaluations[0],
        others,
        bootstrap=bootstrap or 1000,  # a difference without a test would say nothing
        seed=seed,
        progress=ticker("paired differences", 4 * (bootstrap or 1000) * len(others)),
    )


@contextmanager
def _progress() -> Iterator[Ticker]:
    """ticker(text, total) -> a function that advances a bar on stderr by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:

        def ticker(text: str, total: int) -> Callable[[], None]:
            task = bars.add_task(escape(text), total=total or None)
            return lambda: bars.advance(task)

        yield ticker


def _as_json(
    gt: Path,
    paths: list[Path],
    evaluations: list[Evaluation],
    comparisons: list[Comparison],
    details: list[dict[str, Details]],
) -> dict[str, Any]:
    head, *others = [
        {"predictions": str(path), **found.to_dict(), **{name: d.to_dict() for name, d in detail.items()}}
        for path, found, detail in zip(paths, evaluations, details, strict=True)
    ]
    answer = {"annotations": str(gt), **head}
    if others:
        answer["against"] = [
            {**other, "comparison": {**comparison.to_dict(), **_minus(details[0], detail)}}
            for other, comparison, detail in zip(others, comparisons, details[1:], strict=True)
        ]
    return answer


def _minus(first: dict[str, Details], second: dict[str, Details]) -> dict[str, Any]:
    return {name: detail.minus(second[name]) for name, detail in first.items()}  # type: ignore[arg-type]


def _show(names: list[str], evaluations: list[Evaluation], comparisons: list[Comparison]) -> None:
    out = Console(width=None if Console().is_terminal else 120)
    for name, found in zip(names, evaluations, strict=True):
        out.print(_table(name, found), *_remarks(found), sep="\n")
    for name, comparison in zip(names[1:], comparisons, strict=True):
        out.print(_difference_table(names[0], name, comparison))


def _table(file: str, found: Evaluation) -> Table:
    title = f"{escape(file)}: {found.images} images, {found.persons} persons, {found.detections} poses"
    table = Table(title=title, title_justify="left")
    level = next((f"{100 * i.level:g} %" for i in found.intervals.values() if i), "95 %")
    for column in ("", "x 100", f"{level} BCa", f"{level} percentile", "sd"):
        table.add_column(column, justify="right" if column else "left")
    for name in found.stats:
        if name in found.stats.reasons:
            table.add_row(name, "n/a", f"[dim]{escape(found.stats.reasons[name])}[/dim]")
            continue
        interval = found.intervals.get(name)
        cells = [_range(interval.bca), _range(interval.percentile), f"{100 * interval.sd:.2f}"] if interval else ["n/a"]
        table.add_row(name, f"{100 * found.stats[name]:.2f}", *(cells if found.resamples else ()))
    return table


def _remarks(found: Evaluation) -> list[str]:
    lines = [f"[yellow]note:[/yellow] {escape(note)}" for note in found.notes]
    if found.verdict:
        v = found.verdict
        part = f"on {v.images} images chosen by chance" if v.sampled else "on all images"
        lines.insert(0, f"judge: {v.name} {v.version} agrees {part} (largest difference {v.largest_difference:.1e})")
    return lines


def _difference_table(first: str, second: str, comparison: Comparison) -> Table:
    least = 1 / (comparison.resamples + 1)
    table = Table(
        title=f"{escape(first)} minus {escape(second)}, paired by image",
        caption=f"p: {comparison.resamples} random exchanges by image, so never below {least:.2g} (--bootstrap)",
        title_justify="left",
        caption_justify="left",
    )
    for column in ("", "x 100", "95 % BCa", "p", "p (Holm)"):
        table.add_column(column, justify="right" if column else "left")
    for name, found in comparison.differences.items():
        if found is None:
            table.add_row(name, "n/a", f"[dim]{escape(comparison.reasons.get(name, 'undefined'))}[/dim]")
            continue
        spread = _range(found.interval.bca, sign=True) if found.interval else "n/a"
        table.add_row(name, f"{100 * found.value:+.2f}", spread, f"{found.p:.4f}", f"{found.p_holm:.4f}")
    return table


def _show_details(names: list[str], answer: dict[str, Any]) -> None:
    out = Console(width=None if Console().is_terminal else 120)
    others = answer.get("against", [])
    for name, found in zip(names, [answer, *others], strict=True):
        if "breakdown" in found:
            out.print(_parts_table(f"{name}: AP of each part", found["breakdown"]))
        if "anatomy" in found:
            out.print(_errors_table(f"{name}: AP that each error costs", found["anatomy"]))
    for name, other in zip(names[1:], others, strict=True):
        title, found = f"{names[0]} minus {name}", other["comparison"]
        if "breakdown" in found:
            out.print(_parts_table(f"{title}: AP of each part, paired by image", found["breakdown"], sign=True))
        if "anatomy" in found:
            out.print(_errors_table(f"{title}: cost of each error, paired by image", found["anatomy"]))


def _parts_table(title: str, found: dict[str, Any], *, sign: bool = False) -> Table:
    counted = () if sign else ("persons",)
    table = _plain_table(title, "", "", *counted, "x 100", f"{100 * found['level']:g} % percentile")
    for family, parts in found.items():
        if isinstance(parts, dict):
            for i, (name, part) in enumerate(parts.items()):
                count = [_count(part[key]) for key in counted]
                table.add_row("" if i else family, name, *count, *_cells(part, sign=sign))
            table.add_section()
    return table


def _errors_table(title: str, found: dict[str, Any]) -> Table:
    level, whole = f"{100 * found['level']:g} %", "ap" in found  # a difference has no counts
    columns = ("alone x 100", level, "one after the other x 100", level)
    table = _plain_table(title, "mended", *(["count"] if whole else []), *columns, *(["AP then"] if whole else []))
    for name, row in found["errors"].items():
        cells = [*_cells(row["alone"], sign=True), *_cells(row["step"], sign=True)]
        after = row.get("ap_after")
        ends = (_count(row["count"]), "n/a" if after is None else f"{100 * after:.2f}") if whole else ()
        table.add_row(name, *ends[:1], *cells, *ends[1:])
    if whole:
        table.caption = (
            f"{found['mirrored']} of the inversions are at the left or right counterpart; "
            f"{found['duplicates']} of the background poses are at a person who has a pose"
        )
    return table


def _count(number: int | None) -> str:
    return "" if number is None else str(number)


def _plain_table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 or not column else "right")
    return table


def _cells(row: dict[str, Any], *, sign: bool = False) -> tuple[str, str]:
    if row["value"] is None:
        return "n/a", f"[dim]{escape(row['reason'])}[/dim]"
    spread = _range(row["interval"]["percentile"], sign=sign) if row["interval"] else ""
    return format(100 * row["value"], "+.2f" if sign else ".2f"), spread


def _range(ends: Sequence[float], *, sign: bool = False) -> str:
    low, high = (100 * end for end in ends)
    return f"{low:+.2f} to {high:+.2f}" if sign else f"{low:.2f} to {high:.2f}"
