"""What stands below a table: what its numbers mean, under which protocol they were measured, and who judged them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from harness.words import counted
from reports.quantities import main_stat, times_images, varies
from reports.rows import SURE, RowData, plain_text

__all__ = ["general_notes"]


def general_notes(rows: Sequence[RowData], columns: Collection[str]) -> list[str]:
    """Lines for the columns that are there, in the order of the columns."""
    notes: list[str] = []
    if "gmacs" in columns:
        notes += _cost(rows)
    if {"ap", "pckh"} & set(columns):
        notes += [*_accuracy(rows), *_protocol(rows), *_judge(rows), *_remarks(rows)]
    return notes + _latency(rows)


def _cost(rows: Sequence[RowData]) -> list[str]:
    text = (
        "gmacs: multiply-accumulates / 1e9 of one forward of one person crop (convolution, linear and matrix products "
        "as the forward does them); gflops = 2 x gmacs."
    )
    if any(row.paradigm == "one-stage" for row in rows):
        text += " One-stage rows: of one whole image, trunk, proposals and every person."
    costs = [row.result("accuracy").get("cost", {}).get("gmacs_per_forward", {}) for row in rows]
    if any(varies(c) for c in costs):
        text += (
            " Where the cost depends on the person: mean ± sd (5th to 95th percentile) over the forwards of the "
            "persons that were scored."
        )
    flips = {bool(row.protocol.get("flip")) for row in rows}
    if True in flips:
        which = "With flip test (every row)" if flips == {True} else "In rows with flip test"
        text += f" {which} a pose takes two forwards."
    return [text]


_MEANINGS = {
    "crowdpose": "CrowdPose AP: mean over OKS 0.50 to 0.95; easy, medium, hard: images by their crowd index",
    "mpii": "PCKh: share of the labelled joints, pelvis and thorax left out, that are within 0.5 (or 0.1) of the head "
    "size (0.6 of the diagonal of the head box)",
}


def _accuracy(rows: Sequence[RowData]) -> list[str]:
    lines = []
    for result, data in _scored(rows):
        what = _MEANINGS.get(str(result.get("evaluator")), "AP: mean over OKS 0.50 to 0.95")
        text = (
            f"{what}, x 100, on {plain_text(data.get('name', 'unnamed data'))} "
            f"({counted(result.get('images', '?'), 'image')}, {counted(result.get('persons', '?'), 'person')})"
        )
        bootstrap = result.get("bootstrap") or {}
        if bootstrap.get("resamples"):
            text += (
                f"; with its 95 % interval (BCa bootstrap over images, {counted(bootstrap['resamples'], 'resample')}, "
                f"seed {bootstrap.get('seed', 0)})"
            )
        lines.append(text + ".")
    leading = next((row for row in rows if row.leads), None)
    if leading is not None:
        sure = "paired by image (bootstrap), after Holm's correction over the other rows"
        lines.append(f"Bold {main_stat(leading)}: better than that of every other row, p < {SURE}, {sure}.")
    return _distinct(lines)


def _scored(rows: Sequence[RowData]) -> Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    return ((row.result("accuracy"), row.data) for row in rows if "accuracy" in row.records)


def _protocol(rows: Sequence[RowData]) -> list[str]:
    """The protocol fields that all rows share that are run by them; the others are columns."""
    fields = {name: plain_text(value) for row in reversed(rows) for name, value in row.protocol.items()}
    shared = {
        name: value
        for name, value in fields.items()
        if len({plain_text(row.protocol[name]) for row in rows if name in row.protocol}) == 1
    }
    if shared.get("nms") == "none":
        shared.pop("nms_threshold", None)
    parts = [f"{name.replace('_', ' ')} {value}" for name, value in shared.items()]
    whose = "row" if len({row.paradigm for row in rows}) < 2 else "row, as far as its paradigm has it"
    return [f"Protocol of every {whose}: {', '.join(parts)}."] if parts else []


def _judge(rows: Sequence[RowData]) -> list[str]:
    lines = []
    for result, _ in _scored(rows):
        judge = result.get("judge")
        if not judge and result.get("evaluator") != "mpii":
            lines.append("Some AP were not judged by a reference evaluator.")
        if not judge:
            continue
        extent = f"a sample of {counted(judge.get('images'), 'image')}" if judge.get("sampled") else "all images"
        lines.append(
            f"Judge: {plain_text(judge.get('name'))} {plain_text(judge.get('version'))} on {extent}, agreement to 1e-9."
        )
    return _distinct(lines)


def _remarks(rows: Sequence[RowData]) -> list[str]:
    notes = [plain_text(note) for result, _ in _scored(rows) for note in result.get("notes", ())]
    notes += _skipped([result for result, _ in _scored(rows)])
    told = "not judged by a reference evaluator"
    return [f"{note[:1].upper()}{note[1:]}." for note in _distinct(notes) if note != told]


def _skipped(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many image files were passed over because they are missing, and how many person boxes with them."""
    images, boxes = ([r[name] for r in results if name in r] for name in ("skipped_images", "skipped_boxes"))
    parts = []
    if any(images):
        parts.append(f"{_ranged(images, 'image file')} {'is' if max(images) == 1 else 'are'} missing")
    if any(boxes):
        why = f" with {'it' if max(images) == 1 else 'them'}" if any(images) else ", their image files are missing"
        parts.append(f"{_ranged(boxes, 'person box')} {'was' if max(boxes) == 1 else 'were'} skipped{why}")
    differ = any(len(set(counts)) > 1 for counts in (images, boxes))
    return ["; ".join(parts) + (" (fewest to most of a row)" if differ else "")] if parts else []


