"""What the gate compares: the measurements of one run, small enough to be committed. Torch-free.

A snapshot is made of a run manifest and its records, or read from a baseline file (the same thing as JSON). It holds
the matches by image, for the paired AP test, and the ratios to the reference network by round, for the speed test.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.accuracy.ap import GROUPS
from harness.accuracy.checks import read_json
from harness.accuracy.match import IGNORED, THRESHOLDS, Matches
from harness.errors import UserError
from harness.foreign.arrays import read_npz
from harness.provenance import command, revision
from harness.records.store import SCHEMA, Record, Store, write_atomically

__all__ = ["Accuracy", "Cost", "Row", "Snapshot", "Speed", "load_snapshot", "pack", "read_snapshot", "take", "unpack"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Accuracy(_Frozen):
    """AP of one configuration, in 0 to 1, with the matches of the group `all`."""

    context: dict[str, Any]
    """data, protocol and input size: what must be equal for a comparison to mean anything"""
    value: float | None
    reason: str = ""
    """why `value` is None"""
    matches: str | None
    """see `pack`"""


class Cost(_Frozen):
    """Multiply-accumulates of one forward, and parameters."""

    context: dict[str, Any]
    macs: int | None
    params: int | None


_Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Speed(_Frozen):
    """Time relative to the reference network. `runs`: of each run of the timer the ratios by round."""

    context: dict[str, Any]
    reference: str
    machine: dict[str, Any]
    median_ms: float | None
    runs: tuple[tuple[_Ratio, ...], ...]
    reason: str = ""
    """why there are no runs"""


class Row(_Frozen):
    """One configuration of the suite. A metric that was asked for and has no measurement has its reason here."""

    label: str
    variant: str
    accuracy: Accuracy | None = None
    cost: Cost | None = None
    speed: dict[str, Speed] = {}
    reasons: dict[str, str] = {}


class Snapshot(_Frozen):
    """The measurements of one run."""

    kind: Literal["paretopose baseline"] = "paretopose baseline"
    schema_version: int = SCHEMA
    suite: str
    created: str
    revision: str
    command: str
    rows: tuple[Row, ...]

    def write(self, path: Path) -> None:
        """Keep it as a baseline file."""
        write_atomically(path, (self.model_dump_json(indent=1) + "\n").encode())


def read_snapshot(content: Any, where: str) -> Snapshot:
    """The snapshot of a baseline file's JSON. UserError: another schema version, or not as it was written."""
    if not isinstance(content, dict) or "schema_version" not in content:
        raise UserError(
            "this is no baseline file",
            where=where,
            expected="a file that --record wrote",
            hint="paretopose gate BASELINE CANDIDATE --record",
        )
    version = content["schema_version"]
    if version != SCHEMA:
        raise UserError(
            f"baseline of schema version {version}",
            where=where,
            expected=f"schema version {SCHEMA}",
            hint="record it again: paretopose gate BASELINE CANDIDATE --record",
        )
    try:
        return Snapshot.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"baseline file: {place}: {first['msg']}", where=where, hint="record it again") from None


def load_snapshot(path: Path) -> Snapshot:
    """The snapshot of a baseline file. UserError when it cannot be read."""
    return read_snapshot(read_json(path), str(path))


def take(manifest: Mapping[str, Any], store: Store) -> Snapshot:
    """The snapshot of a run manifest and its records. UserError: a manifest of another schema version."""
    if manifest.get("schema_version") != SCHEMA:
        raise UserError(
            f"run manifest of schema version {manifest.get('schema_version')}",
            where=str(manifest["suite"]["name"]),
            expected=f"schema version {SCHEMA}",
            hint="run the suite again",
        )
    references: dict[str, Record] = {}
    return Snapshot(
        suite=manifest["suite"]["name"],
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        revision=revision(),
        command=command(),
        rows=tuple(_row(row, store, references) for row in manifest["rows"]),
    )


def _row(row: Mapping[str, Any], store: Store, references: dict[str, Record]) -> Row:
    """`references`: latency records by metric of the first row that has one; later rows pair their rounds with it."""
    cell, reasons = row["cell"], dict(row["reasons"])
    found: dict[str, Record] = {}
    for metric, identity in row["records"].items():
        record = store.by_id(metric.split("_")[0], identity)
        if record is None:
            reasons[metric] = f"record {identity} is missing or damaged"
        else:
            found[metric] = record
    speed = {}
    for metric, record in found.items():
        if record.kind == "latency":
            speed[metric] = _speed(record, references.setdefault(metric, record), row["label"])
    return Row(
        label=row["label"] + (f" seed={cell['seed']}" if cell.get("seed") else ""),
        variant=cell["variant"],
        accuracy=_accuracy(found["accuracy"], store) if "accuracy" in found else None,
        cost=_cost(found["cost"]) if "cost" in found else None,
        speed=speed,
        reasons=reasons,
    )


