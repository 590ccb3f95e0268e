"""The gate, tested: how often it cries wolf when nothing changed, and how often it sees what did change.

    python tests/slow/gate_selftest.py                       # stored rounds, 10 live pairs, the committed figures
    python tests/slow/gate_selftest.py --seed 7 --ap-loss 2 --slowdown 0.2 --live 0
    python tests/slow/gate_selftest.py --measure             # measure the stored rounds anew

Exits 1 unless the upper 95 % binomial bound of the false alarms stays below 5 % and the power reaches 90 %,
live pairs included, each within 60 s of measuring.
False alarms and power from stored rounds and simulated poses are a function of the arguments; live pairs are not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from harness.accuracy.ap import summarise
from harness.accuracy.match import FALSE_POSITIVE, IGNORED, THRESHOLDS, TRUE_POSITIVE, Matches
from harness.gate.snapshot import load_snapshot, unpack
from harness.gate.verdict import Limits, judge_ap, judge_speed

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "results" / "reference" / "gate"
BASELINE = ROOT / "results" / "baselines" / "ci.json"
NETWORKS = ("simplebaseline_tiny", "hrnet_tiny")  # reference, judged one
MOST_FALSE_ALARMS, LEAST_POWER = 0.05, 0.90
MOST_LIVE_ALARMS = 1  # of 10 at a level of 1 %: two or more would come in 1 of 235 self-tests
MOST_SECONDS = 60  # of measuring, both sides together
ROUNDS, BLOCK = 200, 5

# -- poses ---------------------------------------------------------------------------------------------------------
# A person has 13 visible joints; a joint's error is in units of its OKS constant, so OKS is the mean of exp(-e^2 / 2).
# Difficulty is shared between networks, as on real images, and so is half of the variance of the errors.

Poses = tuple[np.ndarray, np.ndarray]  # errors (N, 13, 2), what a score adds at random (N,)


class World:
    """Persons on images, 2.5 on average; `network` draws the poses of one more network trained the same way."""

    def __init__(self, rng: np.random.Generator, persons: int) -> None:
        self.rng, self.images = rng, max(1, round(persons / 2.5))
        self.image = np.sort(rng.integers(self.images, size=persons))
        self.difficulty, self.errors = rng.normal(size=persons), rng.normal(size=(persons, 13, 2))

    def network(self) -> Poses:
        own, errors = self.rng.normal(size=len(self.image)), self.rng.normal(size=self.errors.shape)
        scale = 0.33 * np.exp(0.7 * (0.8 * self.difficulty + 0.6 * own))
        return scale[:, None, None] * np.sqrt(0.5) * (self.errors + errors), self.rng.normal(size=len(self.image))

    def matches(self, poses: Poses) -> Matches:
        oks = np.exp(-(poses[0] ** 2).sum(axis=-1) / 2).mean(axis=1)
        hits = np.where(oks[:, None] >= THRESHOLDS, TRUE_POSITIVE, FALSE_POSITIVE).astype(np.uint8)
        positives = np.bincount(self.image, minlength=self.images)
        return _matches(self.image, 0.3 + 0.6 * oks + 0.1 * poses[1], hits, positives)


def _matches(image: np.ndarray, score: np.ndarray, hits: np.ndarray, positives: np.ndarray) -> Matches:
    """Matches of the group `all` alone; AP is what the gate reads."""
    status = np.full((len(image), 3, len(THRESHOLDS)), IGNORED, dtype=np.uint8)
    counts = np.zeros((len(positives), 3), dtype=np.int64)
    status[:, 0], counts[:, 0] = hits, positives
    order = np.argsort(-score, kind="stable")
    names = ("all", "medium", "large")
    return Matches("coco", names, np.arange(len(positives)), image[order], score[order], status[order], counts)


def jittered(rng: np.random.Generator, poses: Poses, amount: float) -> Poses:
    """Every joint a little off: what a wrong shift, resizing or rounding does."""
    return poses[0] + amount * rng.normal(size=poses[0].shape), poses[1]


def misplaced(rng: np.random.Generator, poses: Poses, share: float) -> Poses:
    """A share of the persons entirely wrong: what a wrong box or a swapped channel does."""
    wrong = rng.random(len(poses[0])) < share
    return np.where(wrong[:, None, None], poses[0] + 3 * rng.normal(size=poses[0].shape), poses[0]), poses[1]


Defect = Callable[[np.random.Generator, Poses, float], Poses]
DEFECTS: dict[str, Defect] = {"jitter": jittered, "misplaced": misplaced}


def calibrated(defect: Defect, loss: float, seed: int, persons: int = 40_000) -> float:
    """The amount of a defect that costs `loss` AP (0 to 1) on average, by bisection on one large set."""
    world = World(np.random.default_rng(seed), persons)
    poses = world.network()
    sound = summarise(world.matches(poses))["AP"]
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        worse = world.matches(defect(np.random.default_rng(seed + 1), poses, middle))
        low, high = (middle, high) if sound - summarise(worse)["AP"] < loss else (low, middle)
    return (low + high) / 2


def same_ap(kind: str, amount: float, persons: int, seed: int) -> str:
    """One comparison without a true difference. `perturbed`: one network, harmless noise on both sides; `retrained`:
    two networks of equal expected AP; `exchanged`: the real poses of two networks, swapped image by image at random."""
    rng = np.random.default_rng(seed)
    if kind == "exchanged":
        return judge_ap(kind, *_exchanged(rng, persons), Limits(seed=seed)).verdict
    world = World(rng, persons)
    poses = world.network()
    pair = [jittered(rng, poses, amount) for _ in range(2)] if kind == "perturbed" else [poses, world.network()]
    return judge_ap(kind, world.matches(pair[0]), world.matches(pair[1]), Limits(seed=seed)).verdict


def lost_ap(kind: str, amount: float, persons: int, seed: int) -> str:
    """One comparison with a defect in the candidate."""
    rng = np.random.default_rng(seed)
    world = World(rng, persons)
    poses = world.network()
    worse = DEFECTS[kind](rng, poses, amount)
    return judge_ap(kind, world.matches(poses), world.matches(worse), Limits(seed=seed)).verdict


def _exchanged(rng: np.random.Generator, persons: int) -> list[Matches]:
    """Images of the committed baseline drawn with replacement; which network is the baseline is drawn for each."""
    snapshot = load_snapshot(BASELINE)
    both = [unpack(row.accuracy.matches) for row in snapshot.rows[:2] if row.accuracy and row.accuracy.matches]
    per_image = both[0].positives[:, 0]
    drawn = rng.integers(len(per_image), size=round(persons / per_image.mean()))
    swapped = rng.random(len(drawn)) < 0.5
    found = []
    for side in (0, 1):
        image, score, hits = [], [], []
        for place, (picture, swap) in enumerate(zip(drawn, swapped, strict=True)):
            source = both[side ^ int(swap)]
            rows = np.flatnonzero(source.image == picture)
            image.append(np.full(len(rows), place))
            score.append(source.score[rows])
            hits.append(source.status[rows, 0])
        found.append(_matches(np.concatenate(image), np.concatenate(score), np.concatenate(hits), per_image[drawn]))
    return found


# -- times ---------------------------------------------------------------------------------------------------------


def worker(runs: int, slowdown: float) -> list[dict[str, Any]]:
    """`runs` runs of the timer, networks built anew for each; the judged one takes `slowdown` of its time longer."""
    import torch

    from harness.cost.latency import Execution, measure
    from harness.method import find_variant
    from harness.train.checkpoints import open_variant

    def call(name: str) -> Callable[[], object]:
        variant = find_variant(name)
        network = open_variant(variant, None)[0].eval()
        image = torch.randn((1, 3, *network.input_size), generator=torch.Generator().manual_seed(0))
        settings = {knob.name: knob.default for knob in variant.knobs if knob.kind == "run"}
        return lambda: network.predict(image, settings)

    def slowed(inner: Callable[[], object]) -> Callable[[], object]:
        def outer() -> None:
            began = time.perf_counter()
            inner()
            until = time.perf_counter() + slowdown * (time.perf_counter() - began)
            while time.perf_counter() < until:
                pass

        return outer

    found = []
    for _ in range(runs):
        began = time.perf_counter()
        calls = {NETWORKS[0]: call(NETWORKS[0]), NETWORKS[1]: slowed(call(NETWORKS[1]))}
        results = measure(calls, Execution(threads=1, rounds=ROUNDS, seconds=15))
        pairs = list(zip(*(results[name].samples for name in NETWORKS), strict=True))
        fed = [(a, b) for a, b in pairs if not (a.starved or b.starved)]
        found.append(
            {
                "reference_ms": [round(a.wall_ms, 4) for a, _ in fed],
                "network_ms": [round(b.wall_ms, 4) for _, b in fed],
                "starved": len(pairs) - len(fed),
                "seconds": round(time.perf_counter() - began, 2),
            }
        )
    return found


def in_new_process(runs: int, slowdown: float = 0.0, *, busy: bool = False) -> list[dict[str, Any]]:
    """`worker` in a process of its own; `busy`: a second process keeps another core occupied meanwhile."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        command = [sys.executable, __file__, "--worker", str(runs), str(slowdown)]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    finally:
        if other:
            other.kill()
            other.wait()


