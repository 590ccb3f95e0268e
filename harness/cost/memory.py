"""Peak memory of a call."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

__all__ = ["PeakMemory", "footprint", "peak_memory"]


@dataclass(frozen=True)
class PeakMemory:
    """Highest bytes during the call and what was held before it; None with the `reason` where it has no meaning."""

    peak_bytes: int | None
    held_bytes: int | None
    source: str
    reason: str = ""


def footprint(call: Callable[[], object], network: object, device: str = "cpu") -> dict[str, Any]:
    """`peak_memory_mb` (1e6 bytes) of a method: its weights and what one call adds to what was held before.

    What other networks and libraries hold is left out. None with the reason in `memory`, where the raw bytes are.
    """
    found = peak_memory(call, device)
    if not isinstance(network, torch.nn.Module):
        reason = "not a torch module: what its weights take is not known"
        return {"peak_memory_mb": None, "memory": asdict(found) | {"reason": reason}}
    held = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    if found.peak_bytes is None or found.held_bytes is None:
        return {"peak_memory_mb": None, "memory": asdict(found)}
    whole = held + max(0, found.peak_bytes - found.held_bytes)
    return {"peak_memory_mb": whole / 1e6, "memory": {**asdict(found), "weights_bytes": held}}


def peak_memory(call: Callable[[], object], device: str = "cpu") -> PeakMemory:
    """CUDA: the caching allocator's peak. CPU: the high water of the process's resident memory.

    Linux can set the high water back; elsewhere it is known only when the call climbs above all that was before.
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return PeakMemory(torch.cuda.max_memory_allocated(device), held, "cuda allocator")
    reset = _reset_high_water()
    before = _high_water(reset)
    call()
    after = _high_water(reset)
    source = "resident high water"
    if after <= before and not reset:
        return PeakMemory(None, before, source, "the process had used more memory before")
    return PeakMemory(after, before, source)


def _reset_high_water() -> bool:
    """Whether the system let us: Linux, proc(5) `clear_refs`. Freed pages go back first, or they hide the rise."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _high_water(reset: bool) -> int:
    """Bytes; after a reset from /proc, as getrusage knows none."""
    if reset:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
