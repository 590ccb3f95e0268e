"""Peak memory of a call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["PeakMemory", "peak_memory"]


@dataclass(frozen=True)
class PeakMemory:
    """Highest bytes during the call and what was held before it; None with the `reason` where it has no meaning."""

    peak_bytes: int | None
    held_bytes: int | None
    source: str
    reason: str = ""


def peak_memory(call: Callable[[], object], device: str = "cpu") -> PeakMemory:
    """CUDA: the caching allocator's peak. CPU: the rise of the process's resident high water (Linux), known only when
    the call climbs above everything the process did before."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return PeakMemory(torch.cuda.max_memory_allocated(device), held, "cuda allocator")
    import resource
    import sys

    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    call()
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if after <= before:
        return PeakMemory(None, before, "resident high water", "the process had used more memory before")
    return PeakMemory(after, before, "resident high water")
