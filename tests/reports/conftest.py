"""Made-up records in a store of their own: `made.row(...)`, `made.manifest(rows)`, `made.rows(rows)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.method import PoseProtocol
from harness.records.store import Record, Store
from reports.rows import RowData, load_rows


def stat(value: float | None, half: float = 0.012) -> dict[str, Any]:
    if value is None:
        return {"value": None, "interval": None, "reason": "no person of medium size"}
    bounds = [value - half, value + half]
    return {
        "value": value,
        "interval": {"level": 0.95, "percentile": bounds, "bca": bounds, "sd": half / 2, "undefined": 0},
    }


def spread(mean: float, sd: float) -> dict[str, float]:
    return {"mean": mean, "sd": sd, "p5": mean - 1.5 * sd, "p95": mean + 1.7 * sd}


def accuracy(ap: float | None, gmacs: float, sd: float, half: float, **more: Any) -> dict[str, Any]:
    return {
        "evaluator": "coco",
        "images": 188,
        "persons": 700,
        "stats": {"AP": stat(ap, half), "AP50": stat(0.9), "APm": stat(None)},
        "bootstrap": {"resamples": 1000, "seed": 0, "unit": "image"},
        "judge": {"name": "pycocotools", "version": "2.0.11", "images": 188, "sampled": False},
        "notes": [],
        "box_source": "ground-truth (hrnet)",
        "skipped_boxes": 0,
        "cost": {"gmacs_per_forward": spread(gmacs, sd), "gmacs_per_prediction": spread(2 * gmacs, sd)},
        **more,
    }


def cost(gmacs: float, trained_only: int = 0, **more: Any) -> dict[str, Any]:
    sizes = {"params": 34_000_000 + trained_only, "params_inference": 34_000_000}
    return {"macs": int(gmacs * 1e9), "gmacs": gmacs, "gflops": 2 * gmacs, **sizes, "trace": {}, **more}


def latency(ms: float, batch: int) -> dict[str, Any]:
    quantile = {"value": ms, "low": 0.9 * ms, "high": 1.2 * ms, "n": 30, "confidence": 0.95, "reason": ""}
    few = {
        "value": None,
        "low": None,
        "high": None,
        "n": 30,
        "confidence": 0.95,
        "reason": "30 samples; an interval needs 36",
    }
    execution = {"device": "cpu", "batch": batch, "threads": None, "dtype": "float32", "runtime": "eager", "rounds": 30}
    return {
        "median": quantile,
        "p90": few,
        "p99": few,
        "ratio": None,
        "warmed_up": True,
        "execution": {**execution, "scope": "network"},
        "settings": {"threads": 2},
        "reference": "first",
        "machine": {"cpu": "A CPU @ 2 GHz", "cores": 2, "gpus": []},
    }


class Made:
    """A store, and manifests of records in it."""

    latency = staticmethod(latency)

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)

    def put(self, kind: str, label: str, result: dict[str, Any], **key: Any) -> str:
        network = {"variant": label, "input_size": [256, 192], "build": {}, **key}
        return self.store.put(Record.make(kind, network, result)).id

    def row(
        self,
        label: str,
        *,
        method: str = "hrnet",
        variant: str | None = None,
        gmacs: float | None = None,
        ap: float | None = None,
        sd: float = 0.0,
        half: float = 0.012,
        ms: dict[int, float] | None = None,
        note: str = "",
        swept: dict[str, Any] | None = None,
        protocol: dict[str, Any] | None = None,
        reasons: dict[str, str] | None = None,
        cost_more: dict[str, Any] | None = None,
        more: dict[str, Any] | None = None,
        data: str = "coco_val188",
    ) -> dict[str, Any]:
        """A row of a manifest with the records of what is given."""
        records = {}
        if gmacs is not None:
            records["cost"] = self.put("cost", label, cost(gmacs, **(cost_more or {})))
        if ap is not None:
            records["accuracy"] = self.put("accuracy", label, accuracy(ap, gmacs or 1.0, sd, half, **(more or {})))
        for batch, value in (ms or {}).items():
            records[f"latency_b{batch}"] = self.put("latency", label, latency(value, batch), batch=batch)
        cell = {
            "label": label,
            "variant": variant or label,
            "input_size": [256, 192],
            "run": {"dtype": "float32", "runtime": "eager"},
            "protocol": {**PoseProtocol().model_dump(mode="json"), **(protocol or {})},
            "data": {"name": data, "boxes": "ground-truth"},
            "swept": swept or {},
        }
        return {
            "label": label,
            "note": note,
            "method": method,
            "cell": cell,
            "records": records,
            "reasons": reasons or {},
        }

    def manifest(self, rows: list[dict[str, Any]], **report: Any) -> dict[str, Any]:
        return {
            "schema_version": 1,
            "suite": {"name": "demo", "description": "A demo.", "report": {"axes": ["gmacs", "ap"], **report}},
            "created": "2026-11-21T07:00:00Z",
            "command": "paretopose run demo.yaml",
            "rows": rows,
        }

    def rows(self, *rows: dict[str, Any]) -> list[RowData]:
        return load_rows(self.store, self.manifest(list(rows)))


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "store")
