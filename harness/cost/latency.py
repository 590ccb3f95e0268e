"""Milliseconds under a stated protocol: interleaved rounds, stationary warm-up, starved samples rejected.

Every number keeps its raw samples. A quantile is printed with an interval from order statistics (no distribution
assumed), or not at all when too few samples carry it. What is compared is the ratio inside a round: two calls one
after the other meet the same machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from harness.cost.statistics import Quantile, kept_median, quantile, stationary
from harness.errors import MeasurementError

__all__ = ["Execution", "LatencyResult", "Sample", "Stopwatch", "measure"]


@dataclass(frozen=True)
class Execution:
    """Everything that moves milliseconds and not AP. `scope` says in words what is inside the timer.

    `threads` None: as torch has them. `dtype` and `runtime` are applied by who makes the callables and recorded here.
    `seconds` bounds warm-up and rounds together; at least `_LEAST_ROUNDS` rounds are made.
    """

    device: str = "cpu"
    batch: int = 1
    threads: int | None = None
    dtype: str = "float32"
    runtime: str = "eager"
    rounds: int = 30
    warmup_least: int = 3
    warmup_most: int = 30
    scope: str = "network"
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.rounds < _LEAST_ROUNDS or not 1 <= self.warmup_least <= self.warmup_most:
            raise MeasurementError(
                f"{self.rounds} rounds, warm-up {self.warmup_least} to {self.warmup_most}",
                expected=f"at least {_LEAST_ROUNDS} rounds, 1 <= warmup_least <= warmup_most",
            )


@dataclass(frozen=True)
class Sample:
    """One timed call: round, wall and process CPU milliseconds; `starved` ones carry no statistic."""

    round: int
    wall_ms: float
    cpu_ms: float
    starved: bool = False

    @property
    def cpu_ratio(self) -> float:
        """Cores that worked on average."""
        return self.cpu_ms / self.wall_ms if self.wall_ms > 0 else 0.0


@dataclass(frozen=True)
class LatencyResult:
    """Milliseconds per call (a batch) of one method. `samples` are all rounds, the rejected ones too.

    `ratio`: median over rounds of this method's time over the first method's in the same round (None for the first).
    `warmup` calls were made before, `warmed_up` tells whether they had become stationary within the limits.
    """

    median: Quantile
    p90: Quantile
    p99: Quantile
    ratio: Quantile | None
    samples: tuple[Sample, ...]
    rejected: int
    cpu_ratio: float
    warmup: int
    warmed_up: bool
    execution: Execution
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median_ms(self) -> float | None:
        """The median, in milliseconds per call."""
        return self.median.value

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {**asdict(self), "median_ms": self.median_ms, "samples": [asdict(s) for s in self.samples]}


class Stopwatch:
    """The clock: wall and process CPU seconds, after the device has finished. Tests put a scripted one in its place."""

    def __init__(self, device: str) -> None:
        self._cuda = torch.device(device) if device.startswith("cuda") else None

    def read(self) -> tuple[float, float]:
        """(wall, CPU of all threads of this process) in seconds."""
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)
        return time.perf_counter(), time.process_time()


_LEAST_ROUNDS = 3
_MOST_TRIES = 3  # rounds made for each one asked for, when samples are starved
_STARVED = 0.7  # of the cores a call usually keeps busy: below, something else had the machine

Call = Callable[[], object]


def measure(
    callables: Mapping[str, Call],
    execution: Execution,
    *,
    stopwatch: Stopwatch | None = None,
    before_rounds: Call = lambda: None,
) -> dict[str, LatencyResult]:
    """Times `callables` in interleaved rounds, in the order given and reversed every other round.

    `before_rounds` is called between warm-up and rounds: who goes through several inputs begins again there, so that
    a round is the same work for all.

    The first one is the reference of the ratios. Raises MeasurementError when nothing is given or the device is
    not there; a method whose samples were all starved has statistics with the value None and the reason.
    """
    if not callables:
        raise MeasurementError("no method to time")
    if execution.device.startswith("cuda") and not torch.cuda.is_available():
        raise MeasurementError(f"no device {execution.device}", hint="--device cpu")
    watch = stopwatch or Stopwatch(execution.device)
    with _fixed(execution) as settings:
        began = watch.read()[0]
        warm = {name: _warm_up(call, execution, watch, len(callables)) for name, call in callables.items()}
        before_rounds()
        threads = settings["threads"] if execution.device == "cpu" else 0
        samples = _rounds(callables, execution, watch, threads, began)
    reference = samples[next(iter(callables))]
    return {
        name: _result(own, None if own is reference else reference, warm[name], execution, settings)
        for name, own in samples.items()
    }


@contextmanager
def _fixed(execution: Execution) -> Iterator[dict[str, Any]]:
    """Threads set and autotuning frozen; as they were afterwards."""
    threads, tuned = torch.get_num_threads(), torch.backends.cudnn.benchmark
    torch.set_num_threads(execution.threads or threads)
    torch.backends.cudnn.benchmark = False
    try:
        with torch.inference_mode():
            yield {"threads": torch.get_num_threads(), "cudnn_benchmark": False}
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.benchmark = tuned


def _timed(call: Call, watch: Stopwatch, round_: int) -> Sample:
    wall, cpu = watch.read()
    call()
    wall_after, cpu_after = watch.read()
    return Sample(round_, 1e3 * (wall_after - wall), 1e3 * (cpu_after - cpu))


def _warm_up(call: Call, execution: Execution, watch: Stopwatch, methods: int) -> tuple[int, bool]:
    """Calls until the last ones no longer get faster: (calls made, became stationary).

    Bounded by `warmup_most` and, over all methods together, by a third of the time budget.
    """
    times: list[float] = []
    while len(times) < execution.warmup_most:
        times.append(_timed(call, watch, -1).wall_ms)
        if len(times) >= execution.warmup_least and stationary(times):
            return len(times), True
        if sum(times) / 1e3 > execution.seconds / (3 * methods) and len(times) >= execution.warmup_least:
            break
    return len(times), stationary(times)


def _rounds(
    callables: Mapping[str, Call], execution: Execution, watch: Stopwatch, threads: int, began: float
) -> dict[str, tuple[Sample, ...]]:
    """Rounds until every call has as many kept samples as asked for, or time or `_MOST_TRIES` x the rounds is up."""
    names = list(callables)
    samples: dict[str, list[Sample]] = {name: [] for name in names}
    judged: dict[str, tuple[Sample, ...]] = {}
    for number in range(_MOST_TRIES * execution.rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            samples[name].append(_timed(callables[name], watch, number))
        judged = {name: _judged(own, threads) for name, own in samples.items()}
        fewest = min(sum(not s.starved for s in own) for own in judged.values())
        out_of_time = watch.read()[0] - began > execution.seconds and number + 1 >= _LEAST_ROUNDS
        if fewest >= execution.rounds or out_of_time:
            break
    return judged


def _judged(samples: Sequence[Sample], threads: int) -> tuple[Sample, ...]:
    """Marks samples whose CPU-to-wall ratio is far below what the call usually reaches.

    One thread must keep one core busy. With more, the call's own upper quartile is the measure, as not every network
    can use all threads. On a GPU (`threads` 0) the CPU waits, and nothing is judged.
    """
    if not threads:
        return tuple(samples)
    usual = 1.0 if threads == 1 else max(1.0, float(np.percentile([s.cpu_ratio for s in samples], 75)))
    return tuple(Sample(s.round, s.wall_ms, s.cpu_ms, s.cpu_ratio < _STARVED * usual) for s in samples)


def _result(
    own: Sequence[Sample],
    reference: Sequence[Sample] | None,
    warm: tuple[int, bool],
    execution: Execution,
    settings: Mapping[str, Any],
) -> LatencyResult:
    kept = [s.wall_ms for s in own if not s.starved]
    ratio = None
    if reference is not None:
        pairs = list(zip(own, reference, strict=True))
        fed = [(a, b) for a, b in pairs if not (a.starved or b.starved)]
        ratio = kept_median([a.wall_ms / b.wall_ms for a, b in fed], [a.wall_ms / b.wall_ms for a, b in pairs])
    return LatencyResult(
        median=kept_median(kept, [s.wall_ms for s in own]),
        p90=quantile(kept, 0.9),
        p99=quantile(kept, 0.99),
        ratio=ratio,
        samples=tuple(own),
        rejected=len(own) - len(kept),
        cpu_ratio=float(np.median([s.cpu_ratio for s in own])),
        warmup=warm[0],
        warmed_up=warm[1],
        execution=execution,
        settings=dict(settings),
    )
