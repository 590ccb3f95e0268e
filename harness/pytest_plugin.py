"""The pytest fixture `pose_benchmark`: a network's time in your own test suite, compared with a stored run.

    def test_my_network_is_as_fast_as_it_was(pose_benchmark):
        pose_benchmark("hrnet_tiny")

The times go into pytest-benchmark's table and files, through its `benchmark` fixture. With
`pytest --pose-baseline results/baselines/ci.json` the network is also timed in interleaved rounds with the baseline's
reference network and judged as `paretopose gate` does; a regression, or a time that cannot be taken, fails the test.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from harness.gate.snapshot import Snapshot, Speed
    from harness.gate.verdict import Verdict

__all__ = ["PoseBenchmark", "pose_benchmark"]

Call = Callable[[], object]
_RUNS = 4


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of the fixture."""
    group = parser.getgroup("paretopose")
    group.addoption("--pose-baseline", metavar="FILE", help="baseline file that pose_benchmark compares with")
    group.addoption(
        "--pose-tolerance", type=float, default=5.0, metavar="PERCENT", help="tolerated slowdown (default: %(default)s)"
    )


@pytest.fixture
def pose_benchmark(request: pytest.FixtureRequest) -> PoseBenchmark:
    """See the module docstring."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail("pose_benchmark needs the package pytest-benchmark: pip install pytest-benchmark", pytrace=False)
    return PoseBenchmark(
        request.getfixturevalue("benchmark"),
        request.config.getoption("--pose-baseline"),
        request.config.getoption("--pose-tolerance") / 100,
    )


class PoseBenchmark:
    """Called with a variant's name or with a call without arguments; returns the verdict, None without a baseline."""

    def __init__(self, benchmark: Any, baseline: str | None, tolerance: float) -> None:
        self._benchmark, self._baseline, self._tolerance = benchmark, baseline, tolerance

    def __call__(self, method: str | Call, *, label: str | None = None, rounds: int = 50) -> Verdict | None:
        """A variant is timed on noise with random weights; give a call of your own where the cost depends on the image.

        `label`: the row of the baseline file, where that is not the variant's name. Raises UserError for an unknown
        variant or a baseline file that is none.
        """
        call = _forward(method, batch=1)
        self._benchmark.pedantic(call, rounds=rounds, warmup_rounds=5)
        if self._baseline is None:
            return None
        verdict = _compare(Path(self._baseline), method, label or str(method), rounds, self._tolerance)
        self._benchmark.extra_info["paretopose"] = verdict.to_json()
        if verdict.verdict in ("regression", "unmeasured"):
            pytest.fail(_message(verdict, self._baseline), pytrace=False)
        return verdict


def _compare(path: Path, method: str | Call, label: str, rounds: int, tolerance: float) -> Verdict:
    """The verdict on fresh interleaved rounds against the row `label` of a baseline file."""
    from harness.cost.machine import machine
    from harness.gate.runs import other_machine
    from harness.gate.snapshot import load_snapshot
    from harness.gate.verdict import Limits, Verdict, judge_speed

    metric, speed, reference = _stored(load_snapshot(path), label)
    if speed is None or reference is None:
        return Verdict("latency", label, "new", note="the baseline holds no time of it, or not that of its reference")
    _check_alike(speed.context, method, str(path))
    runs = [_timed(reference, method, speed, rounds) for _ in range(_RUNS)]
    other = other_machine(speed.machine, machine())
    return judge_speed(label, speed.runs, runs, Limits(tolerance=tolerance), metric=metric, other_machine=other)


def _check_alike(context: Mapping[str, Any], method: str | Call, where: str) -> None:
    """UserError where the baseline's time is of something else than what is timed here."""
    from harness.errors import UserError

    timed: dict[str, Any] = {"device": "cpu", "scope": "network"}
    if isinstance(method, str):
        from harness.method import find_variant

        timed["input_size"] = list(find_variant(method).input_size)
    other = {n: context[n] for n, value in timed.items() if context.get(n) is not None and context[n] != value}
    if other:
        raise UserError(
            f"the baseline's time is of another kind: {other}",
            where=where,
            expected=str({name: timed[name] for name in other}),
            hint="record a baseline of that kind, or compare with `paretopose gate`",
        )


def _stored(baseline: Snapshot, label: str) -> tuple[str, Speed | None, str | None]:
    """(metric, the row's first time, the variant of its reference)."""
    variants = {row.label: row.variant for row in baseline.rows}
    for row in baseline.rows:
        for metric, speed in row.speed.items() if row.label == label else ():
            return metric, speed, variants.get(speed.reference)
    return "", None, None


def _timed(reference: str, method: str | Call, speed: Speed, rounds: int) -> list[float]:
    """Ratios of one run, executed as the baseline was."""
    from harness.cost.latency import Execution, measure

    batch = int(speed.context.get("batch") or 1)
    calls = {"reference": _forward(reference, batch), "method": _forward(method, batch)}
    execution = Execution(batch=batch, threads=speed.context.get("threads"), rounds=rounds)
    found = measure(calls, execution)
    pairs = zip(found["method"].samples, found["reference"].samples, strict=True)
    return [a.wall_ms / b.wall_ms for a, b in pairs if not (a.starved or b.starved)]


def _forward(method: str | Call, batch: int) -> Call:
    """One forward of a variant with its default knobs, on seeded noise of its input size; a call as it is."""
    if not isinstance(method, str):
        return method
    import torch

    from harness.cost.account import sample_input
    from harness.method import find_variant
    from harness.train.checkpoints import open_variant

    variant = find_variant(method)
    network = open_variant(variant, None)[0]
    images = sample_input(network, variant.paradigm, batch=batch)
    settings = {knob.name: knob.default for knob in variant.knobs if knob.kind == "run"}

    def call() -> object:
        with torch.inference_mode():
            return network.predict(images, settings)

    return call


def _message(verdict: Verdict, baseline: str) -> str:
    from harness.gate.report import wording

    before, after, difference, interval, _ = wording(verdict)
    found = f"{before} -> {after}, {difference} ({interval}); {verdict.note}"
    return f"{verdict.label}: {verdict.verdict} against {baseline}: {found}"