def _accuracy(record: Record, store: Store) -> Accuracy:
    key, result = record.key, record.result
    stat = result.get("stats", {}).get("AP") or {"reason": "the gate judges AP, and this data set is scored by PCKh"}
    arrays = store.arrays(record.id)
    return Accuracy(
        context={name: key.get(name) for name in ("data", "missing", "protocol", "input_size")}
        | {"evaluator": result.get("evaluator")},
        value=stat.get("value"),
        reason=stat.get("reason", "") if arrays is not None else "the arrays of the record are missing or damaged",
        matches=None if arrays is None or "status" not in arrays else pack(Matches.from_arrays(arrays)),
    )


def _cost(record: Record) -> Cost:
    return Cost(
        context={"input_size": record.key.get("input_size")},
        macs=record.result.get("macs"),
        params=record.result.get("params_inference"),
    )


def _speed(record: Record, reference: Record, label: str) -> Speed:
    key, result = record.key, record.result
    ratios, reason = ((), "") if record.id == reference.id else _ratios(result, reference.result)
    execution = key.get("execution") or {}
    threads = (result.get("settings") or {}).get("threads")
    return Speed(
        context={name: execution.get(name) for name in ("batch", "device", "scope")}
        | {"threads": threads, "input_size": key.get("input_size"), "run": key.get("run")}
        | {"protocol": key.get("protocol")},
        reference=label if record.id == reference.id else str(result.get("reference")),
        machine=result.get("machine") or {},
        median_ms=(result.get("median") or {}).get("value"),
        runs=(ratios,) if ratios else (),
        reason=reason,
    )


def _ratios(own: Mapping[str, Any], reference: Mapping[str, Any]) -> tuple[tuple[float, ...], str]:
    """Own over reference time of each round in which both had the processor; why there are none."""
    pairs = list(zip(own.get("samples", ()), reference.get("samples", ())))
    fed = [(a, b) for a, b in pairs if not (a["starved"] or b["starved"])]
    if not fed:
        return (), "every round was starved of the processor" if pairs else "no round was measured"
    ratios = tuple(float(a["wall_ms"] / b["wall_ms"]) for a, b in fed)
    noted = (own.get("ratio") or {}).get("value")
    if noted is None or abs(float(np.median(ratios)) - noted) > 1e-9 * noted:
        # the reference's record was measured anew, with other rows, after this one
        return (), "it was timed in other rounds than the record of its reference; --repeat times them together"
    return ratios, ""


def pack(matches: Matches) -> str:
    """The group `all` of matches as base64 of a compressed npz."""
    column = matches.groups.index("all")
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        evaluator=np.array(matches.evaluator),
        groups=np.array(matches.groups),
        image_ids=matches.image_ids,
        image=matches.image.astype(np.int32),
        score=matches.score,
        status=matches.status[:, column],
        positives=matches.positives[:, column],
    )
    return base64.b64encode(buffer.getvalue()).decode()


def unpack(text: str, where: str = "") -> Matches:
    """The matches of `pack`; other groups are empty, so that only AP and AR over all areas are defined."""
    try:
        arrays = read_npz(io.BytesIO(base64.b64decode(text, validate=True)))
        groups = tuple(str(g) for g in arrays["groups"])
        column = groups.index("all")
        _check_arrays(arrays)
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"the stored matches cannot be read ({error})", where=where, hint="record it again") from None
    poses, thresholds = arrays["status"].shape
    status = np.full((poses, len(groups), thresholds), IGNORED, dtype=np.uint8)
    positives = np.zeros((len(arrays["image_ids"]), len(groups)), dtype=np.int64)
    status[:, column], positives[:, column] = arrays["status"], arrays["positives"]
    image = arrays["image"].astype(np.int64)
    return Matches(str(arrays["evaluator"]), groups, arrays["image_ids"], image, arrays["score"], status, positives)


def _check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """ValueError or KeyError for arrays that no matches have."""
    evaluator, images, poses = str(arrays["evaluator"]), len(arrays["image_ids"]), len(arrays["image"])
    shapes = {name: arrays[name].shape for name in ("image", "score", "status", "positives")}
    wanted = {"image": (poses,), "score": (poses,), "status": (poses, len(THRESHOLDS)), "positives": (images,)}
    if evaluator not in GROUPS or shapes != wanted:
        raise ValueError(f"evaluator {evaluator}, shapes {shapes}, not {wanted}")
    if set(GROUPS[evaluator]) - {str(group) for group in arrays["groups"]}:
        raise ValueError("groups are missing")
    if poses and not (arrays["image"].min() >= 0 and arrays["image"].max() < images):
        raise ValueError("a pose is on an image that is not there")
