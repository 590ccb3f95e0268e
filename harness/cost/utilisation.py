"""What stands beside the milliseconds of a method: memory, energy, and its rate against the machine's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import torch

from harness.cost.energy import Energy, NoCounter, find_counter, joules_per_call
from harness.cost.latency import LatencyResult
from harness.cost.memory import footprint
from harness.cost.roofline import machine_peak, roofline

__all__ = ["utilisation"]


def utilisation(
    call: Callable[[], object],
    measured: LatencyResult,
    network: object,
    *,
    dtype: str,
    macs: float | None,
    reason: str = "",
) -> dict[str, Any]:
    """`peak_memory_mb` with `memory`, `energy`, `roofline` of a call that was timed, made apart from the rounds.

    `macs` of one call, or None with the `reason`; `dtype` is the number format of its network.
    """
    device, threads = measured.execution.device, int(measured.settings["threads"])
    with _threads(threads), torch.inference_mode():
        found = footprint(call, network, device)
        energy = _energy(call, device)
    peaks = machine_peak(device, dtype, threads)
    line = roofline(macs, measured.median_ms, peaks, reason)
    return {**found, "energy": asdict(energy), "roofline": line.to_dict()}


def _energy(call: Callable[[], object], device: str) -> Energy:
    finish = (lambda: torch.cuda.synchronize(device)) if device.startswith("cuda") else (lambda: None)
    try:
        return joules_per_call(call, find_counter(device), finish=finish)
    except NoCounter as none:
        return Energy(None, reason=str(none))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
