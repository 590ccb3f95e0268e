"""Records as a pandas table: one row for each record, its nested fields as plain columns. Torch-free.

Columns, empty where a record does not have them:
kind, id, created, revision, command                         of every record
variant, input_height, input_width, knob_NAME                 the network and its build, run and select knobs
weights                                                       SHA-256 of the weights file
data, dataset, boxes, codec, decoder, flip                    what accuracy was measured on, and how
ap, ap50, ap75, apm, apl, ar, ... each with _low and _high    accuracy in 0 to 1, 95 % BCa interval
images, persons, judge, refined_share                         the rest of an accuracy record
quality_threshold                                             the threshold applied: a number, `always` or `never`
gmacs, gmacs_sd, gmacs_p5, gmacs_p95, gflops                  per forward: of the network, or over the scored persons
gmacs_per_prediction, gmacs_per_image                         means over the scored persons and images
params_m, params_inference_m                                  of a cost record, in millions
latency_ms, latency_low_ms, latency_high_ms, latency_p90_ms, latency_p99_ms, ratio
device, batch, threads, dtype, runtime, scope, cpu, machine   of a latency record
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import told
from harness.records.store import Record, Store

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["flatten", "load"]

_FIRST = ("kind", "id", "created", "revision", "command", "variant", "input_height", "input_width")


def load(folder: str | Path = "results") -> pd.DataFrame:
    """All sound records below `folder` (a store, or the folder that holds one as `records`), by kind and id.

    Damaged and outdated records are passed over with a warning. Raises UserError when there is no store.
    """
    import pandas as pd

    store = Store.find(Path(folder))
    rows = [flatten(record) for record in store.records()]
    for remark in store.remarks():
        warnings.warn(remark, stacklevel=3)
    columns = list(dict.fromkeys([*_FIRST, *(name for row in rows for name in row)]))
    return pd.DataFrame(rows, columns=columns)


def flatten(record: Record) -> dict[str, Any]:
    """The columns of one record. UserError for one that does not hold what a record of its kind holds."""
    name = f"{record.kind}-{record.id}"
    with told("the record does not hold what its kind holds", name, "delete it; `paretopose run` measures again"):
        return _columns(record)


def _columns(record: Record) -> dict[str, Any]:
    parts = {"accuracy": _accuracy, "cost": _cost, "latency": _latency}
    row: dict[str, Any] = {
        "kind": record.kind,
        "id": record.id,
        "created": record.info.get("created"),
        "revision": record.info.get("revision"),
        "command": record.info.get("command"),
        **_network(record.key),
    }
    return row | (parts[record.kind](record) if record.kind in parts else {})


def _network(key: Mapping[str, Any]) -> dict[str, Any]:
    height, width = key.get("input_size") or (None, None)
    groups = (key.get(name) or {} for name in ("build", "settings", "select", "execution", "run"))
    knobs = {f"knob_{name}": value for group in groups for name, value in group.items() if name not in _EXECUTION}
    return {"variant": key.get("variant"), "input_height": height, "input_width": width, **knobs}


_EXECUTION = ("device", "batch", "threads", "rounds", "seconds", "scope")


def _accuracy(record: Record) -> dict[str, Any]:
    result, protocol = record.result, record.key.get("protocol") or {}
    row: dict[str, Any] = {
        "weights": record.key.get("weights"),
        "data": (record.key.get("data") or {}).get("name"),
        "dataset": (record.key.get("data") or {}).get("dataset"),
        "boxes": result.get("box_source"),
        **{name: protocol.get(name) for name in ("codec", "decoder", "flip")},
    }
    for name, stat in (result.get("stats") or {}).items():
        low, high = (stat.get("interval") or {}).get("bca") or (None, None)
        row |= {name.lower(): stat.get("value"), f"{name.lower()}_low": low, f"{name.lower()}_high": high}
    row |= {name: result.get(name) for name in ("images", "persons", "quality_threshold", "refined_share")}
    row["judge"] = (result.get("judge") or {}).get("name")
    return row | dict(_spread(result.get("cost") or {}))


def _spread(cost: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    forward = cost.get("gmacs_per_forward")
    if forward:
        yield "gmacs", forward["mean"]
        yield "gflops", 2 * forward["mean"]
        yield from ((f"gmacs_{name}", forward[name]) for name in ("sd", "p5", "p95"))
    yield from ((name, cost[name]["mean"]) for name in ("gmacs_per_prediction", "gmacs_per_image") if name in cost)


def _cost(record: Record) -> dict[str, Any]:
    result = record.result
    sizes = {f"{name}_m": result.get(name) for name in ("params", "params_inference")}
    millions = {name: None if count is None else count / 1e6 for name, count in sizes.items()}
    return {"gmacs": result.get("gmacs"), "gflops": result.get("gflops"), **millions}


def _latency(record: Record) -> dict[str, Any]:
    result, execution = record.result, record.result.get("execution") or {}
    median = result.get("median") or {}
    row = {f"latency{n}_ms": median.get(m) for n, m in (("", "value"), ("_low", "low"), ("_high", "high"))}
    row |= {f"latency_{n}_ms": (result.get(n) or {}).get("value") for n in ("p90", "p99")}
    row["ratio"] = (result.get("ratio") or {}).get("value")
    row |= {name: execution.get(name) for name in ("device", "batch", "dtype", "runtime", "scope")}
    row["threads"] = (result.get("settings") or {}).get("threads", execution.get("threads"))
    return row | {"cpu": (result.get("machine") or {}).get("cpu"), "machine": record.key.get("machine")}