def _ranged(counts: Sequence[int], noun: str) -> str:
    """What is counted in every row alike, or the range over the rows."""
    least, most = min(counts), max(counts)
    return counted(most, noun) if least == most else f"{least} to {counted(most, noun)}"


def _latency(rows: Sequence[RowData]) -> list[str]:
    lines = []
    for row in rows:
        for name in row.records:
            if name.startswith("latency"):
                lines += [_execution(row.result(name)), *_peak(row.result(name))]
    return [*_distinct(lines), *_poses(rows)]


def _peak(result: Mapping[str, Any]) -> list[str]:
    """What the share of the peak is a share of."""
    peaks = (result.get("roofline") or {}).get("peaks") or []
    if not peaks:
        return []
    rates = "; ".join(
        f"{plain_text(p.get('dtype'))}, {plain_text(counted(p.get('threads'), 'thread'))}: matrix product "
        f"{p.get('gemm', 0):.3g}, 3x3 convolution {p.get('convolution', 0):.3g}"
        for p in peaks
    )
    return [
        f"Machine's peak: the larger of its own rates in gmacs per second, measured in the same run ({rates}); the "
        f"share is the median call's. Memory: weights and what one call adds, 1e6 bytes."
    ]


def _poses(rows: Sequence[RowData]) -> list[str]:
    """How far what was timed is from what was scored."""
    found = [row.result(name).get("pose_difference_px") for row in rows for name in row.records]
    largest = max((f for f in found if f is not None), default=None)
    if largest is None:
        return []
    return [f"Poses produced while timing differ from the scored ones by at most {largest:.2g} px."]


def _execution(result: Mapping[str, Any]) -> str:
    execution, settings = result.get("execution") or {}, result.get("settings") or {}
    machine = result.get("machine") or {}
    on = plain_text(execution.get("device", "?"))
    gpus = machine.get("gpus") or []
    hardware = plain_text(gpus[0]) if on.startswith("cuda") and gpus else plain_text(machine.get("cpu", "unknown CPU"))
    persons = counted(execution.get("batch", "?"), "person")
    call = "one image" if times_images(result) else persons
    threads = settings.get("threads", execution.get("threads"))
    reference = plain_text(result.get("reference", "the first row"))
    inside = plain_text(result.get("inside_timer") or execution.get("scope", "?"))
    return (
        f"ms: median of one call of {call}, with its 95 % interval (order "
        f"statistics); "
        f"inside the timer: {inside}; {on} ({hardware}), threads: {threads}, "
        f"{plain_text(execution.get('dtype', '?'))}, {plain_text(execution.get('runtime', '?'))}, interleaved "
        f"rounds until {execution.get('rounds', '?')} were not starved or time was up; ratio: to {reference}."
    )


def _distinct(lines: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(lines))
