"""The system record of a run: what an image costs in each row, and where its one-stage rows become the cheaper ones.

Of several training seeds one row stands for all. Made of the records of the rows; nothing is measured here. Torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import provenance
from harness.cost.system import Line, TimedLine, crossing, measured_crossing, timing_of
from harness.errors import SuiteError
from harness.records.store import Record, Store
from harness.suite.schema import BoxesFrom, DetectorRecords, Suite

if TYPE_CHECKING:
    from harness.run.rows import Row

__all__ = ["KIND", "Measured", "System", "system_again", "system_record", "system_result"]

KIND = "system"
_RESAMPLES = 1000
_LATENCY = "latency_b1"  # of a detector that is named by its records


@dataclass(frozen=True)
class Measured:
    """What a row gives to the record. `reasons`: why a measurement is not among the `records`."""

    label: str
    paradigm: str
    flip: bool
    records: Mapping[str, Record]
    reasons: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(row: Row) -> Measured:
        return Measured(
            row.cell.label, row.variant.paradigm, row.cell.protocol.flip, dict(row.records), dict(row.reasons)
        )


@dataclass(frozen=True)
class System:
    """One row as a system: its line in gmacs and in milliseconds, or why there is none.

    `parts`: what the milliseconds are made of, in words and numbers.
    """

    label: str
    paradigm: str
    gmacs: Line | None
    ms: TimedLine | None
    reason_gmacs: str = ""
    reason_ms: str = ""
    parts: Mapping[str, float] | None = None


def system_record(suite: Suite, rows: Sequence[Row], store: Store, persons_per_image: float | None) -> Record | None:
    """The record for rows of both paradigms, from the store or new; None where there is one paradigm only.

    `persons_per_image`: annotated persons of an image of the data set, for the example column.
    """
    if {row.variant.paradigm for row in rows} != {"top-down", "one-stage"}:
        return None
    detector = _detector(suite, rows, store)
    found = _measured(rows)
    key = {
        "rows": [[row.label, row.paradigm, _ids(row), row.flip] for row in found],
        "detector": detector.key if detector else None,
        "persons_per_image": persons_per_image,
        "code": provenance.code("system"),
    }
    known = store.get(KIND, key)
    return known or store.put(Record.make(KIND, key, system_result(found, detector, persons_per_image)))


def _measured(rows: Sequence[Row]) -> list[Measured]:
    """Of rows that differ in their training seed alone, the first of those with the most records, which says so. Only
    where a network decides how much it computes do seeds cost a little more or less."""
    alike: dict[str, list[Row]] = {}
    for row in rows:
        alike.setdefault(row.cell.model_dump_json(exclude={"seed"}), []).append(row)
    found = []
    for same in alike.values():
        row = max(same, key=lambda row: len(row.records))
        one = Measured.of(row)
        found.append(replace(one, label=f"{one.label} seed {row.cell.seed}") if len(same) > 1 else one)
    return found


def system_again(record: Record, store: Store) -> dict[str, Any] | None:
    """The result of a system record from the records that it was made of; None where one is not stored here."""
    key, rows = record.key, []
    for label, paradigm, ids, flip in key["rows"]:
        found = _stored(store, ids)
        if found is None:
            return None
        rows.append(Measured(label, paradigm, flip, found))
    detector = None
    if key["detector"] is not None:
        ids = {_LATENCY if name == "latency" else name: i for name, i in key["detector"].items() if i is not None}
        records = _stored(store, ids)
        if records is None:
            return None
        detector = Detector(record.result["detector"]["name"], records, key["detector"])
    return system_result(rows, detector, key["persons_per_image"])


def _stored(store: Store, ids: Mapping[str, str]) -> dict[str, Record] | None:
    found = {name: store.by_id(name.partition("_")[0], i) for name, i in ids.items()}
    return {n: r for n, r in found.items() if r is not None} if None not in found.values() else None


def _ids(row: Row | Measured) -> dict[str, str]:
    return {name: record.id for name, record in sorted(row.records.items())}


@dataclass(frozen=True)
class Detector:
    """What finds the persons for top-down rows: the part of its cost that does not depend on how many there are."""

    name: str
    records: Mapping[str, Record]
    key: Any

    def gmacs(self) -> float | None:
        """Of one image."""
        line = _one_stage_gmacs(self.records)
        if line is not None:
            return line.fixed
        return float(self.records["cost"].result["gmacs"]) if "cost" in self.records else None


def _detector(suite: Suite, rows: Sequence[Row], store: Store) -> Detector | None:
    """The suite's detector: named in its report, or where the boxes come from. SuiteError for one that is not there."""
    wanted = suite.report.detector
    if wanted is None and isinstance(suite.data.boxes, BoxesFrom):
        wanted = suite.data.boxes.variant
    if isinstance(wanted, DetectorRecords):
        asked = {"cost": wanted.cost, _LATENCY: wanted.latency}
        records = {name: store.by_id(name.partition("_")[0], i) for name, i in asked.items() if i is not None}
        missing = [f"{name.partition('_')[0]}-{asked[name]}" for name, record in records.items() if record is None]
        if missing:
            raise SuiteError(f"the store has no record {', '.join(missing)}", where="report.detector")
        found = {name: record for name, record in records.items() if record is not None}
        return Detector(str(found["cost"].key.get("variant", wanted.cost)), found, wanted.model_dump(mode="json"))
    if wanted is None:
        return None
    origin = next(row for row in rows if row.variant.name == wanted)
    return Detector(origin.cell.label, origin.records, _ids(origin))


