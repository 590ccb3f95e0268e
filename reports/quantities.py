"""One quantity of one row: a number with its uncertainty, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from reports.model import NOT_HERE, Value
from reports.rows import RowData, plain_text

__all__ = [
    "PCKH",
    "box_ap",
    "boxes",
    "energy",
    "from_latency",
    "gmacs",
    "gmacs_per_image",
    "joints_in_words",
    "main_stat",
    "params",
    "peak_memory",
    "peak_share",
    "refined_share",
    "stat",
    "train_only_params",
    "varies",
]

PCKH = "PCKh@0.5"
_SHORT = ("no weights", "no data")


def stat(row: RowData, name: str) -> Value:
    """AP, AP50, AR, PCKh@0.5, ... x 100 with its 95 % BCa interval over images."""
    if "accuracy" not in row.records:
        return _absent(row, "accuracy")
    if name not in (row.result("accuracy").get("stats") or {}) and main_stat(row) != "AP":
        return Value.missing("MPII is scored by PCKh", NOT_HERE)
    found = _mapping(_mapping(row.result("accuracy").get("stats")).get(name))
    if found.get("reason"):
        return Value.missing(plain_text(found["reason"]))
    low, high = _pair(_mapping(found.get("interval")).get("bca"))
    return Value.number(found.get("value"), low, high, scale=100)


def main_stat(row: RowData) -> str:
    """What a row is judged by: `AP`, or on MPII `PCKh@0.5`."""
    return PCKH if row.result("accuracy").get("evaluator") == "mpii" else "AP"


def joints_in_words(row: RowData) -> str:
    """Which joints were evaluated where the network has others than the data set; empty where all were."""
    found = _mapping(row.result("accuracy").get("joints"))
    if not found:
        return ""
    pairs = [a if a == b else f"{a} (its {b})" for a, b in _mapping(found.get("mapping")).items()]
    left_out = ", ".join(map(plain_text, found.get("left_out") or ())) or "none"
    return plain_text(
        f"a network with the joints of {found.get('network')}, evaluated on {len(pairs)} joints of "
        f"{found.get('data')}: {', '.join(pairs)}; left out: {left_out}"
    )


def box_ap(row: RowData) -> Value:
    """AP of the boxes that a one-stage network found, x 100, with its interval."""
    if row.paradigm != "one-stage":
        return Value.missing("its boxes are given", NOT_HERE)
    if "accuracy" not in row.records:
        return _absent(row, "accuracy")
    found = _mapping(_mapping(_mapping(row.result("accuracy").get("box_ap")).get("stats")).get("AP"))
    if found.get("reason"):
        return Value.missing(plain_text(found["reason"]))
    low, high = _pair(_mapping(found.get("interval")).get("bca"))
    return Value.number(found.get("value"), low, high, scale=100)


def gmacs(row: RowData, per: str = "forward", scale: float = 1.0) -> Value:
    """Multiply-accumulates / 1e9 `per` forward, or per prediction (a flip test is two forwards).

    Where the cost depends on the person: mean, sd, 5th and 95th percentile over the persons that were scored.
    """
    value = _gmacs(row, per, scale)
    if row.paradigm == "one-stage" and value.value is not None:
        return replace(value, note="; ".join(filter(None, ("gmacs of a whole image with all its persons", value.note))))
    return value


def _gmacs(row: RowData, per: str, scale: float) -> Value:
    measured = _mapping(_mapping(row.result("accuracy").get("cost")).get(f"gmacs_per_{per}"))
    dynamic = bool(row.result("cost").get("trace"))  # then the cost record is that of everybody refined
    if measured and (dynamic or varies(measured) or "cost" not in row.records):
        spread = [measured.get(n) for n in ("p5", "p95", "sd")] if varies(measured) else []
        return Value.number(measured.get("mean"), *spread, scale=scale)
    if "cost" not in row.records:
        return _absent(row, "cost")
    forwards = 2 if per == "prediction" and row.protocol.get("flip") else 1
    value = Value.number(row.result("cost").get("gmacs"), scale=scale * forwards)
    if row.result("cost").get("trace") and not measured and value.value is not None:
        note = "counted on one noise image; the cost depends on the person, and no person was scored"
        return Value(value=value.value, note=note)
    return value


def gmacs_per_image(row: RowData) -> Value:
    """Mean gmacs of an image that was scored, with the 5th and 95th percentile; of top-down rows the poses alone."""
    if "accuracy" not in row.records:
        return _absent(row, "accuracy")
    measured = _mapping(_mapping(row.result("accuracy").get("cost")).get("gmacs_per_image"))
    return Value.number(measured.get("mean"), *(measured.get(n) for n in ("p5", "p95", "sd")))


def varies(summary: Mapping[str, Any]) -> bool:
    """Whether a cost differs between persons; equal ones leave a rounding error of a mean in `sd`."""
    return (summary.get("sd") or 0.0) > 1e-9 * abs(summary.get("mean") or 0.0)


def params(row: RowData) -> Value:
    """Millions of parameters that the forward pass of a prediction uses."""
    if "cost" not in row.records:
        return _absent(row, "cost")
    if row.result("cost").get("params_inference") is None:
        return Value.missing("not a torch module: its parameters are not counted")
    return Value.number(row.result("cost")["params_inference"], scale=1e-6)


def train_only_params(row: RowData) -> Value:
    """Millions of parameters that only training uses."""
    result = row.result("cost")
    total, used = result.get("params"), result.get("params_inference")
    if total is None or used is None:
        return params(row)
    return Value.number(total - used, scale=1e-6) if total > used else Value(0.0, digits=0)


def refined_share(row: RowData) -> Value:
    """Per cent of the forwards that took a later exit."""
    if "accuracy" not in row.records:
        return _absent(row, "accuracy")
    result = row.result("accuracy")
    if "refined_share" not in result:
        return Value.missing("it has one exit", NOT_HERE)
    return Value.number(result["refined_share"], scale=100)


def boxes(row: RowData) -> Value:
    """Where the person boxes came from; from the suite when nothing was scored."""
    source = row.result("accuracy").get("box_source") or row.data.get("boxes", "")
    if row.paradigm == "one-stage":
        source = "own"
    if isinstance(source, Mapping):
        source = f"of {source.get('from', '?')}"
    return Value(text=plain_text(source))


def from_latency(row: RowData, name: str, quantity: str) -> Value:
    """Of the latency record `name`: `median`, `p90`, `p99` (ms per call), `ms_per_person`, `ratio` to the reference."""
    if name not in row.records:
        return _absent(row, name)
    result = row.result(name)
    found = result.get(quantity)
    if found is None:
        reference = quantity == "ratio" and result.get("reference")
        return Value(text="reference") if reference else Value.missing("no number was recorded")
    if found.get("value") is None:
        return Value.missing(plain_text(found.get("reason") or "no number was recorded"))
    value = Value.number(found["value"], found.get("low"), found.get("high"))
    notes = [plain_text(found["reason"])] if found.get("reason") else []
    if quantity == "median" and result.get("warmed_up") is False:
        notes.append("the warm-up did not become stationary")
    warning = _mapping(result.get("roofline")).get("warning")
    if quantity == "median" and warning:
        notes.append(plain_text(warning))
    return replace(value, note="; ".join(notes))


def times_images(latency: Mapping[str, Any]) -> bool:
    """Whether one call of a latency result is a whole image with all its persons."""
    return _mapping(latency.get("execution")).get("scope") == "end-to-end"


def peak_memory(row: RowData, name: str) -> Value:
    """Megabytes (1e6 bytes) of the weights and of what one call adds."""
    return _beside(row, name, row.result(name).get("peak_memory_mb"), "memory")


def energy(row: RowData, name: str) -> Value:
    """Joules of one call."""
    return _beside(row, name, _mapping(row.result(name).get("energy")).get("joules_per_call"), "energy")


def peak_share(row: RowData, name: str) -> Value:
    """Per cent of the rate that the machine reached in a matrix product or convolution."""
    return _beside(row, name, _mapping(row.result(name).get("roofline")).get("share"), "roofline", scale=100)


def _beside(row: RowData, name: str, number: Any, part: str, scale: float = 1.0) -> Value:
    """A number of a latency record beside its milliseconds, or the reason that its `part` tells."""
    if name not in row.records:
        return _absent(row, name)
    reason = _mapping(row.result(name).get(part)).get("reason")
    return Value.missing(plain_text(reason)) if number is None and reason else Value.number(number, scale=scale)


def _absent(row: RowData, name: str) -> Value:
    """'no weights', 'failed' with the message, or 'not measured'."""
    reason = row.reasons.get(name)
    if reason is None:
        return Value.missing("not measured", NOT_HERE)
    head = reason.partition(" (")[0]
    return Value.missing(reason, head if head in _SHORT else "failed")


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _pair(value: Any) -> tuple[Any, Any]:
    return (value[0], value[1]) if isinstance(value, list | tuple) and len(value) == 2 else (None, None)
