"""How fast SHaRPose is against the machine, against itself with every attention map held, and against ViTPose.

All ratios of a test come from the same interleaved rounds; medians are printed with their 95 % intervals.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.cost.latency import Execution, LatencyResult, measure
from harness.cost.statistics import Quantile, kept_median
from harness.data import coco, synthetic
from harness.data.boxes import Boxes, from_ground_truth
from harness.method import find_variant
from harness.passes import replay
from harness.passes.decoding import Decoding
from harness.passes.number_format import number_format
from harness.passes.predict import PassPlan, TopDownRunner, run_passes
from harness.passes.score import score
from harness.pose.skeletons import COCO
from harness.suite.schema import AccuracySpec
from harness.train.checkpoints import open_variant
from tests.benchmarks.whole_maps import written_out

pytestmark = pytest.mark.benchmark_suite
BATCH, SIDE = 8, 1024
_BFLOAT16 = ("avx512_bf16", "amx_bf16")  # the instructions without which bfloat16 is emulated


def _network(name: str, size: tuple[int, int] = (256, 192)) -> Any:
    return open_variant(find_variant(name), None, num_joints=17, input_size=size)[0]


def _images(size: tuple[int, int], count: int = BATCH) -> torch.Tensor:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0))


def _forward(network: Any, images: torch.Tensor, dtype: str = "float32", **settings: Any) -> Callable[[], Any]:
    opened = number_format(dtype, "cpu")

    def call() -> Any:
        with torch.inference_mode(), opened():
            return network.predict(images, settings)

    return call


def _timed(calls: dict[str, Callable[[], Any]], rounds: int = 9, seconds: float = 180.0) -> dict[str, LatencyResult]:
    # a forward of a large network needs no long warm-up, and the time is better spent in rounds
    return measure(calls, Execution(batch=BATCH, rounds=rounds, seconds=seconds, warmup_least=1, warmup_most=2))


def _ratio(results: dict[str, LatencyResult], slow: str, fast: str) -> Quantile:
    """Time of `slow` over that of `fast` in the same rounds."""
    pairs = list(zip(results[slow].samples, results[fast].samples, strict=True))
    every = [a.wall_ms / b.wall_ms for a, b in pairs]
    return kept_median([r for r, (a, b) in zip(every, pairs) if not (a.starved or b.starved)], every)


def _told(capsys: Any, name: str, found: Quantile, limit: str) -> float:
    """Prints a ratio and gives its median."""
    assert found.value is not None
    spread = f"[{found.low:.3f}, {found.high:.3f}]" if found.low is not None else f"no interval: {found.reason}"
    with capsys.disabled():
        print(f"\n{name}: {found.value:.3f} {spread}, n={found.n} ({limit})")
    return found.value


@pytest.fixture(scope="module")
def base() -> Any:
    return _network("sharpose_b")


def test_the_base_network_multiplies_at_the_rate_of_the_machine_and_its_exits_save_time(base, capsys):
    images = _images((256, 192))
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)

    def product() -> None:
        with torch.inference_mode():
            for _ in range(100):
                left @ right

    everybody = _forward(base, images)
    macs = int(base.macs({n: v.numpy() for n, v in everybody().trace.items()}).sum())
    calls = {"product": product, "everybody": everybody, "coarse": _forward(base, images, quality_threshold="never")}
    results = _timed(calls)
    work = macs / (100 * SIDE**3)
    rate = _ratio(results, "product", "everybody")
    scaled = Quantile(*(None if v is None else v * work for v in (rate.value, rate.low, rate.high)), rate.n)
    share = _told(capsys, "SHaRPose-B, everybody refined, batch 8: share of the product rate", scaled, "at least 0.80")
    saved = _told(capsys, "everybody refined / coarse only", _ratio(results, "everybody", "coarse"), "at least 2.5")
    assert share >= 0.80
    assert saved >= 2.5


@pytest.mark.parametrize(
    ("name", "size"), [("sharpose_b", (256, 192)), ("sharpose_b", (384, 288)), ("sharpose_s", (256, 192))]
)
def test_it_is_not_slower_than_with_every_attention_map_held(name, size, capsys):
    network, images = _network(name, size), _images(size)
    other = written_out(network)
    calls = {"maps": _forward(other, images), "ours": _forward(network, images)}
    a, b = (call().exits[-1] for call in calls.values())
    assert float((a - b).abs().max() / a.abs().max()) < 1e-4
    found = _ratio(_timed(calls), "ours", "maps")
    _told(capsys, f"{name} {size[0]}x{size[1]}: ours / every map held", found, "the interval reaches 1")
    assert found.low is not None and found.low <= 1.0


def test_early_exit_pays_against_a_dense_network(base, capsys):
    images = _images((256, 192), 10)
    with torch.inference_mode():
        quality = base.predict(images, {}).quality.sort(descending=True).values
    threshold = float(quality[5] + quality[6]) / 2
    part = _forward(base, images, quality_threshold=threshold)
    assert int((part().trace["exit"] == 0).sum()) == 6
    results = _timed({"vitpose": _forward(_network("vitpose_b_simple"), images), "60 %": part})
    found = _ratio(results, "vitpose", "60 %")
    assert _told(capsys, "ViTPose-B simple / SHaRPose-B, 60 % leave", found, "at least 1.4") >= 1.4


def test_bfloat16_is_twice_as_fast_where_the_processor_has_it(base, capsys):
    cpu = Path("/proc/cpuinfo")
    if not cpu.is_file() or not any(name in cpu.read_text() for name in _BFLOAT16):
        pytest.skip(f"this processor has none of {', '.join(_BFLOAT16)}: bfloat16 is emulated")
    images = _images((256, 192))
    calls = {name: _forward(base, images, name) for name in ("float32", "bfloat16")}
    assert _told(capsys, "float32 / bfloat16", _ratio(_timed(calls), "float32", "bfloat16"), "at least 2") >= 2


@pytest.fixture(scope="module")
def persons(tmp_path_factory) -> tuple[coco.Dataset, Boxes]:
    root = tmp_path_factory.mktemp("people")
    dataset = coco.load(synthetic.write(root, images=5, seed=1), root / "val2017")
    return dataset, from_ground_truth(dataset)


def test_a_whole_curve_costs_little_more_than_one_pass(base, persons, tmp_path, capsys):
    """21 thresholds, each with its AP, against one pass in which everybody is refined, and its AP."""
    dataset, boxes = persons
    variant = find_variant("sharpose_b")
    runner = TopDownRunner(base, variant.protocol, COCO)
    how, spec, scales = Decoding.of(variant.protocol), AccuracySpec(bootstrap=0, judge=False), np.ones((len(boxes), 2))
    number = iter(range(1000))

    def scored(found: replay.Pass, threshold: float | None) -> float:
        chosen = replay.select(found, how.name, flip=True, threshold=threshold)
        results = replay.to_results(found, chosen, boxes, scales, variant.protocol, COCO)
        return score(found, results, chosen, dataset, boxes, spec)[0]["stats"]["AP"]["value"]

    def computed(settings: dict[str, Any], every: bool) -> replay.Pass:
        folder = tmp_path / str(next(number))
        plan = PassPlan(settings, (how,), flip=True, all_exits=every)
        run_passes(runner, [plan], [folder], dataset, boxes, batch=BATCH, workers=0)
        replay.seal_pass(folder, {})
        found = replay.load_pass(folder)
        assert found is not None
        return found

    def once() -> float:
        return scored(computed({"quality_threshold": "always"}, every=False), None)

    def curve() -> list[float]:
        found = computed({}, every=True)
        rates = np.linspace(0, 1, 21)
        return [scored(found, replay.threshold_of(found, {"exit_rate": r}, flip=True)) for r in rates]

    results = measure({"once": once, "curve": curve}, Execution(rounds=5, seconds=240, warmup_least=1, warmup_most=1))
    found = _ratio(results, "curve", "once")
    name = f"curve of 21 thresholds over {len(boxes)} persons / one pass"
    assert _told(capsys, name, found, "at most 1.10") <= 1.10