def system_result(
    rows: Sequence[Measured], detector: Detector | None, persons_per_image: float | None
) -> dict[str, Any]:
    """Lines of every row, and the crossing of every one-stage row with every top-down row."""
    scope = _scope(rows)
    systems = [_system(row, detector, scope) for row in rows]
    one = [s for s in systems if s.paradigm == "one-stage"]
    two = [s for s in systems if s.paradigm == "top-down"]
    return {
        "detector": {"name": detector.name, "gmacs": detector.gmacs()} if detector else None,
        "latency": scope,
        "persons_per_image": persons_per_image,
        "rows": [_plain(s, persons_per_image) for s in systems],
        "crossings": [_crossing(a, b) for a in one for b in two],
    }


def _scope(rows: Sequence[Measured]) -> dict[str, Any] | None:
    """The latency that the milliseconds are taken from: the smallest batch that every timed row has."""
    names = [{n for n in row.records if n.startswith("latency_b")} for row in rows]
    common = set.intersection(*(n for n in names if n)) if any(names) else set()
    if not common:
        return None
    name = min(common, key=lambda n: int(n.removeprefix("latency_b")))
    record = next(row.records[name] for row in rows if name in row.records)
    return {"name": name, "scope": record.result["execution"]["scope"]}


def _system(row: Measured, detector: Detector | None, scope: Mapping[str, Any] | None) -> System:
    whole = row.paradigm == "one-stage"
    gmacs = _one_stage_gmacs(row.records) if whole else _top_down_gmacs(row, detector)
    reason = "" if gmacs else row.reasons.get("cost", "no cost was recorded")
    found = _one_stage_ms(row.records, scope) if whole else _top_down_ms(row, detector, scope)
    if isinstance(found, str):
        return System(row.label, row.paradigm, gmacs, None, reason, found)
    line, parts = found
    return System(row.label, row.paradigm, gmacs, line, reason, "", parts)


def _one_stage_gmacs(records: Mapping[str, Record]) -> Line | None:
    """Of an average image that was scored, or of the image that its cost was counted on."""
    scored = records["accuracy"].result.get("cost", {}) if "accuracy" in records else {}
    if "gmacs_without_persons" in scored:
        return Line(scored["gmacs_without_persons"]["mean"], scored["gmacs_per_person"]["mean"])
    cost = records["cost"].result if "cost" in records else {}
    if "macs_without_persons" not in cost:
        return None
    return Line(cost["macs_without_persons"] / 1e9, cost["macs_per_person"] / 1e9)


