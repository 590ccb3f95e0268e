"""Joules per call, where the machine has a counter: RAPL for the processor, NVML for a GPU. Torch only for NVML."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

__all__ = ["Counter", "Energy", "NoCounter", "NvmlCounter", "RaplCounter", "find_counter", "joules_per_call"]

POWERCAP = Path("/sys/class/powercap")


class NoCounter(Exception):
    """There is no energy counter; the text says why."""


class Counter(Protocol):
    """A running total. `source` names it and what it covers; `step_s` is how often the hardware renews it."""

    source: str
    step_s: float

    def read(self) -> float:
        """Joules since some moment in the past."""


@dataclass(frozen=True)
class Energy:
    """Joules of one call (a batch): the mean over `calls` calls back to back; None with the `reason`."""

    joules_per_call: float | None
    source: str = ""
    calls: int = 0
    watts: float | None = None
    reason: str = ""


@dataclass
class _Domain:
    """One processor package. Its counter runs to `most` and begins again at 0."""

    folder: Path
    most: int
    last: int
    total: int = 0

    def advance(self) -> int:
        """Microjoules since the first reading; at most one turn of the counter may lie between two calls of this."""
        now = _number(self.folder / "energy_uj")
        self.total += now - self.last if now >= self.last else now + self.most - self.last
        self.last = now
        return self.total


@dataclass
class RaplCounter:
    """Intel's and AMD's running average power limit, all packages: everything on the machine is in it, not only us.

    Raises NoCounter where there is none or the system does not let users read it.
    Source: https://www.kernel.org/doc/html/latest/power/powercap/powercap.html
    """

    folder: Path = POWERCAP
    source: str = "RAPL, all processor packages, other programs included"
    step_s: float = 0.001
    _domains: list[_Domain] = field(init=False)

    def __post_init__(self) -> None:
        # intel-rapl:0:0 (cores, memory) is a part of the package intel-rapl:0
        packages = [p for p in sorted(self.folder.glob("intel-rapl:*")) if p.name.count(":") == 1]
        if not packages:
            raise NoCounter("the system has no RAPL counter")
        self._domains = [_Domain(p, _number(p / "max_energy_range_uj"), _number(p / "energy_uj")) for p in packages]

    def read(self) -> float:
        return sum(domain.advance() for domain in self._domains) / 1e6


class NvmlCounter:
    """The energy counter of one GPU, idle parts included. Raises NoCounter without nvidia-ml-py or the counter."""

    source, step_s = "NVML, the whole GPU", 0.1

    def __init__(self, device: str) -> None:
        try:
            import pynvml
        except ImportError:
            raise NoCounter("the package nvidia-ml-py is not installed") from None
        import torch

        try:
            pynvml.nvmlInit()
            # torch counts the visible devices only, NVML all of them
            uuid = torch.cuda.get_device_properties(torch.device(device)).uuid
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)
        except (pynvml.NVMLError, RuntimeError, AttributeError) as error:
            raise NoCounter(f"NVML: {error}") from None
        self._nvml = pynvml

    def read(self) -> float:
        return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1e3


def find_counter(device: str) -> Counter:
    """The counter of a device. Raises NoCounter with the reason."""
    return NvmlCounter(device) if device.startswith("cuda") else RaplCounter(POWERCAP)


def joules_per_call(
    call: Callable[[], object],
    counter: Counter,
    *,
    steps: int = 20,
    finish: Callable[[], None] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Energy:
    """Energy of `call`, made back to back for at least `steps` steps of the counter and a quarter of a second.

    Apart from the timed rounds: one call is shorter than the step of most counters. `finish` waits for the device.
    """
    least = max(steps * counter.step_s, 0.25)
    finish()
    began, before, calls = clock(), counter.read(), 0
    while calls < 2 or clock() - began < least:
        call()
        finish()
        calls += 1
    joules, seconds = counter.read() - before, clock() - began
    return Energy(joules / calls, counter.source, calls, joules / seconds if seconds > 0 else None)


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except PermissionError:
        raise NoCounter(f"{path.name} can be read by root only") from None
    except (OSError, ValueError) as error:
        raise NoCounter(f"{path.name} cannot be read: {error}") from None
