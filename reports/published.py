"""Published figures beside ours: matched by variant, input size, knobs and decoder, compared only on equal ground."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from harness.published import fitting, load, records, size_of
from reports import quantities as q
from reports.model import NOT_HERE, Column, Value
from reports.rows import RowData, plain_text

__all__ = [
    "Published",
    "PublishedAp",
    "best_match",
    "comparable_ap",
    "fits",
    "incomparable",
    "kind_of_boxes",
    "published_ap",
    "published_columns",
    "source_note",
]

Published = Mapping[str, Any]
"""a row of results/published"""
PublishedAp = Callable[[RowData], Value | None]
"""the published AP that may stand in a figure beside a row"""
_GROUND = {("COCO", "val2017"): "coco_val2017", ("CrowdPose", "test"): "crowdpose_test"}
"""(dataset, split) of a published row -> name of the same images in a suite"""
_DECODERS = {
    "default(quarter)": "quarter", "empirical_shift": "quarter", "none": "argmax", "dark": "dark", "udp": "udp_dark",
    "udp-combined": "udp_combined", "simcc": "simcc",
}  # fmt: skip


def published_columns(rows: Sequence[RowData]) -> tuple[list[Column], list[list[Value]], str]:
    """The columns 'published AP' and 'difference' (ours minus published), their entries by row, and a note."""
    columns = [Column("published_ap", "published AP"), Column("published_difference", "difference")]
    note = (
        "Published AP: COCO val2017, as printed in the source that the mark names. Difference: ours minus "
        "published, given only for the same images, the same kind of person boxes and the same use of the flip test."
    )
    return columns, [_entries(row) for row in rows], note


def _entries(row: RowData) -> list[Value]:
    best = best_match(row)
    if best is None:
        reason = "no published figure of this network at this input size and with this decoder"
        return [Value.missing(reason, NOT_HERE)] * 2
    return [Value(value=float(best["ap"]), note=source_note(best)), _difference(row, best)]


def best_match(row: RowData) -> Published | None:
    """The published AP on COCO val2017 of this row's network, size and decoder: of the same kind of boxes where there
    is one, then of the authors rather than of a retraining.

    Networks that were trained on other data as well are other networks.
    """
    candidates = [r for r in _of_variant(row.variant) if _same_size(r, row) and _is_val_ap(r)]
    found = [r for r in fitting(candidates, row.knobs) if _states_decoder(r, row)]
    ours = kind_of_boxes(q.boxes(row).text)
    return max(found, key=lambda r: (kind_of_boxes(r["boxes"]) == ours, "official" in r["source"]), default=None)


def _same_size(published: Published, row: RowData) -> bool:
    """A network for whole images takes any size, and its sources state none."""
    size = size_of(published)
    return size == row.input_size or (size is None and row.paradigm == "one-stage")


def _of_variant(variant: str) -> Sequence[Published]:
    return _by_variant().get(variant, ())


@lru_cache(maxsize=1)
def _by_variant() -> Mapping[str, Sequence[Published]]:
    found: dict[str, list[Published]] = {}
    for row in records(load()):
        found.setdefault(row["our_variant"], []).append(row)
    return found


def _is_val_ap(row: Published) -> bool:
    plain = row["ap"] == row["ap"] and not row["note"].startswith("trained on")  # nan != nan
    return plain and (row["dataset"], row["split"]) == ("COCO", "val2017")


def fits(published: Published, row: RowData) -> bool:
    """Whether a published row is about the network, input size, knobs, decoder and flip of ours; what it leaves open
    fits."""
    if published["our_variant"] != row.variant or size_of(published) not in (None, row.input_size):
        return False
    if not _flips(published) and row.protocol.get("flip"):
        return False
    same = fitting(_of_variant(row.variant), row.knobs)
    return published["our_knobs"] in {r["our_knobs"] for r in same} and _same_decoder(published, row)


def _same_decoder(published: Published, row: RowData) -> bool:
    return _DECODERS.get(published["post_process"]) in (None, row.protocol.get("decoder"))


def _states_decoder(published: Published, row: RowData) -> bool:
    """An AP without a decoder says little of a network that has several."""
    return row.paradigm == "one-stage" or _DECODERS.get(published["post_process"]) == row.protocol.get("decoder")


def published_ap(row: RowData) -> Value | None:
    """That of the same images, kind of boxes and flip test, whoever prints it."""
    best = best_match(row)
    return None if best is None else comparable_ap(row, best)


def comparable_ap(row: RowData, published: Published) -> Value | None:
    """The AP of a published row where it may be compared with that of `row`."""
    ap = float(published["ap"])
    return None if ap != ap or incomparable(row, published) is not None else Value(value=ap)


def incomparable(row: RowData, published: Published) -> Value | None:
    """What stands in place of a comparison of the two AP, and why; None when they may be compared."""
    other = _other_images(row, published)
    if other:
        return Value.missing(other)
    flip = bool(row.protocol.get("flip", True))
    if row.paradigm != "one-stage" and flip != _flips(published):
        reason = f"flip test: {'yes' if flip else 'no'} here, the other way in the source"
        return Value.missing(reason, "flip differs")
    ours, theirs = kind_of_boxes(q.boxes(row).text), kind_of_boxes(published["boxes"])
    if ours != theirs:
        return Value.missing(f"boxes differ: {ours} here, {theirs} in the source", "boxes differ")
    return None


def _other_images(row: RowData, published: Published) -> str:
    same = row.data.get("name") == _GROUND.get((published["dataset"], published["split"]))
    return "" if same and not row.data.get("limit") and not row.data.get("where") else "other images than the source's"


def _flips(published: Published) -> bool:
    """Tables of top-down networks are with the flip test unless they say otherwise."""
    return "flip test off" not in published["note"]


def kind_of_boxes(text: str) -> str:
    """`ground truth`, `detections` or `unknown`, from a table's or a record's words."""
    if text.startswith(("ground-truth", "GT")):
        return "ground truth"
    return "detections" if text else "unknown"


def source_note(published: Published) -> str:
    """Where a published row stands, and what it says of its protocol."""
    boxes, decoding = published["boxes"] or "not stated", published["post_process"] or "not stated"
    about = f"published: {published['source']}; boxes: {boxes}; decoding: {decoding}"
    trained = published["note"] if published["note"].startswith("trained on") else ""
    return plain_text("; ".join(filter(None, (about, trained))))


def _difference(row: RowData, published: Published) -> Value:
    ap = q.stat(row, "AP")
    if ap.value is None:
        return Value.missing(ap.reason, ap.text)
    return incomparable(row, published) or Value(value=ap.value - float(published["ap"]))
