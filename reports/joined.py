"""All records of a store as one table, without a suite: measurements of the same network side by side."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from harness.errors import told
from harness.foreign.json_text import loads
from harness.records.frame import flatten
from harness.records.store import Record, Store

__all__ = ["Taken", "join", "joined_manifest"]

_NETWORK = ("variant", "input_size", "build", "joints", "settings")
_SCORED = (*_NETWORK, "select", "execution", "protocol", "data", "weights", "missing")
_BUILT_IN = {"dtype": "float32", "runtime": "eager"}
Taken = Callable[[Record], bool]


def joined_manifest(store: Store, name: str, *, timed: Taken = lambda record: True) -> dict[str, Any]:
    """A run manifest of all records of a store; `timed` chooses among the latency records."""
    records = list(store.records())
    for record in records:
        flatten(record)  # names the one that is not what its kind is
    with told("the records cannot be joined", str(store.folder)):
        rows = join([r for r in records if r.kind != "latency" or timed(r)])
    notes = _notes(store)
    rows = [{**row, "note": notes.get(row["cell"]["variant"], "")} for row in rows]
    created = max((str(r.info.get("created", "")) for r in records), default="")
    description = f"All records of a store: {len(records)} records, {len(rows)} configurations."
    return {
        "schema_version": 1,
        "suite": {"name": name, "description": description, "report": {"axes": ["gmacs", "ap"]}},
        "created": created,
        "command": "; ".join(dict.fromkeys(c for r in records if (c := str(r.info.get("command") or "")))),
        "rows": rows,
        "effects": None,
    }


def _notes(store: Store) -> dict[str, str]:
    """What each variant says of itself ('reconstruction'), from the runs of the store: records do not hold it."""
    found: dict[str, str] = {}
    for path in sorted((store.folder / "runs").glob("*.json")):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # a damaged run is no reason to stop
            for row in loads(path.read_bytes())["rows"]:
                found[str(row["cell"]["variant"])] = str(row.get("note") or "")
    return found


def join(records: Iterable[Record]) -> list[dict[str, Any]]:
    """Rows of a run manifest: one for each scored configuration, then one for each network that was never scored.

    Of two records of the same configuration (by other code, or with other resamples) the newer one is taken. A row has
    the latency of its own network and settings; of several on different machines or executions, the most usual in
    these records is `latency_bN`, others follow as `latency_bN~2`, ...
    """
    of_kind: dict[str, list[Record]] = {"accuracy": [], "cost": [], "latency": []}
    for record in sorted(records, key=lambda r: (str(r.info.get("created", "")), r.id)):
        of_kind.setdefault(record.kind, []).append(record)
    scored = list({_digest(r, _SCORED): r for r in of_kind["accuracy"]}.values())
    costs, times = _by_network(of_kind["cost"]), _by_network(of_kind["latency"])
    usual = _usual(of_kind["latency"])
    rows = [_row(r, _beside(r, costs), _ranked(_beside(r, times), usual)) for r in scored]
    seen = {identity for row in rows for identity in row["records"].values()}
    for network in {**costs, **times}:
        alone = [r for r in [*costs.get(network, []), *times.get(network, [])] if r.id not in seen]
        if alone:
            own = [r for r in alone if r.kind == "cost"]
            rows.append(_row(alone[0], own, _ranked([r for r in alone if r.kind == "latency"], usual)))
    return _labelled(rows)


def _digest(record: Record, names: Sequence[str]) -> str:
    return json.dumps([record.key.get(name) for name in names], sort_keys=True)


def _network(record: Record) -> str:
    """The network and its run knobs; a threshold that a timed forward took belongs to the measurement."""
    settings = {n: v for n, v in (record.key.get("settings") or {}).items() if n != "quality_threshold"}
    return json.dumps([*(record.key.get(n) for n in _NETWORK[:-1]), settings], sort_keys=True)


def _by_network(records: Iterable[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(_network(record), []).append(record)
    return found


def _beside(scored: Record, known: Mapping[str, list[Record]]) -> list[Record]:
    """The records of the same network that were made under nothing that this accuracy record contradicts."""
    return [r for r in known.get(_network(scored), []) if _fits(scored, r)]


def _fits(scored: Record, other: Record) -> bool:
    if other.key.get("weights") not in (None, scored.key.get("weights")):
        return False
    if other.kind == "cost":
        return True
    if other.key.get("protocol") not in (None, scored.key.get("protocol")):
        return False
    threshold = (other.key.get("settings") or {}).get("quality_threshold")
    if threshold is not None and threshold not in (_threshold(scored), scored.result.get("quality_threshold")):
        return False
    if threshold is None and _threshold(scored) is not None:
        return False
    return {**_BUILT_IN, **(other.key.get("run") or {})} == {**_BUILT_IN, **(scored.key.get("execution") or {})}


def _threshold(scored: Record) -> Any:
    return (scored.key.get("select") or {}).get("quality_threshold")


def _execution(record: Record) -> str:
    """Machine and execution, but for the batch: what makes times comparable."""
    execution = dict(record.key.get("execution") or {})
    execution.pop("batch", None)
    return json.dumps([record.key.get("machine"), execution], sort_keys=True)


def _usual(times: Sequence[Record]) -> dict[str, int]:
    """Rank of each execution, the most usual first."""
    counts: dict[str, int] = {}
    for record in times:
        counts[_execution(record)] = counts.get(_execution(record), 0) + 1
    ranked = sorted(counts, key=lambda e: (-counts[e], e))
    return {execution: rank for rank, execution in enumerate(ranked)}


def _ranked(times: Sequence[Record], usual: Mapping[str, int]) -> dict[str, Record]:
    """Name in the row -> record: the newest of each execution and batch, the most usual execution first."""
    newest = {(usual[_execution(r)], _batch(r)): r for r in times}
    found: dict[str, Record] = {}
    for (_, batch), record in sorted(newest.items(), key=lambda item: item[0]):
        names = (f"latency_b{batch}", *(f"latency_b{batch}~{n}" for n in range(2, len(newest) + 2)))
        found[next(n for n in names if n not in found)] = record
    return found


def _batch(record: Record) -> int:
    return int((record.key.get("execution") or {}).get("batch") or 1)


def _row(first: Record, costs: Sequence[Record], times: Mapping[str, Record]) -> dict[str, Any]:
    key, variant = first.key, str(first.key.get("variant"))
    records = {"accuracy": first.id} if first.kind == "accuracy" else {}
    if costs:
        records["cost"] = costs[-1].id
    records |= {name: record.id for name, record in times.items()}
    run = {**(key.get("settings") or {}), **_BUILT_IN, **(key.get("run") or {})}
    data = key.get("data") or {}
    cell = {
        "variant": variant,
        "input_size": key.get("input_size") or (0, 0),
        "build": key.get("build") or {},
        "run": run | {n: v for n, v in (key.get("execution") or {}).items() if n in _BUILT_IN},
        "select": key.get("select") or {},
        "protocol": key.get("protocol") or {},
        "data": {"name": data.get("name", ""), "boxes": data.get("boxes", ""), "weights": key.get("weights") or ""},
    }
    method = variant.partition("_")[0]  # variants are named method_variant
    paradigm = "one-stage" if "shortest_edge" in cell["protocol"] else "top-down"  # a field of theirs alone
    row = {"label": variant, "method": method, "paradigm": paradigm, "cell": cell}
    return {**row, "records": records, "reasons": {}}


def _labelled(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one variant are told apart by what differs between them."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["label"], []).append(row)
    for own in groups.values():
        varied = _varied([_marks(row) for row in own]) if len(own) > 1 else []
        for row in own:
            marks = _marks(row)
            shown = [f"{name}={_short(marks[name])}" for name in varied if marks.get(name) is not None]
            row["label"] = " ".join([row["label"], *shown])
            # all of it: rows that differ in something else as well are no curve over a threshold
            row["cell"]["swept"] = {name: marks[name] for name in varied if marks.get(name) is not None}
    return rows


def _marks(row: Mapping[str, Any]) -> dict[str, Any]:
    cell = row["cell"]
    size = {"input_size": "x".join(map(str, cell["input_size"]))}
    return size | cell["build"] | cell["run"] | cell["select"] | cell["protocol"] | cell["data"]


def _varied(found: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for marks in found for name in marks)
    return [n for n in names if len({json.dumps(marks.get(n), sort_keys=True) for marks in found}) > 1]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else json.dumps(value)
    return text[:8] if len(text) == 64 else text  # the start of a hash names a weights file well enough
