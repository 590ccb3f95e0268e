"""Times the published networks on a GPU, with the interpreter and the packages that are there.

    python3 tests/benchmarks/gpu.py                            # cuda, at most 8 minutes; call it again to go on
    python3 tests/benchmarks/gpu.py --device cpu --tiny --out FOLDER

Installs nothing. Needs torch, torchvision, numpy and scipy; pydantic is used when it is there. Weights are random from
one seed and images are noise: what is timed is work that does not depend on them (an exit that is fixed, or a fixed
share of a batch that leaves). Writes gpu-NAME.json, one entry for each input size, number format and batch, and
gpu-NAME.md. Entries of the same code are kept.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import types
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FULL = {
    (256, 192): ("vitpose_b_simple", "sharpose_b", "vitpose_s_simple", "sharpose_s", "hrnet_w32", "simplebaseline_r50"),
    (384, 288): ("vitpose_b_simple", "sharpose_b", "hrnet_w32"),
}
TINY = {(128, 96): ("vitpose_tiny", "sharpose_tiny")}
BATCHES, FORMATS = (1, 8, 32), ("float32", "bfloat16")
EXIT_SHARE = 0.6
SECONDS, ROUNDS = 12.0, 30  # of one entry: warm-up and rounds


def main() -> int:
    options = _options()
    missing = [name for name in ("torch", "torchvision", "numpy", "scipy") if find_spec(name) is None]
    if missing:
        print(f"{sys.executable} has no {', '.join(missing)}: give an interpreter that has (make gpu PYTHON=...)")
        return 3
    if find_spec("pydantic") is None:
        _without_pydantic()
    sys.path.insert(0, str(ROOT))
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("torch sees no CUDA device here; --device cpu --tiny shows that the script works")
        return 2
    file = _file(options)
    found = json.loads(file.read_text()) if file.is_file() else {}
    found = _measure(options, found, lambda entries: _write(file, entries))
    left = sum(1 for entry in _planned(options) if entry not in found["entries"])
    print(f"{len(found['entries'])} entries in {file}" + (f"; {left} are left: call again" if left else ""))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the tiny networks: shows in a minute that it works")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "reference")
    parser.add_argument("--minutes", type=float, default=8.0, help="no entry is begun that would not end in time")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each entry")
    return parser.parse_args()


def _without_pydantic() -> None:
    """A bare stand-in: the only model that is met on the way to a network is the test-time protocol, plain fields."""

    class BaseModel:
        def __init__(self, **values: Any) -> None:
            self.__dict__.update(values)

    stand_in = types.ModuleType("pydantic")
    stand_in.BaseModel, stand_in.ConfigDict = BaseModel, dict  # type: ignore[attr-defined]
    stand_in.Field = lambda default=None, **_: default  # type: ignore[attr-defined]
    sys.modules["pydantic"] = stand_in


def _file(options: argparse.Namespace) -> Path:
    import torch

    name = torch.cuda.get_device_name(options.device) if options.device.startswith("cuda") else "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return options.out / f"gpu-{slug}{'-tiny' if options.tiny else ''}.json"


def _planned(options: argparse.Namespace) -> dict[str, tuple[tuple[int, int], str, int]]:
    """By name, the quick ones first: input size, number format, batch."""
    sizes = TINY if options.tiny else FULL
    every = [(size, kind, batch) for batch in BATCHES for size in sizes for kind in FORMATS]
    return {f"{size[0]}x{size[1]} {kind} batch {batch}": (size, kind, batch) for size, kind, batch in every}


def _measure(
    options: argparse.Namespace, found: dict[str, Any], save: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """What is missing, entry by entry, until it is done or the time is up."""
    from harness import provenance
    from harness.cost.machine import machine

    began, longest = time.monotonic(), 0.0
    code = provenance.content_id(
        [provenance.code("latency", ROOT / "methods" / f"{name}.py") for name in ("sharpose", "vitpose", "hrnet")]
    )
    kept = found.get("entries", {}) if found.get("code") == code else {}
    about = {"code": code, "revision": provenance.revision(), "machine": machine(), "device": options.device}
    networks: dict[tuple[str, tuple[int, int]], Any] = {}
    for name, (size, kind, batch) in _planned(options).items():
        if name in kept:
            continue
        if time.monotonic() - began + 1.5 * max(longest, options.seconds) > 60 * options.minutes:
            break
        start = time.monotonic()
        print(f"{name} ...", flush=True)
        kept[name] = _entry(options, networks, size, kind, batch)
        longest = max(longest, time.monotonic() - start)
        save({**about, "entries": kept})
    return {**about, "entries": kept}


def _entry(
    options: argparse.Namespace, networks: dict[tuple[str, tuple[int, int]], Any], size: tuple[int, int], kind: str,
    batch: int,
) -> dict[str, Any]:  # fmt: skip
    """All networks of one input size in the same interleaved rounds."""
    import torch

    from harness.cost.latency import Execution, measure
    from harness.cost.memory import footprint
    from harness.cost.roofline import machine_peak
    from harness.passes.number_format import number_format

    opened = number_format(kind, options.device)
    images = torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0)).to(options.device)
    calls: dict[str, _Call] = {}
    for name in (TINY if options.tiny else FULL)[size]:
        if (name, size) not in networks:
            networks[name, size] = _network(name, size).to(options.device)
        calls |= _calls(name, networks[name, size], images, opened)
    execution = Execution(
        device=options.device, batch=batch, dtype=kind, rounds=ROUNDS, seconds=options.seconds, warmup_most=10
    )
    peak = machine_peak(options.device, kind, torch.get_num_threads())[0]
    results = measure(calls, execution)
    entry: dict[str, Any] = {"peak_gmacs_per_second": peak.gemm, "matmul": torch.get_float32_matmul_precision()}
    for name, result in results.items():
        with torch.inference_mode():
            memory = footprint(calls[name], calls[name].network, options.device)["peak_memory_mb"]
        gmacs = calls[name].macs / 1e9
        rate = gmacs / (result.median_ms / 1e3) if result.median_ms else None
        entry[name] = {
            "gmacs": gmacs,
            "gmacs_per_second": rate,
            "share_of_peak": rate / peak.gemm if rate else None,
            "peak_memory_mb": memory,
            **{part: value for part, value in result.to_dict().items() if part in ("median", "p90", "ratio")},
            "samples": [round(sample.wall_ms, 4) for sample in result.samples],
        }
    return entry


def _network(name: str, size: tuple[int, int]) -> Any:
    """Random weights of seed 0."""
    import torch

    module = __import__(f"methods.{name.partition('_')[0]}", fromlist=["VARIANTS"])
    variant = next(v for v in module.VARIANTS if v.name == name)
    torch.manual_seed(0)
    return variant.build(num_joints=17, input_size=size).eval()


class _Call:
    """One forward of the batch; `macs` of the last one."""

    def __init__(self, network: Any, images: Any, settings: Mapping[str, Any], opened: Callable[[], Any]) -> None:
        self.network, self._images, self._settings, self._opened = network, images, settings, opened
        self.last: Any = None

    def __call__(self) -> Any:
        import torch

        with torch.inference_mode(), self._opened():
            self.last = self.network.predict(self._images, self._settings)
        return self.last

    @property
    def macs(self) -> int:
        import numpy as np

        macs = np.asarray(self.network.macs({n: v.cpu().numpy() for n, v in self.last.trace.items()}))
        return int(macs.sum()) if macs.ndim else int(macs) * len(self._images)


def _calls(name: str, network: Any, images: Any, opened: Callable[[], Any]) -> dict[str, _Call]:
    """A network with exits is timed at both, with its attention written out, and with a share of the batch leaving."""
    from tests.benchmarks.whole_maps import written_out

    if not name.startswith("sharpose"):
        return {name: _Call(network, images, {}, opened)}
    calls = {
        f"{name} everybody": _Call(network, images, {}, opened),
        f"{name} everybody, attention written out": _Call(written_out(network), images, {}, opened),
        f"{name} coarse only": _Call(network, images, {"quality_threshold": "never"}, opened),
    }
    leaving = round(EXIT_SHARE * len(images))
    if 0 < leaving < len(images):
        quality = calls[f"{name} everybody"]().quality.float().sort(descending=True).values
        threshold = float((quality[leaving - 1] + quality[leaving]) / 2)
        share = 100 * float((quality >= threshold).float().mean())
        calls[f"{name} {share:.0f} % leave"] = _Call(network, images, {"quality_threshold": threshold}, opened)
    return calls


def _write(file: Path, found: dict[str, Any]) -> None:
    """JSON and Markdown; a killed call leaves the last whole file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((file, json.dumps(found, indent=1)), (file.with_suffix(".md"), _page(found))):
        part = path.with_name(path.name + ".part")
        part.write_text(text)
        part.replace(path)