def measure_rounds(path: Path, count: int = 24) -> None:
    """Stored interleaved rounds: runs in processes of their own, every other one beside a busy core."""
    from harness.cost.machine import machine

    about = {"networks": NETWORKS, "threads": 1, "batch": 1, "rounds": ROUNDS, "machine": machine(), "runs": []}
    path.parent.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        for run in in_new_process(1, busy=bool(i % 2)):
            kept = len(run["network_ms"])
            print(f"run {i + 1} of {count}: {kept} rounds, {run['starved']} starved", file=sys.stderr)
            if kept >= ROUNDS // 2:
                about["runs"].append({"busy": bool(i % 2), **run})
        path.write_text(json.dumps(about) + "\n")


def ratios(run: dict[str, Any]) -> np.ndarray:
    return np.array(run["network_ms"]) / np.array(run["reference_ms"])


def resampled(rng: np.random.Generator, run: np.ndarray) -> np.ndarray:
    """Blocks of consecutive rounds drawn with replacement, as many as there were."""
    starts = rng.integers(len(run) - BLOCK + 1, size=len(run) // BLOCK)
    return np.concatenate([run[s : s + BLOCK] for s in starts])


Pools = dict[bool, list[np.ndarray]]  # ratios by round of the stored runs, by whether a core was busy


def stored_speed(pools: Pools, kind: str, slowdown: float, sides: tuple[int, int], seed: int) -> str:
    """One comparison of different stored runs; `kind` says whether a core was busy: quiet, busy, or quiet-busy."""
    rng = np.random.default_rng(seed)
    states = {"quiet": (False, False), "busy": (True, True), "quiet-busy": (False, True)}[kind]
    order = {state: list(rng.permutation(len(pools[state]))) for state in (False, True)}
    before, after = (
        [resampled(rng, pools[state][order[state].pop()]) for _ in range(n)] for state, n in zip(states, sides)
    )
    return judge_speed(kind, before, [run * (1 + slowdown) for run in after]).verdict


def live(pairs: int, runs: int, slowdown: float) -> dict[str, Any]:
    """Pairs of processes one after the other: nothing changed, and then a real slowdown in the judged network."""
    found: dict[str, Any] = {"same": [], "slower": [], "differences": {"same": [], "slower": []}, "seconds": []}
    for i in range(pairs):
        sides = [in_new_process(runs), in_new_process(runs), in_new_process(runs, slowdown)]
        first, second, slow = ([ratios(r) for r in side] for side in sides)
        for name, candidate in (("same", second), ("slower", slow)):
            verdict = judge_speed(name, first, candidate)
            found[name].append(verdict.verdict)
            found["differences"][name].append(round(verdict.difference or 0.0, 5))
        found["seconds"].append(round(sum(r["seconds"] for side in (sides[0], sides[2]) for r in side), 1))
        print(f"live pair {i + 1} of {pairs}: {found['same'][-1]}, slowed: {found['slower'][-1]}", file=sys.stderr)
    return found


# -- the test ------------------------------------------------------------------------------------------------------


def rate(verdicts: Iterable[str]) -> dict[str, Any]:
    """Counts, share of regressions and its two one-sided 95 % bounds (Clopper and Pearson, Biometrika 26, 1934)."""
    counts = Counter(verdicts)
    n, k = counts.total(), counts["regression"]
    upper = float(beta.ppf(0.95, k + 1, n - k)) if k < n else 1.0
    lower = float(beta.ppf(0.05, k, n - k + 1)) if k else 0.0
    return {"comparisons": n, **dict(counts), "share": k / n, "lower_95": lower, "upper_95": upper}


def by_kind(pool: ProcessPoolExecutor, one: Callable[[str, int], str], kinds: Iterable[str], n: int, seed: int) -> dict:
    """{kind: rate} over n comparisons shared out among the kinds, and `all` together."""
    kinds = list(kinds)
    jobs = [(kinds[i % len(kinds)], seed * 1_000_003 + i) for i in range(n)]
    verdicts = list(pool.map(one, *zip(*jobs), chunksize=4))
    split = {kind: rate(v for v, (k, _) in zip(verdicts, jobs) if k == kind) for kind in kinds}
    return {**split, "all": rate(verdicts)}


class _WithAmount:
    """A comparison of poses with the amount that belongs to its kind; a class, so that it crosses processes."""

    def __init__(self, one: Callable[[str, float, int, int], str], amounts: dict[str, float], persons: int) -> None:
        self.one, self.amounts, self.persons = one, amounts, persons

    def __call__(self, kind: str, seed: int) -> str:
        return self.one(kind, self.amounts[kind], self.persons, seed)


class _WithPools:
    """A comparison of stored rounds."""

    def __init__(self, pools: Pools, slowdown: float, sides: tuple[int, int]) -> None:
        self.pools, self.slowdown, self.sides = pools, slowdown, sides

    def __call__(self, kind: str, seed: int) -> str:
        return stored_speed(self.pools, kind, self.slowdown, self.sides, seed)


def selftest(arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    seed, n = arguments.seed, arguments.comparisons
    stored = json.loads(arguments.rounds.read_text())
    pools = {busy: [ratios(r) for r in stored["runs"] if r["busy"] is busy] for busy in (False, True)}
    amounts = {kind: calibrated(defect, arguments.ap_loss / 100, seed) for kind, defect in DEFECTS.items()}
    harmless = {"perturbed": amounts["jitter"], "retrained": 0.0}
    if BASELINE.is_file():
        harmless["exchanged"] = 0.0
    speeds = ("quiet", "busy", "quiet-busy")
    sides = (arguments.runs, arguments.runs)
    with ProcessPoolExecutor(2) as pool:
        check = partial(by_kind, pool)
        figures = {
            "ap": {
                "persons": arguments.persons,
                "false_alarms": check(_WithAmount(same_ap, harmless, arguments.persons), harmless, n, seed),
                "injected_loss": arguments.ap_loss,
                "amounts": amounts,
                "power": check(_WithAmount(lost_ap, amounts, arguments.persons), DEFECTS, n, seed + 1),
            },
            "speed": {
                "runs_each_side": arguments.runs,
                "run_spread": {"quiet": _spread(pools[False]), "busy": _spread(pools[True])},
                "false_alarms": check(_WithPools(pools, 0.0, sides), speeds, n, seed + 2),
                "injected_slowdown": arguments.slowdown,
                "power": check(_WithPools(pools, arguments.slowdown, sides), speeds, n, seed + 3),
            },
        }
    if arguments.live:
        found = live(arguments.live, arguments.runs, arguments.slowdown)
        figures["live"] = {**found, "false_alarms": rate(found["same"]), "power": rate(found["slower"])}
    return {"seed": seed, "level": Limits().level, "machine": stored["machine"], **figures}


def _spread(pool: list[np.ndarray]) -> dict[str, float]:
    centres = np.array([np.log(np.median(run)) for run in pool])
    return {"mean_ratio": float(np.exp(centres.mean())), "sd_of_log": float(centres.std(ddof=1)), "runs": len(pool)}


def failures(figures: dict[str, Any]) -> list[str]:
    """What is not as promised."""
    found = []
    for name in ("ap", "speed"):
        alarms, power = figures[name]["false_alarms"]["all"], figures[name]["power"]["all"]
        if alarms["upper_95"] >= MOST_FALSE_ALARMS:
            found.append(f"{name}: false alarms up to {alarms['upper_95']:.1%}")
        if power["share"] < LEAST_POWER:
            found.append(f"{name}: power {power['share']:.1%}")
    if "live" in figures:
        live_alarms, live_power = figures["live"]["false_alarms"], figures["live"]["power"]
        if live_alarms.get("regression", 0) > MOST_LIVE_ALARMS:
            found.append(f"live: {live_alarms['regression']} false alarms")
        if live_power["share"] < LEAST_POWER:
            found.append(f"live: power {live_power['share']:.1%}")
        if max(figures["live"]["seconds"]) > MOST_SECONDS:
            found.append(f"live: {max(figures['live']['seconds']):.0f} s of measuring for one verdict")
    return found


def markdown(figures: dict[str, Any]) -> str:
    """The figures as a table for people."""
    loss, slow = figures["ap"]["injected_loss"], figures["speed"]["injected_slowdown"]
    rows = [
        "| comparison | kind | n | pass | inconclusive | regression | share | 95 % bounds (one-sided) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    tables = [(f"AP, no change ({figures['ap']['persons']} persons)", figures["ap"]["false_alarms"])]
    tables += [(f"AP, loss of {loss:g}", figures["ap"]["power"])]
    tables += [("time, no change (stored rounds)", figures["speed"]["false_alarms"])]
    tables += [(f"time, {slow:.0%} slower (stored rounds)", figures["speed"]["power"])]
    if "live" in figures:
        tables += [("time, no change (live)", {"all": figures["live"]["false_alarms"]})]
        tables += [(f"time, {slow:.0%} slower (live)", {"all": figures["live"]["power"]})]
    for name, table in tables:
        for kind, r in table.items():
            counts = " | ".join(str(r.get(v, 0)) for v in ("pass", "inconclusive", "regression"))
            bounds = f"{r['lower_95']:.1%} to {r['upper_95']:.1%}"
            rows.append(f"| {name} | {kind} | {r['comparisons']} | {counts} | {r['share']:.1%} | {bounds} |")
    head = f"Gate self-test, seed {figures['seed']}, nominal level {figures['level']:.0%} on each side."
    return "\n".join([head, "", *rows]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--comparisons", type=int, default=300, help="of each sort")
    parser.add_argument("--persons", type=int, default=2000)
    parser.add_argument("--ap-loss", type=float, default=1.0, help="injected, on the scale 0 to 100")
    parser.add_argument("--slowdown", type=float, default=0.10, help="injected, as a share")
    parser.add_argument("--runs", type=int, default=4, help="runs of the timer on each side")
    parser.add_argument("--live", type=int, default=10, help="live pairs")
    parser.add_argument("--rounds", type=Path, default=FOLDER / "rounds.json")
    parser.add_argument("--measure", action="store_true", help="measure the rounds anew first")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--worker", nargs=2, metavar=("RUNS", "SLOWDOWN"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        json.dump(worker(int(arguments.worker[0]), float(arguments.worker[1])), sys.stdout)
        return 0
    if arguments.measure:
        measure_rounds(arguments.rounds)
    figures = selftest(arguments)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "selftest.json").write_text(json.dumps(figures, indent=1) + "\n")
    (arguments.out / "selftest.md").write_text(markdown(figures))
    print(markdown(figures))
    for line in (found := failures(figures)):
        print(f"not as promised: {line}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
