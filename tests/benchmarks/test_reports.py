"""A report over ten thousand records: at most 20 s and 1 GB, its process and everything it writes included."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.method import PoseProtocol
from harness.records.store import Record

pytestmark = pytest.mark.benchmark_suite
RECORDS = 10_000
MEASURED = ("cost", "accuracy", "latency")


def result(kind: str, index: int, rng: np.random.Generator) -> dict[str, Any]:
    """As a run writes them, but for the ledger of operators."""
    if kind == "cost":
        gmacs = float(10 ** rng.uniform(-1, 2))
        return {"macs": int(gmacs * 1e9), "gmacs": gmacs, "params": 34_000_000, "params_inference": 34_000_000}
    if kind == "latency":
        times = rng.gamma(20, 2, 30).round(3).tolist()
        median = float(np.median(times))
        quantile = {
            "value": median,
            "low": median * 0.9,
            "high": median * 1.1,
            "n": 30,
            "confidence": 0.95,
            "reason": "",
        }
        samples = [{"round": i, "wall_ms": t, "cpu_ms": t, "starved": False} for i, t in enumerate(times)]
        execution = {
            "scope": "network",
            "batch": 1,
            "threads": 2,
            "dtype": "float32",
            "runtime": "eager",
            "device": "cpu",
        }
        return {
            "median": quantile, "p90": quantile, "p99": quantile, "ratio": None, "samples": samples,
            "execution": execution, "machine": {"cpu": "A CPU", "gpus": []}, "warmed_up": True,
        }  # fmt: skip
    ap = float(rng.uniform(0.4, 0.8))
    stats = {
        name: {"value": ap, "interval": {"bca": [ap - 0.01, ap + 0.01]}, "reason": ""}
        for name in ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
    }
    return {
        "stats": stats, "images": 5000, "persons": 11_004, "box_source": "ground-truth", "notes": [],
        "bootstrap": {"resamples": 1000, "seed": 0}, "judge": {"name": "pycocotools", "version": "2", "images": 5000},
    }  # fmt: skip


def fill(folder: Path) -> None:
    """A store with one run of rows that hold three records each; written plainly, which a run does not do."""
    rng, protocol = np.random.default_rng(0), PoseProtocol().model_dump(mode="json")
    (folder / "records").mkdir(parents=True)
    rows = []
    for index in range(-(-RECORDS // len(MEASURED))):
        method, label = f"method{index % 8}", f"method{index % 8}_v{index}"
        found = {}
        for kind in MEASURED:
            record = Record.make(kind, {"variant": label, "input_size": [256, 192]}, result(kind, index, rng))
            (folder / "records" / f"{kind}-{record.id}.json").write_text(record.model_dump_json(indent=1))
            found["latency_b1" if kind == "latency" else kind] = record.id
        cell = {
            "label": label, "variant": label, "input_size": [256, 192], "protocol": protocol,
            "data": {"name": "coco_val2017", "boxes": "ground-truth"},
            "swept": {"alpha": index % 7, "part": index // 7},
        }  # fmt: skip
        rows.append({"label": label, "method": method, "cell": cell, "records": found})
    (folder / "runs").mkdir()
    suite = {"name": "many", "report": {"published": True}}
    manifest = {"schema_version": 1, "suite": suite, "created": "2026-01-01T00:00:00Z", "command": "x", "rows": rows}
    (folder / "runs" / "many.json").write_text(json.dumps(manifest))


def test_a_report_over_ten_thousand_records_takes_at_most_20_s_and_1_gb(tmp_path, capsys):
    fill(tmp_path / "store")
    code = (
        "import resource, sys; from harness.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024 / 1e9, file=sys.stderr)"
    )
    places = ["--store", str(tmp_path / "store"), "--out", str(tmp_path / "out"), "--format", "csv"]
    began = time.perf_counter()
    command = [sys.executable, "-c", code, "report", "many", *places]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took = time.perf_counter() - began
    busy, gigabytes = map(float, done.stderr.splitlines()[-1].split())
    with capsys.disabled():
        print(f"\nreport over {RECORDS} records: {took:.1f} s ({busy:.1f} s of processor), {gigabytes:.2f} GB")
    assert len(list((tmp_path / "out" / "many").iterdir())) >= 12
    # the limit holds for the time that the process had; on a busy machine the wall clock is somebody else's
    assert busy <= 20 and gigabytes <= 1