def _top_down_gmacs(row: Measured, detector: Detector | None) -> Line | None:
    fixed = detector.gmacs() if detector else 0.0
    scored = row.records["accuracy"].result.get("cost", {}) if "accuracy" in row.records else {}
    each = scored.get("gmacs_per_prediction", {}).get("mean")
    if each is None and "cost" in row.records:
        each = row.records["cost"].result["gmacs"] * (2 if row.flip else 1)
    return None if each is None or fixed is None else Line(fixed, each)


def _one_stage_ms(
    records: Mapping[str, Record], scope: Mapping[str, Any] | None
) -> tuple[TimedLine, dict[str, float]] | str:
    """The line of a one-stage row: preparing the image is added where it was not inside the timer."""
    record = records.get(scope["name"]) if scope else None
    if record is None or scope is None:
        return "not timed"
    result = record.result
    if "gmacs_without_persons_per_call" not in result:
        return "timed as something else than a one-stage network"
    images = result["images_per_call"]
    fixed = np.array(result["gmacs_without_persons_per_call"]) / images
    share = images * fixed / fixed.mean()
    timing = timing_of(result["samples"], share.tolist(), result["persons_per_call"])
    prepared = result["preparing_ms"] if scope["scope"] == "network" else 0.0
    return timing.reason or (TimedLine(timing, added=(prepared, 0.0)), {"preparing_ms_per_image": prepared})


def _top_down_ms(
    row: Measured, detector: Detector | None, scope: Mapping[str, Any] | None
) -> tuple[TimedLine, dict[str, float]] | str:
    """The line of a top-down row: forwards of the flip test and the crop are added where they were not timed."""
    record = row.records.get(scope["name"]) if scope else None
    if record is None or scope is None:
        return "not timed"
    found = _detector_ms(detector, scope)
    if isinstance(found, str):
        return f"its detector has no time: {found}"
    result = record.result
    whole = scope["scope"] == "end-to-end"
    persons = result["persons_per_call"]
    timing = timing_of(result["samples"], [float(whole)] * len(persons), persons)
    if timing.reason:
        return timing.reason
    timed = scope["scope"] == "network"
    forwards, crop = (2.0 if row.flip else 1.0, result["preparing_ms"]) if timed else (1.0, 0.0)
    line = TimedLine(timing, (1.0, forwards), (0.0, crop), found)
    crop_ms = result["preparing_ms"]
    return line, {"crop_ms_per_person": crop_ms, "crop_share": crop_ms / line.line.each}


def _detector_ms(detector: Detector | None, scope: Mapping[str, Any]) -> TimedLine | str | None:
    if detector is None:
        return None
    own = _one_stage_ms(detector.records, scope)
    if not isinstance(own, str):
        return own[0]
    record = detector.records.get(scope["name"])
    if record is None or "gmacs_without_persons_per_call" in record.result:
        return own
    calls = len(record.result["samples"])  # a detector of another kind: its calls are images
    timing = timing_of(record.result["samples"], [1.0] * calls, [0.0] * calls)
    return timing.reason or TimedLine(timing)


def _plain(system: System, persons: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {"label": system.label, "paradigm": system.paradigm}
    ms = system.ms.line if system.ms else None
    for name, line, reason in (("gmacs", system.gmacs, system.reason_gmacs), ("ms", ms, system.reason_ms)):
        at = line.at(persons) if line is not None and persons is not None else None
        numbers = {"fixed": line.fixed, "each": line.each, "typical": at} if line is not None else None
        found[name] = numbers or {"reason": reason}
    return found | {"parts": dict(system.parts or {})}


def _crossing(one: System, two: System) -> dict[str, Any]:
    found: dict[str, Any] = {"one_stage": one.label, "top_down": two.label}
    if one.gmacs and two.gmacs:
        exact = crossing(one.gmacs, two.gmacs)
        found["gmacs"] = {"verdict": exact.verdict, "persons": exact.persons}
    else:
        found["gmacs"] = {"reason": one.reason_gmacs or two.reason_gmacs}
    if one.ms and two.ms:
        found["ms"] = measured_crossing(one.ms, two.ms, n=_RESAMPLES)
    else:
        found["ms"] = {"reason": one.reason_ms or two.reason_ms}
    return found
