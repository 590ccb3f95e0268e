"""What the machine is: stable facts for the id of a latency record, passing ones beside. Torch only where asked."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

__all__ = ["clocks", "machine", "machine_id", "passing"]


def machine() -> dict[str, Any]:
    """Facts that stay between two runs on the same machine: hardware, system, versions."""
    import torch

    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "affinity": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory_gib": _memory_gib(),
        "gpus": gpus,
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def machine_id(facts: dict[str, Any] | None = None) -> str:
    """Short hash of `machine()`."""
    text = json.dumps(facts if facts is not None else machine(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def passing() -> dict[str, Any]:
    """What may differ at the next run: load, clocks, cores, OpenMP's wait policy. Recorded, not part of the id."""
    mhz, source = clocks()
    return {
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "mhz": mhz,
        "mhz_source": source,
        "cpus": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "omp": {name: os.environ[name] for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY") if name in os.environ},
    }


def clocks(system: Path = Path("/")) -> tuple[list[float] | None, str]:
    """Current frequency of every core in MHz and where it was read; None and why where nothing tells it.

    `system` is the root of the file system.
    """
    # cpufreq counts in kHz; a virtual machine often has /proc/cpuinfo only
    files = (system / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq")
    ordered = sorted(files, key=lambda p: int(p.parents[1].name.removeprefix("cpu")))
    read = [_first_line(str(p)) for p in ordered]
    if read and all(text and text.isdigit() for text in read):
        return [int(text or 0) / 1e3 for text in read], "cpufreq"
    try:
        lines = (system / "proc/cpuinfo").read_text().splitlines()
        found = [float(line.partition(":")[2]) for line in lines if line.lower().startswith("cpu mhz")]
    except (OSError, ValueError):
        found = []
    return (found, "cpuinfo") if found else (None, "the system tells no frequency")


def _first_line(path: str) -> str | None:
    try:
        return Path(path).read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> int | None:
    if sys.platform == "win32" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
