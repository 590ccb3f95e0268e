"""From an entry of a table to the record and the field that it was made of, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass

from reports import quantities as q
from reports.rows import RowData

__all__ = ["Origin", "origin_of"]

_STATS = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AP_easy", "AP_medium", "AP_hard")
_PCKH = re.compile(r"pckh(_01)?(?:_([a-z]\w*))?")
_AP = "100 x the field; the interval is the 95 % BCa bootstrap over images of its matches (interval.bca)"
_LATENCY = {
    "": ("median.value", "median of the samples that were not starved, with its order-statistic interval (low, high)"),
    "_p90": ("p90.value", "90th percentile of the samples that were not starved"),
    "_p99": ("p99.value", "99th percentile of the samples that were not starved"),
}
_BESIDE = {
    "ratio": ("ratio.value", "median over rounds of this call's time over the reference's in the same round"),
    "ms_per_person": ("ms_per_person.value", "median of the call's time divided by the persons of the call"),
    "peak_memory_mb": ("peak_memory_mb", "weights plus what one call adds, 1e6 bytes"),
    "peak_share_percent": ("roofline.share", "100 x achieved rate over the machine's own GEMM or convolution rate"),
    "joules": ("energy.joules_per_call", "energy counter over calls made back to back, per call"),
}
_TIMED = re.compile(r"latency_b(\d+)(_p90|_p99)?_ms")
_WITH_BATCH = re.compile(rf"({'|'.join(_BESIDE)})_b(\d+)")


@dataclass(frozen=True)
class Origin:
    """`record` is the measurement's name in the row (`accuracy`, `latency_b1`); `field` its path in the result."""

    record: str
    field: str
    how: str


def origin_of(row: RowData, column: str) -> Origin | None:
    """Where the entry of a row in the column of that key comes from; None for what is no measurement."""
    found = _accuracy(column) or _cost(row, column) or _latency(column)
    return found if found and found.record in row.records else None


def _accuracy(column: str) -> Origin | None:
    stats = {name.lower(): name for name in _STATS}
    if column in stats:
        return Origin("accuracy", f"stats.{stats[column]}.value", _AP)
    if found := _PCKH.fullmatch(column):
        name = f"PCKh@{'0.1' if found[1] else '0.5'} {found[2] or ''}".strip()
        return Origin("accuracy", f"stats.{name}.value", _AP)
    if column == "refined_percent":
        return Origin("accuracy", "refined_share", "100 x the share of forwards that took the later exit")
    if column == "quality_threshold":
        return Origin("accuracy", "quality_threshold", "the threshold that the exit rate became")
    if column == "boxes":
        return Origin("accuracy", "box_source", "as recorded")
    if column.startswith("protocol_"):
        return Origin("accuracy", f"key.protocol.{column.removeprefix('protocol_')}", "as recorded")
    return None


def _cost(row: RowData, column: str) -> Origin | None:
    if column in ("params_m", "params_train_only_m"):
        less = "params minus " if column == "params_train_only_m" else ""
        return Origin("cost", "params_inference", f"{less}the field / 1e6")
    if column not in ("gmacs", "gflops", "gmacs_per_pose"):
        return None
    per = "prediction" if column == "gmacs_per_pose" else "forward"
    twice = ", times 2" if column == "gflops" else ""
    measured = row.result("accuracy").get("cost", {}).get(f"gmacs_per_{per}")
    if measured and (q.varies(measured) or "cost" not in row.records):
        how = f"mean over the scored persons of what each {per} did (sd, p5, p95 beside){twice}"
        return Origin("accuracy", f"cost.gmacs_per_{per}.mean", how)
    flip = ", times 2 for the flip test" if per == "prediction" and row.protocol.get("flip") else ""
    return Origin("cost", "gmacs", f"multiply-accumulates of one forward / 1e9, three counters agreeing{twice}{flip}")


def _latency(column: str) -> Origin | None:
    if found := _TIMED.fullmatch(column):
        return Origin(f"latency_b{found[1]}", *_LATENCY[found[2] or ""])
    if found := _WITH_BATCH.fullmatch(column):
        return Origin(f"latency_b{found[2]}", *_BESIDE[found[1]])
    return None