def _page(found: Mapping[str, Any]) -> str:
    facts = found["machine"]
    where = ", ".join(map(str, facts["gpus"])) if found["device"] != "cpu" and facts["gpus"] else facts["cpu"]
    lines = [
        f"# Times on {where}",
        "",
        f"`make gpu`; revision {found['revision']}, torch {facts['torch']}, CUDA {facts['cuda']}. Milliseconds of one "
        "forward of a batch, median with its 95 % interval over interleaved rounds; ratio to the first network, in the "
        "same rounds; share of the rate of a large matrix product in that number format.",
    ]
    for name, entry in found["entries"].items():
        lines += ["", f"## {name}", "", "| network | ms | ratio | gmacs | of the peak (%) | memory (MB) |"]
        lines.append("| --- | ---: | ---: | ---: | ---: | ---: |")
        rows = {network: row for network, row in entry.items() if isinstance(row, dict)}
        lines += [_line(network, row) for network, row in rows.items()]
    return "\n".join(lines) + "\n"


def _line(network: str, row: Mapping[str, Any]) -> str:
    share = "n/a" if row["share_of_peak"] is None else f"{100 * row['share_of_peak']:.1f}"
    memory = "n/a" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:.0f}"
    times = _interval(row["median"], 3), _interval(row["ratio"], 3)
    return f"| {network} | {times[0]} | {times[1]} | {row['gmacs']:.2f} | {share} | {memory} |"


def _interval(found: Mapping[str, Any] | None, digits: int) -> str:
    if not found or found["value"] is None:
        return "1" if found is None else "n/a"
    bounds = "" if found["low"] is None else f" [{found['low']:.{digits}f}, {found['high']:.{digits}f}]"
    return f"{found['value']:.{digits}f}{bounds}"


if __name__ == "__main__":
    sys.exit(main())
