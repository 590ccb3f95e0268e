"""What two numbers must share before one can be called better: the persons scored, and how they were timed."""

from __future__ import annotations

from harness.records.store import Record
from reports import quantities as q
from reports.rows import RowData, plain_text

__all__ = ["persons_of", "timing_of", "worded"]

Ground = tuple[str, ...]


def persons_of(row: RowData) -> Ground:
    """The data set and boxes of a row in words, and the fingerprint of its images."""
    scored = row.records.get("accuracy")
    key = (scored.key.get("data") or {}) if scored else {}
    name = plain_text(key.get("name") or row.data.get("name") or "unnamed data")
    joints = q.joints_in_words(row)
    words = f"{name}, boxes: {q.boxes(row).text}{f', {joints}' if joints else ''}"
    return words, f"images {plain_text(key.get('dataset') or '')[:12]}"


def timing_of(record: Record) -> Ground:
    """Scope, threads and device of a latency record in words, and the machine's hash."""
    result = record.result
    machine, execution = result.get("machine") or {}, result.get("execution") or {}
    threads = (result.get("settings") or {}).get("threads", execution.get("threads"))
    gpus, device = machine.get("gpus") or [], plain_text(execution.get("device", "?"))
    on = gpus[0] if device.startswith("cuda") and gpus else machine.get("cpu", "unknown CPU")
    scope, many = plain_text(execution.get("scope", "?")), "" if threads == 1 else "s"
    words = f"{scope} on {device} ({plain_text(on)}), {plain_text(threads)} thread{many}"
    return words, f"machine {plain_text(record.key.get('machine') or '')[:8]}"


def worded(grounds: list[Ground]) -> list[str]:
    """Each ground in words; the hashes only where the words alone do not tell two apart."""
    plain = [ground[::2] for ground in grounds]
    chosen = (ground if plain.count(short) > 1 else short for ground, short in zip(grounds, plain))
    return ["; ".join(filter(None, ground)) for ground in chosen]
